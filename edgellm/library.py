"""The front door to documents: a collection with its embedding model, for the command line and for Python.

import edgellm

with edgellm.docs("manuals") as manuals:
    manuals.add("~/manuals")
    for passage in manuals.search("how long is the warranty?"):
        print(passage.file, passage.page, passage.text)
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

from edgellm.documents.answers.options import MOST_ANSWER
from edgellm.documents.answers.prompt import SYSTEM
from edgellm.documents.answers.question import ROOM, TEMPLATE, DocumentAnswer, DocumentQuestion, prepare
from edgellm.documents.collection import RERANKER, Collection, IndexedFile
from edgellm.documents.embedder import ChunkEmbedder
from edgellm.documents.index import EMBEDDER, FileOutcome, Outcome, add_roots, share_not_english, update
from edgellm.documents.reranker import CONTEXT, ChunkReranker
from edgellm.documents.search import Passage, Searcher
from edgellm.documents.shelf import Shelf
from edgellm.errors import NetworkError, ToolMissing, UsageError
from edgellm.files import LOOK_SECONDS
from edgellm.progress import Report, silent
from edgellm.settings import DEFAULT_MODEL
from edgellm.workspace import LocalModel, Workspace, workspace

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from edgellm.api import OpenModel
    from edgellm.run.answer import AnswerStream

DEFAULT_NAME = "documents"
DEFAULT_EMBEDDER = "minilm"
MULTILINGUAL_EMBEDDER = "e5-small"
# The part of documents in other languages than English from which on the multilingual one is taken: who has documents
# in two languages asks in one what the other answers.
MANY = 0.1
NO_EMBEDDER = "none"
NO_RERANKER = "none"
# Seconds between two looks at watched folders: short, but twenty times what a look takes, and seldom minutes.
LEAST_PAUSE, PAUSE_SHARE, MOST_PAUSE = 2.0, 20.0, 30.0


class Asked:
    """A question put to a model: show its `stream`, None if no model is needed, then read its `result`."""

    def __init__(self, question: DocumentQuestion, stream: AnswerStream | None) -> None:
        self.question = question
        self.stream = stream

    @property
    def result(self) -> DocumentAnswer:
        """The whole answer, checked against its sources."""
        answer = self.stream.answer if self.stream else None
        return self.question.answer(answer.text, answer.stats) if answer else self.question.answer()


class LateModel:
    """A model that is loaded when the first text needs it: a collection in which nothing changed needs none.

    `n_ctx` is what it reads at once; by default as much as it was trained for.
    """

    def __init__(self, here: Workspace, local: LocalModel, *, report: Report, n_ctx: int | None = None) -> None:
        self.name = local.name
        self._n_ctx = n_ctx
        self.recipe = local.recipe
        self._here, self._local, self._report = here, local, report
        self._model: OpenModel | None = None

    @property
    def reference(self) -> str:
        """Its name, or the whole path of a file: it means the same in every directory."""
        path = self._local.path
        return str(path.absolute()) if Path(self.name).expanduser() == path else self.name

    def load(self) -> OpenModel:
        """The model in memory."""
        if self._model is None:
            from edgellm.api import OpenModel
            from edgellm.run.loader import LoadOptions

            self._model = OpenModel(self._here, self._local, LoadOptions(n_ctx=self._n_ctx), report=self._report)
        return self._model

    def tokenize(self, text: str) -> list[int]:
        """The tokens of a text."""
        return self.load().tokenize(text)

    def embed(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """The vectors [len(texts), n_embd], each of length 1."""
        return self.load().embed(texts)

    @property
    def n_pair(self) -> int:
        """The tokens of a question and a text together that a reranker reads at once."""
        return self.load().ranker.n_ctx

    def count_pair(self, question: str, text: str) -> int:
        """The tokens of both, with those around them."""
        return len(self.load().weights.tokenize_pair(question, text))

    def rank(self, question: str, texts: Sequence[str]) -> list[float]:
        """How well each text answers the question; more is better."""
        return self.load().rank(question, texts)

    def close(self) -> None:
        """Free it."""
        if self._model is not None:
            self._model.close()
            self._model = None


class Documents:
    """A collection of documents; close it, or use it as a context manager.

    The embedding model and the reranker are loaded when they are first needed, and pulled if they are not here.
    `report` is called with the progress of what takes long.
    """

    def __init__(
        self,
        here: Workspace,
        name: str,
        collection: Collection,
        *,
        embed: str | None,
        report: Report,
        notice: Callable[[str], None],
        rerank: str | None = None,
    ) -> None:
        self.name = name
        self._here = here
        self._collection = collection
        self._embed, self._rerank = embed, rerank
        self.report = report
        self._notice = notice
        # The model that answers, by the name that was asked for.
        self._answering: tuple[str, OpenModel] | None = None
        self._model: LateModel | None = None
        self._ranker: LateModel | None = None
        self._searcher: Searcher | None = None

    def add(
        self,
        *paths: str | PathLike[str],
        on_file: Callable[[FileOutcome], None] = lambda _: None,
        interrupted: Callable[[], bool] = lambda: False,
    ) -> Outcome:
        """Add files and folders, and read what is new or changed in all of the collection.

        Raises:
            FileAccessError: there is no such file or folder. A file that cannot be read is an outcome, not an error.
        """
        self._keep_reranker()  # a wrong name is refused before anything else
        add_roots(self._collection, [Path(path) for path in paths])
        return self.sync(on_file=on_file, interrupted=interrupted)

    def sync(
        self,
        *,
        on_file: Callable[[FileOutcome], None] = lambda _: None,
        interrupted: Callable[[], bool] = lambda: False,
    ) -> Outcome:
        """Read what is new or changed, forget what is gone, and compute the vectors that are missing."""
        self._keep_reranker()
        return update(self._collection, self._embedder(), report=self.report, on_file=on_file, interrupted=interrupted)

    def watch(
        self,
        on_update: Callable[[Outcome, float], None],
        *,
        on_file: Callable[[FileOutcome], None] = lambda _: None,
        interrupted: Callable[[], bool],
    ) -> None:
        """`sync` again and again until `interrupted`: every two seconds, or less often if looking takes long.

        `on_update` gets what each did, and its seconds.
        """
        while not interrupted():
            began = time.monotonic()
            outcome = self.sync(on_file=on_file, interrupted=interrupted)
            seconds = time.monotonic() - began
            on_update(outcome, seconds)
            has_read = outcome.n_vectors or outcome.count("added", "changed")
            pause = LEAST_PAUSE if has_read else min(MOST_PAUSE, max(LEAST_PAUSE, PAUSE_SHARE * seconds))
            again = time.monotonic() + pause
            while time.monotonic() < again and not interrupted():
                time.sleep(LOOK_SECONDS)

    def search(self, question: str, n: int = 5) -> list[Passage]:
        """The passages that fit a question best."""
        return self.prepare().search(question, n)

    def prepare(self) -> Searcher:
        """Load what searching needs, so that the first search takes no longer than the next ones."""
        if self._searcher is None:
            ranker, embedder = self._ranking_model(), self._embedder() if self._collection.has_vectors else None
            reranker = ChunkReranker(ranker, report=lambda event: self.report(event)) if ranker else None
            self._searcher = Searcher(self._collection, embedder, reranker)
            self._searcher.load()
            for model in filter(None, (self._model, ranker)):
                model.load()
        return self._searcher

    def question(self, text: str, *, count: Callable[[str], int], room: int, n: int = 5) -> DocumentQuestion:
        """A question with the `n` best passages, or as many of their chunks as `room` tokens hold.

        `count` counts the tokens of a text as the model that answers does.
        """
        groups = [group for group, _ in self.prepare().groups(text, n)]
        return prepare(text, groups, self._collection, count=count, room=room)

    def ask(
        self, question: str, model: str | OpenModel = DEFAULT_MODEL, *, n: int = 5, room: int | None = None
    ) -> DocumentAnswer:
        """Answer a question from the documents.

        Args:
            model: what answers: its name, then it is opened once and kept until another one is named or the documents
                are closed; or an open model, which stays open.
            n: passages to answer from.
            room: tokens for question and sources; by default 2,000, or what the model's context holds.

        Raises:
            UsageError: there are no documents in the collection.
            ModelNotFound, DoesNotFit and other errors of `edgellm.open`.
        """
        return self.stream(question, model, n=n, room=room).result

    def stream(
        self, question: str, model: str | OpenModel = DEFAULT_MODEL, *, n: int = 5, room: int | None = None
    ) -> Asked:
        """As `ask`, piece by piece: show the `stream` of what it returns, if it has one, then read its `result`."""
        self.require_text()
        opened = self._opened(model) if isinstance(model, str) else model
        free = opened.context.n_ctx - MOST_ANSWER - len(opened.tokenize(SYSTEM)) - TEMPLATE
        prepared = self.question(
            question, count=lambda text: len(opened.tokenize(text)), room=min(room or ROOM, free), n=n
        )
        if not prepared.is_open:
            return Asked(prepared, None)
        stream = opened.stream(prepared.prompt.text, system=SYSTEM, temperature=0, max_tokens=MOST_ANSWER)
        return Asked(prepared, stream)

    @property
    def content(self) -> str:
        """A hash of what the collection holds, which changes when `sync` finds a change."""
        return self._collection.content

    def require_text(self) -> None:
        """Raise `UsageError` if there is nothing that could be found."""
        if not self._collection.n_chunks:
            hint = f"edgellm docs add PATH --name {self.name}"
            raise UsageError(f"there are no documents in {self.name}", hint=hint)

    def _opened(self, name: str) -> OpenModel:
        """The model of that name, which is kept."""
        from edgellm.api import OpenModel
        from edgellm.run.loader import LoadOptions

        if self._answering is None or self._answering[0] != name:
            self._close_answering()
            self._here.require_chat(name)
            local = self._here.model(name, report=self.report)
            self._answering = name, OpenModel(self._here, local, LoadOptions(), report=self.report)
        return self._answering[1]

    def _close_answering(self) -> None:
        if self._answering is not None:
            self._answering[1].close()
            self._answering = None

    def files(self) -> list[IndexedFile]:
        """What the collection holds."""
        return self._collection.files()

    def close(self) -> None:
        """Close the collection and its models."""
        self._close_answering()
        for model in filter(None, (self._model, self._ranker)):
            model.close()
        self._model = self._ranker = self._searcher = None
        self._collection.close()

    def __enter__(self) -> Documents:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _embedder(self) -> ChunkEmbedder | None:
        """The model that was named, else the one that made the vectors, else one for the documents' language.

        One that nobody named may be out of reach: words alone find the documents until it can be pulled.
        """
        known = self._embed or self._collection.setting(EMBEDDER)
        if known == NO_EMBEDDER:
            self._collection.set(EMBEDDER, self._collection.setting(EMBEDDER) or NO_EMBEDDER)
            return None
        if known:
            return self._embedder_named(known)
        chosen = self._for_their_language()
        try:
            return self._embedder_named(chosen)
        except (NetworkError, ToolMissing) as error:
            self._notice(f"found by words alone: {error.what}; edgellm docs sync {self.name} tries again")
            return None

    def _for_their_language(self) -> str:
        if share_not_english(self._collection) < MANY:
            return DEFAULT_EMBEDDER
        self._notice(f"some documents are not English: {MULTILINGUAL_EMBEDDER} makes their vectors (--embed: another)")
        return MULTILINGUAL_EMBEDDER

    def _embedder_named(self, name: str) -> ChunkEmbedder:
        if self._model is None:
            local = self._here.model(name, report=self.report)
            self._model = LateModel(self._here, local, report=self.report)
        return ChunkEmbedder.of(self._model, self._model.recipe)

    def _keep_reranker(self) -> None:
        """Make the reranker that was named the collection's."""
        if self._rerank is not None:
            ranker = self._ranking_model()
            self._collection.set(RERANKER, ranker.reference if ranker else "")

    def _ranking_model(self) -> LateModel | None:
        """The reranker that was named, else the collection's own, if any; one that is not here is pulled.

        Raises:
            UsageError: the model is no reranker.
            NetworkError: it is not here and cannot be pulled.
        """
        name = self._rerank or self._collection.setting(RERANKER)
        if not name or name == NO_RERANKER:
            return None
        if self._ranker is None:
            from edgellm.models.fit.verdict import read_outline

            local = self._here.reranker(name, report=self.report)
            n_ctx = min(CONTEXT, read_outline(local.path).n_ctx_train)
            self._ranker = LateModel(self._here, local, report=self.report, n_ctx=n_ctx)
        return self._ranker


