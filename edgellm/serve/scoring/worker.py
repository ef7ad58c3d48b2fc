"""The process that scores prompts with the engine, so that the server's own never computes; `scoring.client` starts it.

    python -m edgellm.serve.scoring.worker MODEL.gguf --ctx-size 4096 --threads 4

Each line of its input is a request, each line of its output an answer, both JSON objects. It begins with {"ready":
what the model says of itself}; the weights are loaded for the first prompt, the vocabulary is enough for the rest:

    {"id": 1, "score": {"prompt": "The sky is", "n_top": 1, "max_tokens": 1, "sampling": {"temperature": 0}, ...}}
    {"id": 1, "part": {"names": ["The", ...], "logprobs": [null, ...], "tops": [null, ...], "offsets": [0, ...]}} ...
    {"id": 1, "done": {"text": "The sky is blue", "reason": "length", "prompt_tokens": 3, ...}}
    {"id": 2, "tokenize": {"text": "The sky", "bos": false}}        {"id": 2, "done": {"tokens": [504, 6376]}}
    {"id": 3, "tokenize": {"messages": [...], "bos": false}}        {"id": 3, "done": {"tokens": [...]}}
    {"id": 4, "detokenize": {"tokens": [504, 6376]}}                {"id": 4, "done": {"text": "The sky"}}
    {"cancel": 1}                                                   {"id": 1, "cancelled": true}, if it was not done

or {"id": 1, "error": {"code", "message", "why", "try", "facts"}}. A prompt may also be a list of tokens, which is
taken as it is; before a text comes BOS where the model's vocabulary says so, and that is not among its tokens. The
process ends with its input, whatever it is doing.
"""

from __future__ import annotations

import argparse
import os
import queue
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from edgellm.engine.base import Model
from edgellm.engine.builds.installed import require
from edgellm.engine.builds.patches import PatchStack
from edgellm.engine.llama import LlamaEngine
from edgellm.engine.sampling import Sampling
from edgellm.errors import BadRequest, EdgellmError, PromptTooLong
from edgellm.formats.gguf_file import GGUFFile
from edgellm.machine.child import describe, open_answers, requests
from edgellm.models.fit.memory import choose_context
from edgellm.models.fit.verdict import read_outline
from edgellm.models.local.packed import PackedFiles
from edgellm.run.chat_template import ChatTemplate
from edgellm.run.scores import Score
from edgellm.serve.scoring.scorer import Draw, Scorer, ScoringOptions, Unwanted, plan_scoring
from edgellm.serve.scoring.speller import Speller, spell, token_name
from edgellm.settings import Settings, resource_directory

Answer = dict[str, Any]


class ScoringModel:
    """A model's vocabulary, and its weights from the first prompt on."""

    def __init__(self, engine: LlamaEngine, path: Path, options: ScoringOptions) -> None:
        self._engine, self._path, self._options = engine, path, options
        self.n_ctx = choose_context(read_outline(path).n_ctx_train, options.n_ctx)
        self.model: Model = engine.load(path, only_vocabulary=True)
        self._scorer: Scorer | None = None

    def info(self) -> Answer:
        """The vocabulary's special tokens and template, for clients."""
        info = self.model.info
        with GGUFFile.open(self._path) as gguf:
            pad = gguf.get_int("tokenizer.ggml.padding_token_id", -1)
        return {
            "n_ctx": self.n_ctx,
            "n_vocab": info.n_vocab,
            "adds_bos": bool(self.model.tokenize("")),
            "bos": info.bos or None,
            "eos": info.eos or None,
            "pad": self.model.token_text(pad) if 0 <= pad < info.n_vocab else None,
            "chat_template": info.chat_template or None,
        }

    def scorer(self) -> Scorer:
        """The scorer; the first call loads the weights.

        Raises:
            DoesNotFit: too little memory (unless forced).
        """
        if self._scorer is None:
            plan, _ = plan_scoring(self._path, self._options)
            model = self._engine.load(self._path)
            context = model.open_context(
                n_ctx=plan.n_ctx, n_batch=plan.n_batch, n_threads=plan.n_threads, type_k=plan.kv_type,
                type_v=plan.kv_type,
            )  # fmt: skip
            self.model.close()
            self.n_ctx = plan.n_ctx
            self.model, self._scorer = model, Scorer(model, context)
        return self._scorer

    def read(self, prompt: str | list[int]) -> tuple[list[int], int]:
        """The tokens of a prompt, and how many of them (one or none) are not its own: BOS before a text.

        Raises:
            BadRequest: a number that is no token.
        """
        if not isinstance(prompt, str):
            return self.check(prompt), 0
        tokens, bos = self.model.tokenize(prompt, special=True, bos=False), self.model.tokenize("")
        return (tokens, 0) if tokens[: len(bos)] == bos else ([*bos, *tokens], len(bos))

    def check(self, tokens: list[int]) -> list[int]:
        """The same tokens, if they are all in the vocabulary."""
        n_vocab = self.model.info.n_vocab
        for index, token in enumerate(tokens):
            if type(token) is not int or not 0 <= token < n_vocab:
                raise BadRequest(f"token {index} is {token!r:.40}, the vocabulary has 0 to {n_vocab - 1}")
        return tokens


