"""lm-eval's model over a model in this process: no server, and no tokenizer but the model's own.

    lm = InProcessLM(model, log)
    lm_eval.simple_evaluate(lm, tasks=["arc_easy"])

Texts become tokens as in lm-eval's Hugging Face model: BOS comes first where the vocabulary asks for it, the names of
control tokens mean those tokens, and a prompt that is too long loses its beginning. `n_truncated` counts the latter.
"""

from __future__ import annotations

import json
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, TypeVar

from lm_eval.api.instance import Instance
from lm_eval.api.model import TemplateLM
from lm_eval.api.registry import register_model
from lm_eval.models.utils import handle_stop_sequences, normalize_gen_kwargs
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from edgellm.engine.base import Sequences
from edgellm.engine.sampling import Sampling
from edgellm.errors import DoesNotFit, PromptTooLong, UsageError
from edgellm.evaluation.harness.continuations import CELL, Continuation, ContinuationScorer, LogLikelihood
from edgellm.evaluation.harness.response_log import ResponseLog, request_key
from edgellm.models.fit.memory import RunPlan
from edgellm.progress import Progress, Report, silent
from edgellm.run.batching import Batcher, Job
from edgellm.run.chat_template import ChatTemplate
from edgellm.run.loader import LoadedModel

# Continuations that are computed together, besides their common beginning.
N_BRANCHES = 16
# Rows of float32 logits alive at once: the engine's buffer, its copy, our parts of it and temporaries.
N_OUTPUTS = 4 * CELL
# lm-eval's default for a task that does not say how long an answer may be.
MAX_ANSWER = 256
N_SLOTS = 4
# What a task may ask for when its answers are drawn at random, and what changes nothing.
NEUTRAL: dict[str, Any] = {"temperature": 1.0, "top_p": 1.0, "top_k": 0, "min_p": 0.0}
T = TypeVar("T")


