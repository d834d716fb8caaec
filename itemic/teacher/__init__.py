"""Sequential models of item rows, trained by the one loop: a ranker of its own, and a teacher of others."""