class ScoringService:
    """Answers requests in their order; `cancel` may be called by another thread meanwhile."""

    def __init__(self, model: ScoringModel, say: Callable[[Answer], None]) -> None:
        self._model, self._say = model, say
        self._cancelled: set[int] = set()

    def cancel(self, request_id: int) -> None:
        """Stop the answer soon, or do not begin it."""
        self._cancelled.add(request_id)

    def answer(self, request: Answer) -> None:
        """Send every answer to a request."""
        request_id = request["id"]
        try:
            for answer in self._answers(request):
                self._say({"id": request_id, **answer})
        except EdgellmError as error:
            self._say({"id": request_id, "error": describe(error)})
        except Unwanted:
            self._say({"id": request_id, "cancelled": True})
        self._cancelled.discard(request_id)

    def _answers(self, request: Answer) -> Iterator[Answer]:
        if "score" in request:
            yield from self._score(request["id"], **request["score"])
        elif "tokenize" in request:
            yield {"done": {"tokens": self._tokenize(**request["tokenize"])}}
        else:
            tokens = self._model.check(request["detokenize"]["tokens"])
            yield {"done": {"text": spell(self._model.model, tokens)}}

    def _tokenize(
        self, *, bos: bool, text: str = "", messages: list[Any] | None = None, template: str | None = None
    ) -> list[int]:
        model = self._model.model
        if messages is not None:
            source = template or model.info.chat_template
            text = ChatTemplate(source, bos=model.info.bos, eos=model.info.eos).render(messages)
        if bos and model.info.pooled:
            return model.tokenize_input(text)
        return model.tokenize(text, special=True, bos=bos)

    def _score(
        self,
        request_id: int,
        *,
        prompt: str | list[int],
        n_top: int,
        max_tokens: int,
        sampling: dict[str, Any],
        stop: list[str],
        loop_guard: bool,
    ) -> Iterator[Answer]:
        def unwanted() -> bool:
            return request_id in self._cancelled

        if unwanted():
            raise Unwanted
        start = time.perf_counter()
        tokens, n_hidden = self._model.read(prompt)
        scorer = self._model.scorer()
        check_length(len(tokens), self._model.n_ctx, max_tokens)
        model = self._model.model
        speller, text = Speller(model), ""
        for scored in scorer.prompt(tokens, n_top=n_top, unwanted=unwanted):
            skipped = n_hidden if scored.start == 0 else 0
            offsets = []
            for token in scored.tokens[skipped:]:
                # A tokenizer may have written the text anew; then its own length is the limit.
                offsets.append(min(speller.length, len(prompt)) if isinstance(prompt, str) else speller.length)
                text += speller.write(token)
            yield part(model, scored.tokens[skipped:], scored.scores[skipped:], offsets)
        if max_tokens == 0:
            text += speller.finish()
        if isinstance(prompt, str):
            text = prompt
        reason, n_drawn = "length", 0
        if max_tokens:
            how = Sampling(**sampling)
            # The engine makes room for so many.
            how = replace(how, repeat_last_n=min(how.repeat_last_n, self._model.n_ctx))
            draw = Draw(max_tokens, how, tuple(stop), loop_guard)
            drawn = scorer.draw(draw, speller, tokens, n_top=n_top, unwanted=unwanted)
            yield part(model, drawn.tokens, drawn.scores, [len(text) + offset for offset in drawn.offsets])
            text, reason, n_drawn = text + drawn.text, drawn.reason, drawn.n_drawn
        yield {
            "done": {
                "text": text,
                "reason": reason,
                "prompt_tokens": len(tokens),
                "reused_tokens": scorer.reused,
                "completion_tokens": n_drawn,
                "seconds": time.perf_counter() - start,
            }
        }


