"""Documents of the user: read, cut into chunks, indexed, searched, and asked with citations that are checked."""
