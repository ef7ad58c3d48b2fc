"""Converts checkpoints to GGUF files, and quantizes GGUF files to smaller ones."""
