"""Users described in words: profiles that a language model writes, and the items that they bring up."""
