"""edgellm: small, ternary and 4-bit language models on ordinary CPUs. Try `edgellm --help`."""

__version__ = "0.1.0"
