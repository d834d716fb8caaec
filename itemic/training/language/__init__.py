"""Language models: their stages, their conversations as blocks of token forests, and the loss of the next token."""
