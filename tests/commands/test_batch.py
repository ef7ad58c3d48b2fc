"""`edgellm batch` as a user runs it: the real engine, the embedded model and a tiny one, killed at any moment."""

import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edgellm.batch.lines import Shard
from edgellm.batch.tally import Tally
from edgellm.batches import answer_file
from edgellm.errors import DoesNotFit
from edgellm.machine.memory import Room
from edgellm.models.fit.memory import RunPlan, estimate
from edgellm.models.fit.verdict import read_outline
from edgellm.run import loader
from edgellm.run.answer_options import AnswerOptions
from edgellm.run.generation import Limits
from edgellm.run.loader import LoadOptions
from edgellm.settings import Settings
from edgellm.workspace import workspace
from tests.commands.cli import data, edgellm, error
from tests.engine.tiny_models import write_bitnet

pytestmark = [pytest.mark.engine, pytest.mark.model]
QUESTIONS = (
    "What is the capital of France?",
    "Name three colours.",
    "What is 2+2?",
    "Why is the sky blue?",
    "用一句话解释什么是三值权重。",
    "Count from one to five.",
)
CHAT = "/v1/chat/completions"


@pytest.fixture(autouse=True)
def home(with_engine: Settings) -> Settings:
    return with_engine


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory, vocabularies: Path) -> Path:
    """Random weights, and quick: what it says means nothing, but it always says the same."""
    return write_bitnet(tmp_path_factory.mktemp("tiny") / "tiny.gguf", vocabularies)


def write(path: Path, *lines: Any) -> Path:
    encoded = [line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines]
    path.write_bytes(b"\n".join(encoded))
    return path


