"""Users described in words: profiles that a model writes, what they find, and how both learn in turns."""
