"""Tells from the first tokens of a model whether it answers nonsense, as a damaged or wrongly converted file does.

    tests = SelfTests(settings.self_tests, stamp)
    known = tests.known(path)
    doubt = known.doubt if known else tests.judge(path, first_tokens(model, context), n_vocab, n_params)

A model continues a row of numbers by four tokens, which takes as long as the first word of an answer. The verdict is
remembered until the file or the engine changes. It says what was seen, and no more: a model may pass and be poor.
NaN is an error at once, here as everywhere (`engine.finite`), and is not remembered.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgellm.engine.base import Context, Model
from edgellm.files import locked, write_atomically

PROMPT = "1, 2, 3, 4, 5, 6,"
N_TOKENS = 4
# A smaller model is a toy or a test: it may well know nothing.
LEAST_PARAMS = 10_000_000
# Every model of that size is surer than this of at least one token of such a row.
LEAST_PROBABILITY = 0.01


@dataclass(frozen=True, slots=True)
class LikeliestToken:
    """The likeliest next token, and its probability at temperature 1."""

    id: int
    probability: float


@dataclass(frozen=True, slots=True)
class SelfTestVerdict:
    """What an earlier test found; `doubt` is None where it found nothing wrong."""

    doubt: str | None


def first_tokens(model: Model, context: Context) -> list[LikeliestToken]:
    """The likeliest continuation of `PROMPT`; the context is empty afterwards. Nothing where it is too short for it.

    Raises:
        NotFinite: the model computes no numbers.
    """
    import numpy as np

    prompt = model.tokenize(PROMPT)
    found: list[LikeliestToken] = []
    if len(prompt) + N_TOKENS > context.n_ctx:
        return found
    context.keep(0)
    for start in range(0, len(prompt), context.n_batch):
        context.decode(prompt[start : start + context.n_batch])
    while len(found) < N_TOKENS:
        if found:
            context.decode([found[-1].id])
        row = context.logits().astype(np.float64)
        best = int(row.argmax())
        found.append(LikeliestToken(best, 1 / float(np.exp(row - row[best]).sum())))
    context.keep(0)
    return found


def doubt_about(tokens: Sequence[LikeliestToken], n_vocab: int, n_params: int) -> str | None:
    """What makes these tokens nonsense; None if nothing does."""
    if not tokens:
        return None
    if all(abs(token.probability * n_vocab - 1) < 1e-3 for token in tokens):
        return "every token is equally likely"
    if n_params < LEAST_PARAMS:
        return None
    if all(token.probability < LEAST_PROBABILITY for token in tokens):
        return f"it is not even {LEAST_PROBABILITY:.0%} sure of any token"
    if len(tokens) == N_TOKENS and len({token.id for token in tokens}) == 1:
        return "it repeats one token"
    return None


class SelfTests:
    """The verdicts of earlier tests, in one small file; if that cannot be written, each run tests again."""

    def __init__(self, path: Path, stamp: str) -> None:
        """`stamp` names the engine: another one may compute other tokens."""
        self._path = path
        self._stamp = stamp

    def known(self, model: Path) -> SelfTestVerdict | None:
        """The verdict on a file as it is now; None if it was not tested."""
        entry = self._load().get(str(model.absolute()))
        if not isinstance(entry, dict) or entry.get("key") != self._key(model):
            return None
        doubt = entry.get("doubt")
        return SelfTestVerdict(doubt if isinstance(doubt, str) else None)

    def judge(self, model: Path, tokens: Sequence[LikeliestToken], n_vocab: int, n_params: int) -> str | None:
        """What is wrong with the first tokens of a model file; None if nothing is. Remembered, if there are any."""
        doubt = doubt_about(tokens, n_vocab, n_params)
        if not tokens:
            return doubt
        with contextlib.suppress(OSError), locked(self._path.with_name(f".{self._path.name}.lock")):
            entries = {name: entry for name, entry in self._load().items() if Path(name).exists()}
            entries[str(model.absolute())] = {"key": self._key(model), "doubt": doubt}
            write_atomically(self._path, json.dumps(entries, indent=2).encode())
        return doubt

    def _key(self, model: Path) -> str:
        status = model.stat()
        return f"{status.st_size}-{status.st_mtime_ns}-{self._stamp}"

    def _load(self) -> dict[str, object]:
        try:
            data = json.loads(self._path.read_bytes())
        except (OSError, ValueError, RecursionError):
            return {}
        return data if isinstance(data, dict) else {}
