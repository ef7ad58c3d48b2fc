"""What to type for programs of the command line: lines for a shell, or the file that they read.

aider(target)
"""

from __future__ import annotations

import json
import shlex

from edgellm.serve.clients.environment import Target

QUESTION = "What is the capital of France?"


def ollama(target: Target) -> str:
    """Ollama's own program, and its SDKs."""
    if target.key is None:
        return f"""
export {_assigned({"OLLAMA_HOST": target.url})}
ollama run {shlex.quote(target.model)} Hello
"""
    code = f"import ollama; print(ollama.generate({target.model!r}, 'Hello').response)"
    return f"""
# Ollama's program sends no key: for it, serve without one. Its SDK for Python does:
export {_assigned({"OLLAMA_HOST": target.url, "OLLAMA_API_KEY": target.key})}
python -c {shlex.quote(code)}
"""


def aider(target: Target) -> str:
    """Aider, which learns the context from a file: it does not ask the server."""
    facts = {
        "max_input_tokens": target.n_ctx, "max_output_tokens": target.n_answer, "max_tokens": target.n_answer,
        "input_cost_per_token": 0, "output_cost_per_token": 0, "litellm_provider": "openai", "mode": "chat",
    }  # fmt: skip
    name = f"openai/{target.model}"
    return f"""
cat > .aider.edgellm.json <<'EOF'
{json.dumps({name: facts})}
EOF
export {_assigned({"OPENAI_API_BASE": target.openai, "OPENAI_API_KEY": target.some_key})}
aider --model {shlex.quote(name)} --model-metadata-file .aider.edgellm.json --map-tokens {target.n_ctx // 8}
"""


def codex(target: Target) -> str:
    """Codex's file in TOML."""
    key = f"""
# and in the shell: export {_assigned({"EDGELLM_API_KEY": target.key})}
env_key = "EDGELLM_API_KEY\"""" if target.key else ""  # fmt: skip
    return f"""
# Codex: ~/.codex/config.toml. Its instructions and tools fill thousands of tokens of every prompt: serve a model that
# calls tools, with --ctx-size 32768.
model = {json.dumps(target.model)}
model_provider = "edgellm"
model_context_window = {target.n_ctx}

[model_providers.edgellm]
name = "edgellm"
base_url = "{target.openai}"
wire_api = "responses"{key}
"""


def llm(target: Target) -> str:
    """Simon Willison's llm, which reads further models from a file."""
    key_name = "\n  api_key_name: edgellm" if target.key else ""
    set_key = f"llm keys set edgellm --value {shlex.quote(target.key)}\n" if target.key else ""
    return f"""
cat >> "$(dirname "$(llm logs path)")/extra-openai-models.yaml" <<'EOF'
- model_id: {json.dumps(target.model)}
  model_name: {json.dumps(target.model)}
  api_base: {target.openai}{key_name}
EOF
{set_key}llm -m {shlex.quote(target.model)} Hello
"""


def promptfoo(target: Target) -> str:
    """promptfoo's file in YAML, with a first test."""
    return f"""
# promptfooconfig.yaml; then: npx promptfoo@latest eval
prompts: ["{{{{question}}}}"]
providers:
  - id: {json.dumps(f"openai:chat:{target.model}")}
    config:
      apiBaseUrl: {target.openai}
      apiKey: {json.dumps(target.some_key)}
      max_tokens: {target.n_answer}
tests:
  - vars: {{question: {QUESTION}}}
    assert: [{{type: icontains, value: Paris}}]
"""


def lm_eval(target: Target) -> str:
    """lm-eval by completions, with the server's tokenizer."""
    settings = f"model={target.model},base_url={target.openai}/completions,tokenizer_backend=remote"
    return f"""
export {_assigned({"OPENAI_API_KEY": target.some_key})}
lm_eval --model local-completions --tasks hellaswag --limit 100 \\
  --model_args {shlex.quote(f"{settings},max_length={target.n_ctx}")}
"""


def curl(target: Target) -> str:
    """A streamed answer by curl."""
    key = f" \\\n  -H {shlex.quote(f'Authorization: Bearer {target.key}')}" if target.key else ""
    body = {"model": target.model, "stream": True, "messages": [{"role": "user", "content": "Hello"}]}
    return f"""
curl -N {shlex.quote(f"{target.openai}/chat/completions")}{key} \\
  -H 'Content-Type: application/json' \\
  -d {shlex.quote(json.dumps(body))}
"""


def _assigned(values: dict[str, str]) -> str:
    return " ".join(f"{name}={shlex.quote(value)}" for name, value in values.items())
