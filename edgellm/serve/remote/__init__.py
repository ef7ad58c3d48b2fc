"""Answers of a server that is already running, for verbs that would load the model a second time."""
