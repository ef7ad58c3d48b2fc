"""Read a question: its numbers, names, units, negation, alternatives and words.

facts("Is the TB-80 waterproof?").names  ->  ("tb80",)

Nothing is guessed by a model.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

from edgellm.cache.chinese import IDEOGRAPH, chinese
from edgellm.cache.english import english
from edgellm.cache.english_words import TOGETHER
from edgellm.cache.question_facts import QuestionFacts

MOST_CHARACTERS = 2000
_KANA = re.compile("[\u3040-\u30ff]")


@lru_cache(maxsize=512)
def facts(text: str) -> QuestionFacts:
    """Read a question."""
    plain = unicodedata.normalize("NFC", text[:MOST_CHARACTERS]).replace("’", "'")
    if IDEOGRAPH.search(plain) and not _KANA.search(plain):
        return chinese(unicodedata.normalize("NFKC", plain))
    for pattern, said in TOGETHER.items():
        plain = re.sub(pattern, said, plain)
    return english(plain)
