"""Records what llama-server answers, for the unit tests of serve: one file of server-sent events for each case.

    python -m tests.serve.record [NAME...]      (needs the engine and the embedded model; about a minute)

It starts a real worker as the pool does and writes each stream byte by byte to `tests/serve/recorded/NAME.sse`, and
refusals to `recorded/refusals.json`. The model is SmolLM2 with a template that knows tools and thoughts; a grammar and
the beginning of an answer make it think and call. Run it again when the pinned llama.cpp changes, read the difference,
and write the golden files anew (tests/serve/word_cases.py).
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp

from edgellm.engine.builds.installed import require
from edgellm.engine.builds.patches import PatchStack
from edgellm.models.fit.memory import RunPlan
from edgellm.models.local.store import Store
from edgellm.models.recipe import find_recipe
from edgellm.serve.workers.catalog import served_model
from edgellm.serve.workers.worker import SOCKET, Worker
from edgellm.settings import Settings, resource_directory

RECORDED = Path(__file__).parent / "recorded"
CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
N_CTX = 512
USAGE = {"stream": True, "stream_options": {"include_usage": True}, "seed": 7, "temperature": 0}
CITY = {"type": "object", "properties": {"city": {"type": "string", "enum": ["Paris", "Rome"]}}, "required": ["city"]}
WEATHER = {"type": "function", "function": {"name": "weather", "parameters": CITY}}
LONG = "The quick brown fox jumps over the lazy dog. " * 100


def says(text: str, **more: Any) -> dict[str, Any]:
    """A chat with one message."""
    return {"messages": [{"role": "user", "content": text}], **USAGE, **more}


def continues(prompt: Any, **more: Any) -> dict[str, Any]:
    """A text to continue."""
    return {"prompt": prompt, **USAGE, **more}


TEMPLATE = """
{%- if tools %}<|im_start|>system
<tools>{% for tool in tools %}{{ tool | tojson }}{% endfor %}</tools>
<tool_call>
{"name": <name>, "arguments": <arguments>}
</tool_call><|im_end|>
{% endif %}
{%- for message in messages %}<|im_start|>{{ message.role }}
{% if message.reasoning_content %}<think>
{{ message.reasoning_content }}
</think>

{% endif %}{{ message.content }}{% for call in message.tool_calls or [] %}<tool_call>
{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}}
</tool_call>{% endfor %}<|im_end|>
{% endfor %}
{%- if add_generation_prompt %}<|im_start|>assistant
{% if enable_thinking is defined and enable_thinking is false %}<think>

</think>

