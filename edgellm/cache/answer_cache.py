"""The answer cache: look a question up before a model is asked, and keep what the model said.

    cache = AnswerCache(store, embed=embed, embedder="minilm")
    looked = cache.look(scope, question)
    answer = looked.answer or ...                      # ask the model, then:
    cache.keep(looked, {"text": answer}, text=answer, model="smollm2")

A question is found as it stands, after normalising; then the nearest ones are compared (`decision`). When the model is
asked although an entry was comparable, its answer shows whether the stored one was right, and the entry learns.
"""

from __future__ import annotations

import hashlib
import json
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from edgellm.cache.agreement import agree
from edgellm.cache.decision import DEFAULT_ERROR, CacheDecision, decide, wants_vector
from edgellm.cache.store import AnswerStore, StoredAnswer
from edgellm.errors import EdgellmError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Vector = npt.NDArray[np.float32]
    Embed = Callable[[str], Vector]

Result = TypeVar("Result")
MOST_QUESTION = 2000


@dataclass(frozen=True, slots=True)
class FromCache:
    """Where an answer comes from: `similarity` of the questions from 0 to 1, `age` in seconds, the stored question."""

    similarity: float
    age: float
    question: str

    def __str__(self) -> str:
        return f"from the cache: {self.similarity:.0%} alike, {age_text(self.age)} old"

    def header(self) -> str:
        """The value of the header `X-Edgellm-Cache`."""
        return f"hit; similarity={self.similarity:.2f}; age={self.age:.0f}"

    def as_field(self) -> dict[str, Any]:
        """For JSON."""
        return {"similarity": round(self.similarity, 4), "age": round(self.age, 1), "question": self.question}


@dataclass(frozen=True, slots=True)
class Looked:
    """What was found: a stored `entry` whose answer is right, or none and perhaps one that was `near`."""

    scope: str
    question: str
    entry: StoredAnswer | None = None
    origin: FromCache | None = None
    near: tuple[StoredAnswer, CacheDecision] | None = None
    vector: Vector | None = None

    @property
    def answer(self) -> dict[str, Any] | None:
        """The stored answer."""
        return self.entry.answer if self.entry else None


class AnswerCache:
    """Questions and answers of one store; `error` is the part of all answers that may be wrong.

    If its file cannot be used, `on_failure` hears it once, nothing is found, and nothing is kept.
    """

    def __init__(
        self,
        store: AnswerStore,
        *,
        embed: Embed | None = None,
        embedder: str = "",
        error: float = DEFAULT_ERROR,
        on_failure: Callable[[EdgellmError], None] = lambda _: None,
        draw: Callable[[], float] = random.random,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.store, self.error = store, error
        self._embed, self._embedder, self._draw, self._clock = embed, embedder, draw, clock
        self._on_failure, self._has_failed = on_failure, False

    def look(self, scope: str, question: str) -> Looked:
        """Look a question up."""
        return self._forgiving(lambda: self._look(scope, question), Looked(scope, question))

    def _look(self, scope: str, question: str) -> Looked:
        looked = self.exact(scope, question)
        if looked.entry is not None or not self.compares(question):
            return looked
        vector = self._embed(question) if self._embed and self.needs_vector(question) else None
        return self.near(scope, question, vector)

    def exact(self, scope: str, question: str) -> Looked:
        """Look for the same question only."""
        return self._forgiving(lambda: self._exact(scope, question), Looked(scope, question))

    def _exact(self, scope: str, question: str) -> Looked:
        entry = self.store.exact(scope, question)
        if entry is None:
            return Looked(scope, question)
        return self._hit(Looked(scope, question), entry, 1.0, "exact")

    def compares(self, question: str) -> bool:
        """Whether a question may be compared with others: one that is no long text."""
        return 0 < len(question) <= MOST_QUESTION

    def needs_vector(self, question: str) -> bool:
        """Whether a vector of the question is of use, now or for later questions."""
        return self.compares(question) and wants_vector(question)

    def near(self, scope: str, question: str, vector: Vector | None) -> Looked:
        """Look for a similar question; `vector` is the question's, of length 1."""
        return self._forgiving(lambda: self._near(scope, question, vector), Looked(scope, question))

    def _near(self, scope: str, question: str, vector: Vector | None) -> Looked:
        draw = self._draw()
        comparable = []
        for entry, cosine in self.store.similar(scope, vector, self._embedder):
            known = self.store.observations(entry.id)
            decision = decide(question, entry.question, cosine, known, error=self.error, draw=draw)
            if decision.comparable:
                comparable.append((entry, decision))
        if not comparable:
            return Looked(scope, question, vector=vector)
        # One entry decides, as the error bound is for one comparison with each question.
        entry, decision = max(comparable, key=lambda each: each[1].similarity or 0.0)
        if decision.hit:
            return self._hit(Looked(scope, question, vector=vector), entry, decision.similarity or 0.0, "similar")
        return Looked(scope, question, near=(entry, decision), vector=vector)

    def keep(self, looked: Looked, answer: Mapping[str, Any], *, text: str, model: str) -> None:
        """Keep what the model answered; an entry that was near learns from it."""
        self._forgiving(lambda: self._keep(looked, answer, text=text, model=model), None)

    def _keep(self, looked: Looked, answer: Mapping[str, Any], *, text: str, model: str) -> None:
        if looked.near is not None:
            entry, decision = looked.near
            if decision.similarity is not None:
                self.store.observe(entry.id, decision.similarity, right=agree(text, entry.text))
        self.store.count("asked")
        self.store.put(
            looked.scope, looked.question, dict(answer), text=text, model=model, embedder=self._embedder,
            vector=looked.vector,
        )  # fmt: skip

    def _forgiving(self, work: Callable[[], Result], otherwise: Result) -> Result:
        """The result of some work, or another one if the file cannot be used."""
        try:
            return work()
        except EdgellmError as error:
            if not self._has_failed:
                self._on_failure(error)
            self._has_failed = True
            return otherwise

    def _hit(self, looked: Looked, entry: StoredAnswer, similarity: float, how: str) -> Looked:
        self.store.used(entry.id)
        self.store.count(how)
        origin = FromCache(similarity, max(0.0, self._clock() - entry.created), entry.question)
        return Looked(looked.scope, looked.question, entry, origin, vector=looked.vector)


def key(**parts: Any) -> str:
    """The scope of an answer: a hash of everything that it depends on besides the question, as JSON values."""
    data = json.dumps(parts, sort_keys=True, ensure_ascii=True, default=str)
    return hashlib.sha256(data.encode()).hexdigest()


def age_text(seconds: float) -> str:
    """An age for people: 40 seconds, 2 minutes, 3 days."""
    for size, name in ((86_400, "day"), (3600, "hour"), (60, "minute")):
        if seconds >= size:
            count = int(seconds // size)
            return f"{count} {name}{'s' * (count != 1)}"
    return f"{int(seconds)} second{'s' * (int(seconds) != 1)}"
