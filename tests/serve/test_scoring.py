"""The process that scores prompts: right numbers with and without BOS, nothing computed twice, hard to break."""

import asyncio
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgellm.engine.fake import FakeModel
from edgellm.engine.llama import LlamaEngine, LlamaModel
from edgellm.engine.sampling import Sampling
from edgellm.errors import BadRequest, CorruptFile, EdgellmError, EngineError, PromptTooLong, UsageError
from edgellm.run.generation import never
from edgellm.run.scores import NEVER, score_rows
from edgellm.serve.scoring.client import Done, ScoredPart, ScoreRequest, ScoringWorker
from edgellm.serve.scoring.scorer import CELL, Draw, Scorer, ScoringOptions, Unwanted
from edgellm.serve.scoring.speller import Speller, spell, token_name
from edgellm.settings import Settings
from tests.engine.tiny_models import write_bitnet
from tests.serve.scoring_models import log_probabilities, write_bos_model

TEXT = "The quick brown fox jumps over the lazy dog, and the lazy dog sleeps on. " * 12
GREEDY = Sampling(temperature=0)
needs_engine = pytest.mark.engine


class Whole:
    """The parts of an answer put together."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.logprobs: list[float | None] = []
        self.tops: list[dict[str, float] | None] = []
        self.offsets: list[int] = []
        self.done: Done

    def add(self, answer: ScoredPart | Done) -> None:
        if isinstance(answer, Done):
            self.done = answer
            return
        self.names += answer.names
        self.logprobs += answer.logprobs
        self.tops += answer.tops
        self.offsets += answer.offsets


async def whole(worker: ScoringWorker, prompt: str | list[int], **more: Any) -> Whole:
    result = Whole()
    async for answer in worker.score(ScoreRequest(prompt, **more)):
        result.add(answer)
    return result


@asynccontextmanager
async def running(path: Path, log: Path | None = None, **options: Any) -> AsyncIterator[ScoringWorker]:
    worker = ScoringWorker(path, ScoringOptions(**{"n_threads": 2, **options}), log=log)
    await worker.start()
    try:
        yield worker
    finally:
        await worker.stop()


def run(test: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(test, 60))


@pytest.fixture(scope="module")
def bos_file(tmp_path_factory: pytest.TempPathFactory, vocabularies: Path) -> Path:
    return write_bos_model(tmp_path_factory.mktemp("bos") / "bos.gguf", vocabularies)


@pytest.fixture(scope="module")
def models(llama: LlamaEngine, smollm2: Path, bos_file: Path) -> Iterator[dict[str, LlamaModel]]:
    models = {"smollm2": llama.load(smollm2), "bos": llama.load(bos_file)}
    yield models
    for model in models.values():
        model.close()


@needs_engine
@pytest.mark.model
@pytest.mark.parametrize("name", ["smollm2", "bos"])
def test_log_probabilities_are_those_of_the_engine(
    with_engine: Settings, models: dict[str, LlamaModel], name: str
) -> None:
    """As text and as tokens: BOS comes before a text only, and only where the vocabulary has it."""
    model = models[name]
    tokens, own = model.tokenize(TEXT), model.tokenize(TEXT, bos=False)
    assert len(tokens) - len(own) == (name == "bos")
    expected = log_probabilities(model, tokens, CELL)

    async def test() -> None:
        async with running(model.info.path, n_ctx=512) as worker:
            text = await whole(worker, TEXT)
            scores = text.logprobs if name == "bos" else text.logprobs[1:]
            np.testing.assert_allclose(np.array(scores, float), expected, atol=1e-3)
            assert len(text.logprobs) == len(own) and (text.logprobs[0] is None) == (name != "bos")
            assert "".join(text.names).strip() == text.done.text.strip() and text.done.prompt_tokens == len(tokens)
            for offset, each in zip(text.offsets, text.names, strict=True):
                assert TEXT[offset:].startswith(each.lstrip() if offset == 0 else each)
            ids = await whole(worker, tokens)
            assert ids.logprobs[0] is None and ids.done.text.endswith(TEXT)
            np.testing.assert_allclose(np.array(ids.logprobs[1:], float), expected, atol=1e-3)
            bare = await whole(worker, own)
            independent = log_probabilities(model, own, CELL)
            np.testing.assert_allclose(np.array(bare.logprobs[1:], float), independent, atol=1e-3)

    run(test())


@needs_engine
def test_they_are_those_of_one_computation_of_the_whole(
    with_engine: Settings, llama: LlamaEngine, bos_file: Path
) -> None:
    """The cells fit together. In F32, and in whole ones: fewer than 64 tokens take other kernels for the attention."""
    model = llama.load(bos_file)
    tokens = model.tokenize(TEXT)[: 3 * CELL]
    context = model.open_context(n_ctx=512, n_batch=512, n_threads=2, type_k="F32", type_v="F32")
    expected = score_rows(context.score(tokens), tokens[1:], 3)
    context.close(), model.close()

    async def test() -> None:
        async with running(bos_file, n_ctx=512, kv_type="f32") as worker:
            scored = await whole(worker, tokens, n_top=3)
            scores = np.array(scored.logprobs[1:], float)
            np.testing.assert_allclose(scores, [score.logprob for score in expected], atol=1e-3)
            for top, score in zip(scored.tops[1:], expected, strict=True):
                assert top is not None and max(top.values()) == pytest.approx(score.top[0][1], abs=1e-3)

    run(test())


@needs_engine
@pytest.mark.model
def test_a_shared_beginning_is_not_computed_again_and_changes_nothing(
    with_engine: Settings, models: dict[str, LlamaModel]
) -> None:
    """To the last bit: only whole cells are reused, so that every batch is what it would be in a new context."""
    model = models["smollm2"]
    first, second = model.tokenize(TEXT)[:100], model.tokenize("Something else entirely.")
    other, longer = [*first[:80], *second], [*first, *second]

    async def test() -> None:
        fresh = []
        for prompt in (first, other, longer):
            async with running(model.info.path, n_ctx=512) as worker:
                fresh.append(await whole(worker, prompt, n_top=2, max_tokens=3, sampling=GREEDY))
        async with running(model.info.path, n_ctx=512) as worker:
            again = [
                await whole(worker, prompt, n_top=2, max_tokens=3, sampling=GREEDY)
                for prompt in (first, other, longer, longer)
            ]
            assert [each.done.reused_tokens for each in again] == [0, 64, 64, 64]
            for one, another in zip([*fresh, fresh[-1]], again, strict=True):
                assert one.logprobs == another.logprobs and one.tops == another.tops and one.names == another.names
            more = await whole(worker, longer, n_top=5)
            assert more.done.reused_tokens == 0 and more.logprobs == fresh[-1].logprobs[: len(longer)]
            assert (await whole(worker, longer, n_top=1)).done.reused_tokens == 64

    run(test())


@needs_engine
@pytest.mark.model
def test_what_follows_is_drawn_and_scored(with_engine: Settings, smollm2: Path) -> None:
    async def test() -> None:
        async with running(smollm2, n_ctx=1024) as worker:
            said = await whole(worker, "The capital of France is", n_top=2, max_tokens=2, sampling=GREEDY)
            assert said.done.text == "The capital of France is Paris." and said.names[-2:] == [" Paris", "."]
            assert said.done.reason == "length" and said.done.completion_tokens == 2
            for logprob, top in zip(said.logprobs[-2:], said.tops[-2:], strict=True):
                assert top is not None and logprob == max(top.values())
            # The score of a token is the same whether it was drawn or given.
            given = await whole(worker, "The capital of France is Paris", n_top=2)
            assert given.logprobs[-1] == pytest.approx(said.logprobs[-2], abs=0.05)
            assert [said.done.text[offset:][:1] for offset in said.offsets[-2:]] == [" ", "."]
            # One that ends the answer is listed too: lm-eval takes the last of the list away.
            question = "<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n"
            ended = await whole(worker, question, max_tokens=100, sampling=GREEDY)
            assert ended.done.reason == "stop" and ended.names[-1] == "<|im_end|>" and ended.done.text.endswith(".")
            last = await whole(worker, ended.done.text, max_tokens=1, sampling=GREEDY)
            assert last.done.reason == "stop" and last.names == ended.names and last.done.text == ended.done.text
            cut = await whole(worker, "A, B, C, D,", max_tokens=9, sampling=GREEDY, stop=(" G",))
            assert cut.done.reason == "stop" and cut.done.text == "A, B, C, D, E, F,"
            assert cut.names[-2:] == [" F", ","] and cut.done.completion_tokens == 5
            looped = await whole(worker, "Yes, I am good. " * 12, max_tokens=600, sampling=GREEDY)
            assert looped.done.reason == "repetition" and len(looped.names) < 73 + looped.done.completion_tokens < 473
            seeds = [
                (await whole(worker, "Once", max_tokens=8, sampling=Sampling(temperature=1.5, seed=seed))).done.text
                for seed in (7, 7, 8)
            ]
            assert seeds[0] == seeds[1] != seeds[2]

    run(test())


@needs_engine
@pytest.mark.model
def test_texts_and_tokens(with_engine: Settings, smollm2: Path, bos_file: Path) -> None:
    async def test() -> None:
        async with running(smollm2) as worker:
            assert not worker.info.adds_bos and worker.info.eos == "<|im_end|>" and worker.info.n_vocab == 49152
            (end,) = await worker.tokenize("<|im_end|>", bos=True)
            assert await worker.detokenize([end]) == "<|im_end|>"
            # The vocabulary was enough so far.
            before = resident(worker)
            # A character in parts: each has a name, and the text is whole.
            parts = await whole(worker, "a 𓂀")
            assert resident(worker) > before + 30e6
            assert parts.done.text == "a 𓂀" and parts.names[-1].startswith("bytes:\\x")
            messages = [{"role": "user", "content": "hi"}]
            text = await worker.detokenize(await worker.tokenize_messages(messages, bos=False))
            assert text.endswith("<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n")
            with pytest.raises(UsageError):
                await worker.tokenize_messages(messages, bos=False, template="{{ raise_exception('no') }}")
        async with running(bos_file) as worker:
            assert (await worker.tokenize("Hi", bos=True))[0] == 1 and worker.info.bos == "<s>"
            for text in ("Hi", " two  spaces", "<s> Hi</s>", "Grüße\n世界 🌍"):
                tokens = await worker.tokenize(text, bos=False)
                assert await worker.detokenize(tokens) == text
            # Written out, BOS is a token of the text as any other, and there is no second one.
            assert (await whole(worker, "<s>Hi")).names == ["<s>", " Hi"]
            assert (await whole(worker, "")).names == []
            with pytest.raises(EdgellmError, match="not a chat model"):
                await worker.tokenize_messages([{"role": "user", "content": "hi"}], bos=False)

    run(test())


def resident(worker: ScoringWorker) -> int:
    for line in Path(f"/proc/{worker.pid}/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise AssertionError


@needs_engine
@pytest.mark.model
def test_what_cannot_be_is_refused_and_the_next_request_is_answered(with_engine: Settings, smollm2: Path) -> None:
    async def test() -> None:
        async with running(smollm2, n_ctx=256) as worker:
            with pytest.raises(PromptTooLong) as long:
                await whole(worker, "word " * 300)
            assert long.value.facts == {"prompt_tokens": 301, "n_ctx": 256}
            assert len((await whole(worker, [5] * 256)).names) == 256
            with pytest.raises(PromptTooLong):
                await whole(worker, [5] * 256, max_tokens=1)
            assert (await whole(worker, [5] * 250, max_tokens=100)).done.completion_tokens <= 7
            for empty in ("", []):
                with pytest.raises(PromptTooLong, match="empty"):
                    await whole(worker, empty)
            for bad in ([49152], [1, -1], [True], [1.5], ["a"], [2**70]):
                with pytest.raises(BadRequest, match=r"token [01] is "):
                    await whole(worker, bad)
            with pytest.raises(BadRequest):
                await worker.detokenize([49152])
            with pytest.raises(UsageError, match="grammar"):
                await whole(worker, "Hi", max_tokens=1, sampling=Sampling(grammar="nonsense"))
            assert (await whole(worker, "\ud800 \x00 \uffff")).done.prompt_tokens > 2
            huge = Sampling(repeat_last_n=2**31 - 1, repeat_penalty=1.1)
            assert (await whole(worker, "Hi", max_tokens=1, sampling=huge)).done.completion_tokens == 1

    run(test())


@needs_engine
def test_a_file_that_is_no_model_is_told(with_engine: Settings, tmp_path: Path) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF and nothing else")

    async def test() -> None:
        worker = ScoringWorker(broken, ScoringOptions())
        with pytest.raises(CorruptFile):
            await worker.start()
        assert not worker.alive
        with pytest.raises(EngineError):
            await whole(worker, "Hi")

    run(test())


@needs_engine
@pytest.mark.model
def test_too_little_memory_is_told_before_the_weights_are_loaded(with_engine: Settings, smollm2: Path) -> None:
    async def test() -> None:
        async with running(smollm2, max_memory=100_000_000) as worker:
            with pytest.raises(EdgellmError) as error:
                await whole(worker, "Hi")
            assert error.value.code == "does-not-fit" and "GB" in error.value.what
            assert await worker.tokenize("Hi", bos=True)

    run(test())


@needs_engine
@pytest.mark.model
def test_killed_it_is_an_error_at_once(with_engine: Settings, smollm2: Path, tmp_path: Path) -> None:
    async def test() -> None:
        async with running(smollm2, log=tmp_path / "logs" / "scoring.log") as worker:
            async with aclosing(worker.score(ScoreRequest("word " * 2000))) as answers:
                await anext(answers)
                waiting = asyncio.create_task(whole(worker, "Hi"))
                assert worker.pid is not None
                os.kill(worker.pid, signal.SIGKILL)
                with pytest.raises(EngineError, match="has ended") as error:
                    while True:
                        await anext(answers)
            with pytest.raises(EngineError):
                await waiting
            # 255 is what asyncio says when another watcher of this process's children was quicker.
            assert re.search("SIGKILL|255", error.value.why) and "scoring.log" in error.value.why
            assert not worker.alive

    run(test())


@needs_engine
@pytest.mark.model
def test_who_goes_away_stops_it_and_the_others_have_their_turn(with_engine: Settings, smollm2: Path) -> None:
    async def test() -> None:
        async with running(smollm2) as worker:
            begin = time.monotonic()
            whole_seconds = (await whole(worker, "word " * 500)).done.seconds
            assert time.monotonic() - begin >= whole_seconds
            begun: list[int] = []

            async def long(first: str) -> None:
                async for _ in worker.score(ScoreRequest(f"{first} " * 1000)):
                    begun.append(1)

            tasks = [asyncio.create_task(long(first)) for first in ("a", "b", "c")]
            while not begun:
                await asyncio.sleep(0.01)
            others = [asyncio.create_task(whole(worker, f"Hello {index}")) for index in range(3)]
            for task in tasks:
                task.cancel()
            begin = time.monotonic()
            results = await asyncio.gather(*others)
            assert time.monotonic() - begin < whole_seconds
            assert [result.names[-1] for result in results] == ["0", "1", "2"]
            assert all(task.cancelled() for task in await asyncio.wait(tasks) and tasks)

    run(test())


@needs_engine
@pytest.mark.model
def test_it_ends_with_its_input_whatever_it_does(with_engine: Settings, smollm2: Path) -> None:
    """As when the server is killed: the system closes its end of the pipe."""
    command = [sys.executable, "-m", "edgellm.serve.scoring.worker", str(smollm2)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin and process.stdout
    with process:
        assert process.stdout.readline().startswith(b'{"ready"')
        score = b'{"prompt": "%s", "n_top": 0, "max_tokens": 0, "sampling": {}, "stop": [], "loop_guard": true}'
        process.stdin.write(b'{"id": 1, "score": %s}\n' % (score % (b"word " * 3000)))
        process.stdin.flush()
        assert b'"part"' in process.stdout.readline()
        process.stdin.close()
        begin = time.monotonic()
        assert process.wait(10) == 0
        assert time.monotonic() - begin < 3


def test_scores_of_rows() -> None:
    rows = np.array([[0, np.log(3), -np.inf], [5, 5, 5]], np.float32)
    first, second = score_rows(rows, [1, 2], 2)
    assert first.logprob == pytest.approx(np.log(0.75)) and [token for token, _ in first.top] == [1, 0]
    assert second.logprob == pytest.approx(-np.log(3))
    assert score_rows(rows, [2], 9)[0].logprob == NEVER and len(score_rows(rows, [2], 9)[0].top) == 3
    assert score_rows(rows, [0], 0)[0].top == ()
    with pytest.raises(EngineError, match="computes no numbers"):
        score_rows(np.full((1, 3), np.nan, np.float32), [0], 1)


def test_only_whole_cells_are_kept() -> None:
    model = FakeModel()
    context = model.open_context(n_ctx=512, n_batch=CELL, n_threads=1)
    scorer = Scorer(model, context)

    def score(tokens: list[int]) -> list[int]:
        context.decoded.clear()
        scored = list(scorer.prompt(tokens, n_top=0, unwanted=never))
        assert [token for each in scored for token in each.tokens] == tokens
        assert [score is None for each in scored for score in each.scores] == [True] + [False] * (len(tokens) - 1)
        return list(context.decoded)

    tokens = list(range(200))
    assert score(tokens) == [64, 64, 64, 8]
    assert score(tokens) == [8]
    assert score(tokens[:129]) == [1] and score(tokens[:128]) == [64]  # the token after the cells must be known too
    assert score([*tokens[:64], 0]) == [64, 1]
    drawn = scorer.draw(Draw(9, Sampling()), Speller(model), tokens[:65], n_top=0, unwanted=never)
    assert drawn.text == "Hello!" and drawn.reason == "stop" and len(drawn.tokens) == 7
    assert score([*tokens[:64], 0, *b"Hello!"]) == [7]
    assert score([7]) == [1] and scorer.reused == 0


def test_a_cancelled_prompt_leaves_what_was_computed() -> None:
    model = FakeModel()
    context = model.open_context(n_ctx=512, n_batch=CELL, n_threads=1)
    scorer = Scorer(model, context)
    calls = iter(range(9))
    tokens = list(range(200))
    with pytest.raises(Unwanted):
        list(scorer.prompt(tokens, n_top=0, unwanted=lambda: next(calls) == 2))
    assert context.decoded == [64, 64]
    list(scorer.prompt(tokens, n_top=0, unwanted=never))
    assert context.decoded == [64, 64, 64, 8] and scorer.reused == 128


@needs_engine
@pytest.mark.model
def test_a_computation_is_given_up_in_its_middle(models: dict[str, LlamaModel]) -> None:
    """And the cache is as it was before."""
    model = models["smollm2"]
    tokens = model.tokenize(TEXT)[: 3 * CELL]
    context = model.open_context(n_ctx=512, n_batch=CELL, n_threads=2)
    scorer = Scorer(model, context)
    expected = [score for each in scorer.prompt(tokens, n_top=1, unwanted=never) for score in each.scores]
    scorer = Scorer(model, context)
    asked = 0

    def unwanted() -> bool:
        nonlocal asked
        asked += 1
        return asked > 500

    with pytest.raises(Unwanted):
        list(scorer.prompt(tokens, n_top=1, unwanted=unwanted))
    assert asked > 500 and len(context.tokens) % CELL == 0 and len(context.tokens) < len(tokens)
    again = [score for each in scorer.prompt(tokens, n_top=1, unwanted=never) for score in each.scores]
    assert again == expected
    context.close()


@needs_engine
def test_spelling(llama: LlamaEngine, vocabularies: Path, tmp_path: Path) -> None:
    """The space that SentencePiece puts before a text is no part of it; a vocabulary can be loaded alone."""
    model = llama.load(write_bitnet(tmp_path / "phi.gguf", vocabularies), only_vocabulary=True)
    for text in ("Hello world", "  two", "a\n\nb", "<|user|>", "é世🌍"):
        assert spell(model, model.tokenize(text, special=True, bos=False)) == text
    (user,) = model.tokenize("<|user|>", special=True, bos=False)
    assert token_name(model, user) == "<|user|>" and Speller(model).write(user, control=False) == ""
    model.close()
