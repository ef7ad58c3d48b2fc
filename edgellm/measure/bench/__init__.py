"""Benchmarks: measures contenders in interleaved rounds, and keeps the results."""
