"""Answers that state a tool's result as it is: a grammar that permits no other number before it.

    stating(("391",), numbers_in("What is 17 * 23?"))  ->  a grammar
    "17 times 23 is 391, a whole number."              # permitted
    "The answer is 381."                               # not permitted: 381 is neither the result nor in the question

The smallest models misread or alter a result that stands in front of them. The first line of an answer may use any
words, and the numbers of the question and of the result; it has to contain the result. What follows that line is free.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

# Characters between two numbers before the result; a model that wanders is brought to the point there.
MOST_WORDS = 80
# A question with more numbers than that is pasted text; so many of them may stand before the result.
MOST_KNOWN, MOST_BEFORE = 64, 8
_NUMBER = re.compile(r"[0-9]+(?:[.,][0-9]+)*")


def numbers_in(*texts: str) -> list[str]:
    """The numbers that stand in some texts, and the parts of those that contain points or commas."""
    found = [number for text in texts for number in _NUMBER.findall(text)]
    parts = [part for number in found for part in re.split("[.,]", number)]
    bare = [part.lstrip("0") for part in parts if part.startswith("0")]
    return list(dict.fromkeys(filter(None, [*found, *parts, *bare])))[:MOST_KNOWN]


def stating(values: Sequence[str], known: Sequence[str]) -> str:
    """The grammar of answers whose first line contains one of the values, beside numbers that are known.

    After an equals sign there is nothing but a value, and after the value no further equation on its line.
    """
    most = min(len(known), MOST_BEFORE)
    return "\n".join((
        f'root ::= word{{0,{MOST_WORDS}}} (number word{{1,{MOST_WORDS}}}){{0,{most}}} ([=≈] " "?)? value rest',
        f"value ::= {' | '.join(map(_literal, values))}",
        f"number ::= {' | '.join(map(_literal, known or values))}",
        r"word ::= [^0-9\n=≈]",
        r'rest ::= (word number?)* ("\n" [^\x00]*)?',
    ))  # fmt: skip


def _literal(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
