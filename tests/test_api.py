"""The Python API on the real engine and the embedded model, and what a user's script sees of it."""

import json
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import edgellm
from edgellm.chats.store import ChatStore
from edgellm.engine.base import Context
from edgellm.engine.llama import LlamaEngine
from edgellm.errors import (
    AnswerMismatch,
    BadRequest,
    ContextTooLarge,
    DoesNotFit,
    EngineMissing,
    ModelNotFound,
    PromptTooLong,
    UnsupportedModel,
    UsageError,
)
from edgellm.models.local.store import InstalledModel, Store
from edgellm.run.generation import never
from edgellm.serve.scoring.scorer import CELL, Scorer
from edgellm.settings import Settings
from edgellm.weights.convert.converter import convert
from tests.commands.cli import data
from tests.commands.cli import edgellm as command_line
from tests.engine.tiny_models import write_bitnet
from tests.weights import checkpoint_maker as make

pytestmark = [pytest.mark.engine, pytest.mark.model]
ROOT = Path(__file__).parent.parent
QUESTION = "What is the capital of France?"
SCRIPT = """
import edgellm

with edgellm.open("smollm2", n_ctx=512) as model:
    answer = model.ask("What is the capital of France?", temperature=0, max_tokens=16)
    print(answer.text, answer.finish_reason, round(answer.stats.decode_rate))
    for piece in model.stream("Count to three.", temperature=0, seed=1, max_tokens=8):
        print(piece, end="")
    vectors: int = sum(len(model.tokenize(text)) for text in ("one", "two"))
    for row in model.batch(["a", {"prompt": "b"}], max_tokens=2, slots=2):
        print(row.row, row.error or row.text)
"""
IMPORTING = """
import sys, edgellm
heavy = {"numpy", "pydantic", "rich", "typer", "jinja2", "edgellm.api", "edgellm.errors"} & sys.modules.keys()
assert not heavy, heavy
assert all(getattr(edgellm, name) is not None for name in edgellm.__all__)
assert set(edgellm.__all__) <= set(dir(edgellm)) and edgellm.errors.EdgellmError is edgellm.EdgellmError
assert not {"rich", "typer", "starlette", "aiohttp"} & sys.modules.keys(), "the API needs no user interface"
"""


@pytest.fixture
def model(with_engine: Settings) -> Iterator[edgellm.OpenModel]:
    with edgellm.open("smollm2", n_ctx=1024, n_threads=2) as model:
        yield model


@pytest.fixture
def bert(with_engine: Settings, tmp_path: Path) -> Iterator[edgellm.OpenModel]:
    make.bert(tmp_path)
    path = convert(tmp_path, tmp_path / "bert.gguf", outtype="F32").path
    with edgellm.open(str(path)) as model:
        yield model


def test_an_answer_is_that_of_the_command_line(model: edgellm.OpenModel) -> None:
    answer = model.ask(QUESTION, temperature=0, max_tokens=24)
    ran = data(command_line("run", "smollm2", QUESTION, "--temp", "0", "-n", "24", "-c", "1024", "-t", "2", "--json"))
    assert (answer.text, answer.finish_reason) == (ran["text"], ran["stats"]["finish_reason"])
    assert "Paris" in str(answer) and answer.stats.prompt_tokens == ran["stats"]["prompt_tokens"]
    again = model.ask(QUESTION, temperature=0, max_tokens=24)
    assert again.text == answer.text and again.stats.reused_tokens > 0


def test_pieces_make_the_answer_and_a_seed_repeats_it(model: edgellm.OpenModel) -> None:
    stream = model.stream("Tell me a story.", temperature=1.5, seed=3, max_tokens=12)
    pieces = list(stream)
    assert len(pieces) > 3 and "".join(pieces) == stream.answer.text and stream.answer.finish_reason == "length"
    assert model.ask("Tell me a story.", temperature=1.5, seed=3, max_tokens=12).text == stream.answer.text
    hot = edgellm.Sampling(temperature=1.5, seed=4)
    assert model.ask("Tell me a story.", sampling=hot, max_tokens=12).text != stream.answer.text


def test_a_form_a_grammar_and_a_raw_continuation(model: edgellm.OpenModel) -> None:
    schema = {"type": "object", "properties": {"city": {"enum": ["Paris", "Rome"]}}, "required": ["city"]}
    answer = model.ask(QUESTION, schema=schema, temperature=0)
    assert json.loads(answer.text)["city"] in ("Paris", "Rome")
    assert model.ask("Yes or no?", grammar='root ::= "yes" | "no"', temperature=0).text in ("yes", "no")
    with pytest.raises(AnswerMismatch, match="not whole JSON"):
        model.ask(QUESTION, schema="json", max_tokens=1)
    with pytest.raises(UsageError, match="exclude each other"):
        model.ask(QUESTION, schema="json", grammar='root ::= "a"')
    assert "8" in model.ask("1, 2, 3, 4, 5, 6, 7,", raw=True, temperature=0, max_tokens=3).text


