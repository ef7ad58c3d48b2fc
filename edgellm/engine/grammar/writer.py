r"""Writes the forms of a JSON schema as a GBNF grammar of their JSON texts.

    Writer(reduced({"type": "array", "items": {"type": "boolean"}, "maxItems": 2})).grammar()

A property comes where the schema has it. What would make a grammar too large or ambiguous is left to the check of the
whole answer: a limit above `MAX_REPETITIONS`, the multiples of a large number, a pattern that no grammar can say.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from itertools import groupby, takewhile
from math import ceil, floor
from typing import Any

from edgellm.engine.grammar.patterns import PatternUnsupported, as_grammar
from edgellm.engine.grammar.ranges import MAX_DIGITS, MAX_DIVISOR, integers, multiples, numbers
from edgellm.engine.grammar.schemas import Forms, permits_all
from edgellm.errors import UsageError

# llama.cpp repeats no part more often.
MAX_REPETITIONS = 2_000
# All repetitions of a grammar together; each costs the engine memory.
MAX_REPEATED = 20_000
# Each is a place where an answer may go on: a step through the grammar tries all of them.
MAX_OPTIONAL = 1_000
# Names of properties that additional ones must not have: the letters of all together, and of one.
MAX_LETTERS = 5_000
MAX_NAME = 100

# A character of a JSON string, the part behind a backslash, and what no string has as it is.
ESCAPE = r'["\\/bfnrt] | "u" [0-9a-fA-F]{4}'
PLAIN = r"\"\\\x7F\x00-\x1F"
TIME = (
    '([01] [0-9] | "2" [0-3]) ":" [0-5] [0-9] ":" [0-5] [0-9] ("." [0-9]{1,6})? ("Z" | [+-] [01] [0-9] ":" [0-5] [0-9])'
)
# Every month has the days that it has in every year.
DAY = '"0" [1-9] | "1" [0-9] | "2" [0-8]'
DATE = (
    '[0-9]{3} [1-9] "-" ("02-" (' + DAY + ') | ("0" [13578] | "1" [02]) "-" (' + DAY + ' | "29" | "3" [01])'
    ' | ("0" [469] | "11") "-" (' + DAY + ' | "29" | "30"))'
)
OCTET = '("25" [0-5] | "2" [0-4] [0-9] | "1" [0-9]{2} | [1-9] [0-9] | [0-9])'
LABEL = "[a-zA-Z0-9] ([a-zA-Z0-9-]{0,30} [a-zA-Z0-9])?"
RULES = {
    # With more freedom a small model goes astray in it.
    "space": r'| " " | "\n" (" "{0,40} | "\t"{0,10})',
    "char": rf'[^{PLAIN}] | "\\" ({ESCAPE})',
    "string": r'"\"" char* "\""',
    "boolean": '"true" | "false"',
    "null": '"null"',
    "integer": f'"-"? ("0" | [1-9] [0-9]{{0,{MAX_DIGITS - 1}}})',
    "number": f'integer ("." [0-9]{{1,{MAX_DIGITS}}})? ([eE] [-+]? [1-9] [0-9]?)?',
    "value": "object | array | string | number | boolean | null",
    "object": '"{" space (string ":" " "? value ("," space string ":" " "? value)* space)? "}"',
    "array": '"[" space (value ("," space value)* space)? "]"',
    "date": DATE,
    "time": TIME,
    "date-time": f'{DATE} "T" {TIME}',
    "uuid": '[0-9a-fA-F]{8} "-" [0-9a-fA-F]{4} "-" [0-9a-fA-F]{4} "-" [0-9a-fA-F]{4} "-" [0-9a-fA-F]{12}',
    "email": '[a-zA-Z0-9] [a-zA-Z0-9._%+-]{0,60} "@" label ("." label){1,4}',
    "hostname": 'label ("." label){0,4}',
    "uri": r'[a-zA-Z] [a-zA-Z0-9+.-]{0,20} ":" [a-zA-Z0-9._~:/?#@!$&()*+,;=%\x27\x5B\x5D-]+',
    "ipv4": f'{OCTET} "." {OCTET} "." {OCTET} "." {OCTET}',
    "ipv6": '[0-9a-fA-F]{1,4} (":" [0-9a-fA-F]{1,4}){7}',
    "duration": '"P" (length [YMWD] | "T" length [HMS] | length "DT" length [HMS])',
    "length": "[1-9] [0-9]{0,3}",
    "label": LABEL,
}
FORMATS = ("date", "time", "date-time", "uuid", "email", "hostname", "uri", "ipv4", "ipv6", "duration")


class Writer:
    """Writes one grammar; its rules are made as they are needed."""

    def __init__(self, forms: Forms) -> None:
        self._forms = forms
        self._rules: dict[str, str] = {}
        self._by_body: dict[str, str] = {}
        self._parts: dict[str, str] = {}
        self._n_repeated = 0

    def grammar(self) -> str:
        """The grammar, whose start rule is `root`.

        Raises:
            UsageError: it has too many optional properties, or a pattern that nothing can match.
        """
        root = self._value(self._forms.root, "answer")
        while waiting := [name for name in self._parts if self._parts[name] not in self._rules]:
            for name in waiting:
                self._rules[self._parts[name]] = self._value(self._forms.parts[name], f"part-{name}")
        return "\n".join(f"{name} ::= {body}" for name, body in {"root": root, **self._rules}.items())

    def _basic(self, name: str) -> str:
        """A rule of `RULES`, with the rules that it needs."""
        if name not in self._rules:
            self._rules[name] = RULES[name]
            for needed in re.findall(
                r"[a-z][a-z0-9-]*", re.sub(r'"(?:\\.|[^"\\])*"|\[(?:\\.|[^\]\\])*\]', "", RULES[name])
            ):
                self._basic(needed)
        return name

    def _rule(self, hint: str, body: str) -> str:
        """The name of a rule with this body."""
        if (known := self._by_body.get(body)) is not None:
            return known
        name = stem = f"{hint}-"
        number = 1
        while name in self._rules or name == "root":
            number += 1
            name = f"{stem}{number}"
        self._by_body[body] = name
        self._rules[name] = body
        return name

    def _repeated(self, rule: str, least: int, most: int | None) -> str:
        """A rule so many times, as far as the limits go: a rule of its own, as llama.cpp multiplies nested counts."""
        least = min(least, MAX_REPETITIONS)
        if most is not None:
            most = None if most > MAX_REPETITIONS else max(least, most)
        self._n_repeated += max(least, most or 0)
        if self._n_repeated > MAX_REPEATED:
            least, most = min(least, 1), None
        if most == 0:
            return '""'
        return self._rule("times", f"{rule}{{{least},{'' if most is None else most}}}")

    def _value(self, form: dict[str, Any] | bool, hint: str) -> str:
        """A body of a rule for a form: one name, or an expression in brackets."""
        if isinstance(form, bool) or permits_all(form):
            return self._basic("value")
        if "$ref" in form:
            name = form["$ref"].removeprefix("#/$defs/")
            return self._parts.setdefault(name, f"part-{name}")
        if "anyOf" in form:
            ways = dict.fromkeys(self._value(each, f"{hint}-{index}") for index, each in enumerate(form["anyOf"], 1))
            return self._rule(hint, " | ".join(ways))
        if "enum" in form:
            return self._rule(hint, _one_of(sorted(set(map(json_text, form["enum"])))))
        return self._of_type(form["type"], form, hint)

    def _of_type(self, kind: str, form: dict[str, Any], hint: str) -> str:
        match kind:
            case "object":
                return self._object(form, hint)
            case "array":
                return self._array(form, hint)
            case "string":
                return self._string(form, hint)
            case "integer" | "number":
                return self._number(form, hint)
        return self._basic(kind)

    def _object(self, form: dict[str, Any], hint: str) -> str:
        properties, required = form["properties"], frozenset(form["required"])
        if len(properties) - len(required) > MAX_OPTIONAL:
            n_optional = len(properties) - len(required)
            why = f"an object has {n_optional:,} optional properties, the limit is {MAX_OPTIONAL:,}"
            raise UsageError("there is no grammar for this JSON schema", why=why)
        entries = [
            (self._rule(f"{hint}-{_word(name)}-kv", self._entry(name, each, f"{hint}-{_word(name)}")), name in required)
            for name, each in properties.items()
        ]
        least, most = form.get("minProperties", 0) - len(required), form.get("maxProperties")
        first, rest = self._extras(form, hint, max(0, least), most)
        # From the last property to the first: what comes where the object is still empty, and where it is not.
        for entry, is_required in reversed(entries):
            later = f'"," space {entry} {rest}'
            first_way = f"{entry} {rest}"
            if is_required:
                first, rest = first_way, later
            else:
                rest = self._rule(f"{hint}-rest", f"{later} | {rest}")
                first = self._rule(f"{hint}-first", f"{first_way} | {first}")
        self._basic("space")
        return self._rule(hint, f'"{{" space ({first}) "}}"')

    def _entry(self, name: str, form: dict[str, Any] | bool, hint: str) -> str:
        return f'{_literal(json_text(name))} ":" " "? {self._value(form, hint)}'

    def _extras(self, form: dict[str, Any], hint: str, least: int, most: int | None) -> tuple[str, str]:
        """What follows the named properties up to the bracket: where the object is still empty, and where it is not."""
        ways = [
            f'{self._pattern_key(pattern)} ":" " "? {self._value(each, f"{hint}-matching")}'
            for pattern, each in form.get("patternProperties", {}).items()
        ]
        if (additional := form["additionalProperties"]) is not False:
            ways.append(f'{self._other_key(form, hint)} ":" " "? {self._value(additional, f"{hint}-additional")}')
        if not ways or most == 0:
            return '""', "space"
        entry = self._rule(f"{hint}-other", " | ".join(ways))
        more = self._rule(f"{hint}-more", f'"," space {entry}')
        most_more = None if most is None else most - 1
        one_or_more = f"{entry} {self._repeated(more, max(0, least - 1), most_more)} space"
        return one_or_more if least else f"({one_or_more})?", f"{self._repeated(more, least, most)} space"

    def _pattern_key(self, pattern: str) -> str:
        try:
            return self._pattern(pattern)
        except PatternUnsupported:
            return self._basic("string")

    def _other_key(self, form: dict[str, Any], hint: str) -> str:
        """A name that none of the properties has."""
        named = form.get("propertyNames", {})
        if named.get("type") == "string" or ("enum" in named and all(isinstance(each, str) for each in named["enum"])):
            return self._value(named, f"{hint}-name")
        names = [json_text(name)[1:-1] for name in form["properties"]]
        plain = [name for name in names if "\\" not in name]
        self._basic("char")
        if not plain or sum(map(len, plain)) > MAX_LETTERS or max(map(len, plain)) > MAX_NAME:
            return self._basic("string")
        return self._rule(f"{hint}-name", f'"\\"" {self._unlike(plain, f"{hint}-name")} "\\""')

    def _unlike(self, names: Iterable[str], hint: str) -> str:
        """The rule of what is none of these texts."""
        tails: dict[str, list[str]] = {}
        for name in names:
            tails.setdefault(name[:1], []).append(name[1:])
        ways = [] if "" in tails else ['""']
        tails.pop("", None)
        letters = "".join(map(_code, tails))
        ways += [f"[{_code(letter)}] {self._unlike(left, hint)}" for letter, left in tails.items()]
        ways.append(f'([^{letters}{PLAIN}] | "\\\\" ({ESCAPE})) char*')
        return self._rule(hint, " | ".join(ways))

    def _array(self, form: dict[str, Any], hint: str) -> str:
        self._basic("space")
        first = [self._value(each, f"{hint}-{index}") for index, each in enumerate(form.get("prefixItems", ()), 1)]
        least, most = form["minItems"] - len(first), form.get("maxItems")
        most = None if most is None else most - len(first)
        body = ' "," space '.join(first)
        if most != 0 and form["items"] is not False:
            item = self._value(form["items"], f"{hint}-item")
            more = self._rule(f"{hint}-more", f'"," space {item}')
            if first:
                body += f" {self._repeated(more, max(0, least), most)}"
            else:
                body = f"{item} {self._repeated(more, max(0, least - 1), None if most is None else most - 1)}"
                body = body if least > 0 else f"({body} space)?"
        end = "" if body.endswith(")?") or not body else "space "
        return self._rule(hint, f'"[" space {body} {end}"]"')

    def _string(self, form: dict[str, Any], hint: str) -> str:
        if "pattern" in form:
            try:
                return self._pattern(form["pattern"])
            except PatternUnsupported:
                pass
        name = form.get("format", "")
        if name in FORMATS or re.fullmatch("uuid[1-5]", name):
            return self._rule(hint, f'"\\"" {self._basic(name[:4] if name.startswith("uuid") else name)} "\\""')
        if "minLength" not in form and "maxLength" not in form:
            return self._basic("string")
        characters = self._repeated(self._basic("char"), form.get("minLength", 0), form.get("maxLength"))
        return self._rule(hint, f'"\\"" {characters} "\\""')

    def _pattern(self, pattern: str) -> str:
        return self._rule("pattern", f'"\\"" {as_grammar(pattern, lambda body: self._rule("repeated", body))} "\\""')

    def _number(self, form: dict[str, Any], hint: str) -> str:
        kind, divisor = form["type"], form.get("multipleOf")
        is_whole = kind == "integer" or (isinstance(divisor, int) and not isinstance(divisor, bool))
        least, most = _limits(form, is_whole=is_whole)
        if is_whole and divisor is not None and (body := self._multiples(divisor, least, most, hint)):
            return self._rule(hint, body)
        places = _places(divisor)
        if least is not None or most is not None or places:
            body = integers(least, most) if is_whole else numbers(least, most, places or MAX_DIGITS)
            if body is not None:
                return self._rule(hint, body)
        return self._basic("integer" if is_whole else kind)

    def _multiples(self, divisor: float, least: float | None, most: float | None, hint: str) -> str | None:
        """The multiples of a whole number, if they are few or the number is small."""
        if divisor != int(divisor) or divisor < 1:
            return None
        divisor = int(divisor)
        if least is not None and most is not None and (most - least) / divisor <= MAX_REPETITIONS:
            found = range(ceil(least / divisor) * divisor, floor(most) + 1, divisor)
            return " | ".join(f'"{each}"' for each in found) or None
        if least is None and most is None and divisor <= MAX_DIVISOR:
            prefix = f"multiple-of-{divisor}-"
            rules = {name: re.sub(r"rest-\d+-\d+", lambda found: prefix + found[0], body)
                     for name, body in multiples(divisor).items()}  # fmt: skip
            self._rules |= {prefix + name: body for name, body in rules.items()}
            return f"{prefix}start"
        return None


def json_text(value: Any) -> str:
    """A value as JSON, compact; letters stay what they are, but for half of a surrogate pair."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    try:
        text.encode()
    except UnicodeEncodeError:
        return json.dumps(value, separators=(",", ":"))
    return text


