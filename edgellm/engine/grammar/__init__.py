"""Grammars that an answer must follow, and the child process that runs them."""
