"""Converts checkpoints in the Hub's layout to GGUF files."""
