"""Quantizes GGUF files to smaller tensor types."""
