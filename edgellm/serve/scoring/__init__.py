"""Log-probabilities of prompts, computed by a process beside the workers."""
