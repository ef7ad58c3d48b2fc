"""The prompts that drafts are measured on: six kinds of work, ten prompts each.

    for prompt in workload("quote"): session.turn(prompt.messages)

Texts to quote and to edit are parts of the sample that ships with edgellm (`measure.sample`).
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from edgellm.errors import UsageError
from edgellm.measure.sample import read_sample
from edgellm.run.message import Message
from edgellm.suggest import did_you_mean

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

SHIPPED = Path(__file__).parent / "text" / "workloads.toml"
NAMES = ("quote", "edit", "again", "list", "json", "chat")
N_PROMPTS = 10
# How long a passage is at least, in characters: about 350 tokens of English.
PASSAGE = 1400


@dataclass(frozen=True, slots=True)
class WorkloadPrompt:
    """A chat to answer, and the JSON schema of the answer if it has one."""

    messages: tuple[Message, ...]
    schema: str | None = None


def workload(name: str) -> list[WorkloadPrompt]:
    """The prompts of a kind of work.

    Raises:
        UsageError: there is no such workload.
    """
    if name not in NAMES:
        guess = did_you_mean(name, NAMES)
        why = f"did you mean {guess}?" if guess else f"there are {', '.join(NAMES)}"
        raise UsageError(f"there is no workload {name[:40]!r}", why=why)
    kind, code, passages = _shipped()[name], _shipped()["functions"]["code"], _passages()
    texts, found = kind["prompts"], []
    for number in range(N_PROMPTS):
        code_text = f"```python{code[number // 2 % len(code)]}```\n"
        text = texts[number % len(texts)].replace("{passage}", passages[number % len(passages)])
        question = Message(role="user", content=text.replace("{code}", code_text))
        before: tuple[Message, ...] = ()
        if first := kind.get("first"):
            before = (Message(role="user", content=first), Message(role="assistant", content=code_text))
        found.append(WorkloadPrompt((*before, question), kind.get("schema")))
    return found


@cache
def _shipped() -> Mapping[str, Any]:
    return tomllib.loads(SHIPPED.read_text(encoding="utf-8"))


@cache
def _passages() -> list[str]:
    """Parts of the sample, of whole paragraphs."""
    found, part = [], ""
    for paragraph in read_sample().text.split("\n\n"):
        part = f"{part}\n\n{paragraph}".strip()
        if len(part) >= PASSAGE:
            found.append(part)
            part = ""
    return found