def test_a_chat_is_saved_if_asked_and_goes_on(model: edgellm.OpenModel, settings: Settings) -> None:
    with model.chat(temperature=0, max_tokens=12) as private:
        private.ask(QUESTION)
    assert not settings.chats.exists()
    with model.chat(save=True, temperature=0, max_tokens=12, system="Be brief.") as chat:
        assert "Paris" in chat.ask(QUESTION).text
        first = chat.id
    assert first is not None
    with model.chat(continue_=True, temperature=0, max_tokens=4) as chat:
        assert chat.id == first and chat.system == "Be brief." and chat.ask("And of Italy?").finish_reason == "length"
    with model.chat(id=first[:4], max_tokens=4) as chat:
        assert len(chat.messages) == 5
    with pytest.raises(UsageError, match="goes on as it is"):
        model.chat(id=first, system="Be long.")
    with pytest.raises(edgellm.errors.ChatNotFound):
        model.chat(id="nosuch")
    with ChatStore.open(settings.chats) as store:
        assert [chat.n_messages for chat in store.chats()] == [4]


def test_log_probabilities_are_those_of_the_server(model: edgellm.OpenModel, llama: LlamaEngine, smollm2: Path) -> None:
    text = "The capital of France is Paris. " * 20
    model.ask(QUESTION, max_tokens=2)  # whatever the context holds
    scores = model.score(text)
    assert scores.tokens == tuple(model.tokenize(text)) and scores.logprobs.shape == (len(scores.tokens) - 1,)
    assert len(scores.tokens) > 2 * CELL and scores.total == pytest.approx(scores.logprobs.sum())
    other = llama.load(smollm2)
    context: Context = other.open_context(n_ctx=1024, n_batch=CELL, n_threads=2)
    parts = Scorer(other, context).prompt(scores.tokens, n_top=0, unwanted=never)
    expected = [score.logprob for part in parts for score in part.scores if score is not None]
    context.close()
    other.close()
    assert scores.logprobs.tolist() == expected
    assert model.score(scores.tokens[:3]).logprobs.shape == (2,) and model.score([1]).logprobs.shape == (0,)
    assert model.ask(QUESTION, temperature=0, max_tokens=16).text.startswith("The capital")
    with pytest.raises(PromptTooLong):
        model.score("word " * 2000)


def test_log_probabilities_are_normalised(model: edgellm.OpenModel) -> None:
    """Against the definition: the softmax of the logits after each token."""
    tokens = model.tokenize("Hello there, world")
    scores = model.score(tokens)
    model.context.keep(0)
    rows = model.context.score(tokens).astype(np.float64)
    logs = (
        rows
        - np.log(np.exp(rows - rows.max(axis=1, keepdims=True)).sum(axis=1, keepdims=True))
        - rows.max(axis=1, keepdims=True)
    )
    assert np.allclose(scores.logprobs, [logs[n, token] for n, token in enumerate(tokens[1:])], atol=1e-5)


def test_tokens_and_back(model: edgellm.OpenModel) -> None:
    for text in ("Hello wörld 🌍", "你好", ""):
        assert model.detokenize(model.tokenize(text)) == text
    assert len(model.tokenize("<|im_end|>", special=True)) == 1 < len(model.tokenize("<|im_end|>"))


def test_a_batch_gives_the_same_answers_in_order(model: edgellm.OpenModel) -> None:
    questions = [QUESTION, "Name three colours.", "What is 2+2?", "Why is the sky blue?", "Count to five."]
    alone = [model.ask(question, temperature=0, max_tokens=12).text for question in questions]
    rows = list(model.batch(questions, slots=3, temperature=0, max_tokens=12))
    assert [row.row for row in rows] == list(range(5)) and [row.text for row in rows] == alone
    assert all(row.error is None and row.prompt_tokens > 10 and row.completion_tokens <= 12 for row in rows)


