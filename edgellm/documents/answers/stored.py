"""Answers from documents as JSON values, as the answer cache keeps them.

restored(stored(answer), "how long is the warranty?").citations == answer.citations
"""

from __future__ import annotations

from dataclasses import asdict, fields, is_dataclass
from typing import Any, get_args, get_origin, get_type_hints

from edgellm.documents.answers.question import DocumentAnswer

# What belongs to one computation only.
_OF_ONE_COMPUTATION = ("question", "stats", "cached")


def stored(answer: DocumentAnswer) -> dict[str, Any]:
    """An answer without the figures of its computation."""
    return {name: value for name, value in asdict(answer).items() if name not in _OF_ONE_COMPUTATION}


def restored(data: dict[str, Any], question: str) -> DocumentAnswer:
    """The answer again, to a question that means the same.

    Raises:
        KeyError, TypeError: another version of edgellm stored it.
    """
    answer: DocumentAnswer = _built(DocumentAnswer, {**data, "question": question, "stats": None})
    return answer


def _built(kind: Any, value: Any) -> Any:
    if is_dataclass(kind) and isinstance(kind, type):
        hints = get_type_hints(kind)
        given = {field.name for field in fields(kind)} & value.keys()
        return kind(**{name: _built(hints[name], value[name]) for name in given})
    if get_origin(kind) is list:
        return [_built(get_args(kind)[0], each) for each in value]
    return tuple(value) if isinstance(value, list) else value
