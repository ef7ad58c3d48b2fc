"""The answer cache of this user, for the command line: its file, and the embedding model that compares questions.

    with answer_cache(here, on_failure=print) as cache:
        looked = cache.look(scope, question)

The embedding model is loaded when a question in English is first compared.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from edgellm.cache.answer_cache import AnswerCache
from edgellm.cache.decision import DEFAULT_ERROR, EMBEDDER
from edgellm.cache.store import AnswerStore
from edgellm.errors import EdgellmError
from edgellm.progress import Report, silent

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from edgellm.api import OpenModel
    from edgellm.workspace import Workspace


class QuestionEmbedder:
    """Turns questions into vectors with a model that is loaded by the first one; close it afterwards."""

    def __init__(self, here: Workspace, name: str = EMBEDDER, *, report: Report = silent) -> None:
        self.name = name
        self._here, self._report = here, report
        self._model: OpenModel | None = None

    def __call__(self, question: str) -> npt.NDArray[np.float32]:
        """The vector [n_embd] of a question, of length 1."""
        if self._model is None:
            from edgellm.api import OpenModel
            from edgellm.run.loader import LoadOptions

            local = self._here.model(self.name, report=self._report)
            self._model = OpenModel(self._here, local, LoadOptions(), report=self._report)
        vector: npt.NDArray[np.float32] = self._model.embed([question])[0]
        return vector

    def close(self) -> None:
        """Unload the model."""
        if self._model is not None:
            self._model.close()
        self._model = None


@contextlib.contextmanager
def answer_cache(
    here: Workspace,
    *,
    on_failure: Callable[[EdgellmError], None],
    error: float = DEFAULT_ERROR,
    report: Report = silent,
) -> Iterator[AnswerCache | None]:
    """Open the user's cache; None if its file cannot be used, because no answer may fail for it.

    Without the embedding model on this machine, only equal questions and those in Chinese are found: it is never pulled
    for the cache alone.

    Args:
        on_failure: called once with the reason if the file cannot be used, now or later.
        error: the part of all answers that may be wrong.
    """
    embedder = QuestionEmbedder(here, report=report) if EMBEDDER in here.store.names() else None
    try:
        store = AnswerStore.open(here.settings.answers)
    except EdgellmError as failure:
        on_failure(failure)
        yield None
        return
    with store, contextlib.closing(embedder) if embedder else contextlib.nullcontext():
        name = EMBEDDER if embedder else ""
        yield AnswerCache(store, embed=embedder, embedder=name, error=error, on_failure=on_failure)
