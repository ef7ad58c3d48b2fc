"""Describes this machine: CPU features, cores and memory, within the limits of a container."""
