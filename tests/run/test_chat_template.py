"""Chat templates: the same text as llama.cpp's server makes of them, bounds, and what a broken one is told."""

import json
import subprocess
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from edgellm.engine.builds.installed import InstalledEngine
from edgellm.engine.builds.source import SourceTree
from edgellm.errors import EdgellmError, UnsupportedModel, UsageError
from edgellm.models.recipe import load_recipes
from edgellm.run.chat_template import ChatTemplate
from edgellm.settings import resource_directory

MESSAGES: list[dict[str, Any]] = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Hé <b>&'\""},
]


def rendered(source: str, messages: list[dict[str, Any]] = MESSAGES, **more: Any) -> str:
    return ChatTemplate(source, bos="<s>", eos="</s>").render(messages, **more)


def said(role: str, content: Any, **more: Any) -> dict[str, Any]:
    return {"role": role, "content": content, **more}


TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "description": "The weather of a city",
            "parameters": {"type": "object", "properties": {"city": {"type": "string", "description": "Where"}}},
        },
    }
]
CALL = {"id": "call12345", "type": "function", "function": {"name": "weather", "arguments": {"city": "Pâris"}}}
CALLED = [
    said("user", "Weather?"),
    said("assistant", "", tool_calls=[CALL]),
    said("tool", "rain", tool_call_id="call12345", name="weather"),
    said("assistant", "It rains."),
    said("user", "And now?"),
]
TURNS = [said("user", "a"), said("assistant", "b"), said("user", "c")]
LINES = said("user", " spaces \n\n and lines \n")
CHATS: dict[str, dict[str, Any]] = {
    "one": {"messages": [said("user", "What is 2+2?")]},
    "system": {"messages": [said("system", "Be brief."), said("user", "hi")]},
    "turns": {"messages": TURNS},
    "white space": {"messages": [said("system", "S\n"), LINES, said("assistant", "ok\n"), said("user", "x")]},
    "unicode": {"messages": [said("system", "你好"), said("user", "😀 <b>&amp;'\"</b> \\n <think>é</think>")]},
    "empty": {"messages": [said("system", ""), said("user", "")]},
    "thought": {"messages": [TURNS[0], said("assistant", "b", reasoning_content="hm"), TURNS[2]]},
    "call": {"messages": [said("system", "Be brief."), *CALLED], "tools": TOOLS},
}
# Nothing here gives tools or separate thoughts to a template; in these cases llama.cpp does more than the template.
REWRITTEN = "llama.cpp rewrites the messages for this family in its own code"
ELSEWHERE: dict[str, tuple[tuple[str, ...], str]] = {
    "google-gemma-4-31B-it-interleaved": (("call",), REWRITTEN),
    "mistralai-Ministral-3-14B-Reasoning-2512": (("thought",), REWRITTEN),
    "unsloth-mistral-Devstral-Small-2507": (("thought",), "a list is true in llama.cpp although it is empty"),
    **dict.fromkeys(("Kimi-K2-Instruct", "Kimi-K2-Thinking"), (("call",), "Jinja's sandbox keeps lists as they are")),
    "meetkai-functionary-medium-v3.1": (("call",), "llama.cpp does not escape HTML"),
    "meetkai-functionary-medium-v3.2": (("call",), "llama.cpp writes the arguments as a text"),
}


