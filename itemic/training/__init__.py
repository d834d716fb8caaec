"""Training: one loop for any objective. What language models learn from, on forests of tokens, is in
:mod:`itemic.training.language`; ``itemic.train`` is its door."""
