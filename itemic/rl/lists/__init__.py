"""Whole lists as answers: what is asked for, how lists are written, what they are worth."""
