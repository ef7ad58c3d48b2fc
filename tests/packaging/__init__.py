"""Makes what edgellm is installed from: wheels with the engine inside, a Debian package."""