def test_rows_of_a_batch_say_what_they_want_and_fail_alone(model: edgellm.OpenModel) -> None:
    body = {"messages": [{"role": "user", "content": QUESTION}], "max_tokens": 3}
    rows: list[Any] = [
        {"prompt": QUESTION, "max_tokens": 2, "temperature": 0},
        {"custom_id": "a", "url": "/v1/chat/completions", "body": body},
        {"prompt": ""},
        {"prompt": "x", "nonsense": 1},
        {"url": "/v1/embeddings", "body": {"input": "x"}},
        {"prompt": b"bytes"},
        "word " * 3000,
        "last",
    ]
    answers = list(model.batch(rows, slots=2, max_tokens=4))
    assert [answer.row for answer in answers if answer.error is None] == [0, 1, 7]
    assert all(isinstance(answer.error, BadRequest) for answer in answers[2:6])
    assert isinstance(answers[6].error, PromptTooLong)
    assert answers[0].completion_tokens == 2 and answers[1].custom_id == "a" and answers[1].finish_reason == "length"
    assert "empty" in str(answers[2].error) and "nonsense" in str(answers[3].error)
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    (structured,) = model.batch(["A number as JSON"], schema=schema, max_tokens=1)
    assert isinstance(structured.error, AnswerMismatch)


def test_a_batch_takes_rows_as_it_goes_and_may_be_left(model: edgellm.OpenModel) -> None:
    taken: list[int] = []

    def endless() -> Iterator[str]:
        for n in range(10**9):
            taken.append(n)
            yield f"What is {n} + 1?"

    for answer in model.batch(endless(), slots=2, max_tokens=2):
        assert model.ask("Hi", max_tokens=1).text != ""  # between two computations the model is free
        if answer.row == 2:
            break
    assert len(taken) < 20


def test_vectors_of_texts(bert: edgellm.OpenModel) -> None:
    texts = ["the cat", "hello world", "the cat the cat hello"] * 30  # more than are computed together
    vectors = bert.embed(texts)
    assert vectors.shape == (90, bert.info.n_embd) and vectors.dtype == np.float32
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5) and np.allclose(vectors[0], vectors[3], atol=1e-4)
    assert bert.embed([]).shape == (0, bert.info.n_embd)
    with pytest.raises(BadRequest, match="an input has"):
        bert.embed(["cat " * 2000])
    embedding = {"url": "/v1/embeddings", "body": {"input": ["the cat", "hello world"]}}
    first, second = bert.batch([embedding, "a prompt"])
    assert first.vectors is not None and np.allclose(first.vectors, vectors[:2], atol=1e-4)
    assert "is an embedding model" in str(second.error)
    sized = [{"url": "/v1/embeddings", "body": {"input": "a", "dimensions": size}} for size in (bert.info.n_embd, 1536)]
    as_it_is, other = bert.batch(sized)
    assert as_it_is.vectors is not None and other.vectors is None
    assert f"have {bert.info.n_embd} numbers" in str(other.error)
    with pytest.raises(UnsupportedModel):
        bert.ask("Hi")
    with pytest.raises(UnsupportedModel):
        bert.score("the cat")


def test_a_model_that_makes_no_vectors(model: edgellm.OpenModel) -> None:
    with pytest.raises(BadRequest, match="smollm2 is not an embedding model"):
        model.embed(["x"])


def test_errors_are_those_of_the_command_line(settings: Settings, smollm2: Path) -> None:
    with pytest.raises(ModelNotFound) as missing:
        edgellm.open("smolm2")
    assert "did you mean smollm2?" in missing.value.why
    with pytest.raises(EngineMissing) as engine:
        edgellm.open(str(smollm2))
    assert engine.value.hint == "edgellm engine build" and isinstance(engine.value, edgellm.EdgellmError)
    assert edgellm.models() == []


def test_what_is_too_large_is_refused(with_engine: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ContextTooLarge):
        edgellm.open("smollm2", n_ctx=9000)
    with pytest.raises(DoesNotFit) as refused:
        edgellm.open("smollm2", max_memory=100_000_000)
    assert refused.value.facts["needed"] and "--force" in refused.value.hint
    mine = bytearray(b"x" * 300_000_000)  # a caller's own data is not the model's
    with edgellm.open("smollm2", n_ctx=512, max_memory=400_000_000) as model:
        with pytest.raises(DoesNotFit):
            model.batch(["x"], slots=200)
        assert len(list(model.batch(["x"], slots=2, max_tokens=1))) == 1
    del mine


def test_closing_is_safe_twice_and_using_after_it_is_an_error(with_engine: Settings) -> None:
    model = edgellm.open("smollm2", n_ctx=512)
    chat, rows = model.chat(), model.batch(["a", "b", "c"], slots=1, max_tokens=1)
    stream = iter(model.stream("Count to ten.", max_tokens=8))
    next(stream)
    with pytest.raises(UsageError, match="in the middle of another answer"):
        model.ask("x")
    stream.close()  # type: ignore[attr-defined]
    next(rows)
    model.close()
    model.close()
    uses: list[Any] = [
        lambda: model.ask("x"), lambda: model.score("x"), lambda: model.tokenize("x"), lambda: model.embed(["x"]),
        lambda: chat.ask("x"), lambda: model.chat().ask("x"), lambda: next(rows), lambda: list(model.batch(["x"])),
    ]  # fmt: skip
    for use in uses:
        with pytest.raises(UsageError, match="the model smollm2 is closed"):
            use()
    assert edgellm.models()[0].last_used is None  # nothing was answered to its end


