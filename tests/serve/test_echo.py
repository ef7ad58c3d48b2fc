"""Prompts with their log-probabilities over HTTP, the tokenizer's endpoints, and lm-eval's real package on both."""

import concurrent.futures
import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from edgellm.engine.llama import LlamaEngine, LlamaModel
from tests.serve.scoring_models import log_probabilities, write_bos_model
from tests.serve.server import Reply, Server

pytestmark = [pytest.mark.engine, pytest.mark.model]

QUESTIONS = [
    {"question": "The capital of France is", "choices": ["Paris", "Berlin", "a banana"], "answer": 0},
    {"question": "One, two, three,", "choices": ["four", "nine hundred"], "answer": 0},
    {"question": "Grüße aus", "choices": ["Köln am Rhein", "世界 🌍"], "answer": 1},
]
TASK = """
task: toy
dataset_path: json
dataset_kwargs: {data_files: {test: FILE}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{question}}"
doc_to_target: "{{answer}}"
doc_to_choice: "{{choices}}"
metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]
"""
GENERATION = """
task: toy_generation
dataset_path: json
dataset_kwargs: {data_files: {test: FILE}}
test_split: test
output_type: generate_until
doc_to_text: "{{question}}"
doc_to_target: "{{choices[answer]}}"
generation_kwargs: {max_gen_toks: 4, temperature: 0, until: ["."]}
metric_list: [{metric: exact_match, aggregation: mean, higher_is_better: true}]
"""


@pytest.fixture(scope="module")
def models(
    llama: LlamaEngine, smollm2: Path, vocabularies: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, LlamaModel]]:
    bos = write_bos_model(tmp_path_factory.mktemp("bos") / "bos.gguf", vocabularies)
    models = {"smollm2": llama.load(smollm2), "bos": llama.load(bos)}
    yield models
    for model in models.values():
        model.close()


@pytest.fixture(scope="module")
def scoring(start: Callable[..., Server], models: dict[str, LlamaModel]) -> Iterator[Server]:
    """Both models on one port; their workers are never started for what is asked here."""
    with start("smollm2", str(models["bos"].info.path), "--slots", "1", "--ctx-size", "2048") as server:
        yield server


def scores(server: Server, **body: Any) -> Reply:
    return server.post("/v1/completions", {"echo": True, "logprobs": 1, "max_tokens": 1, "temperature": 0, **body})


def scoring_process(server: Server) -> int:
    found = subprocess.run(
        ["pgrep", "-P", str(server.process.pid), "-f", "scoring.worker.*SmolLM2"], capture_output=True, check=True
    )
    return int(found.stdout)


@pytest.mark.parametrize(("name", "as_tokens"), [("smollm2", True), ("bos", True), ("bos", False)])
def test_lm_eval_gets_what_the_engine_computes(
    start: Callable[..., Server], models: dict[str, LlamaModel], name: str, as_tokens: bool, tmp_path: Path
) -> None:
    """The real package, without a tokenizer of its own; each log-likelihood to 1e-3, and its greedy flags.

    Sent as texts, the prompts get the model's BOS.
    """
    with start(str(models[name].info.path), "--slots", "1") as server:
        compare_with_lm_eval(server, models[name], as_tokens, tmp_path)


def compare_with_lm_eval(server: Server, model: LlamaModel, as_tokens: bool, tmp_path: Path) -> None:
    name = server.get("/v1/models").json()["data"][0]["id"]
    questions = tmp_path / "questions.jsonl"
    questions.write_text("".join(json.dumps(each) + "\n" for each in QUESTIONS))
    for kind, text in (("toy", TASK), ("generation", GENERATION)):
        (tmp_path / f"{kind}.yaml").write_text(text.replace("FILE", str(questions)))
    arguments = f"base_url={server.url}/v1/completions,model={name},max_retries=1,tokenized_requests={as_tokens}"
    command = [
        sys.executable, "-m", "lm_eval", "run", "--model", "local-completions", "--model_args", arguments,
        "--tasks", "toy" if name == "bos" else "toy,toy_generation", "--include_path", str(tmp_path), "--log_samples",
        "--output_path", str(tmp_path / "out"),
    ]  # fmt: skip
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_HOME": str(tmp_path / "hf")}
    done = subprocess.run(command, env={**os.environ, **offline}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-6000:]
    (answers,) = (tmp_path / "out").rglob("samples_toy_2*.jsonl")
    compared = 0
    for line in answers.read_text().splitlines():
        sample = json.loads(line)
        for choice, (got, greedy) in zip(sample["doc"]["choices"], (pair for (pair,) in sample["resps"]), strict=True):
            context = model.tokenize(sample["doc"]["question"], bos=not as_tokens)
            whole = model.tokenize(f"{sample['doc']['question']} {choice}", bos=not as_tokens)
            expected = log_probabilities(model, whole, 64)[len(context) - 1 :]
            assert float(got) == pytest.approx(sum(expected), abs=1e-3)
            assert (greedy == "True") == is_greedy(model, whole, len(context))
            compared += 1
    assert compared == 7
    (results,) = (tmp_path / "out").rglob("results_*.json")
    if name != "bos":
        assert json.loads(results.read_text())["results"]["toy"]["acc,none"] >= 0.66
        (generated,) = (tmp_path / "out").rglob("samples_toy_generation_*.jsonl")
        first = json.loads(generated.read_text().splitlines()[0])
        assert first["resps"] == [[" Paris"]]


