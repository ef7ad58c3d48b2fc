"""Endless repetition, noticed while an answer streams: a suffix that comes back, word for word or with a counter.

    guard = LoopGuard()
    for token, text in answer:
        if loop := guard.feed(token, text):
            print(f"{loop.unit!r} came {loop.repetitions} times; {loop.kept_tokens} tokens come before that")

Two streams are watched. The tokens themselves must repeat exactly: that finds whatever has no words ("!!!!", blank
lines, half a word). The words, without punctuation and case and with numbers set apart, may also drift: the label of a
line may change ("Step 7:", "8.", "第九步"), and one other number a unit may grow, as long as the rest is prose.

Either way a stream has a repeating suffix when each symbol equals the one a period before it. Periods to try come from
the last four symbols: where they occurred before, a period may have begun. A token costs a few microseconds.

Much repetition is wanted: counting, tables, code, songs, laughter. So a loop is only what came three times and then
went on for `MARGIN` tokens, or for `DATA_MARGIN` where a unit is mere numbers inside a list, a table, a block of code.
Where several numbers of a unit count on together, one by one ("Day 7: I ate 8 apples."), it must come `IN_STEP` times.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass

# Tokens that a suffix must go on repeating after its third time.
MARGIN = 150
DATA_MARGIN = 3000
# Times that prose must come in which several numbers grow, each by just one: tables and bills have other steps.
IN_STEP = 100
# Periods are looked for where this many symbols come again; a longer period than the limit is no loop yet.
GRAM = 4
MAX_PERIOD = 2048
# Periods that are followed at the same time; ordinary text seldom has more than one or two.
MAX_PERIODS = 8
# Words are read at the end of a sentence, or after this many characters.
CHUNK = 80
LONGEST_WORD = 400
# How many different words a unit must have before numbers in it may change: beside a label ("91. Mona Ali", but not
# "91. B"), and elsewhere. An ideograph is half a word, a letter none.
WORDS_BESIDE_LABEL = 2
WORDS_BESIDE_COUNTER = 8
WORDS_IN_STEP = 5
WORDS_IN_STEP_BESIDE_LABEL = 3
SHOWN = 60

_IDEOGRAPH = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff"
_WORD = re.compile(rf"\d+|[{_IDEOGRAPH}]|[^\W\d_{_IDEOGRAPH}]+")
_SENTENCE_END = re.compile(r"\n|[.!?]+[ \t]|[。！？]+")
_COUNTED = (
    "one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|"
    "first|second|third|fourth|fifth|sixth|seventh|eighth|ninth|tenth|"
    "firstly|secondly|thirdly|next|then|finally"
)
_LABEL = re.compile(
    r"[\s#>*_\-•·–—(（\[【\"“]*(?:第\s*|[^\W\d_]{1,12}[ \t]+)?"
    rf"(\d{{1,6}}(?:\.\d{{1,4}})*|[一二三四五六七八九十百零]{{1,6}}|[ivxlc]{{1,6}}|[a-z]|{_COUNTED})"
    r"(?:[步个点章条次轮天题]|部分)?(?:\s*[.)）\]】:：、,，]|\s+[-–—]\s|\s*$)[*_\s]*",
    re.IGNORECASE,
)
_LITERAL = re.compile(r"0x[0-9a-f]+|\b(?:true|false|null|none|nan|inf|nil|na)\b", re.IGNORECASE)
_LETTER = re.compile(r"[^\W\d_]")
_CODE = re.compile(r"[;|`]|(?<![\\\w}])\{|[<>]=?[\w/]|\w_\w|\w\(\)")
_FIELDS = re.compile(r"[,;]\S|\t")
_FENCE = "```"
NUMBER, LABEL = "#", "#:"


@dataclass(frozen=True, slots=True)
class Loop:
    """A suffix that repeats: its unit, how often it came, and the tokens up to and with its first time."""

    unit: str
    repetitions: int
    kept_tokens: int

    @property
    def shown(self) -> str:
        """The unit on one line, shortened."""
        line = " ".join(self.unit.split())
        return line if len(line) <= SHOWN else f"{line[: SHOWN - 1]}…"


@dataclass(slots=True)
class _Run:
    """How long a stream has been repeating with one period, and where numbers changed meanwhile."""

    length: int
    label_drifted: bool = False
    counter_at: int = -1
    by_one: bool = True
    several: bool = False


class _Stream:
    """Symbols, and the periods that its suffix may have. Subclasses say which symbols count as equal."""

    def __init__(self) -> None:
        self.symbols: list[int | str] = []
        self.runs: dict[int, _Run] = {}
        self._last_seen: dict[tuple[int | str, ...], int] = {}

    def add(self, symbol: int | str) -> None:
        """Append a symbol and follow every period."""
        symbols, runs = self.symbols, self.runs
        position = len(symbols)
        symbols.append(symbol)
        if runs:
            for period in [period for period, run in runs.items() if not self._follows(position, period, run)]:
                del runs[period]
        gram = tuple(symbols[-GRAM:])
        before = self._last_seen.get(gram)
        self._last_seen[gram] = position
        if before is None or len(runs) >= MAX_PERIODS:
            return
        period = position - before
        if period <= MAX_PERIOD and period not in runs:
            self._begin(position, period)

    def _begin(self, position: int, period: int) -> None:
        self.runs[period] = _Run(GRAM)

    def _follows(self, position: int, period: int, run: _Run) -> bool:
        if self.symbols[position] != self.symbols[position - period]:
            return False
        run.length += 1
        return True

    def start(self, period: int, run: _Run) -> int:
        """Position of the first symbol of a run's first unit: further back than the run was followed, if it can be."""
        start = len(self.symbols) - run.length - period
        while start > 0 and self.symbols[start - 1] == self.symbols[start - 1 + period]:
            start -= 1
        return start