def test_two_models_and_two_chats_at_once(with_engine: Settings, vocabularies: Path, tmp_path: Path) -> None:
    tiny = write_bitnet(tmp_path / "tiny.gguf", vocabularies)
    with edgellm.open("smollm2", n_ctx=512) as first, edgellm.open(str(tiny), n_ctx=128) as second:
        one, two = first.chat(temperature=0, max_tokens=12), first.chat(temperature=0, max_tokens=12)
        assert "Paris" in one.ask(QUESTION).text
        assert second.ask("Hello", raw=True, max_tokens=3).stats.completion_tokens <= 3
        assert "Rome" in two.ask("What is the capital of Italy?").text
        assert "Paris" in one.ask("Repeat that.").text
    speeds = {each.name: each.decode_rate for each in edgellm.models()}
    assert speeds["smollm2"] is not None and speeds["smollm2"] > 0


def test_threads_wait_for_each_other(model: edgellm.OpenModel) -> None:
    expected = model.ask(QUESTION, temperature=0, max_tokens=8).text
    answers: list[str] = []
    threads = [
        threading.Thread(target=lambda: answers.append(model.ask(QUESTION, temperature=0, max_tokens=8).text))
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [expected] * 3


def test_a_model_is_exchanged_for_another_one_or_stays(with_engine: Settings, tmp_path: Path) -> None:
    make.bert(tmp_path)
    no_chat = convert(tmp_path, tmp_path / "bert.gguf", outtype="F32").path
    model = edgellm.open("smollm2", n_ctx=512)
    chat = model.chat(temperature=0, max_tokens=12)
    assert "Paris" in chat.ask(QUESTION).text
    for name in ("nosuch", "minilm", str(no_chat), __file__):
        with pytest.raises(edgellm.EdgellmError):
            model.exchange(name)
        assert "Paris" in chat.ask(QUESTION).text, name
    other = model.exchange("smollm2")
    chat.use(other)
    with other:
        assert other.plan.n_ctx == 512 and "Paris" in chat.ask(QUESTION).text and len(chat.messages) == 13
    with pytest.raises(UsageError, match="is closed"):
        model.ask("x")


def test_the_progress_of_loading_is_reported(with_engine: Settings) -> None:
    seen: list[edgellm.Progress] = []
    edgellm.open("smollm2", n_ctx=256, report=seen.append).close()
    assert {event.stage for event in seen} == {"loading"} and seen[-1].done == 100


def test_importing_costs_nothing() -> None:
    subprocess.run([sys.executable, "-W", "error", "-c", IMPORTING], check=True, cwd=ROOT)
    with pytest.raises(AttributeError, match="no attribute 'nosuch'"):
        _ = edgellm.nosuch  # type: ignore[attr-defined]


def test_a_script_passes_mypy_and_runs(with_engine: Settings, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    command = [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(tmp_path / "cache"), str(script)]
    checked = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout
    script.with_name("wrong.py").write_text('import edgellm\nedgellm.open("smollm2").ask("x", temprature=0)\n')
    wrong = subprocess.run([*command[:-1], "wrong.py"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert wrong.returncode == 1 and "temprature" in wrong.stdout
    ran = subprocess.run([sys.executable, "-W", "error", str(script)], capture_output=True, text=True, check=True)
    assert "Paris" in ran.stdout and ran.stderr == ""


def test_the_examples_of_the_page_run(
    with_engine: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (page,) = (ROOT / "docs").rglob("python.md")
    ours = Store(with_engine.models).get("smollm2")
    with_engine.models.unlink()  # a link to the real ones, which stay as they are
    store = Store(with_engine.models)
    make.bert(tmp_path)
    path = convert(tmp_path, tmp_path / "bert.gguf", outtype="F32").path
    store.add(ours)
    store.add(InstalledModel("minilm", path, path.stat().st_size, "0" * 64, "test", "2026"))
    monkeypatch.chdir(tmp_path)
    examples = re.findall(r"^```python\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)
    namespace: dict[str, Any] = {}
    for example in examples:
        exec(compile(example, page.name, "exec"), namespace)
    printed = capsys.readouterr().out
    assert len(examples) > 8 and "Paris" in printed and "model-not-found there is no model 'smolm2'" in printed
