"""Recommendations that do what they are told: requests, their words and grammar, rewards and metrics."""
