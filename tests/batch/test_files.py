"""The files of a batch: its lines, its journal after every kind of death, and the merging of shards."""

import os
import sqlite3
from pathlib import Path

import pytest

from edgellm.batch import lines as batch_lines
from edgellm.batch.journal import Journal, already_answered
from edgellm.batch.lines import Line, Shard, ids, read_lines, survey
from edgellm.batch.merge import merge
from edgellm.batch.responses import refused
from edgellm.errors import BadRequest, CorruptFile, FileAccessError, UsageError

JOB = {"model": "m", "seed": None}


def source(tmp_path: Path, n_rows: int = 6) -> Path:
    path = tmp_path / "in.txt"
    path.write_text("".join(f"question {row}\n" for row in range(1, n_rows + 1)))
    return path


def output_lines(path: Path, shard: Shard | None = None) -> list[bytes]:
    wanted = shard or Shard()
    return [refused(line, None, BadRequest(f"row {line.row}")) for line in read_lines(path) if wanted.has(line.row)]


def test_lines_of_every_kind(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_bytes(b"\xef\xbb\xbf{1}\r\n\r\n  \n{2}\n\n{3}")
    assert [(line.row, line.number, line.data) for line in read_lines(path)] == [
        (1, 1, b"{1}"), (2, 4, b"{2}"), (3, 6, b"{3}"),
    ]  # fmt: skip
    assert survey(path).n_rows == 3
    path.write_bytes(b"")
    assert survey(path).n_rows == 0 and not list(read_lines(path))
    path.write_bytes(b"\xef\xbb\xbf\n\n")
    assert survey(path).n_rows == 0 and not list(read_lines(path))


def test_a_line_that_is_too_long_is_skipped_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_lines, "MAX_LINE", 1000)
    path = tmp_path / "in.txt"
    path.write_bytes(b"a\n" + b"x" * 3_000_000 + b"\nb\n" + b"y" * 1000 + b"\n" + b"z" * 1001)
    found = list(read_lines(path))
    assert [line.data and line.data[:1] for line in found] == [b"a", None, b"b", b"y", None]
    assert [line.number for line in found] == [1, 2, 3, 4, 5] and survey(path).n_rows == 5
    assert len({line.digest for line in found}) == 5


@pytest.mark.parametrize(
    ("name", "data", "jsonl"),
    [("a.jsonl", b"text", True), ("a.txt", b"{}", False), ("a", b'\xef\xbb\xbf\n {"a"', True), ("a", b"text", False)],
)
def test_what_the_lines_are(tmp_path: Path, name: str, data: bytes, jsonl: bool) -> None:
    (tmp_path / name).write_bytes(data)
    assert survey(tmp_path / name).jsonl is jsonl


def test_no_input(tmp_path: Path) -> None:
    for path in (tmp_path / "nosuch", tmp_path):
        with pytest.raises(FileAccessError, match="cannot read"):
            survey(path)


def test_shards_have_every_row_once() -> None:
    shards = [Shard.parse(f"{index}/3") for index in (1, 2, 3)]
    assert sorted(row for row in range(1, 11) for shard in shards if shard.has(row)) == list(range(1, 11))
    assert [shard.rows_of(10) for shard in shards] == [4, 3, 3] and Shard(3, 3).rows_of(2) == 0
    for wrong in ("0/3", "4/3", "x", "1/", "/2", "1/2/3", "-1/2", "1/0"):
        with pytest.raises(UsageError, match="not a shard"):
            Shard.parse(wrong)


def test_rows_come_out_in_order_whatever_the_order_they_are_done_in(tmp_path: Path) -> None:
    path, out = source(tmp_path), tmp_path / "out.jsonl"
    lines = output_lines(path)
    with Journal(out) as journal:
        journal.agree(JOB, {"seed": 5})
        journal.resume(ids(path, Shard()))
        for place in (3, 0, 5, 2, 1, 4):
            journal.record(place, lines[place])
        journal.finish()
    assert out.read_bytes() == b"".join(lines)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.txt", "out.jsonl", "out.jsonl.job"]
    assert already_answered(out, ids(path, Shard())) == 6


@pytest.mark.parametrize("torn", range(0, 200, 7))
def test_what_a_kill_leaves_is_taken_up_again(tmp_path: Path, torn: int) -> None:
    """Two rows are written, one is early, one is torn off in the middle at every place."""
    path, out = source(tmp_path), tmp_path / "out.jsonl"
    lines = output_lines(path)
    journal = Journal(out).__enter__()
    journal.agree(JOB, {"seed": 5})
    journal.resume(ids(path, Shard()))
    for place in (0, 1, 3):
        journal.record(place, lines[place])
    assert journal.claim("name", 7) == 7
    os.close(journal._file.fileno())  # gone, without anything being closed in order
    with (tmp_path / "out.jsonl.part").open("ab") as file:
        file.write(lines[2][: min(torn, len(lines[2]) - 1)])
    with Journal(out) as again:
        assert again.agree(JOB, {"seed": 6})["seed"] == 5
        again.resume(ids(path, Shard()))
        assert again.done == 2 and [again.has(place) for place in range(5)] == [True, True, False, True, False]
        assert again.claim("name", 9) == 7 and again.claim("other", 9) == 9
        for place in (2, 4, 5):
            again.record(place, lines[place])
        again.finish()
    assert out.read_bytes() == b"".join(lines)
    with pytest.raises(OSError, match="Bad file"):
        journal._file.close()


