"""What a server does, for people and programs that watch it: counts, status, metrics."""
