"""Finds what computes a model fastest on this machine: threads, batch sizes and flash attention."""