def docs(
    name: str | None = None,
    *,
    embed: str | None = None,
    rerank: str | None = None,
    offline: bool = False,
    report: Report = silent,
    notice: Callable[[str], None] = lambda _: None,
) -> Documents:
    """Open a collection of documents by its name, an empty one if it is new. As `edgellm.docs`.

    Args:
        name: None for the only one that there is, or for a new one named "documents".
        embed: the embedding model; "none" finds by words alone. By default the collection's own; the first `add`
            takes minilm, or e5-small where a tenth of the documents or more are not English.
        rerank: a reranker, which puts the best passages in a better order; `add` and `sync` remember it, "none" forgets
            it. By default the collection's own; a new one has none.
        offline: never use the network.
        report: called with the progress of reading and embedding.
        notice: called with a line on which embedding model was chosen, where that is no matter of course.
    """
    here = workspace(offline=offline)
    shelf = Shelf(here.settings.documents)
    chosen = name or (shelf.only() if shelf.names() else DEFAULT_NAME)
    return Documents(here, chosen, shelf.make(chosen), embed=embed, rerank=rerank, report=report, notice=notice)


def open_documents(here: Workspace, name: str, *, report: Report = silent) -> Documents:
    """The documents of that name, ready to be asked, with their embedding model in memory.

    Raises:
        CollectionNotFound, UsageError: as `existing_documents`.
        NetworkError: its embedding model is not here and cannot be pulled.
    """
    found = existing_documents(here, name, report=report)
    try:
        found.prepare()
    except BaseException:
        found.close()
        raise
    return found