def is_greedy(model: LlamaModel, tokens: list[int], n_context: int) -> bool:
    context = model.open_context(n_ctx=256, n_batch=64, n_threads=2)
    best = context.score(tokens).argmax(axis=1).tolist()
    context.close()
    return bool(best[n_context - 1 : -1] == tokens[n_context:])


def test_every_form_of_a_prompt(scoring: Server, models: dict[str, LlamaModel]) -> None:
    text, other = "The capital of France is", "One two three"
    ids, more = (models["smollm2"].tokenize(each) for each in (text, other))
    answers = [
        scores(scoring, prompt=prompt).json() for prompt in (text, [text], ids, [ids], [text, other], [ids, more])
    ]
    first = answers[0]["choices"][0]
    assert first["text"] == f"{text} Paris" and first["finish_reason"] == "length"
    for answer in answers:
        assert answer["choices"][0]["logprobs"] == first["logprobs"]
        assert [choice["index"] for choice in answer["choices"]] == list(range(len(answer["choices"])))
    assert answers[4]["choices"] == answers[5]["choices"]
    usage = answers[5]["usage"]
    assert usage["prompt_tokens"] == len(ids) + len(more) and usage["completion_tokens"] == 2
    lists = first["logprobs"]
    assert lists["tokens"] == ["The", " capital", " of", " France", " is", " Paris"]
    assert lists["text_offset"] == [0, 3, 11, 14, 21, 24]
    assert lists["token_logprobs"][0] is lists["top_logprobs"][0] is None
    expected = log_probabilities(models["smollm2"], ids, 64)
    assert lists["token_logprobs"][1:-1] == pytest.approx(expected, abs=1e-3)
    for token, logprob, top in list(zip(lists["tokens"], lists["token_logprobs"], lists["top_logprobs"], strict=True))[
        1:
    ]:
        assert top[token] == logprob and 1 <= len(top) <= 2


def test_bos_comes_before_a_text_and_not_before_tokens(scoring: Server, models: dict[str, LlamaModel]) -> None:
    model, text = models["bos"], "Hello there"
    own = model.tokenize(text, bos=False)
    answer = scores(scoring, model="bos", prompt=text, max_tokens=0).json()
    lists = answer["choices"][0]["logprobs"]
    assert lists["tokens"] == [" Hello", " there"] and lists["text_offset"] == [0, 5]
    assert lists["token_logprobs"] == pytest.approx(log_probabilities(model, [1, *own], 64), abs=1e-3)
    assert answer["usage"]["prompt_tokens"] == 3 and answer["choices"][0]["text"] == text
    lists = scores(scoring, model="bos", prompt=own, max_tokens=0).json()["choices"][0]["logprobs"]
    assert lists["token_logprobs"][0] is None
    assert lists["token_logprobs"][1:] == pytest.approx(log_probabilities(model, own, 64), abs=1e-3)


def test_without_logprobs_and_with_many(scoring: Server) -> None:
    bare = scores(scoring, prompt="Once upon", logprobs=None, max_tokens=3).json()["choices"][0]
    assert bare["logprobs"] is None and bare["text"].startswith("Once upon")
    many = scores(scoring, prompt="Once upon", logprobs=20).json()["choices"][0]["logprobs"]["top_logprobs"]
    assert len(many[1]) in (20, 21) and math.fsum(map(math.exp, many[1].values())) < 1.0001
    values = list(many[1].values())
    assert values == sorted(values, reverse=True)


def test_a_repeated_prompt_is_taken_from_the_cache(scoring: Server) -> None:
    prompt = "The tide comes in and goes out again. " * 20
    first, second = (scores(scoring, prompt=prompt).json() for _ in range(2))
    assert first["choices"] == second["choices"]
    assert second["usage"]["prompt_tokens_details"]["cached_tokens"] == 128


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"prompt": "word " * 3000}, "prompt"),
        ({"prompt": ""}, "prompt"),
        ({"prompt": [[1, 2], [49152]]}, "prompt"),
        ({"prompt": ["a"] * 3000}, "prompt"),
        ({"prompt": [-1]}, "prompt"),
        ({"prompt": "a", "logprobs": 21}, "logprobs"),
        ({"prompt": "a", "stream": True}, "stream"),
        ({"prompt": "a", "n": 2}, "n"),
        ({"prompt": "a", "logit_bias": {"5": 3}}, "logit_bias"),
        ({"prompt": "a", "mirostat": 2}, "mirostat"),
        ({"prompt": "a", "truncate": True}, "truncate"),
        ({"prompt": "a", "max_time": 1}, "max_time"),
    ],
)
def test_what_cannot_be_honoured_is_refused_by_name(scoring: Server, body: dict[str, Any], field: str) -> None:
    reply = scores(scoring, **body)
    error = reply.json()["error"]
    assert reply.status == 400 and str(error["param"]).startswith(field), error
    assert "Traceback" not in error["message"]
    if body["prompt"] == "word " * 3000:
        assert (error["n_prompt_tokens"], error["n_ctx"]) == (3001, 2048)


