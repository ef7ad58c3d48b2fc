"""What `/set` in a chat can change: its names, their values now, and how a text becomes a new value.

name, value = parse("temperature 0.5")        # ("temp", "0.5")
refusal = change(chat, name, value)           # "" when it has changed
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from edgellm.chats.chat import Chat
from edgellm.engine.sampling import MOST, SamplingOption
from edgellm.errors import ContextTooLarge, DoesNotFit
from edgellm.run.answer_options import ASKABLE, check_stops
from edgellm.ui import habits
from edgellm.ui.flags import unescaped

# Sampling settings by the names that /set takes: those of the command line.
SAMPLING = {option.word: option for option in ASKABLE.values() if option.word}
# The limits of an answer that are numbers, in the same form.
LIMITS = {
    "max_tokens": SamplingOption("max_tokens", -1, -1, MOST, "Tokens to generate at most.", "--max-tokens"),
    "max_time": SamplingOption("max_seconds", 0.0, 0.001, 1e9, "Seconds after which an answer ends.", "--max-time"),
}
# Limits that are one of two words: the field, what each word stands for, and what it is for.
SWITCHES = {
    "loop_guard": ("loop_guard", {"on": True, "off": False}, "Stop an answer that repeats endlessly: on or off."),
    "on_loop": ("retry", {"stop": False, "retry": True}, "At a loop: stop, or retry once from before it."),
}
CONTEXT = SamplingOption("ctx", 0, 8, MOST, "Context in tokens; the chat stays, and is read again.", "--ctx-size")
STOP = "stop"
SETTINGS = [*SAMPLING, *LIMITS, *SWITCHES, STOP, CONTEXT.name]
# Other spellings of settings: the whole name of a sampling option, and what other tools say.
SPELLINGS = {**{option.name: word for word, option in SAMPLING.items()}, **habits.SETTINGS}


def parse(text: str) -> tuple[str, str]:
    """The name of a setting as `SETTINGS` has it, and the value; both empty for an empty text."""
    name, _, value = text.removeprefix("parameter ").partition(" ")  # as Ollama says it
    name = name.replace("-", "_")
    return SPELLINGS.get(name, name), value.strip()


def purpose(name: str) -> str:
    """What a setting is for."""
    if name == STOP:
        return "A text before which an answer ends; \\n is a new line, none takes it back."
    if name in SWITCHES:
        return SWITCHES[name][2]
    return (SAMPLING.get(name) or LIMITS.get(name, CONTEXT)).help


def value_of(chat: Chat, name: str) -> str:
    """The value of a setting, as it would be typed."""
    if name == CONTEXT.name:
        return str(chat.model.plan.n_ctx)
    if name == STOP:
        return " ".join(map(json.dumps, chat.limits.stop)) or "none"
    if name in SWITCHES:
        field, words, _ = SWITCHES[name]
        return next(word for word, value in words.items() if value == getattr(chat.limits, field))
    of, option = (chat.sampling, SAMPLING[name]) if name in SAMPLING else (chat.limits, LIMITS[name])
    value = getattr(of, option.name)
    return "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def change(chat: Chat, name: str, text: str) -> str:
    """Change a setting from the next answer on; returns what its values are if the text is none of them.

    Raises:
        ContextTooLarge, DoesNotFit: there cannot be such a context; the chat goes on in the one it has.
        UsageError: it is no stop text.
    """
    if name == STOP:
        stops = () if text == "none" else check_stops([unescaped(text.strip("'\""))])
        return _limit(chat, "stop", stops)
    if name in SWITCHES:
        field, words, _ = SWITCHES[name]
        return _limit(chat, field, words[text]) if text in words else " or ".join(words)
    option = SAMPLING.get(name) or LIMITS.get(name, CONTEXT)
    try:
        number = option.parse(text)
    except ValueError:
        return f"a number from {option.least:g} to {option.most:g}"
    if name in LIMITS:
        return _limit(chat, option.name, number)
    if name == CONTEXT.name:
        _resize(chat, int(number))
    else:
        chat.set(**{option.name: number})
    return ""


def _limit(chat: Chat, field: str, value: Any) -> str:
    chat.limit(replace(chat.limits, **{field: value}))
    return ""


def _resize(chat: Chat, n_ctx: int) -> None:
    try:
        chat.model.resize(n_ctx)
    except (ContextTooLarge, DoesNotFit) as error:
        error.hint = f"/set ctx {chat.model.largest_context()}"
        raise
