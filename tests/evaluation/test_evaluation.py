"""Evaluations of a scripted model: right, wrong and endless answers, and what their log says."""

from dataclasses import replace
from pathlib import Path

import pytest

from edgellm.engine.fake import FakeModel
from edgellm.errors import UsageError
from edgellm.evaluation.asked_item import AskedItem, asked_items
from edgellm.evaluation.item import Item
from edgellm.evaluation.log import read_log
from edgellm.evaluation.rescore import rescore
from edgellm.evaluation.suite import Suite
from tests.evaluation.scripted import HEADER, evaluate, sums

LOOP = "Yes, I am good. " * 200


def test_a_right_model_has_everything_right_and_a_wrong_one_nothing(tmp_path: Path) -> None:
    suite = sums(12)
    right = FakeModel(replies={item.prompt: f"It is {item.check['value']}." for item in suite.items})
    wrong = FakeModel(replies={item.prompt: f"It is {item.check['value'] + 1}." for item in suite.items})
    for model, score, name in ((right, 1.0, "right"), (wrong, 0.0, "wrong")):
        found = evaluate([suite], model, tmp_path / name)
        (scored,) = found.suites
        assert scored.total.score == score and scored.total.n_items == 12 and scored.total.n_right == 12 * score
        assert [(each.name, each.score) for each in scored.categories] == [("small", score), ("large", score)]
        assert [(each.name, each.score) for each in scored.languages] == [("en", score), ("zh", score)]
        assert scored.passes == () and scored.total.low < 1 and scored.total.high > 0
        assert read_log(tmp_path / name / "log.jsonl") == (HEADER, found.items)
        assert [item.item for item in found.items] == [item.id for item in suite.items]
        assert [path.name for path in (tmp_path / name).iterdir()] == ["log.jsonl"]


def test_endless_answers_are_found_with_and_without_the_guard(tmp_path: Path) -> None:
    items = tuple(Item(f"e{n}", f"prompt {n}!", {"kind": "finished"}) for n in range(4))
    suite = Suite("endless", "Endless", items, max_tokens=600, passes=("guarded", "unguarded"))
    model = FakeModel(replies={"prompt 1!": LOOP, "prompt 2!": "说得好。" * 300, "prompt": "Done."})
    found = evaluate([suite], model, tmp_path)
    guarded, unguarded = found.suites[0].passes
    assert (guarded.name, guarded.n_loops, guarded.n_cut, guarded.score) == ("guarded", 2, 0, 0.5)
    assert (unguarded.name, unguarded.n_loops, unguarded.n_cut, unguarded.score) == ("unguarded", 2, 2, 0.5)
    reasons = {(item.item, item.pass_name): item.finish_reason for item in found.items}
    assert reasons["e1", "guarded"] == reasons["e2", "guarded"] == "repetition"
    assert reasons["e1", "unguarded"] == "length" and reasons["e0", "unguarded"] == "stop"
    assert len(found.items) == 8


def test_suites_that_want_fewer_slots_get_them_and_the_log_keeps_the_order(tmp_path: Path) -> None:
    alone = sums(3, "alone", slots=1)
    found = evaluate([alone, sums(3, "usual")], FakeModel(), tmp_path)
    assert [item.suite for item in found.items] == ["alone"] * 3 + ["usual"] * 3


def test_what_could_not_be_asked_counts_as_wrong_and_says_why(tmp_path: Path) -> None:
    too_long = Item("long", "word " * 4000, {"kind": "finished"})
    found = evaluate([Suite("s", "S", (too_long, Item("short", "Hi", {"kind": "finished"})))], FakeModel(), tmp_path)
    long, short = found.items
    assert (long.finish_reason, long.score, short.score) == ("error", 0.0, 1.0) and "8,000" in long.why
    assert found.suites[0].total.n_failed == 1 and found.suites[0].total.score == 0.5
    again, changes = rescore(found, [])
    assert again.items == found.items and changes.changed == () and changes.n_missing == 2


def test_an_answer_that_is_cut_off_before_its_form_is_whole_is_judged_and_counted(tmp_path: Path) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}
    item = Item("form", "Hi", {"kind": "json", "values": {"a": "x"}}, schema=schema)
    found = evaluate([Suite("s", "S", (item,), max_tokens=8)], FakeModel(replies={"Hi": '{"a": "x' * 9}), tmp_path)
    assert (found.items[0].answer, found.items[0].finish_reason, found.items[0].score) == ('{"a": "x', "length", 0.0)
    assert found.suites[0].total.n_cut == 1 and found.suites[0].total.n_failed == 0


def test_rescoring_uses_the_checks_of_today_where_the_item_is_still_the_same(tmp_path: Path) -> None:
    suite = sums(4)
    found = evaluate([suite], FakeModel(replies={item.prompt: "0" for item in suite.items}), tmp_path)
    assert found.suites[0].total.n_right == 1
    first, second, third, fourth = suite.items
    nothing = {"kind": "number", "value": 0}
    today = replace(
        suite, items=(replace(second, check=nothing), replace(third, check=nothing, prompt="Another?"), fourth)
    )
    again, changes = rescore(found, [today])
    assert [(each.now.item, each.change) for each in changes.changed] == [("sum-1", 1.0)]
    assert changes.n_missing == 2 and again.suites[0].total.n_right == 2
    assert again.items[1].check == nothing and again.path is None
    assert first.id == "sum-0"


def test_a_wrong_check_is_refused_by_its_item_before_anything_is_asked() -> None:
    suite = Suite("mine", "Mine", (Item("a", "?", {"kind": "nosuch"}),))
    with pytest.raises(UsageError, match="mine/a"):
        asked_items([suite])
    with pytest.raises(UsageError, match="twice"):
        asked_items([sums(1), sums(1)])


def test_answers_of_other_items_are_never_taken(tmp_path: Path) -> None:
    for name in ("any-slots.jsonl", "any-slots.answers.part"):
        (tmp_path / "work").mkdir(exist_ok=True)
        (tmp_path / "work" / name).write_text('{"id":"batch_req_1_000000000000"}\n')
    with pytest.raises(UsageError, match="another"):
        evaluate([sums(2)], FakeModel(), tmp_path)


def test_an_item_as_a_row_of_a_batch() -> None:
    schema = {"type": "object"}
    suite = Suite("s", "S", (Item("a", "How?", {"kind": "finished"}, schema=schema),), system="Be brief.", max_tokens=9)
    (asked,) = asked_items([suite])
    row = asked.row(raw=False)
    assert row["custom_id"] == "s/a" and row["url"] == "/v1/chat/completions" and "loop_guard" not in row
    assert row["body"]["max_tokens"] == 9 and asked.row(raw=False, most_tokens=4)["body"]["max_tokens"] == 4
    assert row["body"]["messages"][0] == {"role": "system", "content": "Be brief."}
    assert row["body"]["response_format"]["json_schema"]["schema"] == schema
    raw = asked.row(raw=True)
    assert raw["url"] == "/v1/completions" and raw["body"]["prompt"] == "Be brief.\n\nQuestion: How?\nAnswer:"
    assert AskedItem(suite, suite.items[0], "unguarded").row(raw=False)["loop_guard"] is False