def test_a_kill_between_the_last_steps(tmp_path: Path) -> None:
    path, out = source(tmp_path), tmp_path / "out.jsonl"
    with Journal(out) as journal:
        journal.agree(JOB, {})
        journal.resume(ids(path, Shard()))
        for place, line in enumerate(output_lines(path)):
            journal.record(place, line)
    (tmp_path / "out.jsonl.part").rename(out)
    assert already_answered(out, ids(path, Shard())) == 6
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.txt", "out.jsonl"]


def begun(tmp_path: Path) -> tuple[Path, Path]:
    path, out = source(tmp_path), tmp_path / "out.jsonl"
    with Journal(out) as journal:
        journal.agree(JOB, {"seed": 5})
        journal.resume(ids(path, Shard()))
        journal.record(0, output_lines(path)[0])
    return path, out


def test_another_job_is_refused_and_leaves_everything_as_it_was(tmp_path: Path) -> None:
    path, out = begun(tmp_path)
    before = (tmp_path / "out.jsonl.part").read_bytes()
    with Journal(out) as journal, pytest.raises(UsageError, match="another batch") as caught:
        journal.agree({"model": "other", "seed": None}, {})
    assert "model was m, and now is other" in caught.value.why
    path.write_text("something else\n")
    with Journal(out) as journal, pytest.raises(UsageError) as caught:
        journal.agree(JOB, {})
        journal.resume(ids(path, Shard()))
    assert "another line of the input" in caught.value.why
    assert (tmp_path / "out.jsonl.part").read_bytes() == before


def test_two_at_once_are_refused(tmp_path: Path) -> None:
    _, out = begun(tmp_path)
    with Journal(out), pytest.raises(UsageError, match="another edgellm batch"), Journal(out):
        pass


def test_nothing_answered_leaves_nothing(tmp_path: Path) -> None:
    with Journal(tmp_path / "out.jsonl") as journal:
        journal.agree(JOB, {})
    assert not list(tmp_path.iterdir())


def test_a_lost_and_a_damaged_journal(tmp_path: Path) -> None:
    _, out = begun(tmp_path)
    journal = tmp_path / "out.jsonl.journal"
    journal.unlink()
    with Journal(out) as opened, pytest.raises(UsageError) as caught:
        opened.agree(JOB, {})
    assert "no journal" in caught.value.why
    journal.write_bytes(b"not a database at all" * 100)
    with pytest.raises(CorruptFile, match="damaged"), Journal(out):
        pass


def test_an_output_of_something_else_is_not_touched(tmp_path: Path) -> None:
    path, out = source(tmp_path), tmp_path / "out.jsonl"
    for wrong in (b"precious\n", b"".join(output_lines(path)[:5]), b"".join(output_lines(path)) + b"more\n"):
        out.write_bytes(wrong)
        with pytest.raises(UsageError, match="exists already"):
            already_answered(out, ids(path, Shard()))
        assert out.read_bytes() == wrong


def test_merging_gives_the_rows_in_order(tmp_path: Path) -> None:
    path = source(tmp_path, 11)
    parts = []
    for index in (1, 2, 3):
        parts.append(tmp_path / f"part{index}")
        parts[-1].write_bytes(b"".join(output_lines(path, Shard(index, 3))))
    assert merge([parts[2], parts[0], parts[1]], tmp_path / "all") == (11, 11)
    assert (tmp_path / "all").read_bytes() == b"".join(output_lines(path))
    for wrong, said in (
        (parts[:2], "row 3 is missing"),
        ([*parts, parts[0]], "row 1 is there twice"),
        ([*parts, path], "no output of edgellm batch"),
        ([*parts, tmp_path / "nosuch"], "cannot read"),
    ):
        with pytest.raises((UsageError, CorruptFile, FileAccessError), match=said):
            merge(wrong, tmp_path / "wrong")
    with pytest.raises(UsageError, match="exists already"):
        merge(parts, tmp_path / "all")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["all", "in.txt", "part1", "part2", "part3"]


def test_a_full_disk_leaves_whole_lines(tmp_path: Path) -> None:
    """A limit on the size of files stands for the full disk: the line that does not fit is not there at all."""
    import resource
    import signal

    path, out = source(tmp_path), tmp_path / "out.jsonl"
    lines = output_lines(path)
    before, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    with Journal(out) as journal:
        journal.agree(JOB, {"seed": 5})
        journal.resume(ids(path, Shard()))
        journal.record(0, lines[0])
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (len(lines[0]) + 50, before[1]))
            with pytest.raises(OSError, match="too large"):
                journal.record(1, lines[1])
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
            signal.signal(signal.SIGXFSZ, handler)
    assert (tmp_path / "out.jsonl.part").read_bytes() == lines[0]
    assert sqlite3.connect(tmp_path / "out.jsonl.journal").execute("SELECT count(*) FROM job").fetchone() == (2,)


def test_the_id_tells_place_and_content() -> None:
    assert Line(3, 5, b"x", "abc").id == "batch_req_3_abc"
