"""A batch in the slots of a server: a scripted one that is busy, away, restarted or wrong, and the real one."""

import json
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from edgellm.batch.job import Batch
from edgellm.batch.journal import Journal
from edgellm.batch.lines import Shard, ids, survey
from edgellm.batch.scheduler import BatchOptions, Scheduler
from edgellm.batch.slots import LocalSlots, RowJob, Slots
from edgellm.engine.fake import FakeModel
from edgellm.engine.sampling import Sampling
from edgellm.errors import NotServed
from edgellm.models.fit.memory import RunPlan
from edgellm.run.batching import Result
from edgellm.run.loader import LoadedModel
from edgellm.run.message import Message
from edgellm.serve.remote import slots as slots_module
from edgellm.serve.remote.connection import ServerAddress
from edgellm.serve.remote.model import RemoteModel
from edgellm.serve.remote.slots import RemoteSlots
from tests.commands.cli import data, edgellm
from tests.serve.server import Server
from tests.serve.test_remote import loaded

assert loaded  # the fixture


class Scripted:
    """A server that answers each question with the next entry of its script, "yes" once that is used up.

    An entry is a text to answer with, a status to refuse with, or None to hang up in the middle of the answer.
    """

    def __init__(self, *script: str | int | None, n_slots: int = 2) -> None:
        self.script, self.asked = list(script), []  # type: ignore[var-annotated]
        self.status: dict[str, Any] = {
            "name": "m", "n_ctx": 512, "n_slots": n_slots, "n_threads": 2, "kv_type": "F16", "kind": "chat",
            "state": "loaded", "cpu_seconds": 1.0, "peak_resident_bytes": 7, "in_flight": 0,
        }  # fmt: skip
        self.held = threading.Event()
        self.held.set()
        self.most = self.n_now = 0
        self.lock = threading.Lock()

    def answer(self, handler: BaseHTTPRequestHandler, body: Mapping[str, Any]) -> None:
        with self.lock:
            self.asked.append(body)
            said = self.script.pop(0) if self.script else "yes"
            self.n_now += 1
            self.most = max(self.most, self.n_now)
        self.held.wait(20)
        time.sleep(0.02)
        with self.lock:
            self.n_now -= 1
        if isinstance(said, int):
            text = json.dumps({"error": {"message": "no", "code": "x"}}).encode()
            handler.send_response(said)
            handler.send_header("Content-Length", str(len(text)))
            handler.end_headers()
            handler.wfile.write(text)
            return
        usage = {"prompt_tokens": 5, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 2}}
        timings = {"prompt_ms": 10, "predicted_ms": 20}
        chunks = [
            {"choices": [{"index": 0, "delta": {"content": said or "y"}}]},
            {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}], "usage": usage, "timings": timings},
        ]
        handler.send_response(200)
        handler.end_headers()
        for chunk in chunks if said is not None else chunks[:1]:
            handler.wfile.write(b"data: " + json.dumps(chunk).encode() + b"\n\n")


@contextmanager
def serving(scripted: Scripted) -> Iterator[RemoteModel]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps({"models": [scripted.status]}).encode())

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with suppress(OSError):  # whoever asked has left
                scripted.answer(self, body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield RemoteModel("m", ServerAddress(f"http://127.0.0.1:{server.server_port}"), scripted.status)
        scripted.held.set()
        server.shutdown()


def job(key: int, **how: Any) -> RowJob:
    return RowJob(key, (Message(role="user", content=f"question {key}"),), **how)


def all_of(slots: RemoteSlots, jobs: list[RowJob], seconds: float = 20) -> dict[int, Result]:
    """Answer jobs as a batch does."""
    found: dict[int, Result] = {}
    until, waiting, n_jobs = time.monotonic() + seconds, list(jobs), len(jobs)
    while len(found) < n_jobs:
        assert time.monotonic() < until
        while waiting and slots.has_room:
            slots.admit(waiting.pop(0))
        found |= {each.key: each for each in slots.step()}
    return found


@pytest.fixture(autouse=True)
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slots_module, "AGAIN_SECONDS", 0.05)
    monkeypatch.setattr(slots_module, "LOOK_SECONDS", 0.02)


def test_rows_are_answered_with_the_counts_of_the_server() -> None:
    scripted = Scripted()
    with serving(scripted) as model, RemoteSlots(model, lambda: model, n_slots=4, patience=5) as slots:
        assert slots.plan.n_slots == 2 and slots.server == model.server
        sampling = Sampling(temperature=0.5, seed=9, top_k=7)
        found = all_of(slots, [job(n, sampling=sampling, max_tokens=9, stop=("!",)) for n in range(6)])
        scripted.status["cpu_seconds"] = 4.5
    assert scripted.most == 2
    result = found[3]
    assert (result.text, result.finish_reason, result.error) == ("yes", "stop", None)
    assert (result.prompt_tokens, result.reused_tokens, result.completion_tokens) == (5, 2, 3)
    assert (result.prefill_seconds, result.decode_seconds) == (0.01, 0.02)
    asked = scripted.asked[0]
    assert (asked["model"], asked["top_k"], asked["seed"], asked["max_tokens"], asked["stop"]) == ("m", 7, 9, 9, ["!"])
    assert slots.cpu_seconds == 3.5 and slots.peak_resident_bytes == 7


