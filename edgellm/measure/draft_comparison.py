"""Compares answers with drafts and without, prompt by prompt on a loaded model, and says what drafts gain.

    result = compare_drafts(model, speculation, ["quote", "chat"], max_tokens=128)
    result.workloads[0].ratio               # 1.6: so many times as fast with drafts

Both answers of a prompt follow one another from the same prompt in the cache, the plain and the drafted first in turns.
They are greedy and must be the same to the byte.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import median

from edgellm.engine.sampling import Sampling
from edgellm.errors import EngineError
from edgellm.measure.workloads import N_PROMPTS, WorkloadPrompt, workload
from edgellm.progress import UNOBSERVED, Observer, Progress
from edgellm.run.generation import Limits
from edgellm.run.loader import LoadedModel
from edgellm.run.session import Session
from edgellm.run.speculation import Speculation
from edgellm.run.structure import from_schema
from edgellm.run.telemetry import Meter, Stats

# The shortest answer whose own ratio says something.
LONG_ANSWER = 100


@dataclass(frozen=True, slots=True)
class DraftedAnswer:
    """An answer of `tokens` tokens: seconds after its first token without and with drafts, and its drafts."""

    tokens: int
    plain_seconds: float
    drafted_seconds: float
    drafted_tokens: int
    accepted_tokens: int

    @property
    def ratio(self) -> float:
        """How many times as fast it was with drafts."""
        return self.plain_seconds / self.drafted_seconds if self.drafted_seconds > 0 else 1.0


@dataclass(frozen=True, slots=True)
class WorkloadResult:
    """The answers of a workload. `ratio` is over all of them, `median` and `lowest` are of single answers.

    `lowest` looks at answers of over 100 tokens, or at all if there is none.
    """

    workload: str
    answers: tuple[DraftedAnswer, ...]
    ratio: float
    median: float
    lowest: float
    plain_rate: float
    tokens_per_pass: float
    acceptance: float

    @classmethod
    def of(cls, name: str, answers: Sequence[DraftedAnswer]) -> WorkloadResult:
        """The result of these answers, of which there is at least one."""
        plain, drafted = (sum(getattr(each, f"{kind}_seconds") for each in answers) for kind in ("plain", "drafted"))
        tokens, accepted = sum(each.tokens for each in answers), sum(each.accepted_tokens for each in answers)
        n_drafted = sum(each.drafted_tokens for each in answers)
        ratios = [each.ratio for each in answers]
        long = [each.ratio for each in answers if each.tokens > LONG_ANSWER]
        return cls(
            name, tuple(answers), plain / drafted, median(ratios), min(long or ratios),
            sum(each.tokens - 1 for each in answers) / plain, tokens / (tokens - accepted),
            accepted / n_drafted if n_drafted else 0.0,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class DraftComparison:
    """What drafts gain on a model: the workloads, and the threads that computed."""

    model: str
    threads: int
    complete: bool
    workloads: tuple[WorkloadResult, ...]


def compare_drafts(
    model: LoadedModel,
    speculation: Speculation,
    names: Sequence[str],
    *,
    max_tokens: int,
    n_prompts: int = N_PROMPTS,
    watch: Observer = UNOBSERVED,
) -> DraftComparison:
    """Answer the first `n_prompts` prompts of each workload with drafts and without; the last one may be cut short.

    Raises:
        UsageError: there is no such workload.
        UnsupportedModel: the model has no chat template.
        EngineError: an answer differs.
    """
    todo = {name: workload(name)[:n_prompts] for name in names}
    session, done, results, n_done = Session(model), False, [], 0
    for name, prompts in todo.items():
        answers: list[DraftedAnswer] = []
        for number, prompt in enumerate(prompts):
            detail = f"{name}, prompt {number + 1} of {len(prompts)}"
            watch.report(Progress("measuring", n_done, sum(map(len, todo.values())), "prompts", detail))
            pair = _Pair(session, speculation, prompt, max_tokens, watch.interrupted)
            answer = pair.measure(plain_first=number % 2 == 0)
            if done := watch.interrupted():
                break
            answers += [answer] if answer.tokens > 1 else []
            n_done += 1
        if answers:
            results.append(WorkloadResult.of(name, answers))
        if done:
            break
    return DraftComparison(model.name, model.plan.n_threads, not done, tuple(results))


class _Pair:
    """A prompt, to be answered in both ways."""

    def __init__(
        self,
        session: Session,
        speculation: Speculation,
        prompt: WorkloadPrompt,
        max_tokens: int,
        interrupted: Callable[[], bool],
    ) -> None:
        self._session, self._speculation, self._prompt = session, speculation, prompt
        self._structure = from_schema(prompt.schema) if prompt.schema else None
        plain = Sampling(temperature=0)
        self._sampling = self._structure.constrain(plain) if self._structure else plain
        self._limits = Limits(max_tokens=max_tokens, interrupted=interrupted)

    def measure(self, *, plain_first: bool) -> DraftedAnswer:
        """Answer it twice, after the prompt was read once."""
        self._answer(None, replace(self._limits, max_tokens=1))
        order: list[Speculation | None] = [None, self._speculation]
        found = {way is None: self._answer(way, self._limits) for way in (order if plain_first else order[::-1])}
        (text, plain), (same, drafted) = found[True], found[False]
        if text != same and not self._limits.interrupted():
            raise EngineError("an answer with drafts differs from the one without", why=f"{same[:60]!r}, {text[:60]!r}")
        return DraftedAnswer(
            plain.completion_tokens, plain.decode_seconds, drafted.decode_seconds, drafted.drafted_tokens,
            drafted.accepted_tokens,
        )  # fmt: skip

    def _answer(self, way: Speculation | None, limits: Limits) -> tuple[str, Stats]:
        session, model = self._session, self._session.model
        session.last = None  # the prompt's tokens are those of its text, each time
        turn, before = session.turn(self._prompt.messages), model.speculation
        hint = self._structure.hint if self._structure else ""
        meter = Meter(n_ctx=model.context.n_ctx)
        model.speculation = way
        try:
            for _ in meter.watch(session.answer(turn, self._sampling, limits, hint)):
                pass
        finally:
            model.speculation = before
        return turn.text, meter.stats()
