"""Measuring models: how well they predict, and what quantization cost them."""
