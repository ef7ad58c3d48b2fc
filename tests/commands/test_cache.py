"""`edgellm cache`: what a user types and sees."""

import json
from pathlib import Path

from edgellm.cache.store import AnswerStore
from edgellm.settings import Settings
from tests.commands.cli import data, edgellm, error


def test_from_ls_to_rm(settings: Settings) -> None:
    assert "no answers yet" in edgellm("cache", "ls").stderr and data(edgellm("cache", "ls", "--json")) == []
    with AnswerStore.open(settings.answers) as store:
        for question in ("Is it open?", "Is it late?"):
            store.put("s", question, {"text": "Yes."}, text="Yes.", model="m")
        store.observe(1, 0.8, right=True)
        store.count("asked")
        store.count("similar")
    assert [each["question"] for each in data(edgellm("cache", "ls", "--json"))] == ["Is it late?", "Is it open?"]
    assert data(edgellm("cache", "show", "1", "--json"))["n_right"] == 1
    stats = data(edgellm("cache", "stats", "--json"))
    assert stats["n_answers"] == 2 and stats["hit_rate"] == 0.5
    assert "Yes." in edgellm("cache", "show", "1").stdout and "50%" in edgellm("cache", "stats").stdout
    assert data(edgellm("cache", "rm", "1", "--json")) == {"n_answers": 1}
    assert error(edgellm("cache", "show", "1", "--json"))["code"] == "answer-not-found"
    assert error(edgellm("cache", "rm", "--json"))["code"] == "usage"
    settings.answers.write_bytes(b"damaged" * 1000)
    assert error(edgellm("cache", "ls", "--json"))["try"] == "edgellm cache rm --all"
    assert edgellm("cache", "rm", "--all").returncode == 0 and data(edgellm("cache", "ls", "--json")) == []


def test_check_says_whether_and_why(settings: Settings, tmp_path: Path) -> None:
    checked = data(edgellm("cache", "check", "怎么导出数据？", "如何导出我的数据", "--json"))
    assert checked == [
        {"id": None, "hit": True, "similarity": 1.0, "reason": "nothing differs, and near enough", "same": None}
    ]
    assert "miss: numbers differ: 3, 4" in edgellm("cache", "check", "第三步是什么？", "第四步是什么？").stdout
    pairs, out = tmp_path / "pairs.jsonl", tmp_path / "out.jsonl"
    rows = [
        {"id": 1, "a": "怎么导出？", "b": "如何导出", "same": True},
        {"id": 2, "a": "甲？", "b": "乙？", "same": False},
    ]
    pairs.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    shown = edgellm("cache", "check", "--pairs", str(pairs), "-o", str(out))
    assert "1 hits in 1 pairs of the same meaning (100.0%)" in shown.stdout
    decisions = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert [(each["id"], each["hit"]) for each in decisions] == [("1", True), ("2", False)]


def test_wrong_pairs_are_one_error(settings: Settings, tmp_path: Path) -> None:
    pairs = tmp_path / "pairs.jsonl"
    for text, message in (
        ("{", "line 1: it is not JSON"),
        ('{"a": 1}', "line 1: a pair is"),
        ("[" * 99999, "not JSON"),
    ):
        pairs.write_text(text)
        assert message in error(edgellm("cache", "check", "--pairs", str(pairs), "--json"))["what"]
    pairs.write_bytes(b"\xff\xfe\xff")
    assert "no text in UTF-8" in error(edgellm("cache", "check", "--pairs", str(pairs), "--json"))["what"]
    assert error(edgellm("cache", "check", "--pairs", str(tmp_path / "no"), "--json"))["code"] == "file-access"
    assert error(edgellm("cache", "check", "one", "--json"))["code"] == "usage"