def existing_documents(here: Workspace, name: str, *, report: Report = silent) -> Documents:
    """The documents of that name, with something in them.

    Raises:
        CollectionNotFound: there are none; the nearest name is in `why`.
        UsageError: the collection is empty.
    """
    collection = Shelf(here.settings.documents).open(name)
    found = Documents(here, name, collection, embed=None, report=report, notice=lambda _: None)
    try:
        found.require_text()
    except BaseException:
        found.close()
        raise
    return found


class OpenCollections:
    """The collections that a batch asks, each opened once."""

    def __init__(self, here: Workspace, *, report: Report = silent) -> None:
        self._here, self._report = here, report
        self._open: dict[str, Documents] = {}

    def open(self, name: str) -> Documents:
        """The documents of that name; the errors are those of `open_documents`."""
        if name not in self._open:
            self._open[name] = open_documents(self._here, name, report=self._report)
        return self._open[name]

    def content(self, names: Iterable[str]) -> dict[str, str]:
        """A hash of what each of these collections holds; of one that is not there, nothing."""
        shelf, found = Shelf(self._here.settings.documents), {}
        for name in set(names) & set(shelf.names()):
            with shelf.open(name) as collection:
                found[name] = collection.content
        return found

    def close(self) -> None:
        """Close all that are open."""
        while self._open:
            self._open.popitem()[1].close()


def choose(words: Sequence[str], names: Sequence[str]) -> tuple[str | None, str]:
    """The name and the question of `docs search [NAME] QUESTION...`: the first word is a name only if one has it."""
    if len(words) > 1 and words[0] in names:
        return words[0], " ".join(words[1:])
    return None, " ".join(words)
