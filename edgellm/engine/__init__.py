"""The engine: a pinned, patched llama.cpp, built on the user's machine and loaded in process."""
