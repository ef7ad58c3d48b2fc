"""The fold of an answer: blocks and their changes, parallel answers, tokens, and what is left out of a loop."""

import dataclasses
import itertools
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgellm.run.events import Begin, Call, Cut, End, Event, Prefill, Text, Thought, TokenCounts
from edgellm.serve.answer.whole import AnswerChoice, BlockKind, Change, Step, Whole
from tests.serve.recordings import events, folded

ENTRY = {"token": "a", "bytes": [97], "logprob": -1.0, "top_logprobs": []}


def changes(*items: Event) -> list[tuple[Step, int, str]]:
    whole = Whole()
    return [(change.step, change.block.index, change.piece) for event in items for change in whole.add(event)]


def kinds(choice: AnswerChoice) -> list[tuple[BlockKind, str]]:
    return [(block.kind, block.text) for block in choice.blocks]


def test_blocks_open_grow_and_close_one_after_the_other() -> None:
    assert changes(
        Thought("hm"), Thought("."), Text("so"), Call(0, "c", "f", "{"), Call(0, "", "", "}"), Call(1, "d", "g", ""),
        Text("then"), End("stop"),
    ) == [
        (Step.OPEN, 0, ""), (Step.MORE, 0, "hm"), (Step.MORE, 0, "."), (Step.CLOSE, 0, ""),
        (Step.OPEN, 1, ""), (Step.MORE, 1, "so"), (Step.CLOSE, 1, ""),
        (Step.OPEN, 2, ""), (Step.MORE, 2, "{"), (Step.MORE, 2, "}"), (Step.CLOSE, 2, ""),
        (Step.OPEN, 3, ""), (Step.CLOSE, 3, ""),
        (Step.OPEN, 4, ""), (Step.MORE, 4, "then"), (Step.CLOSE, 4, ""),
    ]  # fmt: skip


def test_what_says_nothing_changes_no_block() -> None:
    assert changes(Begin({"id": "x"}), Prefill(1, 2, 0), Text(""), End("stop")) == []


def test_a_call_has_its_name_and_an_id() -> None:
    (named, nameless) = folded([Call(0, "c", "f", "{}"), Call(1, "", "", "")]).choice.calls
    assert (named.name, named.call_id, named.text) == ("f", "c", "{}")
    assert nameless.call_id.startswith("call_") and len(nameless.call_id) > 20


def test_calls_are_in_the_order_of_their_positions() -> None:
    whole = folded([Call(1, "b", "g", ""), Call(0, "a", "f", "")])
    assert [call.call_id for call in whole.choice.calls] == ["a", "b"]
    assert [block.call_id for block in whole.choice.blocks] == ["b", "a"], "as they came"


def test_recorded_answers() -> None:
    thought = folded(events("chat_thought")).choice
    assert kinds(thought) == [(BlockKind.THOUGHT, "Paris is a city.\n"), (BlockKind.TEXT, "It is Paris.")]
    assert thought.text == "It is Paris." and thought.thoughts == "Paris is a city.\n"
    assert thought.finish_reason == "stop" and thought.open is None
    calls = folded(events("chat_calls"))
    assert [(call.name, call.position) for call in calls.choice.calls] == [("weather", 0), ("weather", 1)]
    assert calls.tokens == TokenCounts(128, 60, calls.tokens.cached) and calls.timings["predicted_n"] == 60
    assert calls.about["id"] == "chatcmpl-recorded" and "object" not in calls.about
    logprobs = folded(events("chat_logprobs")).choice
    assert "".join(entry["token"] for entry in logprobs.logprobs) == logprobs.text


def test_parallel_answers_share_the_tokens_of_their_prompt() -> None:
    both = folded(events("chat_n2"), n=2)
    assert both.tokens.prompt == both.choices[0].end.tokens.prompt  # type: ignore[union-attr]
    assert both.tokens.completion == 10 and sorted(both.choices) == [0, 1]
    prompts = folded(events("completion_prompts"))
    assert prompts.tokens[:2] == (4, 8), "one and three tokens"


def end(index: int, *tokens: int) -> End:
    return End("stop", index, TokenCounts(*tokens))


def test_tokens_of_several_prompts_with_several_answers_each() -> None:
    whole = folded([end(0, 5, 1, 2), end(1, 5, 2, 5), end(2, 7, 3, 0), end(3, 7, 4, 6)], n=2)
    assert whole.tokens == TokenCounts(12, 10, 11)
    assert folded([End("stop"), end(1, 5, 2, 0)], n=2).tokens == TokenCounts(5, 2, 0), "one has no counts"


