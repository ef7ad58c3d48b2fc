"""Runs Python code of strangers in a child process that has no files, no network, no other processes, and limits."""
