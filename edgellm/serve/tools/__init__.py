"""Tools that the server runs itself, and that a request asks for."""