@pytest.fixture(scope="session")
def renderer(engine: InstalledEngine, source_tree: SourceTree, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A program that renders with the engine's own library."""
    program, tree, library = tmp_path_factory.mktemp("renderer") / "render", source_tree.llama_cpp, engine.libraries
    include = [f"-I{tree / name}" for name in ("common", "include", "ggml/include", "vendor")]
    libraries = [f"-L{library}", f"-Wl,-rpath,{library}", "-lllama-common", "-lllama", "-lggml", "-lggml-base"]
    source = Path(__file__).with_name("render_chats.cpp")
    subprocess.run(["c++", "-std=c++17", *include, str(source), "-o", str(program), *libraries], check=True)
    return program


def by_llama_cpp(renderer: Path, sources: list[str], chats: list[dict[str, Any]]) -> list[list[dict[str, str]]]:
    asked = [json.dumps({"template": source, "bos": "<s>", "eos": "</s>", "chats": chats}) for source in sources]
    done = subprocess.run([renderer], input="\n".join(asked), capture_output=True, text=True, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.engine
def test_both_engines_make_the_same_prompt(renderer: Path, source_tree: SourceTree) -> None:
    directory = source_tree.llama_cpp / "models" / "templates"
    sources = {path.stem: path.read_text() for path in sorted(directory.glob("*.jinja"))}
    recipes = load_recipes([resource_directory("recipes")])
    sources |= {f"recipe {name}": recipe.chat_template for name, recipe in recipes.items() if recipe.chat_template}
    assert len(sources) > 60
    wrong = []
    for (name, source), theirs in zip(
        sources.items(), by_llama_cpp(renderer, [*sources.values()], [*CHATS.values()]), strict=True
    ):
        template = ChatTemplate(source, bos="<s>", eos="</s>")
        for (chat, asked), their in zip(CHATS.items(), theirs, strict=True):
            try:
                ours = {"prompt": template.render(**asked)}
            except EdgellmError as error:
                ours = {"error": error.why}
            same = ours == their or (ours.keys() == their.keys() == {"error"} and ours["error"] in their["error"])
            if same == (chat in ELSEWHERE.get(name, ((), ""))[0]):
                wrong.append((name, chat, ours, their))
    assert not wrong, wrong[:3]


SNIPPETS = (
    "{% for m in messages %}{% if loop.index > 1 %}{% break %}{% endif %}{{ m.content }}{% endfor %}",
    "{% for m in messages %}{% if loop.first %}{% continue %}{% endif %}{{ m.content }}{% endfor %}",
    "{% generation %}{{ messages[0].content }}{% set x = 1 %}{% endgeneration %}{{ x }}",
    "{{ {'b': 1, 'a': ['é', none, true]} | tojson(indent=4) }}",
    "{{ {'b': 1, 'a': 'é😀'} | tojson(ensure_ascii=true, separators=(',', ':')) }}",
    "{{ [] | tojson(indent=2) }}{{ 'a<b>' | upper | trim }}{{ messages | map(attribute='role') | join(', ') }}",
    "{{ strftime_now('%Y-%m') }}{{ datetime }}{{ date_string }}{{ 'a' + missing }}{{ missing is defined }}",
    "{%- set ns = namespace(n=0) -%}\n  {%- for m in messages %}\n  {% set ns.n = ns.n + 1 %}\n{% endfor %}{{ ns.n }}",
    "{% macro f(x, y='d') %}[{{ x }}{{ y }}]{% endmacro %}{{ f(1) }}{{ f(1, y=2) }}",
    "{{ messages | selectattr('role', 'equalto', 'user') | list | length }}{{ (messages | last).role }}",
    "{{ raise_exception('no ' ~ 1) }}",
)


@pytest.mark.engine
def test_both_engines_agree_on_tags_and_filters(renderer: Path) -> None:
    messages = "{% for m in messages %}{{ '<|' + m.role + '|>' + m.content }}{% endfor %}"
    sources = [messages + snippet for snippet in SNIPPETS]
    for source, [theirs] in zip(sources, by_llama_cpp(renderer, sources, [{"messages": MESSAGES}]), strict=True):
        if "raise_exception" in source:
            with pytest.raises(UsageError, match="refuses") as caught:
                rendered(source)
            assert caught.value.why == "no 1" and "no 1" in theirs["error"]
        else:
            assert rendered(source) == theirs["prompt"]


def test_tojson_has_the_arguments_of_transformers() -> None:
    asked = "{{ {'b': 'é<', 'a': [1]} | tojson%s }}"
    for arguments, options in (
        ("", {"ensure_ascii": False}),
        ("(ensure_ascii=true)", {"ensure_ascii": True}),
        ("(sort_keys=true, indent=2)", {"ensure_ascii": False, "sort_keys": True, "indent": 2}),
        ("(separators=(',', ':'))", {"ensure_ascii": False, "separators": (",", ":")}),
    ):
        assert rendered(asked % arguments) == json.dumps({"b": "é<", "a": [1]}, **options)  # type: ignore[arg-type]
    assert rendered("{{ messages | map(attribute='role') | tojson }}") == '["user"]'
    assert rendered("{{ strftime_now('%Y') }}") == f"{datetime.now():%Y}"


def test_messages_are_adapted_to_the_template_and_stay_as_they_are() -> None:
    before = json.dumps(MESSAGES)
    no_system = "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no') }}{% endif %}"
    assert rendered(no_system + "[{{ m.content }}]{% endfor %}") == "[Be brief.\nHé <b>&'\"]"
    only_parts = "{% for m in messages %}{% for p in m.content %}({{ p.text }}){% endfor %}{% endfor %}"
    assert rendered(only_parts) == "(Be brief.)(Hé <b>&'\")"
    assert json.dumps(MESSAGES) == before


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("{% if %}", "Expected an expression, got 'end of statement block', in line 1"),
        ("\n{% nosuch %}", "unknown tag 'nosuch'"),
        ("{{ 'a' | nosuch }}", "No filter named 'nosuch'"),
        ("{{ 'a' is nosuch }}", "No test named 'nosuch'"),
        ("{{" + "(" * 3000 + "1" + ")" * 3000 + "}}", "RecursionError"),
        ("{% for a in b %}" * 40 + "{% endfor %}" * 40, "nested blocks"),
    ],
)
def test_a_broken_template_is_told_with_its_reason(source: str, why: str) -> None:
    with pytest.raises(UnsupportedModel, match="template is broken") as caught:
        rendered(source)
    assert why in caught.value.why


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("{{ raise_exception('turns must alternate') }}", "turns must alternate"),
        ("{{ missing.field }}", "'missing' is undefined"),
        ("{{ messages.__class__.__mro__ }}", "unsafe"),
        ("{{ messages[9].content }}", "no element 9"),
        ("{{ 1 + 'a' }}", "unsupported operand"),
        ("{% include 'x' %}", "no loader"),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "RecursionError"),
        ("{% for i in range(10 ** 9) %}{% endfor %}", "Range too big"),
    ],
)
def test_a_refusal_is_told_with_its_reason(source: str, why: str) -> None:
    with pytest.raises(UsageError, match="refuses this conversation") as caught:
        rendered(source)
    assert why in caught.value.why and "\n" not in caught.value.why


