r"""Rewrites patterns of JSON schemas in the syntax that llama.cpp's schema conversions understand, or refuses them.

rewrite(r"^\d{3}-\w+$")  ->  r"^([\x30-\x39]{3,3}[\x2D][\x30-\x39\x41-\x5A\x5F\x61-\x7A]{1,})$"

For a pattern that they do not support, the conversions produce a grammar of any string or of other strings, and a
pattern like a{3,1} ends the process. A pattern describes a string's value, but a grammar describes its JSON text,
where a quotation mark has a backslash. A rewritten pattern therefore matches the JSON texts of the same values. A
negated set (`.`, `[^a]`, `\D`) leaves out the characters that need a backslash. As JSON Schema requires, a pattern
without anchors may match anywhere.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from edgellm.errors import UsageError

# The most repetitions that the conversions write out.
MAX_REPETITIONS = 999
MAX_DEPTH = 50
MAX_CHARACTERS = 4096

Ranges = tuple[tuple[int, int], ...]
LAST = 0x10FFFF
DIGITS: Ranges = ((0x30, 0x39),)
WORD: Ranges = ((0x30, 0x39), (0x41, 0x5A), (0x5F, 0x5F), (0x61, 0x7A))
SPACE: Ranges = ((0x09, 0x0D), (0x20, 0x20), (0xA0, 0xA0), (0x2000, 0x200A), (0x2028, 0x2029), (0x3000, 0x3000))
LINE_ENDS: Ranges = ((0x0A, 0x0A), (0x0D, 0x0D), (0x2028, 0x2029))
# A JSON text can contain these characters only behind a backslash.
ESCAPED: Ranges = ((0x00, 0x1F), (0x22, 0x22), (0x5C, 0x5C), (0x7F, 0x7F), (0xD800, 0xDFFF))
ESCAPES = {0x22: '"', 0x5C: "\\", 0x08: "b", 0x09: "t", 0x0A: "n", 0x0C: "f", 0x0D: "r"}
CLASSES = {"d": DIGITS, "w": WORD, "s": SPACE}
CONTROLS = {"t": 0x09, "n": 0x0A, "v": 0x0B, "f": 0x0C, "r": 0x0D, "0": 0x00}
QUANTIFIER = re.compile(r"\{(\d+)(?:(,)(\d*))?\}")
GROUP = re.compile(r"\((?:\?:|\?P?<[A-Za-z_]\w*>)?(?!\?)")
HEX = re.compile(r"x([0-9A-Fa-f]{2})|u([0-9A-Fa-f]{4})|u\{([0-9A-Fa-f]{1,6})\}")


class PatternUnsupported(UsageError):
    """A grammar cannot express the pattern."""


class PatternInvalid(UsageError):
    """A pattern, or a pair of limits, that nothing can match."""


def rewrite(pattern: str) -> str:
    """Return a pattern for the JSON texts of the same strings.

    Raises:
        PatternUnsupported, PatternInvalid: there is no such pattern.
    """
    body = _Reader(_short(pattern)).read()
    return f"^{body}$" if body else "^$"


def as_grammar(pattern: str, add_rule: Callable[[str], str]) -> str:
    """The same as a part of a GBNF grammar.

    Args:
        add_rule: adds a rule with a body, and returns its name; a group that is repeated becomes a rule.

    Raises:
        PatternUnsupported, PatternInvalid: there is no such pattern.
    """
    return _Reader(_short(pattern), add_rule).read() or '""'


def _short(pattern: str) -> str:
    if len(pattern) > MAX_CHARACTERS:
        raise PatternUnsupported(f"a pattern has {len(pattern):,} characters, the limit is {MAX_CHARACTERS:,}")
    return pattern


@dataclass(slots=True)
class _Reader:
    """Reads a pattern from left to right."""

    pattern: str
    add_rule: Callable[[str], str] | None = None
    at: int = 0

    def read(self) -> str:
        body = self._branches(depth=0)
        if self.at < len(self.pattern):
            raise self._invalid("it closes a group that is not open")
        return body

    def _branches(self, depth: int) -> str:
        """Read alternatives up to the end, or up to the bracket that closes their group."""
        if depth > MAX_DEPTH:
            raise self._unsupported(f"groups are nested more than {MAX_DEPTH} deep")
        branches = [self._branch(depth)]
        while self._take("|"):
            branches.append(self._branch(depth))
        written = [branch for branch in branches if branch]
        if not written:
            return ""
        body = f"({'|'.join(written)})"
        return body if len(written) == len(branches) else f"({body}{{0,1}})"

    def _branch(self, depth: int) -> str:
        parts = []
        if depth == 0 and not self._take("^"):
            parts.append(ANYTHING)
        ends = False
        while not ends and self.at < len(self.pattern) and self.pattern[self.at] not in "|)":
            ends = depth == 0 and self._take("$")
            if not ends:
                parts.append(self._quantified(depth))
        if ends and self.at < len(self.pattern) and self.pattern[self.at] != "|":
            raise self._unsupported("it has an anchor in the middle")
        if depth == 0 and not ends:
            parts.append(ANYTHING)
        return "".join(parts)

    def _quantified(self, depth: int) -> str:
        atom = self._atom(depth)
        least, most = 1, 1
        quantifier = QUANTIFIER.match(self.pattern, self.at)
        if quantifier:
            self.at = quantifier.end()
            least = int(quantifier[1])
            most = least if quantifier[2] is None else int(quantifier[3]) if quantifier[3] else -1
        elif self._take("*"):
            least, most = 0, -1
        elif self._take("+"):
            least, most = 1, -1
        elif self._take("?"):
            least, most = 0, 1
        else:
            return atom
        self._take("?")  # a lazy quantifier matches the same strings
        if QUANTIFIER.match(self.pattern, self.at) or self.pattern[self.at : self.at + 1] in ("*", "+", "?"):
            raise self._invalid("it repeats a repetition")
        if 0 <= most < least:
            raise self._invalid(f"it wants {least} to {most} repetitions")
        if max(least, most) > MAX_REPETITIONS:
            raise self._unsupported(f"a grammar repeats {MAX_REPETITIONS} times at most in a pattern")
        if most == 0 or not atom:
            return ""
        if self.add_rule and atom[0] == "(":  # llama.cpp multiplies its parts with the repetitions
            atom = f" {self.add_rule(atom)}"
        return f"{atom}{{{least},{most if most > 0 else ''}}}"

    def _atom(self, depth: int) -> str:
        if group := GROUP.match(self.pattern, self.at):
            self.at = group.end()
            body = self._branches(depth + 1)
            if not self._take(")"):
                raise self._invalid("a group is not closed")
            return body
        character = self.pattern[self.at]
        if character in "*+?" or QUANTIFIER.match(self.pattern, self.at):
            raise self._invalid("there is nothing to repeat")
        self.at += 1
        if character == "(":
            raise self._unsupported("it has a lookahead, a lookbehind or flags")
        if character in "^$":
            raise self._unsupported("it has an anchor in the middle")
        if character == ".":
            return _without(LINE_ENDS)
        if character == "[":
            return self._set()
        if character == "\\":
            ranges, is_complement = self._escape()
            return _without(ranges) if is_complement else _among(ranges)
        return _among(((ord(character), ord(character)),))

    def _set(self) -> str:
        is_complement = self._take("^")
        ranges: list[tuple[int, int]] = []
        while not self._take("]"):
            low = self._member()
            begin = self.at
            if len(low) == 1 and low[0][0] == low[0][1] and self._take("-"):
                if self.at < len(self.pattern) and self.pattern[self.at] != "]":
                    high = self._member()
                    if len(high) == 1 and high[0][0] == high[0][1]:
                        if high[0][0] < low[0][0]:
                            raise self._invalid("a range ends before it begins")
                        low = ((low[0][0], high[0][0]),)
                    else:
                        raise self._invalid("a range ends with a class")
                else:
                    self.at = begin
            ranges += low
        if is_complement:
            return _without(ranges)
        if not ranges:
            raise self._invalid("a set is empty")
        return _among(ranges)

    def _member(self) -> Ranges:
        if self.at >= len(self.pattern):
            raise self._invalid("a set is not closed")
        character = self.pattern[self.at]
        self.at += 1
        if character != "\\":
            return ((ord(character), ord(character)),)
        if self._take("b"):
            return ((0x08, 0x08),)
        ranges, is_complement = self._escape()
        return _complement(ranges) if is_complement else ranges

    def _escape(self) -> tuple[Ranges, bool]:
        """Read the part after a backslash: return ranges, and whether their complement is meant."""
        if self.at >= len(self.pattern):
            raise self._invalid("it ends with a backslash")
        if code := HEX.match(self.pattern, self.at):
            self.at = code.end()
            value = int(code[1] or code[2] or code[3], 16)
            return ((value, value),), False
        character = self.pattern[self.at]
        self.at += 1
        if ranges := CLASSES.get(character.lower()):
            return ranges, character.isupper()
        if character in CONTROLS:
            return ((CONTROLS[character], CONTROLS[character]),), False
        if character.isalnum():
            raise self._unsupported(f"a grammar has no equivalent of \\{character}")
        return ((ord(character), ord(character)),), False

    def _take(self, text: str) -> bool:
        if self.pattern.startswith(text, self.at):
            self.at += len(text)
            return True
        return False

    def _unsupported(self, why: str) -> PatternUnsupported:
        return PatternUnsupported(f"there is no grammar for the pattern {self.pattern[:100]}", why=why)

    def _invalid(self, why: str) -> PatternInvalid:
        return PatternInvalid(f"the pattern {self.pattern[:100]} is invalid", why=why)


def _complement(ranges: Iterable[tuple[int, int]]) -> Ranges:
    """Return the ranges of all other characters, in order."""
    others, begin = [], 0
    for low, high in sorted(ranges):
        if low > begin:
            others.append((begin, low - 1))
        begin = max(begin, high + 1)
    if begin <= LAST:
        others.append((begin, LAST))
    return tuple(others)


def _without(ranges: Iterable[tuple[int, int]]) -> str:
    """Return a pattern for the JSON text of any character outside these ranges that needs no backslash."""
    return _class(_complement((*ranges, *ESCAPED)))


def _among(ranges: Iterable[tuple[int, int]]) -> str:
    """Return a pattern for the JSON text of any character in these ranges."""
    kept = _complement((*_complement(ranges), *ESCAPED))
    escaped = [each for each in ESCAPES if any(low <= each <= high for low, high in ranges)]
    ways = [_class(kept)] if kept else []
    ways += [_class(((0x5C, 0x5C),)) + _class(((ord(ESCAPES[each]),) * 2,)) for each in escaped]
    if not ways:
        raise PatternUnsupported("there is no grammar for a pattern with control characters")
    return ways[0] if len(ways) == 1 and kept else f"({'|'.join(ways)})"


def _class(ranges: Iterable[tuple[int, int]]) -> str:
    return f"[{''.join(_code(low) if low == high else f'{_code(low)}-{_code(high)}' for low, high in ranges)}]"


def _code(character: int) -> str:
    return f"\\x{character:02X}" if character < 0x80 else f"\\U{character:08X}"


ANYTHING = _without(()) + "{0,}"
