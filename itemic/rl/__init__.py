"""Reinforcement learning on items: rewards, advantages, and the objectives that learn from them."""
