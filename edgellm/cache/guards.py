"""Why two questions cannot have the same answer, however near their vectors are.

difference("Is the TB-80 waterproof?", "Is the TB-55 waterproof?")  ->  "names differ: tb55, tb80"

Near misses differ from a question in one word, paraphrases in many: so one word exchanged, added or moved is a
difference, unless both words mean the same.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from difflib import SequenceMatcher
from itertools import pairwise

from edgellm.cache import chinese_words, english_words
from edgellm.cache.english import are_opposites, meaning
from edgellm.cache.facts import facts
from edgellm.cache.question_facts import CHINESE, QuestionFacts

# Questions whose words, with those of no meaning, are alike to this part say the same sentence about something else.
PARALLEL = 2 / 3
# The part of the shorter question's words that the other must have too.
LEAST_SHARED = 0.3


def difference(one: str, other: str) -> str:
    """What keeps two questions apart, empty if nothing is found."""
    a, b = facts(one), facts(other)
    if a.language != b.language:
        return "they are in different languages"
    if not a.language:
        return "questions in this language are only compared as they stand"
    for check in _CHECKS:
        if found := check(a, b):
            return found
    return ""


def _numbers(a: QuestionFacts, b: QuestionFacts) -> str:
    ours, others = _counted(a, b), _counted(b, a)
    if ours != others:
        return f"numbers differ: {_unlike(ours, others)}"
    return "numbers stand in another order" if _is_directed(a, b) and not _same_order(a.numbers, b.numbers) else ""


def _counted(question: QuestionFacts, other: QuestionFacts) -> set[str]:
    """The numbers; the word one, which is often an article, only where the other has the number."""
    return {"1" if each == "one" else each for each in question.numbers if each != "one" or "1" in other.numbers}


def _is_directed(a: QuestionFacts, b: QuestionFacts) -> bool:
    return bool(a.roles or b.roles) or set(a.content) == set(b.content)


def _names(a: QuestionFacts, b: QuestionFacts) -> str:
    known_a, known_b = {*a.tokens, *a.names}, {*b.tokens, *b.names}
    unknown = [name for name in a.names if name not in known_b] + [name for name in b.names if name not in known_a]
    if unknown:
        return f"names differ: {', '.join(sorted(set(unknown)))}"
    return "names stand in another order" if _is_directed(a, b) and not _same_order(a.names, b.names) else ""


def _units(a: QuestionFacts, b: QuestionFacts) -> str:
    return f"units differ: {_unlike(a.units, b.units)}" if a.units != b.units else ""


def _negation(a: QuestionFacts, b: QuestionFacts) -> str:
    return "one is negated" if a.is_negated != b.is_negated else ""


def _languages(a: QuestionFacts, b: QuestionFacts) -> str:
    return f"languages differ: {_unlike(a.languages, b.languages)}" if a.languages != b.languages else ""


def _alternatives(a: QuestionFacts, b: QuestionFacts) -> str:
    for axis in a.sides.keys() & b.sides.keys():
        if a.sides[axis] != b.sides[axis]:
            return "they ask for alternatives that exclude each other"
    for x in set(a.tokens) - set(b.tokens):
        for y in set(b.tokens) - set(a.tokens):
            if are_opposites(x, y):
                return f"{x} and {y} are opposites"
    return ""


def _kinds(a: QuestionFacts, b: QuestionFacts) -> str:
    if a.kinds and b.kinds and not a.kinds & b.kinds:
        return f"one asks {', '.join(sorted(a.kinds))}, the other {', '.join(sorted(b.kinds))}"
    return ""


def _direction(a: QuestionFacts, b: QuestionFacts) -> str:
    for role in a.roles.keys() & b.roles.keys():
        lost, new = a.roles[role] - b.roles[role], b.roles[role] - a.roles[role]
        if lost & set(b.tokens) and new & set(a.tokens):
            return f"what follows {role} is exchanged"
    is_moved = Counter(a.tokens) == Counter(b.tokens) and a.content != b.content
    return "the same words stand in another order" if is_moved else ""


def _exchange(a: QuestionFacts, b: QuestionFacts) -> str:
    lost, new = _unlike_words(a, b)
    if not lost and not new:
        return "" if a.content or a.names else "nothing in them can be compared"
    if share(a, b) < LEAST_SHARED:
        return "they have too little in common"
    gap = "" if a.language == CHINESE else " "
    what = ", ".join(gap.join(each) for each in (lost, new) if each)
    if _is_minimal(a, b, lost, new):
        return f"only this differs: {what}"
    return ""


def _is_minimal(a: QuestionFacts, b: QuestionFacts, lost: Sequence[str], new: Sequence[str]) -> bool:
    """Whether two questions are one sentence with something exchanged or added at one place."""
    if lost and new and _common_ends(a.tokens, b.tokens) >= PARALLEL * min(len(a.tokens), len(b.tokens)):
        return True
    blocks = [each for each in _matcher(a.content, b.content).get_opcodes() if each[0] != "equal"]
    if a.language == CHINESE:
        return len(blocks) == 1
    if len(lost) == len(new) == 1:
        return True
    return len(blocks) == 1 and _matcher(_frame(a), _frame(b)).ratio() >= PARALLEL


def _common_ends(a: Sequence[str], b: Sequence[str]) -> int:
    """How many words two questions begin with alike, and end with alike."""
    first = next((at for at, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
    rest = zip(reversed(a[first:]), reversed(b[first:]), strict=False)
    return first + next((at for at, (x, y) in enumerate(rest) if x != y), min(len(a), len(b)) - first)


def _unlike_words(a: QuestionFacts, b: QuestionFacts) -> tuple[list[str], list[str]]:
    """The words of each that the other has not; what a paraphrase may add does not count."""
    if a.language == CHINESE:
        blocks = [each for each in _matcher(a.content, b.content).get_opcodes() if each[0] != "equal"]
        lost = ["".join(a.content[first:last]) for _, first, last, _, _ in blocks if last > first]
        new = ["".join(b.content[first:last]) for _, _, _, first, last in blocks if last > first]
    else:
        lost, new = [x for x in a.content if x not in b.content], [x for x in b.content if x not in a.content]
    if lost and new:
        return lost, new
    return [x for x in lost if not _is_generic(x)], [x for x in new if not _is_generic(x)]


def _is_generic(word: str) -> bool:
    """Whether a paraphrase may add this; a piece of Chinese may be several words."""
    return word in _GENERIC or not _CHINESE_GENERIC.sub("", word)


def _matcher(a: Sequence[str], b: Sequence[str]) -> SequenceMatcher[str]:
    return SequenceMatcher(None, a, b, autojunk=False)


def _frame(question: QuestionFacts) -> list[str]:
    return [meaning(token) for token in question.tokens]


def alike(a: QuestionFacts, b: QuestionFacts) -> float:
    """How alike two questions in Chinese are, from 0 to 1: by their characters, and by pairs of neighbours."""
    if a.content == b.content:
        return 1.0
    ours, others = _items(a), _items(b)
    pairs, other_pairs = list(pairwise(ours)), list(pairwise(others))
    common = (Counter(ours) & Counter(others)).total()
    common_pairs = (Counter(pairs) & Counter(other_pairs)).total()
    by_characters = 2 * common / max(1, len(ours) + len(others))
    return (by_characters + common_pairs / max(1, min(len(pairs), len(other_pairs)))) / 2


def _items(question: QuestionFacts) -> list[str]:
    return [*question.content, *question.names, *question.numbers]


def share(a: QuestionFacts, b: QuestionFacts) -> float:
    """The part of the shorter question's words that the other one has too, from 0 to 1."""
    mine, others = Counter(_items(a)), Counter(_items(b))
    return (mine & others).total() / max(1, min(mine.total(), others.total()))


_GENERIC = {meaning(word) for word in english_words.GENERIC}
_CHINESE_GENERIC = re.compile("|".join(sorted(chinese_words.GENERIC, key=len, reverse=True)))


def _same_order(a: tuple[str, ...], b: tuple[str, ...]) -> bool:
    return list(dict.fromkeys(a)) == list(dict.fromkeys(b)) or set(a) != set(b)


def _unlike(a: object, b: object) -> str:
    return ", ".join(sorted(set(a) ^ set(b)))  # type: ignore[call-overload]


_CHECKS = (_languages, _numbers, _names, _units, _negation, _alternatives, _kinds, _direction, _exchange)
