"""What a worker says, as events: read, guarded, and folded into whole answers."""
