"""How an answer is to be made: what was asked of the sampling, when it ends, and the form that it must have.

options = AnswerOptions({"temperature": 0.2, "seed": 7}, Limits(max_tokens=100))
options.sampling(recommended={"top_p": 0.9})  ->  Sampling(temperature=0.2, top_p=0.9, seed=7)
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from edgellm.engine.sampling import MOST, OPTIONS, RANDOM_SEED, Sampling, SamplingArguments, SamplingOption
from edgellm.errors import UsageError
from edgellm.run.generation import Limits
from edgellm.suggest import did_you_mean

if TYPE_CHECKING:
    from edgellm.models.recipe import Recipe
    from edgellm.run.structure import Structure

# As in requests to the server.
MOST_STOPS, LONGEST_STOP = 64, 1000
# What may be asked of the sampling: the options of the engine, and the seed.
ASKABLE: Mapping[str, SamplingOption] = {
    **OPTIONS,
    "seed": SamplingOption("seed", RANDOM_SEED, RANDOM_SEED, 2 * MOST, "Repeats an answer exactly.", "--seed"),
}


class AnswerArguments(SamplingArguments, total=False):
    """The keyword arguments that say how to answer. Sampling options are left to the model's recipe by default.

    `schema`: the answer is JSON of this form, a JSON schema as a mapping or as its text, or "json" for any object.
    `grammar`: a GBNF grammar that the answer follows.
    `max_tokens`: tokens to generate at most; -1 for as many as the context holds.
    `max_seconds`: when to end the answer, the reading of the prompt included.
    `stop`: a text, or several, before which the answer ends.
    `seed`: repeats an answer exactly; random by default, and if it is -1.
    `sampling`: all sampling options at once, and its seed unless that is 0; single ones still come first.
    `limits`: more on when an answer ends: `loop_guard`, `retry`, and `interrupted`, which is called between tokens.
    """

    schema: Mapping[str, Any] | str
    grammar: str
    max_tokens: int
    max_seconds: float
    stop: str | Sequence[str]
    sampling: Sampling
    limits: Limits


@dataclass(frozen=True, slots=True)
class AnswerOptions:
    """`asked` holds sampling options by name, the seed among them; what is absent is the model's recipe's choice."""

    asked: Mapping[str, float] = field(default_factory=dict)
    limits: Limits = field(default_factory=Limits)
    structure: Structure | None = None

    @classmethod
    def of(cls, arguments: AnswerArguments) -> AnswerOptions:
        """The options that keyword arguments stand for.

        Raises:
            UsageError: there is no such option, a value is out of range, or the schema or grammar is wrong.
        """
        given: dict[str, Any] = {name: value for name, value in arguments.items() if value is not None}
        schema, grammar = given.pop("schema", None), given.pop("grammar", None)
        limits, sampling = given.pop("limits", Limits()), given.pop("sampling", None)
        bounds: dict[str, Any] = {name: given.pop(name) for name in ("max_tokens", "max_seconds") if name in given}
        if "stop" in given:
            bounds["stop"] = check_stops(given.pop("stop"))
        base = {name: getattr(sampling, name) for name in ASKABLE} if sampling is not None else {}
        if not base.get("seed"):
            base.pop("seed", None)  # 0 is what a Sampling has by default
        asked = {name: check_option(name, value) for name, value in {**base, **given}.items()}
        structure = None
        if sampling is not None and sampling.grammar and schema is None and grammar is None:
            grammar = sampling.grammar
        if schema is not None or grammar is not None:
            from edgellm.run.structure import choose_structure

            structure = choose_structure(schema, grammar)
        return cls(asked, replace(limits, **bounds), structure)

    def sampling(self, recipe: Recipe | None) -> Sampling:
        """What was asked for, else what the recipe recommends, else edgellm's defaults; without a seed a random one.

        Raises:
            UsageError: there is no such option, or its value is out of range.
        """
        recommended = recipe.sampling.model_dump(exclude_none=True) if recipe else {}
        chosen = {"seed": RANDOM_SEED, **recommended, **self.asked}
        if chosen["seed"] == RANDOM_SEED:
            chosen["seed"] = secrets.randbits(31)
        sampling = Sampling(**{name: check_option(name, value) for name, value in chosen.items()})  # type: ignore[arg-type]
        return self.structure.constrain(sampling) if self.structure else sampling


def check_stops(stop: str | Sequence[str]) -> tuple[str, ...]:
    """Stop texts as they apply, each once.

    Raises:
        UsageError: one is empty, too long or no text, or there are too many.
    """
    stops = (stop,) if isinstance(stop, str) else tuple(dict.fromkeys(stop))
    if len(stops) > MOST_STOPS:
        raise UsageError(f"there are {len(stops)} stop texts", why=f"at most {MOST_STOPS} are possible")
    for each in stops:
        if not isinstance(each, str) or not 0 < len(each) <= LONGEST_STOP:
            raise UsageError(f"{each!r:.60} is no stop text", why=f"it has 1 to {LONGEST_STOP} characters")
    return stops


def check_option(name: str, value: float) -> float:
    """The value of a sampling option in its own type.

    Raises:
        UsageError: there is no such option, or the value is not a number in its range.
    """
    option = ASKABLE.get(name)
    if option is None:
        guess = did_you_mean(name, ASKABLE)
        why = f"did you mean {guess}?" if guess else f"there are {', '.join(ASKABLE)}"
        raise UsageError(f"there is no sampling option {name!r}", why=why)
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not is_number or not option.least <= value <= option.most or value != option.kind(value):
        wanted = "a whole number" if option.kind is int else "a number"
        raise UsageError(f"{name} is {wanted} from {option.least:g} to {option.most:g}, not {value!r}")
    return option.kind(value)
