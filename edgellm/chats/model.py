"""What a chat needs of a model: `LoadedModel` of this process has it, and so has `RemoteModel` of a server.

session = model.open_session(private=False)
turn = session.turn(messages)
for event in session.answer(turn, sampling, limits): ...
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from edgellm.engine.sampling import Sampling
from edgellm.models.fit.memory import RunPlan
from edgellm.run.events import Event
from edgellm.run.generation import Limits
from edgellm.run.message import Message
from edgellm.run.session import Turn
from edgellm.run.telemetry import Meter, Stats

if TYPE_CHECKING:
    from edgellm.models.recipe import Recipe
    from edgellm.run.call_form import CallForm
    from edgellm.run.loader import LoadOptions


class ChatSession(Protocol):
    """Renders and answers the prompts of one chat; `last` is its last answer. It is a `ToolSession` too."""

    last: Turn | None

    @property
    def call_form(self) -> CallForm | None:
        """How the model writes tool calls; None if it is shown no tools."""

    @property
    def n_params(self) -> int:
        """The model's parameters; 0 if nothing is known of them."""

    def turn(
        self,
        messages: Sequence[Message] | Sequence[Mapping[str, Any]],
        tools: Sequence[Mapping[str, Any]] = (),
        begun: str = "",
    ) -> Turn:
        """The turn that answers these messages, with tools shown; of the answer `begun` is there already."""

    def count_tokens(
        self, messages: Sequence[Message] | Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]] = ()
    ) -> int:
        """Tokens of the prompt that these messages make."""

    def count(self, text: str) -> int:
        """Tokens of a text."""

    def answer(self, turn: Turn, sampling: Sampling, limits: Limits, hint: str = "") -> Generator[Event, None, None]:
        """Compute a turn, which fills as it goes; `hint` is what the answer may look like, for its drafts."""

    def meter(self) -> Meter:
        """Measures the next answer."""


class ChatModel(Protocol):
    """A model that a chat talks to. `place` is where it is, `about` its size and type, both for people."""

    name: str

    @property
    def options(self) -> LoadOptions:
        """How it was to be opened."""

    @property
    def plan(self) -> RunPlan:
        """How it runs."""

    @property
    def recipe(self) -> Recipe | None:
        """Its recipe, if it has one."""

    @property
    def system(self) -> str | None:
        """The system message of new chats."""

    @property
    def threads(self) -> str:
        """With how many threads it computes, in words."""

    @property
    def about(self) -> str:
        """Its size and type."""

    @property
    def place(self) -> str:
        """Where it is."""

    @property
    def server(self) -> str | None:
        """The address of the server that has it; None for a model of this process."""

    def open_session(self, *, private: bool) -> ChatSession:
        """A session of its own for a chat; nothing of a private one is kept on disk.

        Raises:
            UnsupportedModel: it has no chat template, or a broken one.
        """

    def largest_context(self) -> int:
        """The largest context that `resize` could give it."""

    def resize(self, n_ctx: int) -> None:
        """Give its answers a context of so many tokens."""

    def answered(self, stats: Stats) -> None:
        """Note the numbers of an answer."""

    def close(self) -> None:
        """Give back what it holds."""
