"""Makes a follow-up question one that can be searched alone, from the questions before it; no model is needed.

    standalone("And for the QF-240?", ["How long does the battery of the QF-210 last?"])
    # "How long does the battery of the QF-240 last?"

A new name takes the place of the one of its kind (a code, a year, a name) in the question before. A question without a
subject of its own ("Does it cover water?", "Why?") gets the words of the question before, in brackets. All others stay
as they are.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from edgellm.documents.words import is_common, terms

# Earlier questions that count, and words that one of them may add.
MOST_EARLIER = 6
MOST_WORDS = 12
# "And ...?" with more words of its own is a whole question.
FRAGMENT = 2
# A pronoun after so many words stands for something in its own question.
FAR = 4
_OPENING = re.compile(
    r"^\W*(?:and|or|but|so|then)\b|^\W*(?:what|how) (?:about|if)\b|^\W*(?:the )?same (?:for|with|in)\b"
    r"|^\W*(?:那么?(?![个里些种款台])|还有|以及|另外|换成|如果是|要是)",
    re.IGNORECASE,
)
_CLOSING = re.compile(r"呢\s*[?？]?\s*$")
_PRONOUN = re.compile(
    r"\b(?:it|its|they|them|their|he|him|his|she|her|the (?:other|others|former|latter|same|first|second)(?: ones?)?)\b"
    r"|\b(?:this|that|these|those)(?= (?:ones?|is|was|are|were|do|does|did|has|have|had|can|will|costs?|means?)\b|\W*$)"
    r"|[它他她]们?|[这那该](?:个|款|种|些|台|份)|上述|前者|后者|另(?:一|外)(?:个|款|种|台)",
    re.IGNORECASE,
)
# A code mixes letters and digits, a year has four digits, a name begins with a capital within its sentence.
_NAMES = {
    "code": re.compile(r"(?<![\w-])(?=[\w-]*\d)(?=[\w-]*[A-Za-z])[A-Za-z\d]+(?:-[A-Za-z\d]+)*", re.ASCII),
    "year": re.compile(r"(?<![\w.,-])(?:19|20)\d\d(?![\w,-]|\.\d)", re.ASCII),
    "name": re.compile(r"(?<=[\w,] )[A-Z][a-z][\w-]*(?: [A-Z][a-z][\w-]*)*"),
}
_WORD = re.compile(r"[A-Za-z0-9]+(?:[.,'’/-][A-Za-z0-9]+)*|[^\W\d_a-zA-Z]+")
# Where a run of ideographs asks instead of naming.
_ASKING = re.compile(
    "什么|怎么样?|怎样|如何|哪[些个里种款]?|多[少久大重长远]|是否|为[何什么]|请问|可以|需要|能否|几(?=[个次年月天台小])|[的是有在了吗呢吧]"
)


def standalone(question: str, earlier: Sequence[str]) -> str:
    """A question that can be understood without the ones before it.

    Args:
        question: the new question.
        earlier: the user's questions before it in the chat, oldest first, as they were typed.
    """
    whole = ""
    for each in [*list(earlier)[-MOST_EARLIER:], question]:
        whole = _completed(each.strip(), whole)
    return whole


def _completed(question: str, before: str) -> str:
    """A question with what it lacks from the one before, which lacks nothing."""
    # What follows "And" stands within the sentence: a capital there makes a name.
    rest = re.sub(r"^,\s*", ", ", _CLOSING.sub("", _OPENING.sub(", ", question)))
    is_fragment = rest != question
    own = _content(_without_names(rest))
    if not before or not question:
        return question
    if _refers(rest):
        lacking = _missing_names(rest, before) if own else []
        return _with_words(question, lacking or _content(before))
    if (is_fragment and len(own) <= FRAGMENT) or _is_bare(rest):
        exchanged = "" if own else _exchanged(rest, before)
        return exchanged or _with_words(question, _content(_without_names(before, _kinds(rest))))
    return question


def _refers(question: str) -> bool:
    """Whether a pronoun stands for something outside the question."""
    pronoun = _PRONOUN.search(question)
    return pronoun is not None and len(_content(question[: pronoun.start()])) < FAR


def _is_bare(question: str) -> bool:
    """Whether it asks about nothing ("Why?"), or only names something ("The QF-240?")."""
    rest = _without_names(question)
    asked = [word for word in _WORD.findall(rest) if word.lower() not in ("the", "in", "for", "of", "with", "on", "at")]
    return not (asked if rest != question else _content(question))


def _exchanged(question: str, before: str) -> str:
    """The question before about the things that the new one names; empty unless each takes one place."""
    for kind in (kinds := _kinds(question)):
        new, old = _NAMES[kind].findall(question), set(_NAMES[kind].findall(before))
        if len(new) != 1 or len(old) != 1:
            return ""
        before = before.replace(old.pop(), new[0])
    return before if kinds else ""


def _kinds(question: str) -> list[str]:
    return [kind for kind, pattern in _NAMES.items() if pattern.search(question)]


def _without_names(text: str, kinds: Sequence[str] = tuple(_NAMES)) -> str:
    for kind in kinds:
        text = _NAMES[kind].sub(" ", text)
    return text


def _missing_names(question: str, before: str) -> list[str]:
    """The names in the question before, of kinds that the new one has not."""
    has = _kinds(question)
    return [name for kind, pattern in _NAMES.items() if kind not in has for name in pattern.findall(before)]


def _with_words(question: str, words: Sequence[str]) -> str:
    known = set(terms(question))
    added = [word for word in dict.fromkeys(words) if not set(terms(word)) <= known][:MOST_WORDS]
    return f"{question} ({' '.join(added)})" if added else question


def _content(text: str) -> list[str]:
    """The words of a question that say what it is about, as they are written."""
    words = _WORD.findall(_ASKING.sub(" ", text))
    return [word for word in words if not all(map(is_common, terms(word)))]