def test_before_the_end_the_tokens_are_those_of_the_prompt() -> None:
    assert folded([Prefill(0, 9, 4), Text("a")]).tokens == TokenCounts(9, 0, 4)
    assert folded([]).tokens == TokenCounts(0, 0, 0) and folded([Text("a")]).choice.finish_reason == "length"


def test_a_loop_is_left_out_with_its_log_probabilities() -> None:
    texts = [Text(piece, logprobs=(ENTRY,)) for piece in "abcde"]
    cut = End("stop", cut=Cut("repetition", "c", 3, 2))
    for before, kept in (([], "ab"), ([Thought("x", logprobs=(ENTRY,))], "a"), ([Thought("x"), Thought("y")], "")):
        whole = folded([*before, *texts, cut])
        assert whole.choice.text == kept
        assert len(whole.choice.logprobs) == len(kept) + sum(len(thought.logprobs) for thought in before)
    assert [block.kind for block in whole.choice.blocks] == [BlockKind.THOUGHT], "an empty block is none"


def test_calls_are_no_part_of_a_loop() -> None:
    whole = folded([Text("a"), Text("b"), Call(0, "c", "f", "{}"), End("stop", cut=Cut("repetition", "b", 3, 1))])
    assert kinds(whole.choice) == [(BlockKind.TEXT, "a"), (BlockKind.CALL, "{}")]
    assert folded([Text("a"), End("stop", cut=Cut("time"))]).choice.text == "a"


pieces = st.lists(
    st.one_of(
        st.builds(Text, st.sampled_from(["", "a", "b ", "é"]), index=st.integers(0, 1)),
        st.builds(Thought, st.sampled_from(["x", "y"]), index=st.integers(0, 1)),
        st.builds(Call, st.integers(0, 1), st.just("c"), st.just("f"), st.sampled_from(["", "{", "}"]),
                  index=st.integers(0, 1)),
    ),
    max_size=12,
)  # fmt: skip


@settings(max_examples=50, deadline=None)
@given(pieces, st.integers())
def test_parallel_answers_do_not_depend_on_how_they_are_mixed(items: list[Any], seed: int) -> None:
    """Each answer by itself, and all of them in any order that keeps each one's own, give the same choices."""
    items = [*items, End("stop"), End("length", 1)]
    each = {index: [item for item in items if item.index == index] for index in (0, 1)}
    order = [0] * len(each[0]) + [1] * len(each[1])
    random.Random(seed).shuffle(order)
    queues = {index: iter(found) for index, found in each.items()}
    mixed = folded([next(queues[index]) for index in order], n=2)
    for index, found in each.items():
        alone = folded([dataclasses.replace(item, index=0) for item in found])
        assert kinds(mixed.choices[index]) == kinds(alone.choice)
        assert mixed.choices[index].finish_reason == alone.choice.finish_reason


@settings(max_examples=50, deadline=None)
@given(pieces)
def test_changes_add_up_to_the_blocks(items: list[Any]) -> None:
    whole = Whole(2)
    found: list[Change] = [change for item in [*items, End("stop"), End("stop", 1)] for change in whole.add(item)]
    for choice in whole.choices.values():
        for block in choice.blocks:
            steps = [change for change in found if change.block is block]
            assert [change.step for change in (steps[0], steps[-1])] == [Step.OPEN, Step.CLOSE]
            assert "".join(change.piece for change in steps) == block.text
        assert [block.index for block in choice.blocks] == list(range(len(choice.blocks)))
    said = [item for item in items if not isinstance(item, Call)]
    for index, choice in whole.choices.items():
        assert choice.text == "".join(item.text for item in said if isinstance(item, Text) and item.index == index)
        thoughts = [item.text for item in said if isinstance(item, Thought) and item.index == index]
        assert choice.thoughts == "".join(thoughts)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.sampled_from(["a", "b", " "]), min_size=1, max_size=12), st.lists(st.booleans(), max_size=12))
def test_an_answer_does_not_depend_on_how_its_text_was_cut_into_pieces(letters: list[str], cuts: list[bool]) -> None:
    groups: list[str] = []
    for letter, is_cut in itertools.zip_longest(letters, cuts[: len(letters)], fillvalue=False):
        groups = [*groups, str(letter)] if is_cut or not groups else [*groups[:-1], groups[-1] + str(letter)]
    one_by_one = folded([*map(Text, letters), End("stop")])
    assert kinds(folded([*map(Text, groups), End("stop")]).choice) == kinds(one_by_one.choice)


@pytest.mark.parametrize("kept", [0, 1, 5])
def test_trimming_never_adds(kept: int) -> None:
    choice = folded([Thought("x"), Text("a"), Text("b")]).choice
    choice.trim(kept)
    assert (choice.thoughts + choice.text) == "xab"[:kept]
