"""Generates items from a seed, for suites whose questions can be computed.

    generate({"kind": "arithmetic", "seed": 1, "digits": [1, 2]})[0].prompt  ->  "What is 7 + 8?"

A suite's `generate` table names the kind; its other keys are the fields of one of the classes below.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from edgellm.errors import UsageError
from edgellm.evaluation.generate.arithmetic import Arithmetic
from edgellm.evaluation.generate.needle import Needle
from edgellm.evaluation.item import Item
from edgellm.suggest import did_you_mean

GENERATORS: dict[str, type[Arithmetic] | type[Needle]] = {"arithmetic": Arithmetic, "needle": Needle}


def generate(parameters: Mapping[str, Any]) -> list[Item]:
    """The items that a suite's `generate` table describes; the same table gives the same items on every machine.

    Raises:
        UsageError: the kind or a key is unknown, or a value makes no sense.
    """
    kind = parameters.get("kind")
    generator = GENERATORS.get(str(kind))
    if generator is None:
        guess = did_you_mean(str(kind), GENERATORS)
        why = f"did you mean {guess}?" if guess else f"the kinds are {', '.join(GENERATORS)}"
        raise UsageError(f"there is no generator {kind!s:.60}", why=why)
    fields = {key: value for key, value in parameters.items() if key != "kind"}
    try:
        return generator.model_validate(fields).items()
    except ValidationError as error:
        raise UsageError(f"the {kind} generator cannot use this", why=_first_problem(error, generator)) from error


def _first_problem(error: ValidationError, generator: type[Arithmetic] | type[Needle]) -> str:
    problem = error.errors()[0]
    key = ".".join(map(str, problem["loc"]))
    if problem["type"] != "extra_forbidden":
        return f"{key}: {problem['msg']}"[:300]
    guess = did_you_mean(key, generator.model_fields)
    return f"unknown key {key[:60]}" + (f", did you mean {guess}?" if guess else "")