def _literal(text: str) -> str:
    return '"' + re.sub(r'["\\]', r"\\\g<0>", text) + '"'


def _one_of(texts: list[str]) -> str:
    """One of several texts in order; a common beginning is written once, so that a step has few ways to try."""
    ways = []
    for _, group in groupby(texts, key=lambda text: text[:1]):
        alike = list(group)
        begin = "".join(
            one for one, other in takewhile(lambda pair: pair[0] == pair[1], zip(alike[0], alike[-1], strict=False))
        )
        rest = [text[len(begin) :] for text in alike]
        ways.append(_literal(begin) if len(alike) == 1 else f"{_literal(begin)} ({_one_of(rest)})")
    return " | ".join(ways)


def _code(letter: str) -> str:
    return f"\\x{ord(letter):02X}" if ord(letter) < 0x80 else f"\\U{ord(letter):08X}"


def _word(name: str) -> str:
    """A name as a part of a rule's name."""
    return re.sub(r"[^A-Za-z0-9]+", "-", name)[:40].strip("-") or "name"


def _limits(form: dict[str, Any], *, is_whole: bool) -> tuple[float | None, float | None]:
    """The least and the most value. A grammar of decimals includes an exclusive limit itself."""
    lows = [form["minimum"]] if "minimum" in form else []
    highs = [form["maximum"]] if "maximum" in form else []
    if "exclusiveMinimum" in form:
        lows.append(floor(form["exclusiveMinimum"]) + 1 if is_whole else form["exclusiveMinimum"])
    if "exclusiveMaximum" in form:
        highs.append(ceil(form["exclusiveMaximum"]) - 1 if is_whole else form["exclusiveMaximum"])
    return max(lows, default=None), min(highs, default=None)


def _places(divisor: float | None) -> int | None:
    """2 for 0.01: how many digits after the point the multiples of a power of ten have."""
    found = re.fullmatch(r"0\.(0*)1|1e-0?(\d)", repr(divisor))
    return (len(found[1]) + 1 if found[1] is not None else int(found[2])) if found else None
