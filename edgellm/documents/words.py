"""The words of a text as they are indexed and searched: stems come from FTS5, ideographs go in pairs.

    terms("重置密码 now")  ->  ["重置", "置密", "密码", "now"]

Languages without spaces have no words to see; two characters beside each other find as much as a dictionary would.
"""

from __future__ import annotations

import re
import unicodedata

# Characters of scripts without spaces, for a class of a pattern.
UNSPACED = "\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\u0e00-\u0e7f\u1780-\u17ff"
_RUN = re.compile(f"[{UNSPACED}]+")
_WORD = re.compile(r"\w+")
_TAG = re.compile(r"<(\|?[\w/▁:-]{1,40}\|?)>|\[(/?INST)\]")
# Words that say nothing about what a question is for.
_STOP = (
    "a an the of in on at to for from by with and or not is are was were be been being do does did has have had can "
    "could should would will may might must shall i you he she it we they me my your his her its our their this that "
    "these those there here what which who whom whose when where why how if then than as so such any some about into "
    "up out 什么 怎么 如何 哪些 多少 是否 可以 需要 以及 我们 一个 这个 那个 怎样 应该 为什 么样"
)
_STOPPED = frozenset(_STOP.split())


def normal(text: str) -> str:
    """One form of equal characters: full-width letters become narrow, case is folded."""
    return unicodedata.normalize("NFKC", text).casefold()


def indexed(text: str) -> str:
    """A text as FTS5 shall see it."""
    return _RUN.sub(lambda run: f" {' '.join(pairs(run[0]))} ", normal(text))


def pairs(run: str) -> list[str]:
    """The pairs of neighbours in a run of characters."""
    return [run[at : at + 2] for at in range(len(run) - 1)] or [run]


def terms(question: str) -> list[str]:
    """The words to search for, each once: those that mean something, or all if none does."""
    words = dict.fromkeys(_WORD.findall(indexed(question)))
    return [word for word in words if word not in _STOPPED] or list(words)


def is_common(word: str) -> bool:
    """Whether a word says nothing about what a question is for."""
    return word in _STOPPED


def has_ideographs(text: str) -> bool:
    """Whether a text is largely in a script without spaces."""
    found = sum(map(len, _RUN.findall(text)))
    return found > 0.15 * max(1, sum(not each.isspace() for each in text))


def without_tags(text: str) -> str:
    """A text whose control tokens of chat templates have other brackets: in a prompt they are mere words."""
    return _TAG.sub(lambda tag: f"‹{tag[1] or tag[2]}›", text)
