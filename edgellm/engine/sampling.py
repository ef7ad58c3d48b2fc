"""How the next token is drawn: the options that every front end offers, and their values for one answer.

Sampling(temperature=0, seed=7)
OPTIONS["top_k"].flag  ->  "--top-k"

A new option is a field of `Sampling` and of `SamplingArguments` here, and a step in `engine/llama_sampler.py`. The
command line, `/set`, recipes, batches and the server read it from this table.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, TypedDict

MOST = 2**31 - 1
# 2**32 - 1 itself means a random seed to llama.cpp.
N_SEEDS = 2**32 - 1
# What llama.cpp, Ollama and their clients call a random seed.
RANDOM_SEED = -1


def shifted(seed: int, steps: int) -> int:
    """Another seed, the same one each time: for the next attempt, or for the row of that number."""
    return (seed + steps) % N_SEEDS


@dataclass(frozen=True, slots=True)
class SamplingOption:
    """One number that shapes how tokens are drawn; it lies between `least` and `most`, both included.

    `flag` is its name on the command line, empty for what only recipes and requests can set.
    """

    name: str
    default: float
    least: float
    most: float
    help: str
    flag: str = ""

    @property
    def kind(self) -> type[int] | type[float]:
        """int or float."""
        return type(self.default)

    @property
    def word(self) -> str:
        """The flag as a word: the name in `/set` and, in capitals, in `EDGELLM_<NAME>`; empty without a flag."""
        return self.flag.removeprefix("--").replace("-", "_")

    def parse(self, text: str) -> float:
        """The value that a text stands for; `ValueError` unless it is a number from `least` to `most`."""
        value: float = self.kind(text)
        if not self.least <= value <= self.most:
            raise ValueError(f"{self.word or self.name} is a number from {self.least:g} to {self.most:g}, not {text!r}")
        return value


def _option(default: float, least: float, most: float, help: str, flag: str = "") -> Any:  # noqa: A002
    return field(
        default=default, metadata={"default": default, "least": least, "most": most, "help": help, "flag": flag}
    )


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the next token is drawn; temperature 0 is greedy. The steps come in llama.cpp's order: penalties, DRY,
    top-n-sigma, top-k, typical-p, top-p, min-p, XTC, temperature.

    The three penalties look at the last `repeat_last_n` tokens. DRY ("don't repeat yourself") looks at all tokens and
    lowers whatever would continue a sequence that was there before: `dry_multiplier` x `dry_base` to the power of
    what it is longer than `dry_allowed_length` tokens; a multiplier of 0 is off. XTC ("exclude top choices"), with
    probability `xtc_probability`, drops all tokens above `xtc_threshold` but the least likely of them.

    `grammar` is GBNF whose start rule is `root`: only what it permits is drawn, and the answer ends when it does; empty
    for none. `grammar_is_harmless` says that no step through it takes long; other grammars run in a child process,
    which can be killed.
    """

    temperature: float = _option(0.8, 0, 5, "Temperature; 0 is greedy.", "--temp")
    top_n_sigma: float = _option(-1.0, -1, 100, "Keep logits within N deviations of the best.", "--top-n-sigma")
    top_k: int = _option(40, 0, MOST, "Keep the K likeliest tokens; 0: all.", "--top-k")
    top_p: float = _option(0.95, 0, 1, "Keep this much probability.", "--top-p")
    min_p: float = _option(0.05, 0, 1, "Drop tokens less likely than this share of the likeliest.", "--min-p")
    typical_p: float = _option(1.0, 0, 1, "Keep this much of the typical tokens; 1: all.", "--typical-p")
    xtc_probability: float = _option(
        0.0, 0, 1, "How often to drop the likeliest tokens (XTC); 0: never.", "--xtc-probability"
    )
    xtc_threshold: float = _option(0.1, 0, 1, "XTC drops tokens above this probability but one.", "--xtc-threshold")
    repeat_penalty: float = _option(1.0, 0.01, 5, "Penalty on recent tokens; 1: none.", "--repeat-penalty")
    frequency_penalty: float = _option(0.0, -2, 2, "Penalty for each time a recent token came; 0: none.")
    presence_penalty: float = _option(0.0, -2, 2, "Penalty on tokens that came recently; 0: none.")
    repeat_last_n: int = _option(64, 0, MOST, "How many recent tokens the penalties look at.")
    dry_multiplier: float = _option(0.0, 0, 100, "Strength of DRY; 0: off.")
    dry_base: float = _option(1.75, 1, 100, "How fast DRY grows with the length of a repetition.")
    dry_allowed_length: int = _option(2, 0, MOST, "Repetitions up to this length are free of DRY.")
    grammar: str = ""
    grammar_is_harmless: bool = False
    seed: int = 0


OPTIONS: Mapping[str, SamplingOption] = {
    each.name: SamplingOption(each.name, **each.metadata) for each in fields(Sampling) if each.metadata
}


class SamplingArguments(TypedDict, total=False):
    """The same options as keyword arguments of the Python API; a test compares the two."""

    temperature: float
    top_n_sigma: float
    top_k: int
    top_p: float
    min_p: float
    typical_p: float
    xtc_probability: float
    xtc_threshold: float
    repeat_penalty: float
    frequency_penalty: float
    presence_penalty: float
    repeat_last_n: int
    dry_multiplier: float
    dry_base: float
    dry_allowed_length: int
    seed: int
