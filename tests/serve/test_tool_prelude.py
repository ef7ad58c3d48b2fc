"""The prelude that gives tools to chat templates without them."""

import json
from typing import Any

import jinja2
import pytest

from edgellm.models.recipe import load_recipe
from edgellm.serve.workers.tool_prelude import has_tools, with_tools, without_prelude
from edgellm.settings import resource_directory

CHATML = (
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n'}}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
INDENTED = "\n  {%- for message in messages %}\n    {{ message.content }}\n  {%- endfor %}"
BITNET = load_recipe(resource_directory("recipes") / "bitnet-2b.toml").chat_template or ""
CHAT = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hello"}]
TOOLS = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}]


def rendered(template: str, messages: list[dict[str, Any]], tools: Any = None) -> str:
    environment = jinja2.Environment(trim_blocks=True, lstrip_blocks=True)
    environment.filters["tojson"] = json.dumps
    return environment.from_string(template).render(
        messages=messages, tools=tools, add_generation_prompt=True, bos_token="<s>", eos_token="</s>"
    )


@pytest.mark.parametrize("template", [CHATML, INDENTED, BITNET])
def test_without_tools_nothing_changes(template: str) -> None:
    assert template
    assert rendered(with_tools(template) or "", CHAT) == rendered(template, CHAT)


@pytest.mark.parametrize("template", [CHATML, BITNET])
def test_tools_calls_and_results_are_told_as_messages(template: str) -> None:
    call = {"function": {"name": "weather", "arguments": {"city": "Paris"}}}
    messages = [
        *CHAT,
        {"role": "assistant", "content": None, "tool_calls": [call, call]},
        {"role": "tool", "content": "sunny"},
    ]
    text = rendered(with_tools(template) or "", messages, TOOLS)
    assert text.index("Be kind.") < text.index('"name": "weather", "parameters"') < text.index("Hello")
    assert text.count('<tool_call>\n{"name": "weather", "arguments": {"city": "Paris"}}\n</tool_call>') == 2
    assert "<tool_response>\nsunny\n</tool_response>" in text


def test_a_template_with_tools_is_left_alone() -> None:
    assert with_tools("{% if tools %}{% endif %}") is None and with_tools("") is None


LLAMA = (
    "{% if custom_tools is defined %}{% set tools = custom_tools %}{% endif %}"
    "{% if not tools is defined %}{% set tools = none %}{% endif %}{{ tools }}"
)


@pytest.mark.parametrize(
    ("template", "known"),
    [
        ("{%- if tools %}{{ tools | tojson }}{% endif %}", True),
        ("{% for tool in tools %}{{ tool }}{% endfor %}", True),
        (LLAMA, True),
        ("{% generation %}{{ tools }}", True),  # a tag that Jinja itself does not know
        (CHATML, False),
        (BITNET, False),
        ("{# no tools #}You have no tools. {{ messages }}", False),
        ("{{ 'tools' }}{{ message.tools }}{{ message['tools'] }}{{ render(tools=1) }}", False),
        ("", False),
    ],
)
def test_a_template_has_tools_if_it_reads_them(template: str, known: bool) -> None:
    assert has_tools(template) == known
    assert (with_tools(template) is None) == (known or not template)


@pytest.mark.parametrize("template", [CHATML, INDENTED, "{{ tools }}"])
def test_a_template_is_shown_without_the_prelude(template: str) -> None:
    assert without_prelude(with_tools(template) or template) == template
