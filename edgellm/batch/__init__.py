"""Many prompts from a file, answered in several slots, in order, resumable after a kill at any moment."""
