"""Tools in chat templates: which ones show them to the model, and a prelude for those that do not.

has_tools("{% if tools %}...")
with_tools("{% for message in messages %}...")

The prelude turns tools into ordinary messages: the system message also describes them, a call is text of an answer, and
a result is a user message, all in the Hermes format that most small models have seen; llama-server recognises that
format. Without tools the template works as before.
"""

from __future__ import annotations

from functools import lru_cache

from edgellm.run.chat_template import reads

# What a call begins with.
CALL = "<tool_call>\n"

_PRELUDE = r"""
{%- if tools -%}
  {%- set chat = namespace(messages=[], system='') -%}
  {%- for message in messages -%}
    {%- if message.role == 'system' -%}
      {%- set chat.system = chat.system + (message.content or '') + '\n\n' -%}
    {%- elif message.role == 'tool' -%}
      {%- set text = '<tool_response>\n' + (message.content or '') + '\n</tool_response>' -%}
      {%- set chat.messages = chat.messages + [{'role': 'user', 'content': text}] -%}
    {%- elif message.tool_calls -%}
      {%- set calls = namespace(text=message.content or '') -%}
      {%- for call in message.tool_calls -%}
        {%- set call = call.function or call -%}
        {%- set name = '<tool_call>\n{"name": "' + call.name + '", "arguments": ' -%}
        {%- set calls.text = calls.text + ('\n' if calls.text else '') + name + (call.arguments | tojson) -%}
        {%- set calls.text = calls.text + '}\n</tool_call>' -%}
      {%- endfor -%}
      {%- set chat.messages = chat.messages + [{'role': 'assistant', 'content': calls.text}] -%}
    {%- else -%}
      {%- set chat.messages = chat.messages + [message] -%}
    {%- endif -%}
  {%- endfor -%}
  {%- for tool in tools -%}
    {%- set chat.system = chat.system + (tool | tojson) + '\n' -%}
  {%- endfor -%}
  {%- set chat.system = chat.system + 'These are functions that you may call. To call one, answer with\n<tool_call>\n'
      + '{"name": "FUNCTION", "arguments": {"ARGUMENT": "VALUE"}}\n</tool_call>' -%}
  {%- set messages = [{'role': 'system', 'content': chat.system}] + chat.messages -%}
{%- endif -%}
{{- '' }}"""


@lru_cache(maxsize=64)
def has_tools(template: str) -> bool:
    """Whether a template shows tools to the model by itself; the word in a comment or a text is not enough."""
    return reads(template, "tools")


def with_tools(template: str) -> str | None:
    """The template with the prelude; None for a template that has tools of its own, and for an empty one."""
    return None if not template or has_tools(template) else _PRELUDE.strip() + template


def without_prelude(template: str) -> str:
    """The model's own template, as `with_tools` got it."""
    return template.removeprefix(_PRELUDE.strip())
