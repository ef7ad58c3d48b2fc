"""The Python API: open a model, ask, stream, chat, embed, score and batch; pull models and list them.

    import edgellm

    with edgellm.open("smollm2") as model:
        print(model.ask("What is the capital of France?").text)

The command line is written on the same objects. Errors are those of the command line too: `edgellm.EdgellmError`, with
`what`, `why` and `hint`.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgellm.adapters import named_adapter, plan_adapter, pull_adapter
from edgellm.engine.rpc.address import Address, parse_addresses
from edgellm.errors import BadRequest, UsageError
from edgellm.machine.memory import resident
from edgellm.models.fit.memory import SLACK
from edgellm.progress import Report, silent
from edgellm.run.answer import Answer, AnswerStream
from edgellm.run.answer_options import AnswerArguments, AnswerOptions
from edgellm.run.events import Event
from edgellm.run.generation import Limits, check_length, never
from edgellm.run.loader import LoadedModel, LoadOptions, load_weights
from edgellm.run.message import Message
from edgellm.run.self_test import first_tokens
from edgellm.run.session import Session
from edgellm.run.speculation import Speculation
from edgellm.run.telemetry import Meter
from edgellm.workspace import LocalModel, Workspace, workspace

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from typing_extensions import Unpack

    from edgellm.batch.rows import RowAnswer
    from edgellm.batch.scheduler import BatchOptions
    from edgellm.chats.chat import Chat
    from edgellm.engine.rpc.split import Split
    from edgellm.models.local.inventory import ListedModel
    from edgellm.models.local.store import InstalledModel
    from edgellm.models.recipe import Recipe
    from edgellm.toolset import Given, OpenToolSets


@dataclass(frozen=True, slots=True)
class TokenScores:
    """How likely a text is. `logprobs[i]` is the natural logarithm of the probability of `tokens[i + 1]`.

    `logprobs` is float64 [len(tokens) - 1]: the first token has no probability, as nothing comes before it. -9999
    stands for a probability of 0.
    """

    tokens: tuple[int, ...]
    logprobs: npt.NDArray[np.float64]

    @property
    def total(self) -> float:
        """The logarithm of the probability of the whole text after its first token."""
        return float(self.logprobs.sum())


class OpenModel(LoadedModel):
    """A model in memory; close it, or use it as a context manager.

    Several models may be open at once. One model computes one answer at a time: other threads wait for its end, and
    asking again in the middle of a stream is a `UsageError`. All answers share one context, so a chat that follows
    another one computes its prompt again.
    """

    def __init__(self, here: Workspace, local: LocalModel, options: LoadOptions, *, report: Report = silent) -> None:
        if options.workers:  # what is known of the model on one machine is not so on several
            if options.adapters:
                raise UsageError("adapters and workers do not go together", hint="--lora or --workers")
            options = replace(options, use_tuning=False, draft=False, prompt_cache=0)
        options = replace(options, tuning=here.tuning(local.path) if options.use_tuning else None)
        if options.adapters:  # what is kept of the model on disk is not theirs
            from edgellm.weights.convert.adapter import ready_adapters

            ready = ready_adapters(options.adapters, local.path, here.settings.cache / "adapters")
            options = replace(options, adapters=ready, prompt_cache=0)
        weights, plan = load_weights(here.engine(), local.path, options, report=report)
        super().__init__(local.name, weights, plan, options=options, recipe=local.recipe)
        self._here = here
        self.prompt_files, self.prompt_key = here.prompt_files(options.prompt_cache), here.prompt_key(local.path)
        if options.draft and not self.info.pooled:
            self.speculation = Speculation(here.draft_costs(local.path, plan.n_threads))
        self._session = Session(self)
        # What `self_test` found.
        self.doubt: str | None = None

    @property
    def split(self) -> Split | None:
        """Which layers are on which machine; None if all are here."""
        split: Split | None = getattr(self.weights, "split", None)
        return split

    def ask(
        self,
        prompt: str,
        *,
        system: str | None = None,
        raw: bool = False,
        tools: Sequence[Given] = (),
        **arguments: Unpack[AnswerArguments],
    ) -> Answer:
        """Answer one prompt.

        Args:
            system: the system message; None for the one that the model was opened with.
            raw: continue the prompt as it is, without the chat template.
            tools: what the model may call: names of built-in tools (`calculator`, `web_search:URL`; see
                `edgellm tools`), `edgellm.Tool` objects, and functions with type hints. Whatever is named here may run.
            arguments: how to answer: `max_tokens`, `temperature`, `seed`, `schema` ...; see `AnswerArguments`.

        Raises:
            PromptTooLong: the prompt does not fit into the context; nothing is ever cut silently.
            AnswerMismatch: the answer does not match the schema, because a limit cut it off for example.
            UsageError: an argument is wrong, or the model is closed or in the middle of another answer.
            UnsupportedModel: the model has no chat template (use `raw`).
        """
        stream = self.stream(prompt, system=system, raw=raw, tools=tools, **arguments)
        answer = stream.answer
        stream.check()
        return answer

    def stream(
        self,
        prompt: str,
        *,
        system: str | None = None,
        raw: bool = False,
        tools: Sequence[Given] = (),
        **arguments: Unpack[AnswerArguments],
    ) -> AnswerStream:
        """As `ask`, piece by piece: iterate over the result, then read its `answer`.

        Nothing is computed before the first piece is asked for. The events of `events()` have the calls of tools.
        """
        if not tools:
            return self.answer_stream(prompt, self._options(arguments), system=system, raw=raw)
        if raw:
            raise UsageError("tools and raw do not go together", why="tools stand in messages")
        chat = self.chat(system=system, tools=tools, **arguments)
        return chat.stream(prompt, on_end=chat.close)

    def answer_stream(
        self, prompt: str, options: AnswerOptions, *, system: str | None = None, raw: bool = False
    ) -> AnswerStream:
        """As `stream`, with options that are already chosen."""
        sampling = options.sampling(self.recipe)
        hint = options.structure.hint if options.structure else ""
        events: Generator[Event, None, None]
        if raw:
            events = self._session.complete(prompt, sampling, options.limits, hint)
        else:
            head = self.system if system is None else system
            messages = [] if head is None else [Message(role="system", content=head)]
            turn = self._session.turn([*messages, Message(role="user", content=prompt)])
            events = self._session.answer(turn, sampling, options.limits, hint)
        meter = Meter(n_ctx=self.context.n_ctx, load_seconds=self.load_seconds)
        return AnswerStream(events, meter, sampling=sampling, structure=options.structure, on_end=self.answered)

    def chat(
        self,
        *,
        save: bool = False,
        id: str | None = None,  # noqa: A002, what the command line calls it
        continue_: bool = False,
        system: str | None = None,
        docs: str | None = None,
        tools: Sequence[Given] = (),
        **arguments: Unpack[AnswerArguments],
    ) -> Chat:
        """Begin a chat; close it if it is saved or asks documents.

        Args:
            save: save the chat as it goes, where `edgellm chats ls` lists it.
            id: go on with this saved chat; the beginning of its id will do.
            continue_: go on with the latest saved chat.
            docs: put every question to the documents of this name; `found` of the chat has the citations. A chat that
                goes on keeps its documents.
            tools: what the model may call, as in `ask`; `calls` of the chat has those of the last question.
            arguments: how to answer, as in `ask`; they hold for all answers of the chat.

        Raises:
            ChatNotFound: there is no such chat.
            CollectionNotFound: there are no such documents.
            UsageError: a saved chat was given another system message.
            UnsupportedModel: the model has no chat template.
        """
        from edgellm.chats.chat import Chat
        from edgellm.chats.store import ChatStore
        from edgellm.library import open_documents
        from edgellm.tools.consent import Consent
        from edgellm.tools.in_use import ToolsInUse
        from edgellm.tools.toolbox import Toolbox
        from edgellm.toolset import open_tools

        resumed = id is not None or continue_
        if id is not None and continue_:
            raise UsageError("a chat goes on by its id or as the latest, not both", hint="id, or continue_=True")
        if resumed and system is not None:
            raise UsageError("a saved chat goes on as it is", why="a system message is for a new one")
        chosen = self._options(arguments)
        with ExitStack() as opened:
            store = saved = documents = None
            if save or resumed:
                store = opened.enter_context(ChatStore.open(self._here.settings.chats))
                saved = store.get(id) if id is not None else store.latest() if continue_ else None
                docs = docs or (saved.docs if saved else None)
            if docs is not None:
                documents = opened.enter_context(open_documents(self._here, docs))
            use = None
            if tools:
                found = opened.enter_context(open_tools(self._here, tools))
                use = ToolsInUse(Toolbox(found.tools, Consent(everything=True)), found.chooser, close=found.close)
            chat = Chat(self, chosen, store=store, saved=saved, system=system, documents=documents, tools=use)
            opened.pop_all()  # the chat closes them
            return chat

    def batch(
        self,
        rows: Iterable[str | Mapping[str, Any]],
        *,
        slots: int = 4,
        retries: int = 0,
        system: str | None = None,
        raw: bool = False,
        docs: str | None = None,
        tools: Sequence[Given] = (),
        **arguments: Unpack[AnswerArguments],
    ) -> Iterator[RowAnswer]:
        """Answer many prompts, `slots` at once, and yield the answers in the order of the rows.

        Args:
            rows: prompts, or mappings as a line of a batch file has them (`{"prompt": ..., "max_tokens": 8}`, or an
                OpenAI batch request); they are taken from an iterator as slots become free.
            slots: how many answers are computed at once, each with a context of its own: as long as `n_ctx` of `open`,
                or what there is memory for.
            retries: how often an answer that does not match the schema is drawn again.
            docs: answer from the documents of this name; a row may name its own, or false for none.
            tools: what the model may call, as in `ask`; a row may name some of these, or false for none. They run one
                at a time, and the other rows wait meanwhile.
            arguments: how to answer, as in `ask`, where a row does not say it; there is no `max_seconds`.

        A row that fails has an `error` in place of its text and does not end the others. Batching does not change an
        answer.

        Raises:
            DoesNotFit: there is not enough memory for so many slots.
            UsageError: an argument is wrong, or a limit cannot hold for a batch.
        """
        from edgellm.batch.rows import answer_rows
        from edgellm.batch.scheduler import Scheduler
        from edgellm.batch.slots import LocalSlots
        from edgellm.tools.consent import Consent
        from edgellm.toolset import OpenToolSets, name_of

        chosen = self._options(arguments)
        if chosen.limits != Limits(chosen.limits.max_tokens, loop_guard=chosen.limits.loop_guard):
            what = "a batch has no max_seconds, stop, interrupted or retry"
            raise UsageError(what, why="its rows share the computation", hint="retries=1, or max_tokens in a row")
        given = [*tools]
        sets = OpenToolSets(self._here, given, Consent(map(name_of, given)))
        how = self.batch_options(chosen, system=system, raw=raw, retries=retries, docs=docs, toolsets=sets)
        plan = self.plan if self.info.pooled else self.plan_slots(slots)
        return answer_rows(rows, Scheduler(LocalSlots(self, plan), how))

    def batch_options(
        self,
        options: AnswerOptions,
        *,
        system: str | None = None,
        raw: bool = False,
        retries: int = 0,
        docs: str | None = None,
        toolsets: OpenToolSets | None = None,
    ) -> BatchOptions:
        """How the rows of a batch are answered that do not say it themselves."""
        name = LocalModel(self.name, self.info.path).label
        names = {name, self.name, self.info.path.name}
        return batch_options(
            self._here, name, names, options, self.recipe, system=self.system if system is None else system, raw=raw,
            retries=retries, docs=docs, toolsets=toolsets,
        )  # fmt: skip

    def embed(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """The vectors [len(texts), n_embd] of some texts, each of length 1: their products are cosines.

        Raises:
            BadRequest: it is not an embedding model, or a text is longer than it reads.
        """
        from edgellm.batch.slots import embed

        return embed(self, [texts] if isinstance(texts, str) else list(texts))[0]

    def rank(self, question: str, texts: Sequence[str]) -> list[float]:
        """How well each text answers a question: a reranker's scores, more is better.

        Their range is the model's; `edgellm serve` gives the same numbers at /v1/rerank.

        Raises:
            UnsupportedModel: it is not a reranker.
            BadRequest: question and text together are longer than it reads.
        """
        ranker = self.ranker
        pairs = [self.weights.tokenize_pair(question, text) for text in texts]
        if (longest := max(map(len, pairs), default=0)) > ranker.n_ctx:
            why = f"the model reads {ranker.n_ctx:,} at most; edgellm never cuts a text silently"
            raise BadRequest(f"a text has {longest:,} tokens with its question", why=why)
        with self.computing():
            return [ranker.rank(pair) for pair in pairs]

    def score(self, text: str | Sequence[int]) -> TokenScores:
        """The log-probability of each token of a text after those before it, at temperature 1 without any sampling.

        The text begins as the vocabulary wants (with BOS where there is one), without the chat template; tokens are
        taken as they are. `edgellm serve` gives the same numbers for `echo` and `logprobs`.

        Raises:
            PromptTooLong: it does not fit into the context, or is empty.
            DoesNotFit: there is not enough memory for the logits.
        """
        import numpy as np

        from edgellm.serve.scoring.scorer import N_OUTPUTS, Scorer

        tokens = self.weights.tokenize(text) if isinstance(text, str) else [*text]
        check_length(len(tokens), self.context.n_ctx)
        self.require_outputs(N_OUTPUTS)
        with self.computing():
            scored = Scorer(self.weights, self.context).prompt(tokens, n_top=0, unwanted=never)
            scores = [score.logprob for part in scored for score in part.scores if score is not None]
        return TokenScores(tuple(tokens), np.array(scores, np.float64))

    def tokenize(self, text: str, *, special: bool = False) -> list[int]:
        """Token ids of a text, beginning as the vocabulary wants; with `special`, <|im_end|> and such are one token."""
        return self.weights.tokenize(text, special=special)

    def detokenize(self, tokens: Iterable[int]) -> str:
        """The text of some tokens; control tokens have none."""
        return b"".join(map(self.weights.piece, tokens)).decode(errors="replace")

    def exchange(self, name: str, *, report: Report = silent) -> OpenModel:
        """Close this model and open another one for a chat, with the same options: two may not fit at once.

        If the other one cannot be opened, does not chat or computes no numbers, this one is open again when the error
        comes.
        """
        self._here.require_chat(name)
        local = self._here.model(name, report=report)
        self.close()
        other = None
        try:
            other = OpenModel(self._here, local, self.options, report=report)
            _ = Session(other).template
            other.self_test()
        except BaseException:
            if other is not None:
                other.close()
            engine, path = self._here.engine(), self.info.path
            as_before = replace(self.options, n_ctx=self.plan.n_ctx)
            self.reopen(lambda: load_weights(engine, path, as_before, report=report))
            raise
        return other

    def close(self) -> None:
        """Give the memory back. Closing twice does nothing; a closed model answers with a `UsageError`."""
        super().close()
        if self.speculation is not None:
            self._here.keep_draft_costs(self.info.path, self.plan.n_threads, self.speculation.costs)
        if self.last_stats is not None:
            self._here.used(self.info.path, self.last_stats)
            self.last_stats = None

    def self_test(self) -> str | None:
        """What is wrong with the model's first tokens, as in "it repeats one token"; None if they look sane.

        The verdict is remembered for each file, so this costs a few tokens once. Embedding models have none.

        Raises:
            NotFinite: the model computes no numbers.
        """
        info, tests = self.info, self._here.self_tests
        if info.pooled or self.options.adapters:
            return None
        if known := tests.known(info.path):
            self.doubt = known.doubt
            return self.doubt
        with self.computing():
            tokens = first_tokens(self.weights, self.context)
        self.doubt = tests.judge(info.path, tokens, info.n_vocab, info.n_params)
        return self.doubt

    def _options(self, arguments: AnswerArguments) -> AnswerOptions:
        return AnswerOptions.of(arguments)

    def __enter__(self) -> OpenModel:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open(  # noqa: A001, always called as edgellm.open
    name: str,
    *,
    n_ctx: int | None = None,
    n_threads: int | None = None,
    kv_type: str | None = None,
    max_memory: int | None = None,
    system: str | None = None,
    offline: bool = False,
    force: bool = False,
    tuned: bool = True,
    prompt_cache: int | None = None,
    draft: bool = True,
    workers: Sequence[str] = (),
    lora: str | Path | Sequence[str | Path] = (),
    report: Report = silent,
) -> OpenModel:
    """Open a model by its name or the path of a GGUF file; it is pulled first if it is not here. As `edgellm.open`.

    Args:
        n_ctx: context in tokens; by default what the model was trained with, within a quarter of the available
            memory, but at least 4096 of them.
        n_threads: by default what `edgellm tune` found, else the fast physical cores that this process may use.
        kv_type: type of the KV cache: F16, Q8_0 (half the memory), Q4_0 ...
        max_memory: stay below so many bytes, beside what this process holds already: context and cache type are
            chosen for it.
        system: the system message; by default the recipe's, or what the chat template itself has.
        offline: never use the network.
        force: go on although memory seems too small.
        tuned: use what `edgellm tune` found for the model, if it was run.
        prompt_cache: keep prompts that took long to read on disk, in so many bytes at most, so that they are not read
            again; 0: keep none. By default a tenth of the free disk, at most 4 GB. Chats that are not saved leave
            nothing there.
        draft: draft tokens from the text so far, where that pays; the answers are the same.
        workers: addresses ("127.0.0.1:7531") of `edgellm worker` on other machines, which hold a part of the layers.
        lora: adapters that change the answers: a GGUF file, PEFT's directory, or the name of one that was pulled, each
            with `:SCALE` behind it if it is to count more or less; one, or several.
        report: called with the progress of downloading and loading.

    Raises:
        ModelNotFound: there is no such model; the nearest name is in `why`.
        UsageError: there is no such adapter, or it belongs to another model.
        EngineMissing: no engine is built; `hint` is the command that builds it.
        DoesNotFit: too little memory; what would fit is in `why` and `hint`.
        ContextTooLarge: more context than the model was trained with.
        CorruptFile, UnsupportedModel: the file is damaged, or nothing the engine knows.
        NetworkError, DiskFull: it could not be pulled.
        WorkerLost, WorkerRefused: a worker cannot be used.
    """
    here = workspace(offline=offline)
    several = [lora] if isinstance(lora, str | Path) else lora
    # The estimate counts Python and the engine itself as SLACK.
    held = max(0, resident() - SLACK)
    options = LoadOptions(
        n_ctx, n_threads, kv_type, max_memory, system, force, held=held, use_tuning=tuned, prompt_cache=prompt_cache,
        draft=draft, adapters=tuple(named_adapter(here, str(each)) for each in several), workers=_addresses(workers),
    )  # fmt: skip
    return OpenModel(here, here.model(name, report=report), options, report=report)


def _addresses(workers: Sequence[str]) -> tuple[Address, ...]:
    """The addresses of workers, given one by one or as `--workers` has them."""
    return parse_addresses(workers if isinstance(workers, str) else ",".join(workers)) if workers else ()


def batch_options(
    here: Workspace,
    name: str,
    names: set[str],
    options: AnswerOptions,
    recipe: Recipe | None,
    *,
    system: str | None,
    raw: bool,
    retries: int,
    docs: str | None,
    toolsets: OpenToolSets | None,
) -> BatchOptions:
    """How the rows of a batch are answered by the model of that name, which they may call by `names`."""
    from edgellm.batch.scheduler import BatchOptions
    from edgellm.documents.answers.options import document_options
    from edgellm.library import OpenCollections

    plain = replace(options, structure=None)
    return BatchOptions(
        name=name,
        names=names,
        sampling=plain.sampling(recipe),
        max_tokens=options.limits.max_tokens,
        system=system,
        raw=raw,
        retries=retries,
        loop_guard=options.limits.loop_guard,
        structure=options.structure,
        documents=OpenCollections(here),
        docs=docs,
        document_sampling=document_options(plain).sampling(recipe),
        toolsets=toolsets,
        tools=toolsets.names if toolsets else (),
    )


def pull(
    name: str, *, lora: str | None = None, force: bool = False, offline: bool = False, report: Report = silent
) -> InstalledModel:
    """Pull a model: a recipe's name, NAME:VARIANT, user/repo[:QUANT] on the Hub, or hf://...; at once when it is here.

    `force` fetches it again, and although memory seems too small. With `lora`, a repository on the Hub, the adapter
    there is pulled for the model and returned.

    Raises:
        ModelNotFound, DoesNotFit, NetworkError, ChecksumMismatch, DiskFull, CorruptFile, UnsupportedModel.
        UsageError: the adapter belongs to another model.
    """
    here = workspace(offline=offline)
    if lora is None:
        return here.pull(name, force=force, report=report)
    return pull_adapter(here, name, plan_adapter(here, lora, report=report), force=force, report=report)


def models() -> list[ListedModel]:
    """The installed models by name: size, type, memory needed, and how fast each was when last used."""
    return workspace().models()
