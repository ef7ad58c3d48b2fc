"""One local server that the clients of OpenAI, Ollama and others accept as it is."""
