"""Tasks that teach a model to make lists as they are wanted."""
