"""A whole batch: the rows of a file through the slots of a model, into a file with an answer for each, in order.

    with Journal(output) as journal:
        for tally in Batch(source, found, shard, journal, model, options).run():
            print(tally.done, tally.completion_tokens)

It takes rows as slots become free and keeps only those in memory that are being answered, or wait for an earlier one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from edgellm.engine.base import Embedder, Model, Sampling
from edgellm.errors import AnswerMismatch, BadRequest, EdgellmError
from edgellm.machine import memory
from edgellm.machine.energy import EnergyMeter
from edgellm.machine.process import cpu_seconds
from edgellm.models.memory import RunPlan
from edgellm.run.batch_journal import Journal
from edgellm.run.batch_lines import MAX_LINE, Line, Shard, Survey, read_lines
from edgellm.run.batch_requests import Embedding, Generation, Request, parse_line
from edgellm.run.batch_responses import answered, chat_completion, embedding_list, refused, text_completion
from edgellm.run.batching import Batcher, Job, Result
from edgellm.run.chat_template import ChatTemplate, Message
from edgellm.run.generation import check_length
from edgellm.run.structure import Structure, from_schema

# How far the answers may run ahead of one that takes long: they wait in memory and in the journal.
WINDOW = 1024
# Rows that are quickly done with, wrong ones for example, are told of after so many seconds.
LONGEST_SILENCE = 0.5
# Texts that are turned into vectors in one computation.
EMBEDDED_TOGETHER = 64


@dataclass(frozen=True, slots=True)
class BatchOptions:
    """How rows are answered that do not say it themselves.

    `name` is the model's, for the output; `names` are those by which requests may call it; `bindings` is where the
    engine's Python package lies; `structure` is for rows without a response_format.
    """

    name: str
    names: Collection[str]
    sampling: Sampling
    bindings: Path
    max_tokens: int = -1
    system: str | None = None
    chat_template: str = ""
    raw: bool = False
    retries: int = 0
    loop_guard: bool = True
    structure: Structure | None = None


@dataclass(slots=True)
class Tally:
    """How a batch stands. Rows include those of earlier runs (`resumed`), everything else is only this one's.

    `cpu_seconds` is the CPU time of this process, `energy_joules` what the processors used, None where nobody tells.
    """

    n_rows: int
    n_slots: int
    resumed: int = 0
    done: int = 0
    failed: int = 0
    busy: int = 0
    prompt_tokens: int = 0
    reused_tokens: int = 0
    completion_tokens: int = 0
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    energy_joules: float | None = None
    peak_resident_bytes: int = 0

    @property
    def cores_used(self) -> float:
        """CPU cores that were busy, on average."""
        return self.cpu_seconds / self.seconds if self.seconds > 0 else 0.0

    @property
    def rate(self) -> float:
        """Tokens generated per second, in all slots together."""
        return self.completion_tokens / self.seconds if self.seconds > 0 else 0.0

    @property
    def seconds_left(self) -> float | None:
        """At the pace so far; None before the first row."""
        answered = self.done - self.resumed
        return self.seconds / answered * (self.n_rows - self.done) if answered else None


@dataclass(slots=True)
class _Row:
    """A row that is being answered."""

    line: Line
    custom_id: str | None
    request: Generation
    job: Job
    structure: Structure | None
    attempts: int = 0


class Batch:
    """One run of a batch over a journal that knows what earlier ones did."""

    def __init__(
        self,
        source: Path,
        found: Survey,
        shard: Shard,
        journal: Journal,
        model: Model,
        plan: RunPlan,
        options: BatchOptions,
        *,
        guard: Callable[[], None] = lambda: None,
    ) -> None:
        self._source, self._found, self._shard = source, found, shard
        self._journal, self._model, self._plan, self._options = journal, model, plan, options
        self._guard = guard
        self._rows: dict[int, _Row] = {}
        self._template: ChatTemplate | None = None
        self._batcher: Batcher | None = None
        self._embedder: Embedder | None = None
        self.tally = Tally(shard.rows_of(found.n_rows), plan.n_slots)

    def run(self) -> Iterator[Tally]:
        """Answer all rows; the tally comes after every computation."""
        tally, began, cpu_began, energy = self.tally, time.perf_counter(), cpu_seconds(), EnergyMeter()
        tally.resumed = tally.done = self._journal.done
        tally.failed = self._journal.failed
        close = self._open()
        try:
            lines = self._unanswered()
            upcoming = next(lines, None)
            while upcoming or self._rows:
                until = time.perf_counter() + LONGEST_SILENCE
                while upcoming and self._has_room(upcoming[0]) and time.perf_counter() < until:
                    self._take(*upcoming)
                    upcoming = next(lines, None)
                if self._batcher is not None and self._rows:
                    for result in self._batcher.step():
                        self._answered(result)
                self._guard()
                tally.busy = len(self._rows)
                tally.done, tally.failed = self._journal.done, self._journal.failed
                tally.seconds = time.perf_counter() - began
                tally.cpu_seconds = cpu_seconds() - cpu_began
                energy.tick()
                yield tally
        finally:
            tally.energy_joules, tally.peak_resident_bytes = energy.joules(), memory.peak_resident()
            close()

    def _open(self) -> Callable[[], None]:
        """Make what computes: slots, or for an embedding model what makes vectors. Returns what closes it."""
        plan = self._plan
        if self._model.info.pooled:
            self._embedder = self._model.open_embedder(
                n_seq=EMBEDDED_TOGETHER, n_ctx=plan.n_ctx, n_threads=plan.n_threads
            )
            return self._embedder.close
        sequences = self._model.open_sequences(
            n_seq=plan.n_slots, n_ctx=plan.n_ctx, n_batch=plan.n_batch, n_threads=plan.n_threads,
            type_k=plan.kv_type, type_v=plan.kv_type,
        )  # fmt: skip
        self._batcher = Batcher(self._model, sequences)
        return sequences.close

    def _has_room(self, place: int) -> bool:
        """Whether a row can be begun now: there is a slot, and it is not too far ahead of one that takes long."""
        free = self._batcher is None or self._batcher.busy < self._batcher.n_slots
        return free and place - self._journal.done < WINDOW

    def _unanswered(self) -> Iterator[tuple[int, Line]]:
        """The rows of this shard that are still to be answered, with their places, in order."""
        place = -1
        for line in read_lines(self._source):
            if not self._shard.has(line.row):
                # It may have the custom_id of a row of ours.
                custom_id, _ = self._parse(line)
                if custom_id is not None:
                    self._journal.claim(custom_id, line.number)
                continue
            place += 1
            if not self._journal.has(place):
                yield place, line

    def _parse(self, line: Line) -> tuple[str | None, Request | BadRequest]:
        if line.data is None:
            return None, BadRequest("the line is too long", why=f"the limit is {MAX_LINE >> 20} MiB")
        options = self._options
        return parse_line(line.data, jsonl=self._found.jsonl, models=options.names, raw=options.raw)

    def _take(self, place: int, line: Line) -> None:
        """Begin a row, or be done with it where nothing is to be generated."""
        custom_id, request = self._parse(line)
        try:
            if custom_id is not None and (first := self._journal.claim(custom_id, line.number)) != line.number:
                raise BadRequest("the custom_id is a duplicate", why=f"line {first} has it too")
            match request:
                case BadRequest():
                    raise request
                case Embedding():
                    body = self._embed(request)
                    self._journal.record(place, answered(line, custom_id, body))
                case Generation():
                    self._begin(place, line, custom_id, request)
        except EdgellmError as error:
            self._journal.record(place, refused(line, custom_id, error))

    def _begin(self, place: int, line: Line, custom_id: str | None, request: Generation) -> None:
        if self._batcher is None:
            raise BadRequest(f"{self._options.name} is an embedding model", why="it turns texts into vectors")
        options = self._options
        structure = from_schema(request.schema, options.bindings) if request.schema else options.structure
        # A seed for each row, and the same when the batch goes on.
        seeded = replace(options.sampling, seed=(options.sampling.seed + line.row) % 2**32)
        sampling = replace(seeded, **request.sampling)
        if structure is not None:
            sampling = structure.constrain(sampling)
        prompt = self._prompt(request)
        check_length(len(prompt), self._plan.n_ctx)
        max_tokens = options.max_tokens if request.max_tokens is None else request.max_tokens
        retry = options.retries > 0
        job = Job(place, prompt, sampling, max_tokens, request.stop, options.loop_guard, retry)
        self._batcher.admit(job)
        self._rows[place] = _Row(line, custom_id, request, job, structure)

    def _prompt(self, request: Generation) -> list[int]:
        """The tokens of what comes before the answer."""
        if isinstance(request.prompt, tuple):
            self._check_tokens(request.prompt)
            return list(request.prompt)
        if not request.is_chat:
            return self._model.tokenize(request.prompt)
        messages = list(request.messages)
        if self._options.system is not None and messages[0]["role"] != "system":
            system: Message = {"role": "system", "content": self._options.system}
            messages.insert(0, system)
        return self._model.tokenize(self.template.render(messages), special=True)

    @property
    def template(self) -> ChatTemplate:
        """The model's chat template, compiled on first use."""
        if self._template is None:
            info = self._model.info
            source = info.chat_template or self._options.chat_template
            self._template = ChatTemplate(source, bos=info.bos, eos=info.eos)
        return self._template

    def _check_tokens(self, tokens: tuple[int, ...]) -> None:
        if (largest := max(tokens)) >= (n_vocab := self._model.info.n_vocab):
            raise BadRequest(f"{largest} is not a token of this model", why=f"it has {n_vocab:,}, counted from 0")

    def _answered(self, result: Result) -> None:
        """Write down an answer, or try again where another draw may help."""
        row = self._rows.pop(result.key)
        self.tally.prompt_tokens += result.prompt_tokens
        self.tally.reused_tokens += result.reused_tokens
        self.tally.completion_tokens += result.completion_tokens
        error = result.error
        if error is None and row.structure is not None:
            try:
                row.structure.check(result.text)
            except AnswerMismatch as mismatch:
                error = mismatch
        if error is not None and row.attempts < self._options.retries and row.job.sampling.temperature > 0:
            self._again(row)
            return
        if error is not None:
            line = refused(row.line, row.custom_id, error)
        else:
            complete = chat_completion if row.request.is_chat else text_completion
            body = complete(result, id_=row.line.id, name=self._options.name, created=int(time.time()))
            line = answered(row.line, row.custom_id, body)
        self._journal.record(result.key, line)

    def _again(self, row: _Row) -> None:
        """The same with another seed; its slot has just become free."""
        row.attempts += 1
        sampling = replace(row.job.sampling, seed=(row.job.sampling.seed + 1) % 2**32)
        row.job = replace(row.job, sampling=sampling)
        if self._batcher is None:
            return
        try:
            self._batcher.admit(row.job)
            self._rows[row.job.key] = row
        except EdgellmError as error:  # its grammar turned out to be too much
            self._journal.record(row.job.key, refused(row.line, row.custom_id, error))

    def _embed(self, request: Embedding) -> dict[str, Any]:
        if self._embedder is None:
            raise BadRequest(f"{self._options.name} is not an embedding model", why="it generates text")
        texts = []
        for given in request.inputs:
            if isinstance(given, tuple):
                self._check_tokens(given)
            tokens = self._model.tokenize_input(given) if isinstance(given, str) else list(given)
            if len(tokens) > self._embedder.n_ctx:
                why = f"the model reads {self._embedder.n_ctx:,} at most; edgellm never cuts a text silently"
                raise BadRequest(f"an input has {len(tokens):,} tokens", why=why)
            texts.append(tokens)
        vectors = np.concatenate([self._embedder.embed(group) for group in _groups(texts, self._embedder)])
        self.tally.prompt_tokens += sum(map(len, texts))
        return embedding_list(vectors, texts, name=self._options.name, as_base64=request.base64)


def _groups(texts: list[list[int]], embedder: Embedder) -> Iterator[list[list[int]]]:
    """As many texts at once as an embedder takes."""
    group: list[list[int]] = []
    for tokens in texts:
        if len(group) == embedder.n_seq or sum(map(len, group)) + len(tokens) > embedder.n_ctx:
            yield group
            group = []
        group.append(tokens)
    yield group