def _is_next(value: str, before: str) -> bool:
    """Whether a number is one more than another."""
    return value.isdecimal() and before.isdecimal() and len(value) <= 9 and int(value) == int(before) + 1


class _Words(_Stream):
    """Words with the values of the numbers among them, each with the offset of its first character."""

    def __init__(self) -> None:
        super().__init__()
        self.values: list[str] = []
        self.offsets: list[int] = []

    def put(self, symbol: str, value: str, offset: int) -> None:
        """Append a word, or a number of that value."""
        self.values.append(value)
        self.offsets.append(offset)
        self.add(symbol)

    def _begin(self, position: int, period: int) -> None:
        run = _Run(0)
        if all(self._follows(at, period, run) for at in range(position - GRAM + 1, position + 1)):
            self.runs[period] = run

    def _follows(self, position: int, period: int, run: _Run) -> bool:
        symbol = self.symbols[position]
        if symbol != self.symbols[position - period]:
            return False
        value, before = self.values[position], self.values[position - period]
        if value != before:
            run.by_one = run.by_one and _is_next(value, before)
            if symbol == LABEL:
                run.label_drifted = True
            elif len(value) > 9 or len(before) > 9 or int(value) <= int(before):
                return False  # loops count up; songs count down
            else:
                if run.counter_at >= 0 and position - run.counter_at < period:
                    run.several = True
                run.counter_at = position
            if run.several and not run.by_one:
                return False  # two changing numbers are two different statements
        run.length += 1
        return True