@register_model("edgellm")
class InProcessLM(TemplateLM):  # type: ignore[misc]  # lm-eval has no types
    """Answers lm-eval's requests with an open model; what the log knows is not computed again."""

    def __init__(self, model: LoadedModel, log: ResponseLog, *, report: Report = silent) -> None:
        super().__init__()
        self.model = model
        self.n_requests = self.n_reused = self.n_truncated = self.n_tokens = 0
        self._log, self._report = log, report

    @property
    def max_length(self) -> int:
        """Tokens of the longest prompt."""
        return self.model.plan.n_ctx

    @property
    def eot_token_id(self) -> int:
        """The token that ends a text."""
        return self._special(self.model.info.eos)

    @property
    def prefix_token_id(self) -> int:
        """The token before a text without a context: BOS, or where there is none the end of the text before."""
        return self._special(self.model.info.bos or self.model.info.eos)

    def _special(self, name: str) -> int:
        tokens = self.model.weights.tokenize(name, special=True, bos=False)
        if len(tokens) != 1:
            why = "its vocabulary has neither BOS nor EOS"
            raise UsageError(f"{self.model.name} cannot be scored without a context", why=why)
        return tokens[0]

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:
        """The tokens of a text, which BOS begins where the vocabulary says so, unless the caller says not to."""
        return self.model.weights.tokenize(string, special=True, bos=add_special_tokens is not False)

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """The log-likelihood of each continuation in its context, and whether greedy decoding would write it.

        The requests of one question are computed together, and questions with the same beginning one after another.
        """
        keys = [request_key("loglikelihood", *each.args) for each in requests]
        questions: dict[Any, dict[bytes, Instance]] = defaultdict(dict)
        for key, each in zip(keys, requests, strict=True):
            questions[each.task_name, each.doc_id][key] = each
        missing = self._missing(questions.values())
        self._score([{key: self._encoded(*each.args) for key, each in question.items()} for question in missing])
        found = {key: self._log.get(key) for key in dict.fromkeys(keys)}
        self.n_truncated += sum(is_cut for _, _, is_cut in found.values())
        return [(found[key][0], found[key][1]) for key in keys]

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:
        """The log-likelihood of each whole text; a text longer than the context is cut into windows."""
        windows = [self._windows(each.args[0]) for each in requests]
        self._score(self._missing([{key: window} for text in windows for key, window in text.items()]))
        return [sum(self._log.get(key)[0] for key in text) for text in windows]

    def _windows(self, text: str) -> dict[bytes, Continuation]:
        pairs = get_rolling_token_windows(self.tok_encode(text), self.prefix_token_id, self.max_length, 1)
        windows = [
            Continuation((*context, *scored), len(scored)) for context, scored in map(make_disjoint_window, pairs)
        ]
        return {request_key("window", number, text): each for number, each in enumerate(windows)}

    def _encoded(self, context: str, continuation: str) -> Continuation:
        """A context and its continuation as tokens, as much of the end as fits."""
        if context:
            before, scored = self._encode_pair(context, continuation)
        else:
            before, scored = [], self.tok_encode(continuation, add_special_tokens=False)
            if scored[:1] != [self.prefix_token_id]:
                before = [self.prefix_token_id]
            else:
                before, scored = scored[:1], scored[1:]
        if len(scored) > self.max_length:
            what = f"an answer of a task has {len(scored):,} tokens, the context holds {self.max_length:,}"
            raise PromptTooLong(what, hint="a larger --ctx-size, if the model has one")
        tokens, most = (*before, *scored), self.max_length + 1  # nothing comes after the last token
        return Continuation(tokens[-most:], len(scored), is_cut=len(tokens) > most)

    def _missing(self, groups: Iterable[dict[bytes, T]]) -> list[dict[bytes, T]]:
        """The groups that are not wholly in the log: a group is computed, and stored, as a whole."""
        missing = []
        for group in groups:
            self.n_requests += len(group)
            if all(self._log.get(key) is not None for key in group):
                self.n_reused += len(group)
            else:
                missing.append(group)
        return missing

    def _score(self, todo: list[dict[bytes, Continuation]]) -> None:
        """Compute groups and store them."""
        if not todo:
            return
        todo.sort(key=lambda group: next(iter(group.values())).tokens)
        count = _Count(self._report, "scoring", sum(map(len, todo)))
        self.model.require_outputs(N_OUTPUTS)
        with self.model.computing(), self.model.holding(self._open(self.model.plan, N_BRANCHES + 1)) as sequences:
            scorer = ContinuationScorer(sequences)
            for group in todo:
                self.model.guard()
                found = zip(group.items(), scorer.score([*group.values()]), strict=True)
                self._log.put({key: _as_json(likelihood, each.is_cut) for (key, each), likelihood in found})
                count.add(len(group), tokens=scorer.n_computed)
            self.n_tokens += scorer.n_computed

    def _open(self, plan: RunPlan, n_seq: int) -> Sequences:
        return self.model.weights.open_sequences(
            n_seq=n_seq, n_ctx=plan.n_ctx, n_batch=CELL, n_threads=plan.n_threads,
            n_threads_batch=plan.n_threads_batch, type_k=plan.kv_type, type_v=plan.kv_type,
            flash_attention=plan.flash_attention, shared=True,
        )  # fmt: skip

    def _loglikelihood_tokens(self, requests: Any, **_: Any) -> list[tuple[float, bool]]:
        """The base class would call it; our `loglikelihood` knows which requests belong together."""
        raise NotImplementedError

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """An answer to each prompt, up to one of its stop texts; several are computed at once."""
        repeats: Counter[str] = Counter()
        jobs: dict[bytes, Job] = {}
        keys = []
        for each in requests:
            prompt, options = each.args
            asked = json.dumps([prompt, options])
            keys.append(key := request_key("generate_until", asked, repeats[asked]))
            jobs[key] = self._job(len(jobs), prompt, options, repeats[asked])
            repeats[asked] += 1
        self.n_requests += len(jobs)
        todo = {key: job for key, job in jobs.items() if self._log.get(key) is None}
        self.n_reused += len(jobs) - len(todo)
        if todo:
            self._answer(todo)
        return [str(self._log.get(key)) for key in keys]

    def _job(self, number: int, prompt: str, options: dict[str, Any], seed: int) -> Job:
        """A request as the batcher takes it.

        Raises:
            UsageError: the task wants something that changes answers and is not known here, or too long an answer.
        """
        wanted = dict(normalize_gen_kwargs(options, MAX_ANSWER))
        stop = handle_stop_sequences(wanted.pop("until", None), self.model.info.eos or None)
        longest, drawn = int(wanted.pop("max_gen_toks")), wanted.pop("do_sample")
        if longest >= self.max_length:
            what = f"a task wants answers of {longest:,} tokens, the context holds {self.max_length:,} with the prompt"
            raise UsageError(what, hint="a larger --ctx-size, if the model has one")
        if drawn and (unknown := wanted.keys() - NEUTRAL.keys()):
            raise UsageError(f"a task draws its answers by {', '.join(sorted(unknown))}", why="that is not known here")
        shape = {name: wanted.get(name, neutral) for name, neutral in NEUTRAL.items()}
        sampling = Sampling(**shape, seed=seed) if drawn else Sampling(temperature=0)
        tokens = self.tok_encode(prompt)
        self.n_truncated += len(tokens) > self.max_length - longest
        tokens = tokens[-(self.max_length - longest) :]
        return Job(number, tokens, sampling, longest, tuple(filter(None, stop)), loop_guard=False)

    def _answer(self, todo: dict[bytes, Job]) -> None:
        count = _Count(self._report, "answering", len(todo))
        keys = {job.key: key for key, job in todo.items()}
        plan = self._plan_slots()
        sequences = self.model.weights.open_sequences(
            n_seq=plan.n_slots, n_ctx=plan.n_ctx, n_batch=plan.n_batch, n_threads=plan.n_threads,
            n_threads_batch=plan.n_threads_batch, type_k=plan.kv_type, type_v=plan.kv_type,
            flash_attention=plan.flash_attention,
        )  # fmt: skip
        with self.model.computing(), self.model.holding(sequences):
            speculation = self.model.speculation
            batcher = Batcher(self.model.weights, sequences, costs=speculation.costs if speculation else None)
            waiting = iter(sorted(todo.values(), key=lambda job: job.prompt))
            while self._admit(batcher, waiting):
                self.model.guard()
                for result in batcher.step():
                    if result.error:
                        raise result.error
                    self._log.put({keys[result.key]: result.text})
                    self.n_tokens += result.prompt_tokens - result.reused_tokens + result.completion_tokens
                    count.add(1, tokens=self.n_tokens)

    def _admit(self, batcher: Batcher, waiting: Iterator[Job]) -> bool:
        """Fill the free slots; tells whether there is anything to do."""
        for job in islice(waiting, batcher.n_slots - batcher.busy):
            batcher.admit(job)
        return batcher.busy > 0

    def _plan_slots(self) -> RunPlan:
        """As many slots as there is memory for."""
        n_slots = N_SLOTS
        while True:
            try:
                return self.model.plan_slots(n_slots)
            except DoesNotFit:
                if n_slots == 1:
                    raise
                n_slots //= 2

    def apply_chat_template(self, chat_history: Sequence[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """A conversation as the model's template writes it, ready for its answer.

        Without `add_generation_prompt` the last message is the beginning of that answer.
        """
        info = self.model.info
        template = ChatTemplate(self.model.chat_template, bos=info.bos, eos=info.eos)
        text = template.render(chat_history, add_generation_prompt=add_generation_prompt)
        if add_generation_prompt:
            return text
        begun = chat_history[-1]["content"].strip()
        return text[: text.rindex(begun) + len(begun)]

    def chat_template(self, chat_template: bool | str = False) -> str:
        """The template's source."""
        return self.model.chat_template

    @property
    def tokenizer_name(self) -> str:
        """What lm-eval names its cache of requests by."""
        return f"edgellm-{self.model.name.replace('/', '--')}"


def _as_json(likelihood: LogLikelihood, is_cut: bool) -> list[Any]:
    return [likelihood.value, likelihood.is_greedy, is_cut]


class _Count:
    """Reports how many of the requests are done, how fast, and how long the rest will take."""

    def __init__(self, report: Report, stage: str, total: int) -> None:
        self._report, self._stage, self._total = report, stage, total
        self._done, self._began = 0, time.monotonic()

    def add(self, done: int, *, tokens: int) -> None:
        """Some more are done; `tokens` were computed from the beginning on."""
        self._done += done
        seconds = max(1e-9, time.monotonic() - self._began)
        left = round(seconds / self._done * (self._total - self._done))
        detail = f"{tokens / seconds:.0f} tok/s  {left // 60}:{left % 60:02} left"
        self._report(Progress(self._stage, self._done, self._total, "requests", detail))
