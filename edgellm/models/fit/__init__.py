"""Estimates how much memory a model needs, whether it fits, and what would fit instead."""
