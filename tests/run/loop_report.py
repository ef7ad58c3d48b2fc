# ruff: noqa: T201
"""How well the loop guard does on the corpus: detection, false alarms, and its cost per token.

python -m tests.run.loop_report            # a table for each kind of text, and what was missed
python -m tests.run.loop_report FILE...    # only: in which of these text files would it fire
"""

import re
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

from edgellm.run.loops import Loop, LoopGuard
from tests.run.loop_corpus import Text, legitimate, loops, loops_in_step

# The tokens after the third repetition within which a loop must have been noticed.
GRACE = 200
PIECES = re.compile(r" ?[A-Za-z]{1,7}|\d|\n{1,2}| +(?= )|[ \t]| ?[^\sA-Za-z\d\u3000-\u9fff\uff00-\uffef]{1,2}|.", re.S)

Tokenizer = Callable[[str], Sequence[tuple[int, str]]]


def approximately(text: str) -> list[tuple[int, str]]:
    """Tokens as vocabularies of today have them: pieces of words, single digits, single ideographs."""
    return [(hash(piece), piece) for piece in PIECES.findall(text)]


def first_loop(text: str, tokenize: Tokenizer = approximately) -> tuple[Loop, int] | None:
    """The loop that the guard finds, and after how many tokens."""
    guard = LoopGuard()
    for n, (token, piece) in enumerate(tokenize(text), 1):
        if loop := guard.feed(token, piece):
            return loop, n
    return None


def verdict(text: Text, tokenize: Tokenizer = approximately) -> str:
    """`ok`, or what is wrong."""
    found = first_loop(text.text, tokenize)
    if text.third is None:
        return "ok" if found is None else f"false alarm: {found[0].shown!r} x {found[0].repetitions}"
    if found is None:
        return "missed"
    third = len(tokenize(text.text[: text.third]))
    return "ok" if found[1] <= third + GRACE else f"late: {found[1] - third} tokens after the third repetition"


def seconds_per_token(texts: list[Text]) -> float:
    """What the guard takes, over all texts, each up to its loop."""
    tokens = [approximately(text.text) for text in texts]
    count, start = 0, time.perf_counter()
    for pieces in tokens:
        guard = LoopGuard()
        for token, piece in pieces:
            count += 1
            if guard.feed(token, piece):
                break
    return (time.perf_counter() - start) / count


def main() -> None:
    """Print the report."""
    if files := sys.argv[1:]:
        for name in files:
            if found := first_loop(Path(name).read_text(errors="replace")):
                print(f"{name}: {found[0].shown!r} x {found[0].repetitions} after {found[1]} tokens")
        return
    corpus = [*loops(), *loops_in_step(), *legitimate()]
    results: dict[tuple[bool, str], list[str]] = defaultdict(list)
    for text in corpus:
        result = verdict(text)
        results[text.third is None, text.kind].append(result)
        if result != "ok":
            print(f"{text.kind}: {text.text[-300:-240]!r}: {result}")
    print(f"{'kind':<22}{'texts':>6}{'right':>7}")
    for (_, kind), found in results.items():
        print(f"{kind:<22}{len(found):>6}{found.count('ok'):>7}")
    for wanted, name in ((False, "loops stopped in time"), (True, "legitimate left alone")):
        all_results = [result for (legit, _), found in results.items() if legit is wanted for result in found]
        right = all_results.count("ok")
        print(f"{name}: {right} of {len(all_results)}, {right / len(all_results):.1%}")
    print(f"cost: {seconds_per_token(corpus) * 1e6:.1f} µs a token")


if __name__ == "__main__":
    main()