def test_a_row_that_is_wrong_fails_alone_and_a_busy_server_is_asked_again() -> None:
    scripted = Scripted(400, 503, 429, None, 422)
    with serving(scripted) as model, RemoteSlots(model, lambda: model, n_slots=1, patience=5) as slots:
        found = all_of(slots, [job(n) for n in range(3)])
    assert [found[n].error is None for n in range(3)] == [False, False, True]
    assert [body["messages"][0]["content"][-1] for body in scripted.asked] == ["0", "1", "1", "1", "1", "2"]


def test_a_row_that_ends_the_server_each_time_fails_in_the_end() -> None:
    scripted = Scripted(*[None] * slots_module.MOST_LOST)
    with serving(scripted) as model, RemoteSlots(model, lambda: model, n_slots=1, patience=5) as slots:
        found = all_of(slots, [job(0), job(1)])
    assert found[0].error is not None and found[1].error is None


def test_a_server_that_stays_away_ends_the_batch() -> None:
    model = RemoteModel("m", ServerAddress("http://127.0.0.1:9"), Scripted().status)
    with RemoteSlots(model, lambda: None, n_slots=2, patience=0.3) as slots:
        slots.admit(job(0))
        assert slots.busy == 1
        with pytest.raises(NotServed) as gone:
            all_of(slots, [job(1)])
    assert gone.value.exit_code == 4 and "the same command" in gone.value.hint


def test_a_server_that_comes_back_elsewhere_is_found() -> None:
    with serving(Scripted()) as model:
        before = RemoteModel("m", ServerAddress("http://127.0.0.1:9"), model.status)
        looks = iter([None, None, model])
        with RemoteSlots(before, lambda: next(looks, model), n_slots=2, patience=5) as slots:
            assert all(each.error is None for each in all_of(slots, [job(n) for n in range(4)]).values())
            assert slots.server == model.server


def test_others_get_the_slots_that_they_ask_for() -> None:
    scripted = Scripted(n_slots=4)
    with serving(scripted) as model, RemoteSlots(model, lambda: model, n_slots=4, patience=5) as slots:
        all_of(slots, [job(n) for n in range(8)])
        assert scripted.most == 4
        scripted.held.clear()
        for others, room in ((0, 4), (1, 3), (3, 1), (9, 1)):
            scripted.status["in_flight"] = others
            scripted.most = 0
            for _ in range(3):  # who is seen once may be a row of ours that has just ended
                time.sleep(0.03)
                slots.step()
            n = 0
            while slots.has_room:
                slots.admit(job(100 + n))
                n += 1
                scripted.status["in_flight"] = others + n
            assert n == room, others
            scripted.held.set()
            scripted.status["in_flight"] = others
            while slots.busy:
                slots.step()
            scripted.held.clear()


def test_a_text_to_continue_goes_to_a_server_only_if_it_was_named() -> None:
    scripted = Scripted()
    with serving(scripted) as model:
        with RemoteSlots(model, lambda: model, n_slots=1, patience=5) as slots:
            with pytest.raises(NotServed):
                slots.admit(RowJob(0, prompt="Once"))
            assert slots.busy == 0
            assert all_of(slots, [RowJob(1, prompt=(1, 2, 3))])[1].error is None
        with RemoteSlots(model, lambda: model, n_slots=1, patience=5, must=True) as slots:
            all_of(slots, [RowJob(0, prompt="Once")])
    assert [body["prompt"] for body in scripted.asked] == [[1, 2, 3], "Once"]
    assert all(body["max_tokens"] == -1 for body in scripted.asked), "the default of completions is another"


def test_leaving_early_ends_what_is_under_way() -> None:
    scripted = Scripted()
    scripted.held.clear()
    with serving(scripted) as model:
        began = time.monotonic()
        with RemoteSlots(model, lambda: model, n_slots=2, patience=5) as slots:
            slots.admit(job(0))
            slots.step()
        assert time.monotonic() - began < 3 and slots.busy == 0


def batch_of(tmp_path: Path, slots: Slots, *, instead: Slots | None, n_rows: int = 12) -> tuple[Batch, list[Any]]:
    source, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text("\n".join(json.dumps({"prompt": f"question {n}"}) for n in range(n_rows)))
    how = BatchOptions(name="m", names={"m"}, sampling=Sampling(seed=1))
    again = (lambda _: Scheduler(instead, how)) if instead is not None else None
    with Journal(out) as journal:
        journal.resume(ids(source, Shard()))
        batch = Batch(source, survey(source), Shard(), journal, Scheduler(slots, how), None, again)
        for _ in batch.run():
            pass
        journal.finish()
    return batch, [json.loads(line) for line in out.read_text().splitlines()]


