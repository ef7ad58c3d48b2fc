"""Suites: named lists of items, read from TOML or JSON Lines, ours and the user's.

suite = find_suite("five-kinds/logic", here.suite_directories)
suite.items[0].prompt, suite.limited(10).items
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from edgellm.errors import UsageError
from edgellm.evaluation.item import Item
from edgellm.evaluation.suite_file import PassName, SuiteFields, read_fields, wrong_suite
from edgellm.suggest import did_you_mean

OURS = Path(__file__).parent / "suites"
# What is asked when no suite is named: neither about speed nor about long contexts.
DEFAULT_SUITES = ("five-kinds", "instructions", "json")
# How many items of each are asked then: enough to see where a model stands, in minutes.
DEFAULT_LIMIT = 20
GUARDED: PassName = "guarded"


@dataclass(frozen=True, slots=True)
class Suite:
    """Items under a name; `max_tokens` and `system` are for items that have none of their own.

    `passes` are ways in which every item is asked, one after the other: `guarded` with the loop guard, `unguarded`
    without it; none for the usual way. `slots` is how many answers may be computed at once, None for any number.
    """

    name: str
    title: str
    items: tuple[Item, ...]
    about: str = ""
    licence: str = ""
    max_tokens: int | None = None
    system: str | None = None
    passes: tuple[PassName, ...] = ()
    slots: int | None = None

    @property
    def n_checked(self) -> int:
        """How many of its items a person has checked."""
        return sum(item.is_checked for item in self.items)

    @property
    def languages(self) -> tuple[str, ...]:
        """The languages of its items."""
        return tuple(dict.fromkeys(item.language for item in self.items))

    @property
    def categories(self) -> tuple[str, ...]:
        """The categories of its items."""
        return tuple(dict.fromkeys(item.category for item in self.items if item.category))

    @property
    def digest(self) -> str:
        """A hash of everything that shapes its answers and verdicts."""
        content = [self.max_tokens, self.system, self.passes, self.slots, [asdict(item) for item in self.items]]
        return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:16]

    def only(self, category: str) -> Suite:
        """The items of one category.

        Raises:
            UsageError: there are none.
        """
        items = tuple(item for item in self.items if item.category == category)
        if not items:
            known = self.categories
            guess = did_you_mean(category, known)
            why = f"did you mean {guess}?" if guess else f"it has {', '.join(known) or 'no categories'}"
            raise UsageError(f"{self.name} has no category {category:.60}", why=why, hint=f"--suite {self.name}")
        return replace(self, items=items)

    def limited(self, n_items: int | None) -> Suite:
        """At most so many items, spread evenly over categories and languages: always the same ones."""
        if n_items is None or n_items >= len(self.items):
            return self
        waiting: dict[tuple[str, str], list[Item]] = {}
        for item in self.items:
            waiting.setdefault((item.category, item.language), []).append(item)
        taken: Counter[tuple[str | None, str | None]] = Counter()
        chosen = set()
        for _ in range(n_items):
            # The group with the fewest so far, then the category, then the language.
            group = min(waiting, key=lambda each: (taken[each], taken[each[0], None], taken[None, each[1]]))
            chosen.add(waiting[group].pop(0).id)
            taken.update([group, (group[0], None), (None, group[1])])
            if not waiting[group]:
                del waiting[group]
        return replace(self, items=tuple(item for item in self.items if item.id in chosen))


@dataclass(frozen=True, slots=True)
class ListedSuite:
    """A suite that can be named; a person has read `n_checked` of its items."""

    name: str
    title: str
    about: str
    n_items: int
    n_checked: int
    languages: tuple[str, ...]
    categories: tuple[str, ...]

    @classmethod
    def of(cls, suite: Suite) -> ListedSuite:
        """A suite without its items."""
        return cls(
            suite.name, suite.title, suite.about, len(suite.items), suite.n_checked, suite.languages, suite.categories
        )


@dataclass(frozen=True, slots=True)
class SuiteList:
    """All suites, by name, and what is wrong with files that are none."""

    suites: tuple[ListedSuite, ...]
    problems: tuple[str, ...] = ()


def list_suites(directories: Iterable[Path]) -> SuiteList:
    """Read all suites; a later directory overrides an earlier one."""
    suites, problems = [], []
    for _, path in sorted(_paths(directories).items()):
        try:
            suites.append(ListedSuite.of(read_suite(path)))
        except UsageError as error:
            problems.append(f"{error.what}: {error.why}" if error.why else error.what)
    return SuiteList(tuple(suites), tuple(problems))


def find_suite(name: str, directories: Sequence[Path]) -> Suite:
    """The suite of that name, of that file, or the category of one: NAME, PATH.toml, PATH.jsonl or NAME/CATEGORY.

    Raises:
        UsageError: there is none, the nearest name is in `why`; or its file is wrong.
        FileAccessError: it cannot be read.
    """
    if name.endswith((".toml", ".jsonl")):
        return read_suite(Path(name))
    paths = _paths(directories)
    base, _, category = name.partition("/")
    if base not in paths:
        guess = did_you_mean(base, paths)
        why = f"did you mean {guess}?" if guess else f"there are {', '.join(sorted(paths))}"
        raise UsageError(f"there is no suite {base:.60}", why=why, hint="edgellm eval --list")
    suite = read_suite(paths[base])
    return suite.only(category) if category else suite


def known_suites(names: Iterable[str], directories: Sequence[Path]) -> list[Suite]:
    """The suites of these names that there are.

    Raises:
        UsageError, FileAccessError: the file of one is wrong, or cannot be read.
    """
    paths = _paths(directories)
    return [read_suite(paths[name]) for name in names if name in paths]


def choose_suites(names: Sequence[str], limit: int | None, directories: Sequence[Path]) -> list[Suite]:
    """The suites of these names, with at most `limit` items each; without a name, a quick look at the usual ones.

    Raises:
        UsageError, FileAccessError: as in `find_suite`.
    """
    limit = DEFAULT_LIMIT if limit is None and not names else limit
    return [find_suite(name, directories).limited(limit) for name in names or DEFAULT_SUITES]


def _paths(directories: Iterable[Path]) -> dict[str, Path]:
    found = (path for directory in directories for path in sorted(directory.glob("*")))
    return {path.stem: path for path in found if path.suffix in (".toml", ".jsonl")}


def read_suite(path: Path) -> Suite:
    """The suite in a file.

    Raises:
        UsageError: it is no suite; `why` names the key or the line.
        FileAccessError: it cannot be read.
    """
    fields = read_fields(path)
    items = [*_generated(path, fields), *(each.item() for each in fields.items)]
    if twice := _first_twice(item.id for item in items):
        raise wrong_suite(path, f"two items have the id {twice}")
    if not items:
        raise wrong_suite(path, "it has no items")
    return Suite(
        fields.name, fields.title or fields.name, tuple(items), fields.about, fields.licence, fields.max_tokens,
        fields.system, fields.passes, fields.slots,
    )  # fmt: skip


def _generated(path: Path, fields: SuiteFields) -> Iterable[Item]:
    if fields.generate is None:
        return ()
    from edgellm.evaluation.generate import generate

    try:
        items: list[Item] = generate(fields.generate)
        return items
    except UsageError as error:
        raise wrong_suite(path, f"generate: {error.what}{f', {error.why}' if error.why else ''}") from error


def _first_twice(ids: Iterator[str]) -> str | None:
    seen: set[str] = set()
    return next((each for each in ids if each in seen or seen.add(each)), None)  # type: ignore[func-returns-value]
