"""Facts hidden in long texts, at several depths and lengths: the needle in a haystack, from a seed.

    Needle(seed=1, english_words=(375,), depths=(0, 50, 100)).items()

Lengths are in words, and in characters for Chinese, because a suite does not know the model. As a rule, 3 English words
are 4 tokens; a Chinese character is between half a token and two, depending on the tokenizer.

One item in each length and depth hides one fact. Two more items a length hide `facts` of them, spread evenly: one asks
for one of them, where the others only look like it, and one asks for all of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal, NamedTuple

from pydantic import Field

from edgellm.evaluation.generate.filler import filler
from edgellm.evaluation.generate.seeded_random import SeededRandom
from edgellm.evaluation.item import Check, Item
from edgellm.models.sampling_fields import StrictModel

# Sentences of a paragraph.
PARAGRAPH = 7
Lengths = Annotated[tuple[Annotated[int, Field(ge=50, le=200_000)], ...], Field(max_length=20)]
Depths = Annotated[tuple[Annotated[int, Field(ge=0, le=100)], ...], Field(min_length=1, max_length=101)]


class _Words(NamedTuple):
    """How a language says it; `lockers` are the things that have a code."""

    language: Literal["en", "zh"]
    lockers: tuple[str, ...]
    fact: str
    one: str
    all: str
    task: str
    join: str
    unit: str


_ENGLISH = _Words(
    "en",
    ("red", "blue", "green", "yellow", "white", "black", "brown", "orange", "purple", "grey"),
    "The code of the {} locker is {}.",
    "What is the code of the {} locker? Answer with the number only.",
    "What are the codes of the {} lockers? Answer with the numbers only.",
    "Read this text, and then answer a question about it.\n\n{}\n\nQuestion: {}",
    " ",
    "words",
)
_CHINESE = _Words(
    "zh",
    ("红色", "蓝色", "绿色", "黄色", "白色", "黑色", "棕色", "橙色", "紫色", "灰色"),
    "{}储物柜的密码是{}。",
    "{}储物柜的密码是多少？请只回答数字。",
    "{}储物柜的密码分别是多少？请只回答数字。",
    "请阅读下面的文字，然后回答问题。\n\n{}\n\n问题：{}",
    "",
    "characters",
)


class Needle(StrictModel):
    """Parameters: lengths of the text in each language, depths in percent, and facts of the items with several."""

    seed: int = 1
    english_words: Lengths = (375, 1500)
    chinese_characters: Lengths = (375, 1500)
    depths: Depths = (0, 25, 50, 75, 100)
    facts: Annotated[int, Field(ge=2, le=10)] = 4

    def items(self) -> list[Item]:
        """The items, always the same ones for the same parameters."""
        english = (item for length in self.english_words for item in self._of_length(_ENGLISH, length))
        chinese = (item for length in self.chinese_characters for item in self._of_length(_CHINESE, length))
        return [*english, *chinese]

    def _of_length(self, words: _Words, length: int) -> Iterator[Item]:
        for depth in self.depths:
            yield self._item(words, length, f"at-{depth}", (depth,), 1)
        spread = tuple(round(100 * (at + 0.5) / self.facts) for at in range(self.facts))
        yield self._item(words, length, f"one-of-{self.facts}", spread, 1)
        yield self._item(words, length, f"all-{self.facts}", spread, self.facts)

    def _item(self, words: _Words, length: int, name: str, depths: tuple[int, ...], n_asked: int) -> Item:
        """An item whose text has a fact at each depth, and which asks for `n_asked` of them."""
        item_id = f"{words.language}-{length}-{name}"
        draw = SeededRandom(f"needle/{self.seed}/{item_id}")
        codes = dict(zip(draw.some(words.lockers, len(depths)), _codes(draw, len(depths)), strict=True))
        asked = draw.some(list(codes), n_asked)
        sentences = filler(draw, words.language, length)
        places = [round(depth / 100 * len(sentences)) for depth in depths]
        for place, (locker, code) in sorted(zip(places, codes.items(), strict=True), reverse=True):
            sentences.insert(place, words.fact.format(locker, code))
        question = (words.one if n_asked == 1 else words.all).format(_listed(words, asked))
        prompt = words.task.format(_text(words, sentences), question)
        check = _check([codes[locker] for locker in asked])
        return Item(item_id, prompt, check, f"{length} {words.unit}", words.language, max_tokens=100)


def _codes(draw: SeededRandom, count: int) -> list[int]:
    """So many different codes."""
    codes: dict[int, None] = {}
    while len(codes) < count:
        codes[draw.integer(1000, 9999)] = None
    return list(codes)


def _text(words: _Words, sentences: list[str]) -> str:
    """The sentences in paragraphs."""
    starts = range(0, len(sentences), PARAGRAPH)
    return "\n\n".join(words.join.join(sentences[start : start + PARAGRAPH]) for start in starts)


def _check(codes: list[int]) -> Check:
    if len(codes) == 1:
        return {"kind": "number", "value": codes[0]}
    return {"kind": "set", "values": codes}


def _listed(words: _Words, lockers: list[str]) -> str:
    """Lockers in a row: "red, blue and green", "红色、蓝色和绿色"."""
    if len(lockers) == 1:
        return lockers[0]
    comma, last = (", ", " and ") if words.language == "en" else ("、", "和")
    return comma.join(lockers[:-1]) + last + lockers[-1]
