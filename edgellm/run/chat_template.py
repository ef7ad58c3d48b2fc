"""Chat templates: the Jinja programs in GGUF files that turn messages into the text a model was trained on.

    ChatTemplate(info.chat_template, bos=info.bos, eos=info.eos).render([{"role": "user", "content": "hi"}])

A template is code from the maker of the file. It runs in Jinja's immutable sandbox, with bounds on time and memory, and
with the tags and filters that transformers gives it. Messages are adapted as llama.cpp's server does it, so that `run`
and `serve` make the same prompt.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from datetime import datetime
from functools import cached_property, wraps
from typing import Any

from jinja2 import TemplateError, TemplateSyntaxError, Undefined, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from edgellm.errors import UnsupportedModel, UsageError
from edgellm.run.message import Message
from edgellm.run.template_bounds import Excess, bounded, check_call, check_length, check_product

# What a template may raise, besides its own errors, for messages or values that it does not expect.
_REFUSALS = (TemplateError, TypeError, ValueError, ArithmeticError, LookupError, AttributeError, RecursionError)
# StepFun's template: white space around the content of a message drives the model into loops.
_TRIMMED = "You have access to the following functions in JSONSchema format"
# Without them llama.cpp does not see that a model thinks, and tells its template not to.
_THINKS = ("<think", "reasoning_content", "[THINK]", "thinking_budget")
_PROBE = "A probe of edgellm."


class ChatTemplate:
    """A compiled template."""

    def __init__(self, source: str, *, bos: str = "", eos: str = "") -> None:
        """Compile it.

        Raises:
            UnsupportedModel: there is no template, or it has an error; `why` says which, and where.
        """
        if not source:
            why = "the file has no chat template: it was trained to continue text, not to answer"
            raise UnsupportedModel(
                "this is not a chat model", why=why, hint="edgellm run --raw MODEL 'Once upon a time'"
            )
        self._source = source
        self._special = {"bos_token": bos, "eos_token": eos}
        try:
            self._template = bounded(lambda: _Environment().from_string(source))
        except (TemplateError, SyntaxError, RecursionError, ArithmeticError, ValueError, Excess) as error:
            line = f", in line {error.lineno}" if isinstance(error, TemplateSyntaxError) else ""
            raise UnsupportedModel("the model's chat template is broken", why=_reason(error) + line) from error

    def render(self, messages: Sequence[Message] | Sequence[Mapping[str, Any]], **more: Any) -> str:
        """The prompt, ready for the assistant's next answer; `more` are other variables of the template.

        Raises:
            UsageError: the template refuses these messages (turns in the wrong order, say).
            UnsupportedModel: it does not come to an end, or makes too much text.
        """
        try:
            return self._render(self._adapted(messages), **more)
        except Excess as error:
            raise UnsupportedModel("the model's chat template is out of bounds", why=str(error)) from error
        except (*_REFUSALS, MemoryError) as error:
            raise UsageError("the model's chat template refuses this conversation", why=_reason(error)) from error

    def _render(self, messages: Sequence[Mapping[str, Any]], **more: Any) -> str:
        now = datetime.now()
        variables = {
            "enable_thinking": any(sign in self._source for sign in _THINKS),
            "add_generation_prompt": True,
            "datetime": now.strftime("%b %d %Y"),
            "date_string": now.strftime("%d %b %Y"),
            **self._special,
            **more,
        }
        return bounded(lambda: self._template.render(messages=messages, **variables))

    def _adapted(self, messages: Sequence[Mapping[str, Any]]) -> Sequence[Mapping[str, Any]]:
        """Copies of the messages as the template can take them, like llama.cpp's server gives them to it."""
        messages = [deepcopy(dict(message)) for message in messages]
        if _TRIMMED in self._source:
            messages = [{**message, "content": _trimmed(message.get("content"))} for message in messages]
        if messages and messages[0]["role"] == "system" and not self._knows_system:
            messages = _merged(messages[0]["content"], messages[1:])
        if self._wants_parts:
            messages = [{**message, "content": _parts(message.get("content"))} for message in messages]
        return messages

    @cached_property
    def _knows_system(self) -> bool:
        """Whether the template reads a system message, even if it refuses the conversation later."""
        system, user = (_parts(text) if self._wants_parts else text for text in (_PROBE, "hi"))
        watched = _Watched(role="system", content=system)
        return self._shows([watched, {"role": "user", "content": user}]) or watched.is_read

    @cached_property
    def _wants_parts(self) -> bool:
        """Whether content must be a list of parts: a text does not get into the prompt, but a part does."""
        part = {"type": "text", "text": _PROBE}
        return not self._shows([{"role": "user", "content": _PROBE}]) and self._shows(
            [{"role": "user", "content": [part]}]
        )

    def _shows(self, messages: Sequence[Mapping[str, Any]]) -> bool:
        try:
            return _PROBE in self._render(messages)
        except _REFUSALS:
            return False


