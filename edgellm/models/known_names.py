"""Names that other tools give to models without a recipe here, and where the model is on the Hub.

    repository("gemma3:12b")  ->  "ggml-org/gemma-3-12b-it-GGUF"

They are only suggested: whoever pulls one sees who publishes it.
"""

from __future__ import annotations

# Ollama's names; the first size of a family is its default.
_REPOSITORIES = {
    "deepseek-r1:1.5b": "unsloth/DeepSeek-R1-Distill-Qwen-1.5B-GGUF",
    "gemma3:12b": "ggml-org/gemma-3-12b-it-GGUF",
    "llama3.1": "bartowski/Meta-Llama-3.1-8B-Instruct-GGUF",
    "mistral": "bartowski/Mistral-7B-Instruct-v0.3-GGUF",
    "nomic-embed-text": "nomic-ai/nomic-embed-text-v1.5-GGUF",
    "phi4": "microsoft/phi-4-gguf",
    "tinyllama": "TheBloke/TinyLlama-1.1B-Chat-v1.0-GGUF",
}


def repository(name: str) -> str | None:
    """The repository of a model by its name elsewhere, with or without its size; None for an unknown one."""
    plain = name.lower().removesuffix(":latest").removesuffix("-it").removesuffix("-instruct")
    family, _, size = plain.replace("-", "", 1).partition("-")  # gemma-3-12b is gemma3:12b
    return _REPOSITORIES.get(plain) or _REPOSITORIES.get(f"{family}:{size}" if size else family)
