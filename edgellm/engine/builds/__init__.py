"""Builds the engine from its sources and patches, and finds the engines built so far."""
