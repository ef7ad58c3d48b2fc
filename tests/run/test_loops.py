"""The loop guard on its corpus, and what it tells of a loop."""

import pytest

from edgellm.run.loops import LoopGuard
from tests.run.loop_corpus import Text, legitimate, loops, loops_in_step
from tests.run.loop_report import approximately, first_loop, verdict

LOOPS, LEGITIMATE = list(loops()), list(legitimate())


def test_the_corpus_is_large_enough() -> None:
    assert len(LOOPS) >= 100 and len(LEGITIMATE) >= 200
    for texts in (LOOPS, LEGITIMATE):
        assert sum(any("\u4e00" <= c <= "\u9fff" for c in text.text) for text in texts) >= 30


def test_loops_are_noticed_in_time() -> None:
    wrong = [(text.text[-80:], found) for text in LOOPS if (found := verdict(text)) != "ok"]
    assert len(wrong) <= len(LOOPS) * 0.02, wrong


def test_loops_with_several_numbers_are_noticed_after_the_hundredth_time() -> None:
    assert [(text.text[-80:], found) for text in loops_in_step() if (found := verdict(text)) != "ok"] == []


@pytest.mark.parametrize("kind", sorted({text.kind for text in LEGITIMATE}))
def test_what_should_repeat_is_left_alone(kind: str) -> None:
    assert not [
        (text.text[:80], found) for text in LEGITIMATE if text.kind == kind and (found := verdict(text)) != "ok"
    ]


@pytest.mark.parametrize(
    ("opening", "unit"),
    [
        ("How are you? ", "Yes, I am good. "),
        ("The reasons:\n\n", "- The coke reacts with the oxygen.\n"),
        ("原因如下。\n", "焦炭的反应性越高，炉温越高。\n"),
        ("Look: ", "🌍 "),
    ],
)
def test_the_answer_is_kept_up_to_the_loop(opening: str, unit: str) -> None:
    text = opening + unit * 80
    found = first_loop(text)
    assert found is not None
    loop, n_tokens = found
    kept = "".join(piece for _, piece in approximately(text)[: loop.kept_tokens])
    # The first time is kept; where exactly a unit begins, nobody can say.
    assert opening.strip() in kept and unit.strip(" \n.。")[:4] in kept
    assert len(kept) <= len(opening + 2 * unit)
    assert len(loop.unit.split()) == len(unit.split()) and loop.repetitions >= 3
    assert n_tokens <= len(approximately(opening + 3 * unit)) + 200


def test_a_loop_is_shown_on_one_line() -> None:
    found = first_loop(
        "word\n" * 3 + "A long line of the answer, which comes again and again,\nand goes on in the next.\n" * 50
    )
    assert found is not None
    assert "\n" not in found[0].shown and len(found[0].shown) <= 60


def test_the_guard_tells_how_often_a_suffix_came() -> None:
    guard = LoopGuard()
    seen = []
    for token, piece in approximately("Why? " + "Because it is so, and so it is. " * 12):
        guard.feed(token, piece)
        seen.append(guard.repetitions)
    assert seen[0] == 1 and max(seen) >= 10 and seen == sorted(seen)


def test_tokens_without_any_text() -> None:
    guard = LoopGuard()
    assert any(guard.feed(7, "") for _ in range(400))
    guard = LoopGuard()
    assert not any(guard.feed(n, "") for n in range(400))


@pytest.mark.parametrize("text", ["", "\x00" * 50, "\x1b[2J" * 20, "é" * 50, "9" * 5000 + "8", "x" * 30 + "y" * 30])
def test_odd_texts(text: str) -> None:
    first_loop(text)


def test_huge_numbers_are_no_counters() -> None:
    assert (
        first_loop("\n".join(f"The number {10**30 + n} is a long number of many digits indeed." for n in range(9)))
        is None
    )


def test_a_loop_after_much_other_text() -> None:
    text = "".join(sample.text for sample in LEGITIMATE if sample.kind == "prose")
    assert first_loop(text + Text("", "I do not know what else to say. " * 60).text) is not None
