"""What this machine has: CPU features and cores, memory, within the limits of a container."""
