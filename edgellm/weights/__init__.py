"""Turning checkpoints into GGUF files, and GGUF files into smaller ones."""
