"""Measures models: how fast they are, how well they predict, and how much quantization costs them."""