class LoopGuard:
    """Watches one answer."""

    def __init__(self) -> None:
        self._tokens = _Stream()
        self._words = _Words()
        self._pieces: list[str] = []
        self._ends: list[int] = []
        self._length = 0
        self._pending = ""
        self._searched = 0  # characters of the pending text that hold no end of a sentence
        self._sentence_begins = True
        self._brackets = 0
        self._fenced = False

    def feed(self, token: int, text: str) -> Loop | None:
        """The next token and the text that it completes (perhaps none); a loop if there is one now."""
        self._pieces.append(text)
        self._length += len(text)
        self._ends.append(self._length)
        self._tokens.add(token)
        for period, run in self._tokens.runs.items():
            # Looked at now and then: what is in the unit is only read when it is time.
            excess = run.length - 2 * period - MARGIN
            if excess >= 0 and excess % 32 == 0 and (loop := self._token_loop(period, run)):
                return loop
        if text:
            self._pending += text
            if len(self._pending) >= CHUNK or not text[-1].isalnum():
                self._read_words()
                for period, run in self._words.runs.items():
                    if run.length >= 2 * period and (loop := self._word_loop(period, run)):
                        return loop
        return None

    @property
    def repetitions(self) -> int:
        """How often the present suffix has come by now: 1 is ordinary text, more is shown while the model answers."""
        runs = (entry for stream in (self._tokens, self._words) for entry in stream.runs.items())
        long = ((period, run) for period, run in runs if run.length >= max(2 * period, 16) and not run.several)
        return max((1 + run.length // period for period, run in long), default=1)

    def _token_loop(self, period: int, run: _Run) -> Loop | None:
        start = self._tokens.start(period, run)
        unit = "".join(self._pieces[start : start + period])
        length, skipped = len(self._ends) - start, 0
        if length < 3 * period + (DATA_MARGIN if self._is_data(unit) else MARGIN):
            return None
        # The mark that ends the text before belongs to that: a unit begins with a word, if it has any.
        while skipped < period and not any(map(str.isalnum, self._pieces[start + skipped])):
            skipped += 1
        start += skipped % period
        return Loop("".join(self._pieces[start : start + period]), length // period, self._whole(start + period))

    def _word_loop(self, period: int, run: _Run) -> Loop | None:
        words = self._words
        length = run.length + period
        start = len(words.symbols) - length
        first = self._token_at(words.offsets[start])
        n_tokens = len(self._ends) - first
        after_third = n_tokens * (length - 3 * period) / length
        if after_third < MARGIN:
            return None
        unit = self._text(words.offsets[start], words.offsets[start + period])
        if after_third < DATA_MARGIN and self._is_data(unit):
            return None
        drifted = run.label_drifted or run.counter_at >= 0
        if drifted and not self._may_drift(unit, words.symbols[start : start + period], run):
            return None
        return Loop(unit, length // period, self._whole(self._token_at(words.offsets[start + period])))

    def _whole(self, n_tokens: int) -> int:
        """The same, or so many tokens more that they do not end within a character (of four bytes at most)."""
        ends = (n for n in range(n_tokens, n_tokens + 4) if n < len(self._pieces) and self._pieces[n - 1])
        return next(ends, n_tokens)

    def _text(self, begin: int, end: int) -> str:
        """The characters from one offset to another."""
        first, last = self._token_at(begin), self._token_at(end)
        skipped = begin - (self._ends[first - 1] if first else 0)
        return "".join(self._pieces[first : last + 1])[skipped : skipped + end - begin]

    def _token_at(self, offset: int) -> int:
        """Index of the token whose text holds the character at an offset."""
        return bisect_right(self._ends, offset)

    def _is_data(self, unit: str) -> bool:
        """Whether a unit is nothing but values in a list, a table or a block of code: zeros may come by the hundred."""
        if _LETTER.search(_LITERAL.sub("", unit)) or not unit.strip():
            return False
        return self._in_data or "|" in unit

    @property
    def _in_data(self) -> bool:
        return self._brackets > 0 or self._fenced

    def _may_drift(self, unit: str, symbols: list[int | str], run: _Run) -> bool:
        """Whether changing numbers make no difference: in prose, but not in code or data."""
        if self._fenced or _CODE.search(unit):
            return False
        words = {str(symbol) for symbol in symbols if symbol not in (NUMBER, LABEL)}
        if run.several or (run.label_drifted and run.counter_at >= 0):
            needed = WORDS_IN_STEP_BESIDE_LABEL if run.label_drifted else WORDS_IN_STEP
            often = 1 + run.length // len(symbols) >= IN_STEP
            return run.by_one and often and len(words) >= needed and not _FIELDS.search(unit)
        n_words = sum(1 if len(word) > 1 else 0 if word.isascii() else 0.5 for word in words)
        return n_words >= (WORDS_BESIDE_LABEL if run.label_drifted else WORDS_BESIDE_COUNTER)

    def _read_words(self) -> None:
        """Words out of the pending text: whole sentences, then what there is of a long one but its last word."""
        done = 0
        for found in _SENTENCE_END.finditer(self._pending, self._searched):
            self._read(self._pending[done : found.end()], done)
            done = found.end()
            self._sentence_begins = True
        rest = self._pending[done:]
        if len(rest) >= CHUNK:
            last = next(reversed(list(_WORD.finditer(rest))), None)
            end = last.start() if last and len(rest) < LONGEST_WORD else len(rest)
            if end:
                self._read(rest[:end], done)
                self._sentence_begins = False
                done += end
        self._pending = self._pending[done:]
        self._searched = len(self._pending.rstrip(".!?"))  # a space may still make these an end

    def _read(self, text: str, skipped: int) -> None:
        """The words of a text that begins `skipped` characters into the pending one."""
        offset = self._length - len(self._pending) + skipped
        inside = self._in_data
        if text.lstrip().startswith(_FENCE):
            self._fenced = not self._fenced
        self._brackets = max(0, self._brackets + sum(map(text.count, "[{(")) - sum(map(text.count, "]})")))
        if inside and not self._in_data:
            self._words.runs.clear()  # a list is over, and what repeated in it is
        for symbol, value, at in self._split(text):
            self._words.put(symbol, value, offset + at)

    def _split(self, text: str) -> Iterator[tuple[str, str, int]]:
        begin = 0
        label = _LABEL.match(text) if self._sentence_begins else None
        # A number that has a line to itself is what the line says, not its label.
        if label and not (text.endswith("\n") and label.end() == len(text) and label[1] == text.strip(" \n.")):
            yield LABEL, label[1].casefold(), 0
            begin = label.end()
        for word in _WORD.finditer(text, begin):
            found = word[0]
            if found[0].isdigit():
                yield NUMBER, found, word.start()
            else:
                yield found.casefold(), "", word.start()
