"""Chat templates: the Jinja program inside a GGUF that turns messages into the text a model was trained on.

    ChatTemplate(info.chat_template, bos=info.bos, eos=info.eos).render([{"role": "user", "content": "hi"}])

A template comes from whoever made the file, so it runs in Jinja's immutable sandbox.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from typing import TypedDict

from jinja2 import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from edgellm.errors import UnsupportedModel, UsageError


class Message(TypedDict):
    """One turn; `role` is system, user or assistant."""

    role: str
    content: str


class ChatTemplate:
    """A compiled template."""

    def __init__(self, source: str, *, bos: str = "", eos: str = "") -> None:
        if not source:
            why = "the file has no chat template: it was trained to continue text, not to answer"
            raise UnsupportedModel(
                "this is not a chat model", why=why, hint="edgellm run --raw MODEL 'Once upon a time'"
            )
        environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
        environment.filters["tojson"] = lambda value, **_: json.dumps(value, ensure_ascii=False)
        environment.globals.update(raise_exception=_refuse, strftime_now=lambda form: datetime.now().strftime(form))
        self._special = {"bos_token": bos, "eos_token": eos}
        try:
            self._template = environment.from_string(source)
        except TemplateError as error:
            raise UnsupportedModel("the model's chat template is broken", why=str(error)) from error

    def render(self, messages: Sequence[Message]) -> str:
        """The prompt, ready for the assistant's next answer.

        Raises:
            UsageError: the template refuses these messages (a system message where none is allowed, say).
        """
        try:
            return self._template.render(messages=list(messages), add_generation_prompt=True, **self._special)
        except (TemplateError, TypeError, ValueError, ArithmeticError, LookupError) as error:
            raise UsageError("the model's chat template refuses this conversation", why=str(error)) from error


def _refuse(message: str) -> None:
    raise TemplateError(message)
