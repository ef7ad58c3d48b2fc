"""In which language a text is, by its script and its small words.

is_english("How long is the warranty?")  ->  True
is_foreign_script("Гарантия два года")   ->  True
language_of("Il fait beau à Paris.")     ->  "fr"
"""

from __future__ import annotations

import re
from collections import Counter

_LETTER = re.compile(r"[^\W\d_]")
_NOT_LATIN = re.compile(r"[^\W\d_\u0000-\u024f\u1e00-\u1eff]")
# A letter of a script that writes syllables or whole words says as much as several Latin ones.
FOREIGN = 0.15
_WORD = re.compile(r"[^\W\d_]+")
# The most frequent small words; those that English shares with another language are in neither list.
_ENGLISH_WORDS = "the of and to is that for it was with be this have from are which by not or you your"
_OTHER_WORDS = {
    "de": "der und das nicht mit ist den von zu ein eine auf für dem sich auch werden sind wird ich wie es im",
    "fr": "le la les des et est dans que une pour qui sur pas du au sont ce cette avec il de en un je vous nous à",
    "es": "el los las y por con del se una como para su lo más la de en que un es no está muy",
    "it": "di che non per della sono gli nel alla dei è il la una con un si le del",
    "pt": "os uma não com da em na dos mais foi ao são o que um de para por é se",
    "nl": "het een van niet op zijn voor aan ook wordt de en dat ik te maar",
    "sv": "och att det som för inte på är av ett jag den med",
    "no": "til ikke og det er som på av jeg en med",
    "pl": "nie się jest że przez oraz w z na do to",
    "tr": "bir ve bu için ile de da",
    "id": "yang dan untuk dengan adalah ini itu",
    "vi": "và của là không một được có cho",
}
_ENGLISH = frozenset(_ENGLISH_WORDS.split())
# Each language's own list may hold words that English has as well, with another meaning.
_SHARED_WORDS = "es im de en un no on o se da do to te a is me an in"
_BY_LANGUAGE = {name: frozenset(words.split()) for name, words in _OTHER_WORDS.items()}
_OTHERS = frozenset().union(*_BY_LANGUAGE.values()) - frozenset(_SHARED_WORDS.split())
# Added for the choice of one language among all: other lists hold some of these too.
_MORE_ENGLISH = "a in on as at i he she they we his her can will has had but there their what when an my me do if its"
# Letters that only some languages write.
_LETTERS = {"de": "ßäöü", "es": "ñ¿¡", "pt": "ãõ", "fr": "œêîç", "pl": "łąężśćń", "tr": "ğışı", "vi": "đơưạảấầẩậ"}
_SCRIPTS = {
    "ja": re.compile("[\u3040-\u30ff]"),
    "ko": re.compile("[\uac00-\ud7af]"),
    "zh": re.compile("[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]"),
    "ru": re.compile("[\u0400-\u04ff]"),
    "ar": re.compile("[\u0600-\u06ff]"),
    "el": re.compile("[\u0370-\u03ff]"),
    "he": re.compile("[\u0590-\u05ff]"),
    "hi": re.compile("[\u0900-\u097f]"),
    "th": re.compile("[\u0e00-\u0e7f]"),
}
# Frequent characters that are written in one way in simplified, and in another in traditional Chinese.
_SIMPLIFIED = frozenset(
    "们个这来时说为国过对发会学样从没还开现问间点头经长书气见车马东门风飞鱼鸟黄龙听读写讲话语认识谁请让给红绿爱万与业两严义习乡买乱争亚产亲亿仅众优体余"
)
_TRADITIONAL = frozenset(
    "們個這來時說為國過對發會學樣從沒還開現問間點頭經長書氣見車馬東門風飛魚鳥黃龍聽讀寫講話語認識誰請讓給紅綠愛萬與業兩嚴義習鄉買亂爭亞產親億僅眾優體餘"
)
# Names for `language_of`.
LANGUAGES = ("en", "zh", "zh-hans", "zh-hant", *_BY_LANGUAGE, *(name for name in _SCRIPTS if name != "zh"))
# An ideograph says about as much as this many letters.
_LETTERS_A_SYLLABLE = 3


def is_foreign_script(text: str) -> bool:
    """Whether a text is largely in another script than Latin."""
    n_foreign = len(_NOT_LATIN.findall(text))
    return n_foreign > FOREIGN * max(1, len(_LETTER.findall(text)))


def is_english(text: str) -> bool:
    """Whether a text is English, or nothing speaks for another language: tables, code."""
    words = _WORD.findall(text.casefold())
    n_english = sum(word in _ENGLISH for word in words)
    n_other = sum(word in _OTHERS for word in words)
    return not is_foreign_script(text) and n_english >= n_other


def language_of(text: str) -> str:
    """The language that most of a text is in, of `LANGUAGES`; empty without letters.

    Chinese is zh where all its characters are written alike in simplified (zh-hans) and traditional (zh-hant). Latin
    letters without a small word of any language are English.
    """
    counts = {name: len(script.findall(text)) for name, script in _SCRIPTS.items()}
    n_syllables = counts["ja"] + counts["ko"] + counts["zh"]
    n_foreign = sum(counts.values()) + (_LETTERS_A_SYLLABLE - 1) * n_syllables
    n_latin = len(_LETTER.findall(text)) - sum(counts.values())
    if n_latin <= 0 and not n_foreign:
        return ""
    if n_latin > n_foreign:
        return _latin_language(text)
    if counts["ja"] * 10 > counts["zh"]:  # Japanese has ideographs too, but never without kana
        counts["ja"] += counts["zh"]
    best = max(counts, key=lambda name: counts[name])
    return _chinese(text) if best == "zh" else best


def _latin_language(text: str) -> str:
    words = Counter(_WORD.findall(text.casefold()))
    lists = {"en": _ENGLISH.union(_MORE_ENGLISH.split()), **_BY_LANGUAGE}
    scores = {name: sum(n for word, n in words.items() if word in known) for name, known in lists.items()}
    for name, letters in _LETTERS.items():
        scores[name] += sum(n for word, n in words.items() if any(letter in letters for letter in word))
    return max(scores, key=lambda name: scores[name])


def _chinese(text: str) -> str:
    simplified = sum(each in _SIMPLIFIED and each not in _TRADITIONAL for each in text)
    traditional = sum(each in _TRADITIONAL and each not in _SIMPLIFIED for each in text)
    if simplified == traditional:
        return "zh"
    return "zh-hans" if simplified > traditional else "zh-hant"
