"""The file of a suite: its keys, and what is wrong with them.

    fields = read_fields(Path("mine.toml"))
    fields.items[0].item()

A TOML file has the suite's own keys and a table for each item; a JSON Lines file has an item a line. An unknown key is
an error that suggests the closest known one.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edgellm.errors import UsageError
from edgellm.evaluation.item import Item
from edgellm.suggest import did_you_mean
from edgellm.text import read_text

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

MOST_ITEMS = 100_000
MOST_TOKENS = 1 << 20
PassName = Literal["guarded", "unguarded"]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$", max_length=100)]
Label = Annotated[str, Field(max_length=100, pattern=r"^[^/\x00-\x1f\x7f]*$")]
Tokens = Annotated[int, Field(ge=1, le=MOST_TOKENS)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class ItemFields(_Strict):
    """The keys of an item; see `Item`."""

    id: Name
    prompt: Annotated[str, Field(min_length=1)]
    check: dict[str, Any]
    category: Label = ""
    language: Label = "en"
    system: str | None = None
    max_tokens: Tokens | None = None
    # pydantic's models have a method `schema`.
    schema_: dict[str, Any] | None = Field(None, alias="schema")
    checked: bool = False

    def item(self) -> Item:
        """What the fields stand for."""
        return Item(
            self.id, self.prompt, self.check, self.category, self.language, self.system, self.max_tokens, self.schema_,
            self.checked,
        )  # fmt: skip


class SuiteFields(_Strict):
    """The keys of a suite; see `Suite`. `generate` says what makes further items, and with which parameters."""

    name: Name
    title: str = ""
    about: str = ""
    licence: str = ""
    max_tokens: Tokens | None = None
    system: str | None = None
    generate: dict[str, Any] | None = None
    passes: tuple[PassName, ...] = ()
    slots: Annotated[int, Field(ge=1, le=256)] | None = None
    items: Annotated[list[ItemFields], Field(max_length=MOST_ITEMS)] = []


def read_fields(path: Path) -> SuiteFields:
    """The keys of a suite's file.

    Raises:
        UsageError: it is no suite; `why` names the key or the line.
        FileAccessError: it cannot be read.
    """
    text = read_text(path)
    try:
        data = _parsed_lines(path, text) if path.suffix == ".jsonl" else tomllib.loads(text)
        fields = SuiteFields(**data)
    except ValidationError as error:
        raise wrong_suite(path, _first_problem(error, data)) from error
    except (ValueError, TypeError, RecursionError) as error:
        raise wrong_suite(path, str(error)) from error
    if fields.name != path.stem:
        raise wrong_suite(path, f"its name is {fields.name}, and that of its file {path.stem}")
    return fields


def _parsed_lines(path: Path, text: str) -> dict[str, Any]:
    items = []
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            try:
                items.append(json.loads(line))
            except ValueError as error:
                raise ValueError(f"line {number}: {error}") from error
    return {"name": path.stem, "items": items}


def wrong_suite(path: Path, why: str) -> UsageError:
    """The error for a file that is no suite."""
    return UsageError(
        f"{path.name} is not a suite", why=why[:300], hint="the keys are in docs/how-to/evaluate.md", path=str(path)
    )


def _first_problem(error: ValidationError, data: Mapping[str, Any]) -> str:
    """The first problem of a file, with the item's id; an unknown key explains a missing one, so it comes first."""
    problem = min(error.errors(), key=lambda each: each["type"] != "extra_forbidden")
    place = list(problem["loc"])
    model: type[BaseModel] = SuiteFields
    where = ""
    if len(place) > 1 and place[0] == "items" and isinstance(place[1], int):
        item = data["items"][place[1]]
        name = item.get("id") if isinstance(item, dict) else None
        where, place, model = f"item {name or place[1] + 1}: ", place[2:], ItemFields
    key = ".".join(map(str, place))
    if problem["type"] != "extra_forbidden":
        return f"{where}{key}: {problem['msg']}"
    known = [each.alias or each_name for each_name, each in model.model_fields.items()]
    guess = did_you_mean(key, known)
    return f"{where}unknown key {key}" + (f", did you mean {guess}?" if guess else "")
