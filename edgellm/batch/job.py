"""A whole batch: every row of a file is answered in the slots of a model; the answers go to a file in order.

    with Journal(output) as journal:
        scheduler = Scheduler(LocalSlots(model), options)
        for tally in Batch(source, survey(source), Shard(), journal, scheduler).run():
            print(tally.done, tally.completion_tokens)

It reads rows as slots become free. Only the rows in progress, and answers that wait for an earlier row, are in memory.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path

from edgellm.batch.cached import CachedRows, as_result
from edgellm.batch.journal import Journal
from edgellm.batch.lines import MAX_LINE, Line, Shard, Survey, read_lines
from edgellm.batch.requests import EmbeddingRow, Row, TextRow, parse_line
from edgellm.batch.responses import answered, cite, completion, refused
from edgellm.batch.scheduler import Finished, Scheduler
from edgellm.batch.tally import Tally
from edgellm.cache.answer_cache import FromCache, Looked
from edgellm.errors import AnswerMismatch, BadRequest, EdgellmError, NotServed
from edgellm.machine.energy import EnergyMeter
from edgellm.tools.record import CallRecord
from edgellm.wire.openai_answers import embedding_list

# How far answers may run ahead of a slow one: they wait in memory and in the journal.
WINDOW = 1024
# Report progress at least this often, in seconds, even while only wrong rows are skipped.
LONGEST_SILENCE = 0.5


class Batch:
    """One run of a batch; the journal knows what earlier runs did."""

    def __init__(
        self, source: Path, found: Survey, shard: Shard, journal: Journal, scheduler: Scheduler,
        cache: CachedRows | None = None, instead: Callable[[NotServed], Scheduler] | None = None,
    ) -> None:  # fmt: skip
        """`instead` goes on with the rows that are left after a server is lost; without it the batch ends then."""
        self._source, self._found, self._shard, self._cache = source, found, shard, cache
        self._journal, self._scheduler, self._instead = journal, scheduler, instead
        self._rows: dict[int, tuple[Line, str | None]] = {}
        self._looked: dict[int, Looked] = {}
        self.tally = Tally(shard.rows_of(found.n_rows), scheduler.slots.plan.n_slots, notes=journal.notes)

    def run(self) -> Iterator[Tally]:
        """Answer all rows; yields the tally after every computation.

        Raises:
            NotServed: the server that answers is gone; the journal has what it answered.
        """
        tally, energy = self.tally, EnergyMeter()
        tally.resumed = tally.done = self._journal.done
        tally.failed = self._journal.failed
        try:
            try:
                yield from self._answer(energy)
            except NotServed as error:
                if self._instead is None:
                    raise
                self._rows.clear()
                self._looked.clear()
                self._scheduler = self._instead(error)
                yield from self._answer(energy)
        finally:
            # The processors of a cluster are not those of this machine.
            tally.energy_joules = energy.joules() if tally.n_nodes is None else None

    def _answer(self, energy: EnergyMeter) -> Iterator[Tally]:
        """Answer the rows that are left with the scheduler of now."""
        tally, scheduler = self.tally, self._scheduler
        before = replace(tally)
        began = time.perf_counter()
        with scheduler:
            slots = scheduler.slots
            tally.server, tally.n_slots, cpu_began = slots.server, slots.plan.n_slots, slots.cpu_seconds
            try:
                lines = self._unanswered()
                upcoming = next(lines, None)
                while upcoming or self._rows:
                    until = time.perf_counter() + LONGEST_SILENCE
                    while upcoming and self._has_room(upcoming[0]) and time.perf_counter() < until:
                        self._take(*upcoming)
                        upcoming = next(lines, None)
                    for finished in scheduler.step():
                        self._answered(finished)
                    slots.guard()
                    self._count(before)
                    tally.seconds = before.seconds + time.perf_counter() - began
                    tally.cpu_seconds = before.cpu_seconds + slots.cpu_seconds - cpu_began
                    energy.tick()
                    yield tally
            finally:
                tally.peak_resident_bytes = max(before.peak_resident_bytes, slots.peak_resident_bytes)

    def _count(self, before: Tally) -> None:
        tally, scheduler = self.tally, self._scheduler
        tally.busy, tally.done, tally.failed = scheduler.busy, self._journal.done, self._journal.failed
        tally.n_nodes, tally.n_slots = scheduler.slots.n_nodes, scheduler.slots.plan.n_slots
        tally.prompt_tokens = before.prompt_tokens + scheduler.n_prompt
        tally.reused_tokens = before.reused_tokens + scheduler.n_reused
        tally.restored_tokens = before.restored_tokens + scheduler.slots.n_restored
        tally.completion_tokens = before.completion_tokens + scheduler.n_generated
        tally.drafted_tokens = before.drafted_tokens + scheduler.n_drafted
        tally.accepted_tokens = before.accepted_tokens + scheduler.n_accepted

    def _has_room(self, place: int) -> bool:
        """Whether a row can begin: a slot is free, and the row is not too far ahead of a slow one."""
        return self._scheduler.has_room and place - self._journal.done < WINDOW

    def _unanswered(self) -> Iterator[tuple[int, Line]]:
        """The unanswered rows of this shard with their places, in order."""
        place = -1
        for line in read_lines(self._source):
            if not self._shard.has(line.row):
                # A row of this shard may have the same custom_id.
                custom_id, _ = self._parse(line)
                if custom_id is not None:
                    self._journal.claim(custom_id, line.number)
                continue
            place += 1
            if not self._journal.has(place):
                yield place, line

    def _parse(self, line: Line) -> tuple[str | None, Row | BadRequest]:
        if line.data is None:
            return None, BadRequest("the line is too long", why=f"the limit is {MAX_LINE >> 20} MiB")
        options = self._scheduler.options
        return parse_line(line.data, jsonl=self._found.jsonl, models=options.names, raw=options.raw)

    def _take(self, place: int, line: Line) -> None:
        """Begin a row, or finish it at once if it generates nothing."""
        custom_id, request = self._parse(line)
        try:
            if custom_id is not None and (first := self._journal.claim(custom_id, line.number)) != line.number:
                raise BadRequest("the custom_id is a duplicate", why=f"line {first} has it too")
            match request:
                case BadRequest():
                    raise request
                case EmbeddingRow():
                    vectors, texts = self._scheduler.embed(request)
                    name, n_tokens = self._scheduler.options.name, sum(map(len, texts))
                    body = embedding_list(vectors, n_tokens=n_tokens, model=name, as_base64=request.base64)
                    self._journal.record(place, answered(line, custom_id, body))
                case TextRow():
                    self._rows[place] = line, custom_id
                    if not self._is_known(place, request):
                        self._scheduler.begin(place, line.row, request)
        except NotServed:
            raise
        except EdgellmError as error:
            self._rows.pop(place, None)
            self._looked.pop(place, None)
            self._journal.record(place, refused(line, custom_id, error))

    def _is_known(self, place: int, request: TextRow) -> bool:
        """Answer a row from the cache, if it is there."""
        looked = self._cache.look(request) if self._cache else None
        if looked is None:
            return False
        if looked.answer is None or looked.origin is None:
            self._looked[place] = looked
            return False
        self.tally.n_cached += 1
        self._answered(Finished(request, as_result(place, looked.answer)), looked.origin)
        return True

    def _answered(self, finished: Finished, origin: FromCache | None = None) -> None:
        """Record an answer, and keep it for the cache if it is new."""
        request, result = finished.request, finished.result
        line, custom_id = self._rows.pop(result.key)
        if self._cache and (looked := self._looked.pop(result.key, None)):
            self._cache.keep(looked, result)
        name, created = self._scheduler.options.name, int(time.time())
        body = completion(result, is_chat=request.is_chat, id_=line.id, name=name, created=created)
        if result.error is not None:
            written = body if isinstance(result.error, AnswerMismatch) else None
            self._journal.record(result.key, refused(line, custom_id, result.error, written))
            return
        if finished.found is not None:
            cite(body, finished.found, finished.n_forgotten)
        if finished.calls:
            body["edgellm"] = {"calls": [asdict(CallRecord.of(each)) for each in finished.calls]}
        if origin is not None:
            body["edgellm"] = {"cache": origin.as_field()}
        self._journal.record(result.key, answered(line, custom_id, body))