@pytest.mark.parametrize(
    "source",
    [
        "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
        "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(99) }}",
        "{% set ns = namespace(s='x') %}{% for i in range(99) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}",
        "{% set ns = namespace(s='x') %}{% for i in range(99) %}{% set ns.s = ns.s | replace('x', 'xx') %}{% endfor %}",
        "{% set ns = namespace(n=10) %}{% for i in range(99) %}{% set ns.n = ns.n * ns.n %}{% endfor %}",
        "{{ 'x' * 10 ** 10 }}",
        "{{ [0] * 10 ** 10 }}",
        "{{ 10 ** 10000000 }}",
        "{{ 'x'.center(10 ** 10) }}",
        "{{ 'x' | center(10 ** 10) }}",
        "{{ '%9999999999d' % 1 }}",
        "{{ '%*d' % (10 ** 10, 1) }}",
        "{{ '{:9999999999}'.format(1) }}",
        "{{ ('x' * 99999).replace('x', 'y' * 99999) }}",
        "{{ ('y' * 99999).join(range(99999) | map('string') | list) }}",
        "{{ messages | tojson(indent=10 ** 10) }}",
    ],
)
def test_a_template_ends_and_does_not_fill_the_memory(source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgellm.run.template_bounds.MAX_SECONDS", 0.5)
    before = time.monotonic()
    with pytest.raises(UnsupportedModel, match="out of bounds") as caught:
        rendered(source)
    assert caught.value.why.startswith("it ") and time.monotonic() - before < 60
