"""An answer cut into sentences, lines, paragraphs and words, in English and Chinese.

in_sentences("Dr. Li paid 3.5 yuan. Fine!")  ->  ["Dr. Li paid 3.5 yuan.", "Fine!"]
"""

from __future__ import annotations

import re

_ABBREVIATED = (
    "mr mrs ms dr prof sr jr st vs etc e.g i.e cf al inc ltd co no nos vol fig eq p pp ed approx dept est gen col sen "
    "rep rev hon jan feb mar apr jun jul aug sep sept oct nov dec a.m p.m u.s u.k u.n d.c ph.d"
)
_ABBREVIATIONS = frozenset(_ABBREVIATED.split())
# These often end a sentence: only what follows tells.
_OFTEN_LAST = frozenset(["etc", "a.m", "p.m", "u.s", "u.k", "d.c", "inc", "ltd", "co", "jr", "sr", "ph.d"])
_CLOSE = "\"'”’»)\\]）】」』"
_END = re.compile(rf"(?:[。！？｡]+|[.!?…]+)[{_CLOSE}*_]*")
_LABEL = re.compile(
    r"^[^\S\n]*(?:[-*•#>]+[^\S\n]+)?(?:\(?\d{1,3}[.)、:]|第[一二三四五六七八九十\d]{1,3}[句、:：])?[^\S\n]*"
)
_LAST_WORD = re.compile(r"[\w.]*$")
_UNSPACED = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_WORD = re.compile(rf"[{_UNSPACED}]|[^\W_{_UNSPACED}]+(?:['’.,:/-][^\W_{_UNSPACED}]+)*")


def in_lines(text: str) -> list[str]:
    """The lines that are not empty, without the marks of lists."""
    return [line for each in text.split("\n") if (line := _LABEL.sub("", each, count=1).strip())]


def in_paragraphs(text: str) -> list[str]:
    """The blocks of lines between empty lines."""
    return [block.strip() for block in re.split(r"\n[^\S\n]*\n", text) if block.strip()]


def in_words(text: str) -> list[str]:
    """The words of a text; an ideograph is one."""
    return _WORD.findall(text)


def in_sentences(text: str) -> list[str]:
    """The sentences of a text. A line always ends one; abbreviations, initials and decimals do not."""
    return [sentence for line in in_lines(text) for sentence in _divided(line)]


def _divided(line: str) -> list[str]:
    found, begin = [], 0
    for end in _END.finditer(line):
        if end.start() >= begin and _ends(line, end):
            found.append(line[begin : end.end()].strip())
            begin = end.end()
    rest = line[begin:].strip()
    if re.search(r"\w", rest):
        found.append(rest)
    return [sentence for sentence in found if re.search(r"\w", sentence)]


def _ends(line: str, end: re.Match[str]) -> bool:
    """Whether a mark ends a sentence."""
    if end[0][0] in "。！？｡":
        return not line[end.end() : end.end() + 1] or line[end.end()] not in "，、,"
    following = line[end.end() : end.end() + 2]
    if following and not following[0].isspace() and not re.match(f"[{_UNSPACED}]", following):
        return False  # 3.5, example.com
    rest = line[end.end() :].lstrip()
    if end[0][0] != ".":
        return not (rest and rest[0].islower())  # "Really?" she asked.
    word = _LAST_WORD.search(line[max(0, end.start() - 20) : end.start()])
    last = word[0].casefold().lstrip(".") if word else ""
    if not rest:
        return True
    if rest[0].islower() or (rest[0].isdigit() and last == "no"):
        return False
    if len(last) == 1 and last.isalpha() and last != "i":
        return False  # an initial
    return last not in _ABBREVIATIONS - _OFTEN_LAST
