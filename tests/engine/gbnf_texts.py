"""Draws texts from a GBNF grammar, to hold what a grammar permits against the schema that it was made from.

    texts = GrammarTexts('root ::= "[" ("a" | "b"){1,2} "]"')
    texts.draw(random.Random(1))  ->  "[ab]"

It reads the part of GBNF that edgellm writes.
"""

import random
import re
from typing import Any

LITERAL, SET = r'"(?:\\.|[^"\\])*"', r"\[(?:\\.|[^\]\\])*\]"
PARTS = re.compile(rf"{LITERAL}|{SET}|\{{\d+(?:,\d*)?\}}|[()|?*+]|[A-Za-z0-9-]+", re.DOTALL)
ESCAPED = re.compile(r"\\(?:x([0-9A-F]{2})|U([0-9A-F]{8})|(.))", re.DOTALL)
CONTROLS = {"n": "\n", "t": "\t", "r": "\r"}
OTHERS = 'aZ09 _-.,:/é中😀"\\'
MOST_STEPS, MOST_DEPTH = 3000, 150


class TooLong(Exception):
    """A text has no end in sight."""


class GrammarTexts:
    """The texts of a grammar."""

    def __init__(self, grammar: str) -> None:
        rules = (line.split(" ::= ", 1) for line in grammar.split("\n"))
        self.rules = {name: _Reader(body).alternatives() for name, body in rules}

    def draw(self, chance: random.Random) -> str:
        """One of them; TooLong if it takes too many steps."""
        self._left = MOST_STEPS
        return self._text(("rule", "root"), chance, 0)

    def _text(self, node: Any, chance: random.Random, depth: int) -> str:
        self._left -= 1
        if self._left < 0 or depth > MOST_DEPTH:
            raise TooLong
        match node:
            case ("literal", text):
                return str(text)
            case ("rule", name):
                return self._text(self.rules[name], chance, depth + 1)
            case ("any", ways):
                return self._text(chance.choice(ways), chance, depth + 1)
            case ("all", parts):
                return "".join(self._text(part, chance, depth + 1) for part in parts)
            case ("times", part, least, most):
                count = least + chance.choice([0, 0, 1, 2])
                count = count if most is None else min(most, chance.choice([count, most]))
                return "".join(self._text(part, chance, depth + 1) for _ in range(count))
            case ("set", characters, is_complement):
                if is_complement:
                    return chance.choice([each for each in OTHERS if not _within(each, characters)])
                low, high = chance.choice(characters)
                return chr(chance.randint(low, min(high, low + 200)))
        raise AssertionError(node)


class _Reader:
    def __init__(self, body: str) -> None:
        self.parts = PARTS.findall(body)
        self.at = 0

    @property
    def next(self) -> str:
        return self.parts[self.at] if self.at < len(self.parts) else ""

    def alternatives(self) -> Any:
        ways = [self._sequence()]
        while self.next == "|":
            self.at += 1
            ways.append(self._sequence())
        return ("any", ways)

    def _sequence(self) -> Any:
        found = []
        while self.next not in ("|", ")", ""):
            part, node = self.next, None
            self.at += 1
            if part == "(":
                node = self.alternatives()
                assert self.next == ")"
                self.at += 1
            elif part[0] == '"':
                node = ("literal", _plain(part[1:-1]))
            else:
                node = _set(part[1:-1]) if part[0] == "[" else ("rule", part)
            while self.next and (self.next in "?*+" or self.next[0] == "{"):
                node = ("times", node, *_counts(self.next))
                self.at += 1
            found.append(node)
        return ("all", found)


def _counts(part: str) -> tuple[int, int | None]:
    if part in "?*+":
        return {"?": (0, 1), "*": (0, None), "+": (1, None)}[part]
    least, comma, most = part[1:-1].partition(",")
    assert int(least) <= 2000 and int(most or 0) <= 2000, "llama.cpp repeats no more"
    return int(least), int(most) if most else None if comma else int(least)


def _plain(text: str) -> str:
    return ESCAPED.sub(lambda it: chr(int(it[1] or it[2], 16)) if it[1] or it[2] else CONTROLS.get(it[3], it[3]), text)


def _set(text: str) -> Any:
    is_complement = text.startswith("^")
    letters = [_plain(each[0]) for each in re.finditer(r"\\x..|\\U.{8}|\\.|.", text[is_complement:], re.DOTALL)]
    ranges, at = [], 0
    while at < len(letters):
        is_range = letters[at + 1 : at + 2] == ["-"] and at + 2 < len(letters)
        ranges.append((ord(letters[at]), ord(letters[at + 2 * is_range])))
        at += 1 + 2 * is_range
    return ("set", ranges, is_complement)


def _within(letter: str, ranges: list[tuple[int, int]]) -> bool:
    return any(low <= ord(letter) <= high for low, high in ranges)