def test_a_batch_goes_on_here_when_its_server_is_lost(tmp_path: Path) -> None:
    """Each row is answered once, in order; what the server had not answered is answered here."""
    scripted = Scripted(*["yes"] * 5, *[503] * 100)
    here = LocalSlots(LoadedModel("m", FakeModel(["here"]), RunPlan(n_ctx=2000, n_slots=3, n_batch=64)))
    with serving(scripted) as model:
        slots = RemoteSlots(model, lambda: model, n_slots=2, patience=0.3)
        batch, rows = batch_of(tmp_path, slots, instead=here)
        said = [row["response"]["body"]["choices"][0]["message"]["content"] for row in rows]
        assert said[:5] == ["yes"] * 5 and all(text.startswith("here") for text in said[5:]) and len(said) == 12
        assert (batch.tally.done, batch.tally.failed, batch.tally.n_slots, batch.tally.server) == (12, 0, 3, None)
        assert batch.tally.prompt_tokens > 5 * 5 and batch.tally.completion_tokens > 5 * 2


def test_a_batch_that_needs_its_server_ends_and_resumes(tmp_path: Path) -> None:
    scripted = Scripted(*["yes"] * 5, *[503] * 30)
    with serving(scripted) as model:
        with pytest.raises(NotServed):
            batch_of(tmp_path, RemoteSlots(model, lambda: model, n_slots=2, patience=0.2), instead=None)
        scripted.script.clear()
        n_before = len(scripted.asked)
        batch, rows = batch_of(tmp_path, RemoteSlots(model, lambda: model, n_slots=2, patience=5), instead=None)
    assert batch.tally.resumed == 5 and len(rows) == 12 and batch.tally.server == model.server
    assert len(scripted.asked) - n_before == 7


@pytest.mark.engine
@pytest.mark.model
def test_a_batch_at_a_server_is_the_batch_here(loaded: Server, serve_home: dict[str, str], tmp_path: Path) -> None:
    source = tmp_path / "in.jsonl"
    questions = ["What is the capital of France?", "Name three colours.", "What is 2+2?", "Count from one to five."]
    schema = {"type": "object", "properties": {"city": {"type": "string", "maxLength": 12}}, "required": ["city"]}
    form = {"type": "json_schema", "json_schema": {"name": "city", "schema": schema}}
    lines = [
        *({"prompt": each, "max_tokens": 16, "custom_id": each} for each in questions),
        {"prompt": "Repeat the word 'no' forever: no no no no", "max_tokens": 200},
        {"prompt": "A draw.", "temperature": 0.9, "seed": 11, "max_tokens": 12},
        {"prompt": "A city in France, as JSON.", "response_format": form, "max_tokens": 40},
        {"prompt": "word " * 3000},
        {"prompt": "x", "max_tokens": "many"},
        {"url": "/v1/completions", "body": {"prompt": [504, 3575, 282], "max_tokens": 6}},
        {"url": "/v1/embeddings", "body": {"input": "x"}},
    ]
    source.write_text("\n".join(map(json.dumps, lines)))
    asked = ["batch", str(source), "-m", "smollm2", "--temp", "0", "--slots", "2", "-c", "2048", "--json"]
    found = {}
    for server in ("never", "auto", loaded.url):
        out = tmp_path / f"{len(found)}.jsonl"
        ended = edgellm(*asked, "-o", str(out), "--server", server, env=serve_home)
        tally = data(ended, 8)["tally"]
        assert (tally["server"] is None) is (server == "never") and tally["failed"] == 3, ended.stderr
        rows = [json.loads(line) for line in out.read_text().splitlines()]
        bodies = [(row["response"] or {}).get("body") for row in rows]
        answers = [body and (body["choices"], body["usage"]["completion_tokens"]) for body in bodies]
        codes = [row["error"] and row["error"]["code"] for row in rows]
        found[server] = (answers, codes, tally["completion_tokens"], tally["prompt_tokens"])
    assert found["never"] == found["auto"] == found[loaded.url]
    # The record of one is that of the others: the same command has nothing left to do.
    again = edgellm(*asked, "-o", str(tmp_path / "0.jsonl"), "--server", loaded.url, env=serve_home)
    assert data(again, 8)["tally"]["resumed"] == len(lines)


@pytest.mark.engine
@pytest.mark.model
def test_a_server_with_fewer_slots_than_rows_could_use_is_left_alone(
    loaded: Server, serve_home: dict[str, str], tmp_path: Path
) -> None:
    source, few = tmp_path / "in.txt", tmp_path / "few.txt"
    source.write_text("Hi.\n" * 5)
    few.write_text("Hi.\n" * 2)
    for path, is_served in ((source, False), (few, True)):
        ended = edgellm("batch", str(path), "-o", f"{path}.jsonl", "-m", "smollm2", "-n", "1", "-c", "512", "--json",
                        env=serve_home)  # fmt: skip
        assert (data(ended)["tally"]["server"] is not None) is is_served
