"""The tools that come with edgellm, one file each: its schema, and what it does."""
