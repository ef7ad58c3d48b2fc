r"""An answer's text without its dress: width, Markdown and LaTeX; and the part that states the final answer.

plain("**１７** \\times 3")  ->  "17 × 3"
stated("It is 51. The answer is 51 apples.")  ->  "51 apples."
"""

from __future__ import annotations

import re
import unicodedata

from edgellm.evaluation.checkers.base import MOST_TEXT

_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺", "0123456789-+")
_RAISED = re.compile("[⁻⁺]?[⁰¹²³⁴⁵⁶⁷⁸⁹]+")
_CIRCLED = re.compile("[\u2460-\u24ff\u2776-\u2793]")
_VULGAR = re.compile("(?<=[0-9])(?=[¼-¾⅐-⅞])")
_FRACTION = re.compile(r"\\[dtc]?frac\s?\{([^{}]{1,40})\}\s?\{([^{}]{1,40})\}")
_SQUARE_ROOT = re.compile(r"\\sqrt\s?\{([^{}]{1,40})\}")
_WRAPPED = re.compile(r"\\(?:text|mathrm|mathbf|textbf|operatorname)\s?\{([^{}]{0,200})\}")
_LATEX = {
    r"\times": "×", r"\cdot": "×", r"\div": "÷", r"\approx": "≈", r"\pm": "±", r"\neq": "≠", r"\ne": "≠",
    r"\circ": "°", r"\degree": "°", r"\left": "", r"\right": "", r"\quad": " ", r"\qquad": " ",
}  # fmt: skip
_COMMAND = re.compile(r"\\(?:times|cdot|div|approx|pm|neq?|circ|degree|left|right|qquad|quad)(?![a-zA-Z])")
_ESCAPED = re.compile(r"\\([%$#_&{}])")
_POWER = re.compile(r"\^\{([^{}]{1,40})\}")
_SPACE = re.compile(r"\\[,;:! ]|\\[()\[\]]|\$\$")
# A dollar sign is money before a digit, unless another one closes a formula in the same line.
_FORMULA = re.compile(r"\$([^$\n]{1,200})\$(?![0-9])")
_EMPHASIS = re.compile(r"\*\*|__|(?<![\w*])\*(?=\S)|(?<=\S)\*(?![\w*\s(])|`|^[ \t]*(?:#{1,6}|>)[ \t]+", re.MULTILINE)
_BOXED = re.compile(r"\\boxed\s?\{((?:[^{}]|\{[^{}]*\}){1,300})\}")
_THOUGHT = re.compile(r"^\s*<think>.*?</think>", re.DOTALL)
_MARK = re.compile(
    r"(?:final answer|(?<!no )(?<!possible )\banswers?|\bsolutions?|\bresult|"
    r"答案|结果|结论|解(?=就?[是为])|最后得[到出]|最终)"
    r"[^\S\n]*(?:(?:to|of|for)\b[^.\n:]{1,80}?|\([^()\n]{1,40}\)[^\S\n]*)?"
    r"(?:\b(?:is|are|was|will be|equals?)\b|就?应?该?[是为]|"
    r"等于|[:：=]|[^\S\n]*\n)"
    r"[^\S\n]*[:：]?"
    r"|^[^\S\n]*(?:[AＡ]|答|解|故|所以|因此|therefore|thus|so)[^\S\n]*[:：]",
    re.IGNORECASE | re.MULTILINE,
)
_DENIAL = re.compile(
    r"(?:\bnot|n't|\bnever|\bno longer|\brather than|\binstead of|\bunlike|≠|!=|而不是|不是|并非|不等于|而非|不为|不选)"
    r"[^\S\n]*(?:(?:a|an|the|simply|just|merely|exactly|equal to|in)[^\S\n]+)*[\"'“‘(]?$",
    re.IGNORECASE,
)
# Characters of the line that states an answer.
MOST_STATED = 2000
# Characters before a place that may deny what stands there.
_BEFORE = 40


def plain(text: str) -> str:
    """The end of a text (`MOST_TEXT` characters) in one form: full-width, Markdown and LaTeX become plain signs."""
    text = _THOUGHT.sub("", text[-MOST_TEXT:])
    text = _CIRCLED.sub(" ", _VULGAR.sub(" ", text))
    text = _RAISED.sub(lambda found: "^" + found[0].translate(_SUPERSCRIPTS), text)
    text = unicodedata.normalize("NFKC", text).replace("⁄", "/").replace("−", "-")
    text = _POWER.sub(r"^(\1)", text)
    if "\\" in text:
        text = _without_latex(text)
    text = _FORMULA.sub(r"\1", text)
    return _EMPHASIS.sub("", text)


def _without_latex(text: str) -> str:
    text = _COMMAND.sub(lambda found: _LATEX[found[0]], _WRAPPED.sub(r" \1 ", text))
    text = _FRACTION.sub(r"(\1)/(\2)", _SQUARE_ROOT.sub(r"sqrt(\1)", text))
    text = re.sub(r"\((\d+)\)/\((\d+)\)", r" \1/\2 ", text)
    return _ESCAPED.sub(r"\1", _SPACE.sub(" ", text))


def stated(text: str) -> str | None:
    """What follows the last words that announce an answer, up to the end of that line; None without such words.

    A box of LaTeX is one. "The answer is:" at the end of a line announces the next line that is not empty.
    """
    if boxes := _BOXED.findall(text):
        return str(boxes[-1])
    marks = list(_MARK.finditer(text))
    for mark in reversed(marks):
        lines = (line for line in text[mark.end() :].split("\n", 20)[:20] if line.strip(" \t*:："))
        if line := next(lines, ""):
            return line.strip()[:MOST_STATED]
    return None


def is_denied(text: str, at: int) -> bool:
    """Whether a "not" stands directly before this place: "not 5 but 6" denies the 5."""
    return _DENIAL.search(text[max(0, at - _BEFORE) : at]) is not None


def folded(text: str) -> str:
    """A text for comparison: plain, without case, with single spaces."""
    return " ".join(plain(text).casefold().replace("’", "'").split())