def test_the_tokenizer(server: Server, scoring: Server, models: dict[str, LlamaModel]) -> None:
    def tokenize(**body: Any) -> Any:
        return scoring.post("/tokenize", {"model": "smollm2", **body}).json()

    assert tokenize(prompt="Hello", model="bos") == {"tokens": [1, 15043], "count": 2, "max_model_len": 512}
    assert tokenize(prompt="Hello", model="bos", add_special_tokens=False)["tokens"] == [15043]
    assert tokenize(prompt="<|im_end|>")["tokens"] == [2]
    info = scoring.get("/tokenizer_info?model=smollm2").json()
    assert info["eos_token"] == "<|im_end|>" and "im_start" in info["chat_template"] and not info["add_bos_token"]
    bos = scoring.get("/tokenizer_info?model=bos").json()
    assert (bos["bos_token"], bos["eos_token"], bos["pad_token"], bos["add_bos_token"]) == ("<s>", "</s>", None, True)
    # What a chat sends, system message and all.
    messages = [{"role": "user", "content": [{"type": "text", "text": "hi"}]}]
    chat = tokenize(messages=messages)["tokens"]
    answered = scoring.post("/v1/chat/completions", {"messages": messages, "max_tokens": 1, "model": "smollm2"}).json()
    assert answered["usage"]["prompt_tokens"] == len(chat)
    text = scoring.post("/detokenize", {"tokens": chat, "model": "smollm2"}).json()["prompt"]
    assert text.endswith("<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n")
    for path, body in (
        ("/tokenize", {}), ("/tokenize", {"prompt": "a", "messages": messages}), ("/tokenize", {"prompt": 5}),
        ("/tokenize", {"prompt": "a", "return_token_strs": True}), ("/tokenize", {"prompt": "a" * 1_000_001}),
        ("/detokenize", {"tokens": [49152]}), ("/detokenize", {"tokens": "a"}), ("/detokenize", {"tokens": [2**40]}),
        ("/tokenize", {"messages": messages, "model": "bos"}),
    ):  # fmt: skip
        reply = scoring.post(path, {"model": "smollm2", **body})
        assert reply.status == 400 or (
            reply.status in (422, 500) and "not a chat model" in reply.json()["error"]["message"]
        )
    assert scoring.post("/tokenize", {"prompt": "a", "model": "nosuch"}).status == 404
    # Of several models none is meant; of one it is.
    for reply in (scoring.post("/tokenize", {"prompt": "a"}), scoring.get("/tokenizer_info")):
        assert reply.status == 400 and reply.json()["error"]["param"] == "model"
    assert server.post("/tokenize", {"prompt": "Hello"}).json()["tokens"] == [19556]
    assert server.post("/tokenize", {"prompt": "Hello", "model": "bert"}).status == 200


def test_killed_it_is_started_again(scoring: Server) -> None:
    with concurrent.futures.ThreadPoolExecutor() as threads:
        assert scores(scoring, prompt="Hi").status == 200
        long = threads.submit(scores, scoring, prompt=["word " * 2000] * 8)
        time.sleep(0.5)  # the shorter one would arrive first
        waiting = threads.submit(scores, scoring, prompt="Hello")
        time.sleep(0.5)
        os.kill(scoring_process(scoring), signal.SIGKILL)
        replies = [long.result(), waiting.result()]
    for reply in replies:
        assert reply.status == 503 and reply.headers["retry-after"]
    assert scores(scoring, prompt="Hi").status == 200


def test_who_goes_away_makes_way(scoring: Server) -> None:
    began = time.monotonic()
    scores(scoring, prompt="word " * 300)
    seconds = time.monotonic() - began
    with pytest.raises(TimeoutError):
        scoring.post("/v1/completions", {"echo": True, "prompt": [f"{name} " * 600 for name in "abcdef"]}, timeout=0.5)
    began = time.monotonic()
    assert scores(scoring, prompt="Hi").status == 200
    assert time.monotonic() - began < max(1.0, seconds)


def test_an_embedding_model_scores_nothing(server: Server) -> None:
    reply = scores(server, model="bert", prompt="Hi")
    assert reply.status == 400 and "vectors" in reply.json()["error"]["message"]
