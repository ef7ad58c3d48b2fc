"""One item of a suite: what the model is asked, and how its answer is checked.

    item = Item("arithmetic-en-07", "What is 17 * 3?", check={"kind": "number", "value": 51})

Items are data: they come from the files in `suites/`, from files of the user, or from a generator.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

# A check as data: `kind` names a checker, the other keys are its parameters.
Check = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Item:
    """A question and its check; `id` is unique in its suite.

    `category` and `language` (en, zh) group the scores. `schema` is a JSON schema that the answer is forced to match,
    None for none. `is_checked` is true if a person has read the item and its check.
    """

    id: str
    prompt: str
    check: Check
    category: str = ""
    language: str = "en"
    system: str | None = None
    max_tokens: int | None = None
    schema: Mapping[str, Any] | None = None
    is_checked: bool = False
