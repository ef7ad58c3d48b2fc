"""The protocols that clients speak, one folder or module each; a new one is added to `APIS`."""

from edgellm.serve.http.api import Apis
from edgellm.serve.protocols import anthropic, lmstudio, ollama, openai, rerank, responses, tokenizer

APIS = Apis(each.API for each in (openai, responses, tokenizer, rerank, anthropic, ollama, lmstudio))
