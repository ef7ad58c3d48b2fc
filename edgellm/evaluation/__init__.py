"""Evaluation: suites of items, executable checkers, scores with intervals, comparisons and lm-eval's benchmarks."""
