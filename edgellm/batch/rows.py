"""A batch in memory: rows in, an answer for each out, in the same order, several computed at once.

for answer in answer_rows(["What is 2+2?", {"prompt": "Name a colour.", "max_tokens": 8}], scheduler):
    print(answer.row, answer.text or answer.error)
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgellm.batch.job import WINDOW
from edgellm.batch.requests import EmbeddingRow, TextRow, parse_line
from edgellm.batch.scheduler import Scheduler
from edgellm.documents.answers.citation import Citation
from edgellm.errors import BadRequest, EdgellmError
from edgellm.run.events import Returned


@dataclass(frozen=True, slots=True)
class RowAnswer:
    """The answer to one row, which counts from 0; with `error` there is none.

    `citations` bear an answer from documents; it is `refused` if they do not say it. `calls` are what tools returned.
    `custom_id` is the row's own, if it has one. A row that asks for embeddings has `vectors` [n_inputs, n_embd] in
    place of a text. `reused_tokens` of the prompt were computed for another row.
    """

    row: int
    custom_id: str | None = None
    text: str = ""
    finish_reason: str = ""
    prompt_tokens: int = 0
    reused_tokens: int = 0
    completion_tokens: int = 0
    vectors: npt.NDArray[np.float32] | None = None
    error: EdgellmError | None = None
    citations: Sequence[Citation] = ()
    refused: bool = False
    calls: Sequence[Returned] = ()


def answer_rows(rows: Iterable[str | Mapping[str, Any]], scheduler: Scheduler) -> Iterator[RowAnswer]:
    """Answer rows, each a prompt or what a line of a batch file may hold, in their order.

    A row that cannot be answered does not end the others. Rows are taken from an iterator as slots become free.
    """
    upcoming = enumerate(rows)
    ready: dict[int, RowAnswer] = {}
    custom_ids: dict[int, str | None] = {}
    n_given, is_over = 0, False
    with scheduler:
        while not is_over or scheduler.busy or ready:
            scheduler.slots.guard()
            while not is_over and scheduler.has_room and len(ready) + scheduler.busy < WINDOW:
                index, row = next(upcoming, (-1, ""))
                if is_over := index < 0:
                    break
                custom_ids[index], at_once = _begin(scheduler, index, row)
                if at_once is not None:
                    ready[index] = at_once
                    break  # so that vectors and errors are given out as they come
            for _, result, found, _, calls in scheduler.step():
                ready[result.key] = RowAnswer(
                    result.key, custom_ids[result.key], result.text, result.finish_reason, result.prompt_tokens,
                    result.reused_tokens, result.completion_tokens, error=result.error,
                    citations=found.citations if found else (), refused=bool(found and found.refused),
                    calls=tuple(calls),
                )  # fmt: skip
            while n_given in ready:
                yield ready.pop(n_given)
                del custom_ids[n_given]
                n_given += 1


def _begin(scheduler: Scheduler, index: int, row: str | Mapping[str, Any]) -> tuple[str | None, RowAnswer | None]:
    """The row's custom_id, and its answer if it needs no slot."""
    options, custom_id = scheduler.options, None
    try:
        line = json.dumps({"prompt": row} if isinstance(row, str) else dict(row)).encode()
        custom_id, request = parse_line(line, jsonl=True, models=options.names, raw=options.raw)
        match request:
            case BadRequest():
                raise request
            case EmbeddingRow():
                vectors, texts = scheduler.embed(request)
                return custom_id, RowAnswer(index, custom_id, prompt_tokens=sum(map(len, texts)), vectors=vectors)
            case TextRow():
                scheduler.begin(index, index + 1, request)
                return custom_id, None
    except EdgellmError as error:
        return custom_id, RowAnswer(index, custom_id, error=error)
    except (TypeError, ValueError) as error:
        wrong = BadRequest(f"row {index} is not what a batch file can hold", why=str(error))
        return custom_id, RowAnswer(index, error=wrong)