def reads(source: str, variable: str) -> bool:
    """Whether a template reads a variable; one that Jinja cannot parse reads every variable whose name it contains."""
    try:
        names = list(_Environment().parse(source).find_all(nodes.Name))
    except (TemplateError, RecursionError):
        return variable in source
    return any(name.name == variable and name.ctx == "load" for name in names)


class _Watched(dict[str, Any]):
    """A message that notes whether its content is read."""

    is_read = False

    def __getitem__(self, key: str) -> Any:
        """The value of a key."""
        self.is_read = self.is_read or key == "content"
        return super().__getitem__(key)


class _Environment(ImmutableSandboxedEnvironment):
    """Jinja as transformers sets it up for chat templates, with checks of all steps that may be large."""

    intercepted_binops = frozenset({"*", "**", "%"})

    def __init__(self) -> None:
        extensions = [_Generation, loopcontrols]
        super().__init__(trim_blocks=True, lstrip_blocks=True, undefined=_Undefined, extensions=extensions)
        self.filters["tojson"] = _to_json
        for name in ("center", "indent", "wordwrap", "format", "replace", "truncate", "join"):
            self.filters[name] = _checked(name, self.filters[name])
        self.globals.update(raise_exception=_refuse, strftime_now=lambda form: datetime.now().strftime(form))

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """Compute an operator that may make something large."""
        if operator == "**" and isinstance(right, int):
            check_length(abs(right) * (left.bit_length() if isinstance(left, int) else 1))
        if operator == "*":
            check_product(left, right)
        if operator == "%" and isinstance(left, str):
            check_call(left, operator, [right])
        return super().call_binop(context, operator, left, right)

    def call(self, context: Any, function: Any, *args: Any, **kwargs: Any) -> Any:
        """Call a function of the template, or a method of a value."""
        method = getattr(function, "__wrapped__", function)  # the sandbox wraps `format`
        owner = getattr(method, "__self__", None)
        if isinstance(owner, str):
            check_call(owner, method.__name__, [*args, *kwargs.values()])
        return super().call(context, function, *args, **kwargs)


def _checked(name: str, filter_: Callable[..., Any]) -> Callable[..., Any]:
    """A filter that is checked like the method of the same name."""

    @wraps(filter_)  # which keeps what Jinja passes to it first
    def checked(*args: Any, **kwargs: Any) -> Any:
        passed = [*args]
        at = 1 if hasattr(filter_, "jinja_pass_arg") else 0
        if name == "join":  # its text and its list have changed places
            passed[at] = list(passed[at])
            text, others = passed[at + 1] if len(passed) > at + 1 else "", [passed[at]]
        else:
            text, others = passed[at], passed[at + 1 :]
        check_call(str(text), name, [*others, *kwargs.values()])
        return filter_(*passed, **kwargs)

    return checked


class _Undefined(Undefined):
    """A missing variable, which adds nothing to a text, as in llama.cpp."""

    def __add__(self, other: Any) -> Any:
        """The other text alone."""
        return other if isinstance(other, str) else super().__add__(other)

    __radd__ = __add__


class _Generation(Extension):
    """`{% generation %}`: transformers marks with it what a model is trained on; here its body is only text."""

    tags = {"generation"}  # noqa: RUF012, as Jinja declares it

    def parse(self, parser: Parser) -> nodes.Node | list[nodes.Node]:
        """Return the body itself, as llama.cpp does."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _to_json(
    value: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False
) -> str:
    """Jinja's own filter escapes HTML; this one is transformers'."""
    if isinstance(indent, int):
        check_length(indent)
    separators = tuple(separators) if separators is not None else None
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys, default=_as_list
    )


def _as_list(value: Any) -> list[Any]:
    """What `map` and `select` return is a list to llama.cpp."""
    if isinstance(value, Iterator):
        return list(value)
    raise TypeError(f"tojson cannot write a value of type {type(value).__name__}")


def _refuse(message: str = "") -> None:
    raise TemplateError(message)


def _reason(error: BaseException) -> str:
    """What went wrong, in one line, with the name of the error where its text says too little."""
    text = " ".join(str(getattr(error, "message", None) or error).split())
    if isinstance(error, (KeyError, RecursionError, MemoryError)) or not text:
        return f"{type(error).__name__}: {text}" if text else type(error).__name__
    return text


def _merged(system: Any, others: Sequence[Mapping[str, Any]]) -> Sequence[Mapping[str, Any]]:
    """The system message in front of the first other one."""
    if not others:
        return others
    first = others[0]
    return [{**first, "content": f"{system}\n{first['content']}"}, *others[1:]]


def _trimmed(content: Any) -> Any:
    return content.strip() if isinstance(content, str) else content


def _parts(content: Any) -> Any:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content