def chat(custom_id: str | None, question: str, **fields: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": question}]
    return {"custom_id": custom_id, "method": "POST", "url": CHAT, "body": {"messages": messages, **fields}}


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def text_of(row: dict[str, Any]) -> str:
    choice = row["response"]["body"]["choices"][0]
    text = choice["message"]["content"] if "message" in choice else choice["text"]
    assert isinstance(text, str)
    return text


def batch(source: Path, out: Path, *more: str, **how: Any) -> subprocess.CompletedProcess[str]:
    return edgellm("batch", str(source), "-o", str(out), "-m", "smollm2", "--temp", "0", "-c", "512", *more, **how)


def test_answers_are_those_of_run_whatever_the_number_of_slots(tmp_path: Path) -> None:
    alone = [data(edgellm("run", "smollm2", q, "--temp", "0", "-n", "24", "--json")) for q in QUESTIONS[:4]]
    lines = [{"prompt": QUESTIONS[0], "max_tokens": 24}, *[chat(None, q, max_tokens=24) for q in QUESTIONS[1:4]]]
    source = write(tmp_path / "in.jsonl", *lines)
    for slots in ("1", "4"):
        out = tmp_path / f"out{slots}.jsonl"
        result = batch(source, out, "--slots", slots)
        assert result.returncode == 0 and result.stdout == "", result.stderr
        rows = rows_of(out)
        assert [text_of(row) for row in rows] == [answer["text"] for answer in alone]
        usage = rows[0]["response"]["body"]["usage"]
        assert usage["prompt_tokens"] == alone[0]["stats"]["prompt_tokens"]
        assert usage["completion_tokens"] == alone[0]["stats"]["completion_tokens"]
        assert rows[0]["response"]["body"]["choices"][0]["finish_reason"] == alone[0]["stats"]["finish_reason"]
        assert rows[0]["response"]["body"]["timings"]["predicted_ms"] > 0


def test_the_openai_shape_and_errors_in_their_places(tmp_path: Path) -> None:
    source = write(
        tmp_path / "in.jsonl",
        b"\xef\xbb\xbf" + json.dumps(chat("a", QUESTIONS[0], model="smollm2", max_tokens=8)).encode() + b"\r",
        b"",
        b"no json at all",
        chat("b", "x", tools=[{"type": "function", "function": {"name": "f"}}]),
        chat("a", "again"),
        b'{"prompt": "\xff"}',
        b'{"prompt": "a\x00b"}',
        {"custom_id": "c", "url": "/v1/completions", "body": {"prompt": "1, 2, 3, 4,", "max_tokens": 4}},
        {"custom_id": "d", "url": "/v1/embeddings", "body": {"input": "x"}},
        {"custom_id": "e", "url": "/v1/completions", "body": {"prompt": [99_999_999]}},
        {"custom_id": "f", "url": "/nosuch", "body": {}},
        {"prompt": "word " * 600},
        b'{"prompt": "' + b"x" * (17 << 20) + b'"}',
        chat("g", QUESTIONS[2], max_tokens=8),
    )
    out = tmp_path / "out.jsonl"
    result = batch(source, out, "--json")
    assert result.returncode == 8
    assert json.loads(result.stdout)["data"]["tally"]["failed"] == 10
    rows = rows_of(out)
    assert [row["id"].rsplit("_", 1)[0] for row in rows] == [f"batch_req_{n}" for n in range(1, 14)]
    assert [row["custom_id"] for row in rows] == ["a", None, "b", "a", None, None, "c", "d", "e", "f", None, None, "g"]
    first = rows[0]
    assert first["error"] is None and first["response"]["status_code"] == 200
    assert first["response"]["body"]["object"] == "chat.completion" and "Paris" in text_of(first)
    assert rows[6]["response"]["body"]["object"] == "text_completion" and "5" in text_of(rows[6])
    failed = {row["error"]["line"]: row["error"]["message"] for row in rows if row["error"]}
    said = {
        3: "not JSON", 4: "tools cannot be honoured in a batch", 5: "line 1 has it too", 6: "not UTF-8", 7: "NUL",
        9: "not an embedding model", 10: "not a token of this model", 11: "url is one of", 12: "the prompt has",
        13: "too long",
    }  # fmt: skip
    assert failed.keys() == said.keys()
    assert all(words in failed[line] for line, words in said.items()), failed


def test_plain_text_lines(tmp_path: Path) -> None:
    source = tmp_path / "in.txt"
    source.write_text("What is the capital of France?\r\n\n  \nWhat is 2+2?", newline="")
    assert batch(source, tmp_path / "out.jsonl", "-n", "8").returncode == 0
    first, second = rows_of(tmp_path / "out.jsonl")
    assert "Paris" in text_of(first) and text_of(second)


def test_a_shared_prefix_is_prefilled_once(tmp_path: Path) -> None:
    system = {"role": "system", "content": "You are a patient teacher who answers in one word. " * 90}
    lines = [
        {
            "url": CHAT,
            "body": {"messages": [system, {"role": "user", "content": f"{n}: {QUESTIONS[0]}"}], "max_tokens": 2},
        }
        for n in range(8)
    ]
    source = write(tmp_path / "in.jsonl", *lines)
    result = batch(source, tmp_path / "out.jsonl", "--slots", "8", "-c", "1536", "--json")
    tally = data(result)["tally"]
    assert tally["cores_used"] > 0.1 and tally["peak_resident_bytes"] > 90_000_000
    usages = [row["response"]["body"]["usage"] for row in rows_of(tmp_path / "out.jsonl")]
    cached = [usage["prompt_tokens_details"]["cached_tokens"] for usage in usages]
    assert all(usage["prompt_tokens"] > 1000 for usage in usages)
    assert min(cached) == 0 and sum(n > 900 for n in cached) == 7
    assert tally["prompt_tokens"] - tally["reused_tokens"] < usages[0]["prompt_tokens"] + 8 * 30


def test_an_answer_of_a_given_form(tmp_path: Path) -> None:
    schema = {
        "type": "object",
        "properties": {"city": {"type": "string", "maxLength": 20}, "people": {"type": "integer", "minimum": 5}},
        "required": ["city", "people"],
    }
    form = {"type": "json_schema", "json_schema": {"name": "city", "schema": schema}}
    wrong = {"type": "json_schema", "json_schema": {"schema": {"type": 5}}}
    source = write(
        tmp_path / "in.jsonl",
        chat("a", "Describe Paris as JSON.", response_format=form, max_tokens=60),
        chat("b", "Describe Paris as JSON.", response_format=wrong),
        chat("c", "Describe Paris as JSON.", response_format=form, max_tokens=3),
    )
    assert batch(source, tmp_path / "out.jsonl").returncode == 8
    first, second, third = rows_of(tmp_path / "out.jsonl")
    if first["error"] is None:
        found = json.loads(text_of(first))
        assert set(found) == {"city", "people"} and found["people"] >= 5
    else:  # a grammar knows no ranges: what it let through is found by the schema
        assert first["error"]["code"] == "answer-mismatch" and "minimum" in first["error"]["message"]
    assert second["error"]["code"] == "usage"
    assert third["error"]["code"] == "answer-mismatch" and "not whole JSON" in third["error"]["message"]


def test_run_with_a_form(tmp_path: Path) -> None:
    ask = ("run", "smollm2", "Describe Paris as JSON.", "--temp", "0", "-n", "80")
    schema = write(
        tmp_path / "s.json", {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
    )
    result = edgellm(*ask, "--format", str(schema))
    assert result.returncode == 0 and list(json.loads(result.stdout)) == ["city"]
    grammar = tmp_path / "g.gbnf"
    grammar.write_text('root ::= "yes" | "no"')
    assert edgellm(*ask, "--grammar", str(grammar)).stdout in ("yes\n", "no\n")
    cut = edgellm(*ask[:-1], "3", "--format", "json")
    assert cut.returncode == 1 and cut.stdout and "not whole JSON" in cut.stderr
    grammar.write_text("root ::= (")
    for wrong in (("--grammar", str(grammar)), ("--format", str(grammar)), ("--format", "json", "--grammar", "x")):
        assert edgellm(*ask, *wrong).returncode == 2
    assert edgellm(*ask, "--format", str(tmp_path / "nosuch")).returncode == 1


def test_shards_and_their_merge_give_what_one_job_gives(tmp_path: Path, tiny: Path) -> None:
    source = write(tmp_path / "in.jsonl", *[{"prompt": f"row {n}", "max_tokens": 3} for n in range(11)], b"wrong")
    how = ("-m", str(tiny), "--raw", "--seed", "3")
    assert edgellm("batch", str(source), "-o", str(tmp_path / "one"), *how).returncode == 8
    parts = [str(tmp_path / f"part{index}") for index in (1, 2, 3)]
    codes = [
        edgellm("batch", str(source), "-o", part, *how, "--shard", f"{index}/3").returncode
        for index, part in enumerate(parts, 1)
    ]
    assert codes == [0, 0, 8]
    merged = edgellm("batch", "--merge", str(tmp_path / "all"), *parts)
    assert merged.returncode == 8
    assert answers(tmp_path / "all") == answers(tmp_path / "one")
    again = edgellm("batch", str(source), "-o", str(tmp_path / "all"), *how)
    assert again.returncode == 8 and "already" not in again.stderr
    other = str(tmp_path / "other")
    assert edgellm("batch", str(source), "-o", other, *how, "--shard", "2/3", "--temp", "0").returncode == 0
    mixed = edgellm("batch", "--merge", str(tmp_path / "mixed"), parts[0], other, parts[2])
    assert mixed.returncode == 2 and "temperature was 0.8, and now is 0.0" in " ".join(mixed.stderr.split())


def answers(path: Path) -> list[tuple[str, Any]]:
    """What must be the same in every run: ids, texts, errors."""
    return [(row["id"], text_of(row) if row["response"] else row["error"]) for row in rows_of(path)]


def test_wrong_command_lines(tmp_path: Path) -> None:
    source, out = write(tmp_path / "in.jsonl", {"prompt": "x"}), tmp_path / "out.jsonl"
    assert edgellm("batch", str(source)).returncode == 2
    assert batch(source, out, "--shard", "5/4").returncode == 2
    assert batch(tmp_path / "nosuch", out).returncode == 1
    assert edgellm("batch", str(source), "-o", str(out), "-m", "nosuch").returncode == 3
    assert batch(source, tmp_path / "no" / "directory").returncode == 1
    large = batch(source, out, "--slots", "256", "-c", "8192", "--json")
    assert (large.returncode, error(large)["code"]) == (5, "does-not-fit")
    assert error(large)["facts"]["n_slots"] == 256
    assert [path.name for path in tmp_path.iterdir()] == ["in.jsonl"]
    out.write_text("precious")
    assert batch(source, out).returncode == 2 and out.read_text() == "precious"


def test_no_rows(tmp_path: Path) -> None:
    assert batch(write(tmp_path / "in.jsonl", b"\n\n"), tmp_path / "out.jsonl").returncode == 0
    assert (tmp_path / "out.jsonl").read_bytes() == b""


def start(source: Path, out: Path, tiny: Path, *more: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "edgellm", "batch", str(source), "-o", str(out), "-m", str(tiny), "--raw"]
    return subprocess.Popen(
        [*command, "--temp", "0", "-t", "1", "-q", *more], stdin=subprocess.DEVNULL, stderr=subprocess.PIPE
    )


def many_rows(tmp_path: Path, n_rows: int = 500) -> Path:
    def line(n: int) -> Any:
        body = {"prompt": f"question {n}", "max_tokens": 2 + n * n % 23}
        return b"not json" if n % 50 == 7 else {"custom_id": f"c{n}", "url": "/v1/completions", "body": body}

    return write(tmp_path / "in.jsonl", *map(line, range(n_rows)))


def kill_until_done(source: Path, out: Path, tiny: Path, kills: int, seed: int) -> int:
    """Start the same command again and again, and kill it; returns how often."""
    draw, killed, process = random.Random(seed), 0, None
    # Until one ends by itself: the output may be there although the last thing, removing the journal, was not done.
    while process is None or process.returncode != 8:
        process = start(source, out, tiny, "--slots", str(draw.choice((1, 3, 8))))
        assert process.stderr is not None
        if killed < kills:
            # From before anything is open to deep in the middle, and often just after it has begun to write.
            time.sleep(draw.choice((draw.uniform(0, 0.6), draw.uniform(0.6, 1.6))))
            process.send_signal(signal.SIGKILL)
            killed += 1
        process.wait()
        message = process.stderr.read().decode()
        process.stderr.close()
        assert process.returncode in (8, -signal.SIGKILL), message
    return killed


def expect_every_row_once(source: Path, out: Path, tiny: Path, tmp_path: Path) -> None:
    undisturbed = tmp_path / "undisturbed"
    process = start(source, undisturbed, tiny, "--slots", "8")
    process.communicate()
    assert process.returncode == 8
    assert answers(out) == answers(undisturbed)
    records = [f"{out.name}.job", "undisturbed.job"]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["in.jsonl", out.name, "undisturbed", *records])


def test_killed_again_and_again_no_row_is_lost_doubled_or_out_of_order(tmp_path: Path, tiny: Path) -> None:
    source, out = many_rows(tmp_path), tmp_path / "out.jsonl"
    kill_until_done(source, out, tiny, kills=6, seed=1)
    assert len(rows_of(out)) == 500
    expect_every_row_once(source, out, tiny, tmp_path)


@pytest.mark.soak
def test_two_hundred_kills(tmp_path: Path, tiny: Path) -> None:
    killed = 0
    for job in range(1000):
        directory = tmp_path / str(job)
        directory.mkdir()
        source, out = many_rows(directory), directory / "out.jsonl"
        killed += kill_until_done(source, out, tiny, kills=50, seed=job)
        expect_every_row_once(source, out, tiny, directory)
        if killed >= 200:
            return


def test_sigterm_and_ctrl_c_end_it_in_order(tmp_path: Path, tiny: Path) -> None:
    source, out = many_rows(tmp_path, 5000), tmp_path / "out.jsonl"
    for number, code in ((signal.SIGTERM, 143), (signal.SIGINT, 130)):
        process = start(source, out, tiny, "--slots", "1")
        part = tmp_path / "out.jsonl.part"
        before = part.stat().st_size if part.exists() else 0
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and not (part.exists() and part.stat().st_size > before):
            time.sleep(0.02)
        process.send_signal(number)
        _, message = process.communicate(timeout=60)
        assert process.returncode == code and b"the same command goes on" in message, message
        assert b"Traceback" not in message
        assert part.read_bytes().endswith(b"}\n") and not out.exists()
    process = start(source, out, tiny)
    process.communicate()
    assert process.returncode == 8
    expect_every_row_once(source, out, tiny, tmp_path)


def test_the_same_command_again_does_nothing(tmp_path: Path, tiny: Path) -> None:
    source, out = write(tmp_path / "in.jsonl", {"prompt": "x", "max_tokens": 1}), tmp_path / "out.jsonl"
    how = ("batch", str(source), "-o", str(out), "-m", str(tiny), "--raw")
    assert edgellm(*how).returncode == 0
    before = (out.read_bytes(), out.stat().st_mtime_ns)
    assert edgellm(*how).returncode == 0 and (out.read_bytes(), out.stat().st_mtime_ns) == before


def test_another_command_never_gets_the_answers_of_a_finished_one(tmp_path: Path, tiny: Path) -> None:
    source, out = write(tmp_path / "in.jsonl", {"prompt": "x", "max_tokens": 1}), tmp_path / "out.jsonl"
    other, moved = tmp_path / "other.gguf", tmp_path / "moved.gguf"
    other.write_bytes(tiny.read_bytes()[:-4] + b"\x01\x02\x03\x04")
    grammar = tmp_path / "g.gbnf"
    grammar.write_text('root ::= "x"')
    how = ("batch", str(source), "-o", str(out), "--seed", "5", "-m")
    assert edgellm(*how, str(tiny), "--raw").returncode == 0
    before = out.read_bytes()
    for changed, said in (
        ((str(other), "--raw"), "the model was tiny.gguf, and now is other.gguf"),
        (("smollm2", "--raw"), "the model was tiny.gguf, and now is"),
        ((str(tiny),), "raw was true, and now is false"),
        ((str(tiny), "--raw", "--temp", "0.3", "--top-k", "7"), "temperature was 0.8, and now is 0.3; top_k was"),
        ((str(tiny), "--raw", "--seed", "6"), "seed was 5, and now is 6"),
        ((str(tiny), "--raw", "-s", "Be brief."), "system was not set, and now is Be brief."),
        ((str(tiny), "--raw", "-c", "64"), "ctx-size was not set, and now is 64"),
        ((str(tiny), "--raw", "--kv", "q8_0"), "kv was not set, and now is Q8_0"),
        ((str(tiny), "--raw", "-n", "2"), "max-tokens was -1, and now is 2"),
        ((str(tiny), "--raw", "--format", "json"), "format was not set, and now is"),
        ((str(tiny), "--raw", "--grammar", str(grammar)), "grammar was not set, and now is"),
        ((str(tiny), "--raw", "--no-loop-guard"), "loop-guard was true, and now is false"),
    ):
        result = edgellm(*how, *changed)
        assert result.returncode == 2 and said in " ".join(result.stderr.split()), (changed, result.stderr)
        assert out.read_bytes() == before
    # The same content under another name, and what does not change an answer.
    moved.write_bytes(tiny.read_bytes())
    again = edgellm(*how, str(moved), "--raw", "--slots", "2", "-t", "1", "--retry", "3")
    assert again.returncode == 0 and out.read_bytes() == before, again.stderr
    moved.write_bytes(other.read_bytes())
    assert edgellm(*how, str(moved), "--raw").returncode == 2


def test_an_output_without_a_record_is_taken_by_its_model(tmp_path: Path, tiny: Path) -> None:
    source, out = write(tmp_path / "in.jsonl", {"prompt": "x", "max_tokens": 1}), tmp_path / "out.jsonl"
    how = ("batch", str(source), "-o", str(out), "--raw", "-m")
    assert edgellm(*how, str(tiny)).returncode == 0
    record = tmp_path / "out.jsonl.job"
    record.write_text("{")
    assert edgellm(*how, str(tiny)).returncode == 6
    record.unlink()
    result = edgellm(*how, str(tiny))
    assert result.returncode == 0 and "has no record of its options" in result.stderr
    other = edgellm(*how, "smollm2")
    assert other.returncode == 2 and "the model was tiny, and now is smollm2" in other.stderr


def test_a_drawn_seed_holds_when_it_goes_on(tmp_path: Path, tiny: Path) -> None:
    source, out = many_rows(tmp_path), tmp_path / "out.jsonl"
    command = [sys.executable, "-m", "edgellm", "batch", str(source), "-o", str(out), "-m", str(tiny), "--raw", "-q"]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    part = tmp_path / "out.jsonl.part"
    while not (part.exists() and part.stat().st_size):
        time.sleep(0.01)
    process.kill()
    process.wait()
    other = subprocess.run([*command, "--temp", "0.5"], capture_output=True, text=True, check=False)
    assert other.returncode == 2 and "temperature was 0.8, and now is 0.5" in other.stderr
    with sqlite3.connect(tmp_path / "out.jsonl.journal") as older:  # what an older edgellm stored
        older.execute("DELETE FROM job WHERE name IN ('sha256', 'kv', 'input')")
        older.execute("UPDATE job SET value = '\"\"' WHERE name IN ('system', 'format', 'grammar')")
    older.close()
    resumed = subprocess.run([*command, "--json"], capture_output=True, text=True, check=False)
    assert resumed.returncode == 8
    notes = json.loads(resumed.stdout)["data"]["tally"]["notes"]
    assert notes == ["an older edgellm began this batch: not compared are sha256, input, kv"]


def test_a_batch_goes_on_with_the_context_it_chose_where_there_is_less_memory(
    tmp_path: Path, home: Settings, smollm2: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The context is the memory's choice; with less of it fewer slots are left, and the answers are the same."""
    outline, free = read_outline(smollm2), [64 << 30]
    monkeypatch.setattr(loader.memory, "room", lambda: Room(free[0]))
    source, output = write(tmp_path / "in.jsonl", *({"prompt": f"{n} + 1 ="} for n in range(6))), tmp_path / "out.jsonl"

    def tallies(n_ctx: int | None = None) -> Iterator[Tally]:
        load, how = LoadOptions(n_ctx, n_slots=4), AnswerOptions({"temperature": 0}, Limits(4))
        return answer_file(workspace(), str(smollm2), source, output, shard=Shard(), load=load, options=how)

    first = tallies()
    while next(first).done < 1:
        pass
    first.close()
    free[0] = estimate(outline, RunPlan(8192, 2)).total + 1
    rest = [replace(tally) for tally in tallies()]
    assert rest[0].n_slots == 2 and rest[-1].done == 6 and rest[-1].resumed and len(rows_of(output)) == 6
    output.unlink()
    output.with_name("out.jsonl.job").unlink()
    with pytest.raises(DoesNotFit, match="8,192 tokens in each of 4 slots"):
        list(tallies(8192))
    assert not [path for path in tmp_path.iterdir() if path.name.startswith("out")]


def test_a_second_batch_on_the_same_output_is_refused(tmp_path: Path, tiny: Path) -> None:
    source, out = many_rows(tmp_path), tmp_path / "out.jsonl"
    process = start(source, out, tiny)
    part = tmp_path / "out.jsonl.part"
    while not (part.exists() and part.stat().st_size):
        time.sleep(0.01)
    second = start(source, out, tiny)
    _, message = second.communicate()
    assert second.returncode == 2 and b"another edgellm batch" in message
    process.communicate()
    assert process.returncode == 8 and len(rows_of(out)) == 500


@pytest.mark.soak
def test_memory_stays_the_same_for_a_million_lines(tmp_path: Path, tiny: Path) -> None:
    """Lines that are wrong cost no computation: what is measured is the way of a line through the files."""
    peaks = []
    for n_lines in (20_000, 1_000_000):
        source = tmp_path / f"{n_lines}.jsonl"
        with source.open("w") as file:
            for n in range(n_lines):
                file.write(f'{{"custom_id": "id-{n}", "url": "/nosuch", "body": {{}}}}\n')
        how = ("-o", str(tmp_path / f"out{n_lines}"), "-m", str(tiny), "--raw", "-q")
        process = subprocess.Popen([sys.executable, "-m", "edgellm", "batch", str(source), *how])
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        assert process.returncode == 8
        peaks.append(usage.ru_maxrss)
    assert peaks[1] < 1.1 * peaks[0] + 10_000