def part(model: Model, tokens: Sequence[int], scores: Sequence[Score | None], offsets: list[int]) -> Answer:
    """A message about some tokens; each is among its likeliest, and of two with the same name the likelier counts."""
    names = [token_name(model, token) for token in tokens]
    tops: list[dict[str, float] | None] = []
    for name, score in zip(names, scores, strict=True):
        likeliest = [(token_name(model, token), logprob) for token, logprob in score.top] if score else []
        top: dict[str, float] = {}
        for other, logprob in sorted([*likeliest, (name, score.logprob)], key=lambda pair: -pair[1]) if score else []:
            top.setdefault(other, logprob)
        tops.append(top or None)
    logprobs = [score and score.logprob for score in scores]
    return {"part": {"names": names, "logprobs": logprobs, "tops": tops, "offsets": offsets}}


def check_length(n_prompt: int, n_ctx: int, max_tokens: int) -> None:
    """Raise `PromptTooLong` unless the prompt fits, with one token more if any are to be drawn."""
    if n_prompt == 0:
        raise PromptTooLong("the prompt is empty", why="the model puts nothing before a text that it could go on from")
    if n_prompt + (max_tokens > 0) > n_ctx:
        raise PromptTooLong(
            f"the prompt has {n_prompt:,} tokens, the context holds {n_ctx:,}, the answer included",
            why="edgellm never cuts a prompt silently",
            hint="a shorter prompt, or the server with a larger --ctx-size",
            prompt_tokens=n_prompt,
            n_ctx=n_ctx,
        )


def listen(worker: ScoringService, todo: queue.SimpleQueue[Answer]) -> None:
    """Read requests while the other thread computes; end the process at the end of its input."""
    for request in requests():
        if "cancel" in request:
            worker.cancel(request["cancel"])
        else:
            todo.put(request)
    os._exit(0)


def parse_arguments() -> argparse.Namespace:
    """The command line that `scoring.client` writes."""
    parser = argparse.ArgumentParser(prog="python -m edgellm.serve.scoring.worker")
    parser.add_argument("model", type=Path)
    parser.add_argument("--ctx-size", type=int)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--kv")
    parser.add_argument("--max-memory", type=int)
    parser.add_argument("--force", action="store_true")
    return parser.parse_args()


def main() -> int:
    """Load the vocabulary and answer requests until the input ends; else the exit code of an error."""
    arguments, say = parse_arguments(), open_answers()
    options = ScoringOptions(arguments.ctx_size, arguments.threads, arguments.kv, arguments.max_memory, arguments.force)
    try:
        settings, stack = Settings.from_environment(), PatchStack.load(resource_directory("patches"))
        packed = PackedFiles.of_user(settings, stack.stamp)
        model = ScoringModel(LlamaEngine(require(settings, stack), packed), arguments.model, options)
    except EdgellmError as error:
        say({"error": describe(error)})
        return error.exit_code
    worker, todo = ScoringService(model, say), queue.SimpleQueue[Answer]()
    threading.Thread(target=listen, args=(worker, todo), daemon=True).start()
    say({"ready": model.info()})
    while True:
        worker.answer(todo.get())


if __name__ == "__main__":
    sys.exit(main())
