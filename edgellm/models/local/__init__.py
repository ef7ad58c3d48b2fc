"""The models on this machine: what is installed, what is known of it, and bringing it in and out by hand."""
