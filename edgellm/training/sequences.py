"""Examples as tokens: which of them are learnt, and how several examples share a row of the batch.

    found = tokenize(examples, model, template, n_ctx=512)
    rows = pack(found, n_ctx=512)          # as few rows as possible, each of at most 512 tokens

A chat is cut where an answer begins and ends, and each piece is tokenized alone, as the engine does it when it answers.
Only answers are learnt. Examples in one row do not see each other.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush

import numpy as np
import numpy.typing as npt

from edgellm.engine.base import Model
from edgellm.errors import UsageError
from edgellm.run.chat_template import ChatTemplate
from edgellm.run.message import Message
from edgellm.training.data import Example

Tokens = npt.NDArray[np.int64]
# Lines that a message about examples names.
_SHOWN = 5
# Characters of a text that are tokenized at once.
PIECE = 1 << 20


@dataclass(frozen=True, slots=True)
class TokenSequence:
    """One example: `learnt[i]` says whether token i is to be predicted from those before it."""

    line: int
    tokens: Tokens
    learnt: npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Row:
    """Sequences one after another, as one row of a batch."""

    sequences: tuple[TokenSequence, ...]

    @property
    def n_tokens(self) -> int:
        """The tokens of all."""
        return sum(len(each.tokens) for each in self.sequences)


def tokenize(
    examples: Sequence[Example], model: Model, template: ChatTemplate | None, *, n_ctx: int
) -> list[TokenSequence]:
    """Tokenize examples; texts longer than `n_ctx` are cut into several, chats are not.

    Without a template a chat must be one prompt and one answer, which are put one behind the other.

    Raises:
        UsageError: chats are longer than `n_ctx`, or the template refuses them; the message has their lines.
    """
    found: list[TokenSequence] = []
    for example in examples:
        if example.messages:
            found.append(_chat(example, model, template))
        else:
            tokens = np.concatenate(list(_text_tokens(model, example.text)))
            pieces = (tokens[first : first + n_ctx] for first in range(0, len(tokens), n_ctx))
            found += [_whole(example.line, piece) for piece in pieces if len(piece) > 1]
    _refuse_long(found, n_ctx)
    if not any(each.learnt.any() for each in found):
        raise UsageError("there is nothing to learn in the examples", why="no answer has a token")
    return found


def pack(sequences: Sequence[TokenSequence], *, n_ctx: int) -> list[Row]:
    """Put sequences into rows of at most `n_ctx` tokens, the longest first, each into the fullest row that has room."""
    rows: list[list[TokenSequence]] = []
    with_room: list[list[int]] = [[] for _ in range(n_ctx + 1)]  # the numbers of the rows by their room, as heaps
    for each in sorted(sequences, key=lambda each: -len(each.tokens)):
        n = len(each.tokens)
        room = next((room for room in range(n, n_ctx + 1) if with_room[room]), n_ctx)
        if with_room[room]:
            number = heappop(with_room[room])
        else:
            number = len(rows)
            rows.append([])
        rows[number].append(each)
        heappush(with_room[room - n], number)
    return [Row(tuple(together)) for together in rows]


def split(
    sequences: Sequence[TokenSequence], share: float, seed: int
) -> tuple[list[TokenSequence], list[TokenSequence]]:
    """The sequences to learn from, and the held-out share; at least one of each unless the share is 0 or there is one.

    The lines of one example stay together.
    """
    lines: dict[int, list[TokenSequence]] = {}
    for each in sequences:
        lines.setdefault(each.line, []).append(each)
    units = [lines[line] for line in sorted(lines)] if len(lines) > 1 else [[each] for each in sequences]
    n_held = 0 if share <= 0 or len(units) < 2 else min(len(units) - 1, max(1, round(share * len(units))))
    order = np.random.default_rng(seed).permutation(len(units))
    held = set(order[:n_held].tolist())
    parts: tuple[list[TokenSequence], list[TokenSequence]] = ([], [])
    for i, unit in enumerate(units):
        parts[i in held].extend(unit)
    return parts


def _text_tokens(model: Model, text: str) -> Iterator[Tokens]:
    """The tokens of a text and its end, a piece at a time: the engine takes 20 times its size to cut one."""
    first = 0
    while first < len(text):
        last = _cut(text, first)
        yield np.array(model.tokenize(text[first:last], bos=not first), np.int64)
        first = last
    yield np.array(_ended(model, []), np.int64)


def _cut(text: str, first: int) -> int:
    """Where a piece ends: before a lone space and a word, which vocabularies join; else behind a line, or anywhere."""
    last = place = first + PIECE
    if last >= len(text):
        return len(text)
    while (place := text.rfind(" ", first + 1, place)) > first:
        if not text[place - 1].isspace() and text[place + 1].isalnum():
            return place
    line = text.rfind("\n", first, last) + 1
    return line if line > first else last


def _chat(example: Example, model: Model, template: ChatTemplate | None) -> TokenSequence:
    tokens: list[int] = []
    learnt: list[bool] = []
    for text, is_answer in _pieces(example, template):
        piece = model.tokenize(text, special=template is not None, bos=not tokens)
        if is_answer and template is None:
            piece = _ended(model, piece)
        tokens += piece
        learnt += _until_end(model, piece) if is_answer else [False] * len(piece)
    return TokenSequence(example.line, np.array(tokens, np.int64), np.array(learnt, bool))


def _pieces(example: Example, template: ChatTemplate | None) -> list[tuple[str, bool]]:
    """The text of a chat in pieces, each with whether it is an answer."""
    messages = example.messages
    if template is None:
        if len(messages) != 2:
            why = "the model has no chat template, so an example is one prompt and one answer"
            raise UsageError(f"line {example.line} is a chat of {len(messages)} messages", why=why)
        return [(messages[0]["content"], False), (messages[1]["content"], True)]
    pieces: list[tuple[str, bool]] = []
    done = ""
    for i, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        prompt, whole = _rendered(template, messages[:i], prompt=True), _rendered(template, messages[: i + 1])
        if not prompt.startswith(done) or not whole.startswith(prompt):
            why = "the chat template rewrites earlier turns when an answer follows"
            hint = "examples of one question and one answer"
            raise UsageError(f"line {example.line} cannot be cut into answers", why=why, hint=hint, line=example.line)
        pieces += [(prompt[len(done) :], False), (whole[len(prompt) :], True)]
        done = whole
    return pieces


def _rendered(template: ChatTemplate, messages: Sequence[Message], *, prompt: bool = False) -> str:
    return template.render(list(messages), add_generation_prompt=prompt)


def _until_end(model: Model, piece: Sequence[int]) -> list[bool]:
    """An answer is learnt up to its end token; what the template puts behind it is not generated."""
    end = next((i for i, token in enumerate(piece) if model.is_end(token)), len(piece))
    return [i <= end for i in range(len(piece))]


def _ended(model: Model, piece: list[int]) -> list[int]:
    """A text with the model's end token behind it, if it has one."""
    end = model.tokenize(model.info.eos, special=True, bos=False) if model.info.eos else []
    return [*piece, *end] if len(end) == 1 else piece


def _whole(line: int, tokens: Tokens) -> TokenSequence:
    learnt = np.ones(len(tokens), bool)
    learnt[0] = False  # nothing comes before it
    return TokenSequence(line, tokens, learnt)


def _refuse_long(sequences: Sequence[TokenSequence], n_ctx: int) -> None:
    long = [each for each in sequences if len(each.tokens) > n_ctx]
    if not long:
        return
    shown = ", ".join(f"line {each.line} ({len(each.tokens):,} tokens)" for each in long[:_SHOWN])
    more = f" and {len(long) - _SHOWN} more" if len(long) > _SHOWN else ""
    longest = max(len(each.tokens) for each in long)
    why = f"{shown}{more} {'is' if len(long) == 1 else 'are'} longer than --length {n_ctx}"
    raise UsageError(
        f"{len(long)} of {len(sequences)} examples are too long", why=why,
        hint=f"--length {-(-longest // 64) * 64}, or shorter examples", n_long=len(long), longest=longest,
    )  # fmt: skip
