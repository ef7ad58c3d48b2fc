"""Workers: llama-server processes, which of them run, and the models they hold."""