{% endif %}{% endif %}"""


def calls(text: str, **more: Any) -> dict[str, Any]:
    """A chat whose answer begins with a call."""
    messages = [{"role": "user", "content": text}, {"role": "assistant", "content": "<tool_call>\n"}]
    begun = {"messages": messages, "add_generation_prompt": False, "continue_final_message": "content"}
    return {**begun, **USAGE, "tools": [WEATHER], "tool_choice": "required", **more}


THINKS = 'root ::= "<think>\\nParis is a city.\\n</think>\\n\\nIt is Paris."'
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "chat": (CHAT, says("Say hello.", max_tokens=12)),
    "chat_progress": (CHAT, says(LONG[:900] + "What does the fox do?", max_tokens=4, return_progress=True)),
    "chat_logprobs": (CHAT, says("Say hello.", max_tokens=5, logprobs=True, top_logprobs=2)),
    "chat_n2": (CHAT, says("Say hello.", max_tokens=5, n=2, temperature=1)),
    "chat_timings": (CHAT, says("Say hello.", max_tokens=3, timings_per_token=True)),
    "chat_stop": (
        CHAT, says("Count: one, two, three", max_tokens=20, stop=[" size", "nothing"], verbose=True,
                   response_fields=["stopping_word"]),
    ),
    "chat_call": (CHAT, calls("Weather in Paris?", max_tokens=60, parallel_tool_calls=False, return_progress=True)),
    "chat_calls": (CHAT, calls("Weather in Paris and in Rome?", max_tokens=60, parallel_tool_calls=True)),
    "chat_call_cut": (CHAT, calls("Weather in Paris?", max_tokens=9)),
    "chat_call_text": (CHAT, says("Weather?", max_tokens=12, tools=[WEATHER])),
    "chat_thought": (CHAT, says("Which city is it?", max_tokens=60, grammar=THINKS, return_progress=True)),
    "chat_characters": (CHAT, says("Smile.", max_tokens=20, grammar='root ::= "Grüße 🙂 日本"')),
    "chat_logprobs_characters": (
        CHAT, says("Smile.", max_tokens=20, grammar='root ::= "🙂 a日"', logprobs=True, top_logprobs=1),
    ),
    "completion": (COMPLETIONS, continues("Once upon a time", max_tokens=10)),
    "completion_progress": (COMPLETIONS, continues(LONG[:900], max_tokens=3, return_progress=True)),
    "completion_logprobs": (COMPLETIONS, continues("Once upon", max_tokens=5, logprobs=2)),
    "completion_logprobs_stop": (COMPLETIONS, continues("One two three four", max_tokens=9, logprobs=1, stop=["t f"])),
    "completion_n2": (COMPLETIONS, continues("Once upon", max_tokens=4, n=2, temperature=1)),
    "completion_prompts": (COMPLETIONS, continues(["Once", "The sky is"], max_tokens=4)),
    "completion_refused": (COMPLETIONS, continues(["Once", LONG], max_tokens=4)),
}  # fmt: skip
REFUSED: dict[str, tuple[str, Any]] = {
    "too_long": (CHAT, says(LONG)),
    "bad_grammar": (CHAT, says("Hello", grammar="root ::= (")),
    "bad_role": (CHAT, {"messages": [{"role": 3, "content": "x"}], **USAGE}),
    "no_messages": (CHAT, {}),
    "no_prompt": (COMPLETIONS, {}),
    "no_answer": ("/v1/chat/completions/control", {"id": "none", "action": "stop"}),
    "no_embeddings": ("/v1/embeddings", {"input": "x"}),
    "no_route": ("/v1/nothing", {}),
}


async def record() -> None:
    """Write all recordings."""
    settings = Settings.from_environment()
    engine = require(settings, PatchStack.load(resource_directory("patches")))
    stored = Store(settings.models).find(find_recipe("smollm2", [resource_directory("recipes")]).name)
    if stored is None:
        raise SystemExit("edgellm pull smollm2 first")
    with tempfile.TemporaryDirectory() as directory:
        model = replace(served_model("smollm2", stored.path, None), chat_template=TEMPLATE)
        plan = RunPlan(n_ctx=N_CTX, n_slots=2, n_threads=2)
        worker = await Worker.start(engine.programs / "llama-server", model, plan, log=Path(directory) / "log")
        try:
            connector = aiohttp.UnixConnector(str(worker._directory / SOCKET), force_close=True)
            async with aiohttp.ClientSession("http://worker", connector=connector) as session:
                await _record_all(session)
        finally:
            await worker.stop()


async def _record_all(session: aiohttp.ClientSession) -> None:
    RECORDED.mkdir(exist_ok=True)
    for name, (path, body) in CASES.items():
        if sys.argv[1:] and name not in sys.argv[1:]:
            continue
        # A name of the worker's own would differ from run to run.
        async with session.post(path, json={**body, "completion_id": "chatcmpl-recorded"}) as reply:
            data = await reply.read()
            sys.stdout.write(f"{name}: {reply.status}, {len(data):,} bytes, {data.count(b'data:')} events\n")
            (RECORDED / f"{name}.sse").write_bytes(data)
    refusals = {}
    for name, (path, body) in REFUSED.items():
        async with session.post(path, json=body) as reply:
            text = await reply.text()
            sys.stdout.write(f"{name}: {reply.status} {text[:100]}\n")
            refusals[name] = {"status": reply.status, "body": json.loads(text) if text[:1] == "{" else text}
    (RECORDED / "refusals.json").write_text(json.dumps(refusals, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    asyncio.run(record())
