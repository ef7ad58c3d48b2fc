"""A first program for each SDK, ready to run.

python(target)
"""

from __future__ import annotations

import json

from edgellm.serve.clients.environment import Target


def python(target: Target) -> str:
    """OpenAI's SDK for Python."""
    return f"""
from openai import OpenAI

client = OpenAI({_address(target)})
messages = [{{"role": "user", "content": "Hello"}}]
for chunk in client.chat.completions.create(model={json.dumps(target.model)}, messages=messages, stream=True):
    print(chunk.choices[0].delta.content or "", end="", flush=True)
"""


def langchain(target: Target) -> str:
    """LangChain's package for OpenAI."""
    missing = f"\n# {target.without_embedder}" if target.without_embedder else ""
    return f"""
# pip install langchain-openai
from langchain_openai import ChatOpenAI, OpenAIEmbeddings

server = dict({_address(target)})
for chunk in ChatOpenAI(model={json.dumps(target.model)}, **server).stream("Hello"):
    print(chunk.content, end="", flush=True)

# Without check_embedding_ctx_length=False it sends tokens of OpenAI's vocabulary in place of text.{missing}
embeddings = OpenAIEmbeddings(model={json.dumps(target.some_embedder)}, check_embedding_ctx_length=False, **server)
"""


def litellm(target: Target) -> str:
    """LiteLLM, which gets the context: it does not ask the server."""
    facts = {
        "max_input_tokens": target.n_ctx, "max_output_tokens": target.n_answer, "litellm_provider": "openai",
        "mode": "chat",
    }  # fmt: skip
    name = json.dumps(f"openai/{target.model}")
    return f"""
# pip install litellm
import litellm

litellm.register_model({{{name}: {json.dumps(facts)}}})
messages = [{{"role": "user", "content": "Hello"}}]
for chunk in litellm.completion({name}, messages, {_address(target)}, stream=True):
    print(chunk.choices[0].delta.content or "", end="", flush=True)
"""


def ai_sdk(target: Target) -> str:
    """Vercel's AI SDK."""
    return f"""
// npm install ai @ai-sdk/openai-compatible; then: node hello.mjs
import {{ createOpenAICompatible }} from "@ai-sdk/openai-compatible";
import {{ streamText }} from "ai";

const edgellm = createOpenAICompatible({{
  name: "edgellm",
  baseURL: "{target.openai}",
  apiKey: {json.dumps(target.some_key)},
  includeUsage: true,
  supportsStructuredOutputs: true,
}});
const {{ textStream }} = streamText({{ model: edgellm({json.dumps(target.model)}), prompt: "Hello" }});
for await (const text of textStream) process.stdout.write(text);
"""


def _address(target: Target) -> str:
    return f'base_url="{target.openai}", api_key={json.dumps(target.some_key)}'
