"""The manual page edgellm(1), made of the table of verbs, the exit codes and the variables.

manual("0.1.0")  ->  text for man, whose source is what `edgellm --help` and the reference are made of
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from edgellm.cli import VERBS, Family, Verb
from edgellm.exit_codes import ExitCode
from edgellm.settings import VARIABLES

FILES = {
    "~/.local/share/edgellm": "engines, models, chats, benchmarks, evaluations, logs",
    "~/.cache/edgellm": "downloads and build trees, which may be deleted at any time",
    "~/.config/edgellm/config.toml": "options in a file",
    "/etc/default/edgellm": "models and variables of the service edgellm.service",
    "/var/lib/edgellm": "models, engine and logs of the service",
}
ABOUT = """\
edgellm pulls language models, converts and quantizes them, chats with them in the terminal, answers files of prompts,
and serves them over HTTP, all on the CPU of this machine. Every verb prints JSON with --json, and explains its options
with --help.
"""
SERVICE = """\
The socket edgellm.socket listens on 127.0.0.1:11435. Nothing runs until somebody connects; then edgellm.service starts
and serves the models of /etc/default/edgellm. "systemctl disable --now edgellm.socket" ends that for good.
"""


def manual(version: str) -> str:
    """Return the page in the language of man(7)."""
    return "\n".join(_lines(version)) + "\n"


def _lines(version: str) -> Iterator[str]:
    yield f'.TH EDGELLM 1 "" "edgellm {version}" "User Commands"'
    yield from (".SH NAME", r"edgellm \- run language models on this machine's CPU")
    yield from (".SH SYNOPSIS", r"\fBedgellm\fR \fIVERB\fR [\fIARGUMENT\fR...] [\fIOPTION\fR...]")
    yield from (".SH DESCRIPTION", *_text(ABOUT), ".SH VERBS")
    for name, line in _verbs():
        yield from _entry(name, line)
    yield from (".SH SERVICE", *_text(SERVICE), ".SH EXIT STATUS")
    for code in ExitCode:
        yield from _entry(str(code.value), code.meaning)
    yield ".SH ENVIRONMENT"
    yield from _text("Every option has a variable: EDGELLM_CTX_SIZE for --ctx-size. Besides:")
    for name, meaning in VARIABLES.items():
        yield from _entry(name, meaning)
    yield ".SH FILES"
    for name, meaning in FILES.items():
        yield from _entry(name, meaning)


def _verbs() -> Iterator[tuple[str, str]]:
    for name, verb in VERBS.items():
        inner = verb.verbs if isinstance(verb, Family) else {"": verb}
        for own, each in inner.items():
            if isinstance(each, Verb) and not each.hidden:
                yield f"{name} {own}".strip(), each.line


def _entry(term: str, text: str) -> Iterator[str]:
    yield from (".TP", rf"\fB{_plain(term)}\fR", *_text(text))


def _text(text: str) -> Iterator[str]:
    """Lines of running text; one that began with a dot would be a request."""
    for line in text.strip().splitlines():
        yield re.sub(r"^(?=[.'])", r"\\&", _plain(line))


def _plain(text: str) -> str:
    """Text without Markdown's marks and links, and with man's own signs escaped."""
    words = re.sub(r"\[([^]]+)\]\([^)]*\)", r"\1", text).replace("`", "")
    return words.replace("\\", r"\e").replace("-", r"\-")
