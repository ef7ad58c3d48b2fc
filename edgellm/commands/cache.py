"""`edgellm cache ls|show|rm|stats|check`: the stored answers, and whether two questions would have one."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from edgellm.answers import QuestionEmbedder
from edgellm.cache.answer_cache import age_text
from edgellm.cache.decision import DEFAULT_ERROR, CacheDecision, decide, wants_vector
from edgellm.cache.store import AnswerStore, discard
from edgellm.errors import CorruptFile, FileAccessError, UsageError
from edgellm.files import write_atomically
from edgellm.progress import Progress
from edgellm.ui import options
from edgellm.ui.console import note, print_fields, print_line, print_table
from edgellm.ui.options import JsonOutput, QuietOutput
from edgellm.ui.progress import progress
from edgellm.ui.render import render
from edgellm.units import size
from edgellm.workspace import workspace

MOST_PAIRS_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class ListedAnswer:
    """A stored answer in a list: its age in seconds, how often it was given, its size in bytes."""

    id: int
    question: str
    model: str
    age: float
    hits: int
    size: int


@dataclass(frozen=True, slots=True)
class WholeStoredAnswer:
    """A stored answer with what is known of it: how often it was right when the model was asked again."""

    id: int
    question: str
    text: str
    model: str
    age: float
    hits: int
    size: int
    n_right: int
    n_wrong: int


@dataclass(frozen=True, slots=True)
class AnswerStats:
    """The cache as a whole: what it holds, and what it did since its file was made."""

    path: Path
    n_answers: int
    size: int
    n_exact: int
    n_similar: int
    n_asked: int

    @property
    def hit_rate(self) -> float | None:
        """The part of all questions that were answered from the cache; null before the first."""
        hits = self.n_exact + self.n_similar
        return hits / (hits + self.n_asked) if hits + self.n_asked else None


@dataclass(frozen=True, slots=True)
class RemovedAnswers:
    """How many answers were removed."""

    n_answers: int


@dataclass(frozen=True, slots=True)
class CheckedPair:
    """Whether two questions would have one answer; `id` and `same` are those of a line of a file."""

    id: str | None
    hit: bool
    similarity: float | None
    reason: str
    same: bool | None = None


def _store() -> AnswerStore:
    return AnswerStore.open(workspace().settings.answers)


def list_answers(
    limit: Annotated[int, typer.Option("--limit", "-n", min=-1, help="List at most this many; -1: all.")] = -1,
    *,
    output: JsonOutput,
) -> list[ListedAnswer]:
    """List the stored answers, the latest used first.

    Example: edgellm cache ls -n 10
    """
    with _store() as store:
        now = time.time()
        found = [
            ListedAnswer(each.id, each.question, each.model, now - each.created, each.hits, each.size)
            for each in store.entries(limit)
        ]
    return render(output, found, _print_list)


def _print_list(found: list[ListedAnswer]) -> None:
    if not found:
        note("no answers yet; edgellm docs ask keeps them, and serve and batch with --answer-cache")
        return
    rows = [
        (str(each.id), age_text(each.age), str(each.hits), each.model, " ".join(each.question.split()))
        for each in found
    ]
    print_table(("ID", "AGE", "HITS", "MODEL", "QUESTION"), rows, right=(0, 2), cut=True)


def show(
    entry: Annotated[int, typer.Argument(help="The id of an answer.")], *, output: JsonOutput
) -> WholeStoredAnswer:
    """Show a stored answer.

    Example: edgellm cache show 12
    """
    with _store() as store:
        found, known = store.get(entry), store.observations(entry)
    n_right = sum(right for _, right in known)
    whole = WholeStoredAnswer(
        found.id, found.question, found.text, found.model, time.time() - found.created, found.hits, found.size,
        n_right, len(known) - n_right,
    )  # fmt: skip
    return render(output, whole, _print_whole)


def _print_whole(found: WholeStoredAnswer) -> None:
    print_fields([
        ("question", found.question), ("model", found.model), ("age", age_text(found.age)), ("given", f"{found.hits}x"),
        ("checked", f"{found.n_right} times right, {found.n_wrong} times wrong"),
    ])  # fmt: skip
    print_line("")
    print_line(found.text)


def rm(
    entries: Annotated[list[int] | None, typer.Argument(help="Ids of answers.")] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Remove all answers.", envvar="EDGELLM_CACHE_RM_ALL")
    ] = False,
    *,
    output: JsonOutput,
) -> RemovedAnswers:
    """Remove stored answers for good. Does not ask.

    \b
    Examples: edgellm cache rm 12 13
              edgellm cache rm --all
    """
    if bool(entries) == everything:
        raise UsageError("which answers?", hint="edgellm cache rm ID, or --all")
    removed = _remove_all() if everything else _remove(entries or [])
    return render(output, removed, lambda it: note(f"removed: {it.n_answers:,} answers"))


def _remove(entries: list[int]) -> RemovedAnswers:
    with _store() as store:
        ids = [store.get(entry).id for entry in dict.fromkeys(entries)]
        store.remove(ids)
    return RemovedAnswers(len(ids))


def _remove_all() -> RemovedAnswers:
    """Empty the file; one that is damaged is deleted."""
    try:
        with _store() as store:
            ids = [each.id for each in store.entries()]
            store.clear()
        return RemovedAnswers(len(ids))
    except CorruptFile:
        discard(workspace().settings.answers)
        return RemovedAnswers(0)


def stats(*, output: JsonOutput) -> AnswerStats:
    """Show how many answers are stored, and how many questions they answered.

    Example: edgellm cache stats
    """
    with _store() as store:
        entries, counts = store.entries(), store.counts()
        found = AnswerStats(
            store.path, len(entries), sum(each.size for each in entries), counts["exact"], counts["similar"],
            counts["asked"],
        )  # fmt: skip
    return render(output, found, _print_stats)


def _print_stats(found: AnswerStats) -> None:
    rate = "-" if found.hit_rate is None else f"{found.hit_rate:.0%}"
    print_fields([
        ("answers", f"{found.n_answers:,}  ({size(found.size)})"),
        ("from the cache", f"{found.n_exact:,} the same question, {found.n_similar:,} a similar one"),
        ("asked the model", f"{found.n_asked:,}"), ("hit rate", rate), ("file", str(found.path)),
    ])  # fmt: skip


def check(
    questions: Annotated[list[str] | None, typer.Argument(metavar="[A B]", help="Two questions.")] = None,
    pairs: Annotated[
        Path | None, typer.Option("--pairs", help='A file of pairs, {"id", "a", "b"} a line; "same" counts mistakes.')
    ] = None,
    file: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write a line of JSON for each pair to this file.")
    ] = None,
    error: options.AnswerError = DEFAULT_ERROR,
    offline: options.Offline = False,
    *,
    shown: QuietOutput,
) -> list[CheckedPair]:
    """Say whether two questions would have one answer, and why.

    \b
    Examples: edgellm cache check "How do I delete my account?" "Steps to remove my account"
              edgellm cache check --pairs pairs.jsonl -o decisions.jsonl
    """
    if (pairs is None) == (len(questions or ()) != 2):
        raise UsageError("two questions, or --pairs FILE", hint='edgellm cache check "what is it?" "what is that?"')
    asked = _read_pairs(pairs) if pairs else [{"a": (questions or [])[0], "b": (questions or [])[1]}]
    embedder = QuestionEmbedder(workspace(offline=offline))
    with contextlib.closing(embedder), progress(quiet=shown.silent) as report:
        found = []
        for done, pair in enumerate(asked, 1):
            found.append(_checked(pair, embedder, error))
            report(Progress("comparing", done, len(asked), "pairs"))
    if file is not None:
        lines = [json.dumps({"id": each.id, "hit": each.hit, "similarity": each.similarity, "reason": each.reason},
                            ensure_ascii=False) for each in found]  # fmt: skip
        write_atomically(file, "".join(f"{line}\n" for line in lines).encode(errors="replace"))
    return render(shown, found, _print_checked)


def _checked(pair: dict[str, Any], embedder: QuestionEmbedder, error: float) -> CheckedPair:
    a, b = pair["a"], pair["b"]
    cosine = float(embedder(a) @ embedder(b)) if wants_vector(a) and wants_vector(b) else None
    decision: CacheDecision = decide(a, b, cosine, error=error)
    same = pair.get("same")
    name = pair.get("id")
    return CheckedPair(
        None if name is None else str(name), decision.hit, decision.similarity, decision.reason,
        same if isinstance(same, bool) else None,
    )  # fmt: skip


def _read_pairs(path: Path) -> list[dict[str, Any]]:
    """The pairs of a file; what is wrong in it is refused by its line."""
    try:
        if path.stat().st_size > MOST_PAIRS_BYTES:
            raise UsageError(f"{path} is too large", why=f"the limit is {MOST_PAIRS_BYTES >> 20} MiB")
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except OSError as failure:
        raise FileAccessError(f"{path} cannot be read", why=failure.strerror or str(failure)) from failure
    except UnicodeDecodeError as failure:
        raise UsageError(f"{path} is no text in UTF-8", why=str(failure)) from failure
    return [_pair(path, number, line) for number, line in enumerate(lines, 1) if line.strip()]


def _pair(path: Path, number: int, line: str) -> dict[str, Any]:
    try:
        pair = json.loads(line)
    except (ValueError, RecursionError) as failure:
        raise UsageError(f"{path}, line {number}: it is not JSON", why=str(failure)) from failure
    if not isinstance(pair, dict) or not all(isinstance(pair.get(name), str) for name in ("a", "b")):
        raise UsageError(f"{path}, line {number}: a pair is an object with texts a and b")
    return pair


def _print_checked(found: list[CheckedPair]) -> None:
    if len(found) == 1 and found[0].id is None:
        alike = "" if found[0].similarity is None else f"  ({found[0].similarity:.0%} alike)"
        print_line(f"{'hit' if found[0].hit else 'miss'}: {found[0].reason}{alike}")
        return
    for line in _summary(found):
        print_line(line)


def _summary(found: list[CheckedPair]) -> Iterator[str]:
    yield f"{len(found):,} pairs: {sum(each.hit for each in found):,} hits"
    for same, name in ((True, "of the same meaning"), (False, "of another meaning")):
        group = [each.hit for each in found if each.same is same]
        if group:
            yield f"{sum(group):,} hits in {len(group):,} pairs {name} ({sum(group) / len(group):.1%})"
