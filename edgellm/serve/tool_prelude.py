"""Tools for models whose chat template knows none: the template gets a part in front that tells them as messages.

with_tools("{% for message in messages %}...")

With tools, the system message also describes them, a call is text of an answer, and a result is what the user says, all
in the form of Hermes that most small models have seen; the worker finds that form out by itself. Without tools the
template is what it was.
"""

from __future__ import annotations

from typing import Any

_CALL = "<tool_call>\n"

_PRELUDE = r"""
{%- if tools -%}
  {%- set told = namespace(messages=[], system='') -%}
  {%- for message in messages -%}
    {%- if message.role == 'system' -%}
      {%- set told.system = told.system + (message.content or '') + '\n\n' -%}
    {%- elif message.role == 'tool' -%}
      {%- set text = '<tool_response>\n' + (message.content or '') + '\n</tool_response>' -%}
      {%- set told.messages = told.messages + [{'role': 'user', 'content': text}] -%}
    {%- elif message.tool_calls -%}
      {%- set calls = namespace(text=message.content or '') -%}
      {%- for call in message.tool_calls -%}
        {%- set call = call.function or call -%}
        {%- set name = '<tool_call>\n{"name": "' + call.name + '", "arguments": ' -%}
        {%- set calls.text = calls.text + ('\n' if calls.text else '') + name + (call.arguments | tojson) -%}
        {%- set calls.text = calls.text + '}\n</tool_call>' -%}
      {%- endfor -%}
      {%- set told.messages = told.messages + [{'role': 'assistant', 'content': calls.text}] -%}
    {%- else -%}
      {%- set told.messages = told.messages + [message] -%}
    {%- endif -%}
  {%- endfor -%}
  {%- for tool in tools -%}
    {%- set told.system = told.system + (tool | tojson) + '\n' -%}
  {%- endfor -%}
  {%- set told.system = told.system + 'These are functions that you may call. To call one, answer with\n<tool_call>\n'
      + '{"name": "FUNCTION", "arguments": {"ARGUMENT": "VALUE"}}\n</tool_call>' -%}
  {%- set messages = [{'role': 'system', 'content': told.system}] + told.messages -%}
{%- endif -%}
{{- '' }}"""


def with_tools(template: str) -> str | None:
    """The template with tools; None for one that has its own, and for none at all."""
    return None if not template or "tools" in template else _PRELUDE.strip() + template


def forced(body: dict[str, Any]) -> dict[str, Any]:
    """A request to a model with the prelude, so that a call that is required comes at once.

    The worker would let any text come before it, and a small model finds no end of that.
    """
    messages = body.get("messages")
    if body.get("tool_choice") != "required" or not messages or messages[-1]["role"] == "assistant":
        return body
    begun = {"role": "assistant", "content": _CALL}
    return {
        **body, "messages": [*messages, begun], "add_generation_prompt": False, "continue_final_message": "content",
    }  # fmt: skip
