"""A model larger than one machine: workers on other machines hold some of its layers (llama.cpp's RPC)."""
