"""Items of an evaluation to open: prompt, answer, what the checker saw, and why; and changed ones with both answers.

markup = item_list(evaluation.items)
markup = changed_list(comparison.changed, "smollm2 Q4_1", "smollm2 F16")

Each item is a `details` element, which opens without the script; the script only filters and sorts.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence

from edgellm.evaluation.compare import ChangedItem
from edgellm.evaluation.log import LoggedItem
from edgellm.report.markup import Markup, element, joined
from edgellm.units import duration

# Items of a page, and changed ones: a browser opens so many within seconds.
MOST_ITEMS, MOST_CHANGED = 10_000, 500
# Characters of all prompts and answers among them. Where there are more, each text is cut at the same length.
MOST_OF_ITEMS, MOST_OF_CHANGED = 2_000_000, 500_000
# Characters that are shown at once of a text; the rest is behind "show all".
SHOWN = 1500
# Values of a filter.
MOST_CHOICES = 200
# Characters of the line that shows a prompt, and of a name.
MOST_OF_LINE, MOST_OF_NAME = 100, 200
ENDINGS = {"stop": "by itself", "length": "cut off", "repetition": "loop", "error": "failed"}
SORTS = {"number": "as asked", "score": "worst first", "tokens": "longest answer", "seconds": "slowest"}


def item_list(items: Sequence[LoggedItem]) -> Markup:
    """All items, with filters that the script makes work."""
    shown = items[:MOST_ITEMS]
    limit = common_limit((len(text) for item in shown for text in _texts(item)), MOST_OF_ITEMS)
    rows = element("div", *(_item(item, limit) for item in shown), class_="items", id="item-list")
    return joined([_filters(shown), rows, _left_out(len(items) - len(shown))])


def changed_list(changed: Sequence[ChangedItem], name: str, base: str) -> Markup:
    """The items whose score changed, both answers side by side."""
    shown = changed[:MOST_CHANGED]
    texts = (text for each in shown for text in (*_texts(each.now), each.base.answer))
    limit = common_limit(map(len, texts), MOST_OF_CHANGED)
    rows = element("div", *(_changed(each, name, base, limit) for each in shown), class_="items")
    return joined([rows, _left_out(len(changed) - len(shown))])


def common_limit(lengths: Iterable[int], most: int) -> int:
    """The greatest length at which texts may be cut so that all together have at most `most` characters."""
    waiting = sorted(lengths)
    for n, length in enumerate(waiting):
        share = most // (len(waiting) - n)
        if length > share:
            return share
        most -= length
    return max(waiting, default=0)


def verdict_of(item: LoggedItem) -> str:
    """right, partly, wrong or failed."""
    if item.finish_reason == "error":
        return "failed"
    return "right" if item.is_right else "partly" if item.score > 0 else "wrong"


def _texts(item: LoggedItem) -> Iterable[str]:
    return (*(message["content"] for message in item.messages), item.answer)


def _left_out(n: int) -> Markup:
    return element("p", f"{n:,} more items are only in the log.", class_="soft") if n else Markup()


def _item(item: LoggedItem, limit: int) -> Markup:
    verdict = verdict_of(item)
    return element(
        "details",
        _summary(verdict, verdict, item, f"{item.score:.2g}"),
        _questions(item, limit),
        _text("answer", item.answer, limit),
        _verdict(item),
        class_="item",
        data_suite=item.suite[:MOST_OF_NAME],
        data_category=item.category[:MOST_OF_NAME],
        data_language=item.language[:MOST_OF_NAME],
        data_verdict=verdict,
        data_ending=_ending(item),
        data_score=f"{item.score:.4g}",
        data_tokens=item.completion_tokens,
        data_seconds=f"{item.prefill_seconds + item.decode_seconds:.2f}",
    )


def _changed(each: ChangedItem, name: str, base: str, limit: int) -> Markup:
    kind, word = ("right", "gained") if each.change > 0 else ("wrong", "lost")
    sides = [
        element("div", _text(f"{label}: {who}", item.answer, limit), _verdict(item))
        for label, who, item in (("base", base, each.base), ("now", name, each.now))
    ]
    return element(
        "details",
        _summary(kind, word, each.now, f"{each.base.score:.2g} → {each.now.score:.2g}"),
        _questions(each.now, limit),
        element("div", *sides, class_="sides"),
        class_="item",
    )


def _summary(kind: str, word: str, item: LoggedItem, score: str) -> Markup:
    """The line of an item that is always there: a word in the colour of its kind, name, prompt, score."""
    name = " / ".join(filter(None, (item.suite, item.item, item.pass_name)))
    about = " · ".join(filter(None, (item.category, item.language)))
    prompt = item.messages[-1]["content"] if item.messages else ""
    return element(
        "summary",
        element("span", word, class_=f"badge {kind}"),
        element("b", name[:MOST_OF_NAME], element("small", about[:MOST_OF_NAME])),
        element("span", " ".join(prompt[: 2 * MOST_OF_LINE].split())[:MOST_OF_LINE], class_="line"),
        element("span", score, class_="score"),
    )


def _questions(item: LoggedItem, limit: int) -> Markup:
    return joined(_text(message["role"], message["content"], limit) for message in item.messages)


def _text(heading: str, text: str, limit: int) -> Markup:
    """A long text under a heading: its beginning, and the rest to open."""
    kept = text[:limit]
    parts = [element("h4", heading)]
    parts.append(element("pre", kept[:SHOWN]) if text else element("p", "(empty)", class_="soft"))
    if rest := kept[SHOWN:]:
        more = element("summary", f"show all: {len(rest):,} more characters")
        parts.append(element("details", more, element("pre", rest), class_="rest"))
    if left := len(text) - len(kept):
        parts.append(element("p", f"{left:,} more characters are only in the log", class_="soft"))
    return joined(parts)


def _verdict(item: LoggedItem) -> Markup:
    """What the checker says, and how the answer came about: one element, as there may be thousands of items."""
    check = json.dumps(item.check, ensure_ascii=False)
    took = f"{duration(item.prefill_seconds)} to the first token, {duration(item.decode_seconds)} after it"
    facts = [
        ("score", f"{item.score:.2g}"),
        ("seen", _start(item.seen)),
        ("why", _start(item.why)),
        ("check", _start(check)),
        ("ended", _ending(item)),
        ("tokens", f"{item.prompt_tokens:,} read, {item.completion_tokens:,} written; {took}"),
    ]
    return element("p", "\n".join(f"{name}: {text}" for name, text in facts if text), class_="facts")


def _start(text: str) -> str:
    """The beginning of a text on one line, so that it cannot look like another fact."""
    line = " ".join(text[: SHOWN + 1].split())
    return line if len(text) <= SHOWN else line + "…"


def _ending(item: LoggedItem) -> str:
    return ENDINGS.get(item.finish_reason, item.finish_reason)


def _filters(items: Sequence[LoggedItem]) -> Markup:
    """What to choose from; hidden until the script shows it."""
    choices = [
        ("suite", _values(items, lambda item: item.suite)),
        ("category", _values(items, lambda item: item.category)),
        ("language", _values(items, lambda item: item.language)),
        ("verdict", _values(items, verdict_of)),
        ("ending", _values(items, _ending)),
    ]
    parts = [
        _choice(name, [("", "all"), *((value, value) for value in values)])
        for name, values in choices
        if len(values) > 1
    ]
    parts.append(_choice("sort", list(SORTS.items())))
    search = element(
        "input", id="filter-text", type="search", autocomplete="off", placeholder="words in prompt or answer"
    )
    parts.append(element("label", "text", search, class_="wide"))
    shown = element("output", f"{len(items):,} items", id="filter-count")
    return element("form", *parts, shown, class_="filters", id="filters", hidden=True)


def _values(items: Sequence[LoggedItem], value: Callable[[LoggedItem], str]) -> Sequence[str]:
    return sorted({value(item)[:MOST_OF_NAME] for item in items} - {""})[:MOST_CHOICES]


def _choice(name: str, values: Sequence[tuple[str, str]]) -> Markup:
    options = [element("option", word, value=value) for value, word in values]
    return element("label", name, element("select", *options, id=f"filter-{name}"))
