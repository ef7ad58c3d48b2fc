"""A local server that real clients accept: a thin front over llama-server, one worker for each loaded model."""
