"""The prompts of a loaded model: messages through the chat template into tokens, and the events of the answer.

    session = Session(model)
    turn = session.turn([{"role": "user", "content": "What is a ternary weight?"}])
    for event in session.answer(turn, Sampling(), Limits()): ...

The context stays between turns, so only what is new is computed. A session keeps no messages: `chats.chat` does.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from edgellm.engine.sampling import Sampling
from edgellm.run.events import NO_TOKEN, End, Event, Looped, Text
from edgellm.run.generation import Limits, generate
from edgellm.run.loader import LoadedModel
from edgellm.run.message import Message
from edgellm.run.telemetry import Meter

if TYPE_CHECKING:
    from edgellm.run.call_form import CallForm
    from edgellm.run.chat_template import ChatTemplate


@dataclass(slots=True)
class Turn:
    """One answer as it is computed: the prompt as text and tokens, and the answer as both. `reason` says how it ended.

    `kept` tokens of the answer come from an earlier turn that is continued.
    """

    rendered: str
    prompt: list[int]
    answer: list[int] = field(default_factory=list)
    pieces: list[str] = field(default_factory=list)
    reason: str = ""
    kept: int = 0

    @property
    def text(self) -> str:
        """The answer so far."""
        return "".join(self.pieces)

    def continued(self) -> Turn:
        """A turn that begins where this one ended."""
        return Turn(self.rendered, self.prompt, list(self.answer), list(self.pieces), kept=len(self.answer))


class Session:
    """Renders prompts for one model and remembers the tokens of its last answer.

    What is `private` is neither taken from the prompt cache on disk nor kept there. `in_chat`: the answers are parts of
    later prompts.
    """

    def __init__(self, model: LoadedModel, *, private: bool = False, in_chat: bool = False) -> None:
        self.model = model
        self.private, self.in_chat = private, in_chat
        self._template: ChatTemplate | None = None
        self._call_form: tuple[CallForm | None] | None = None
        self.last: Turn | None = None

    @property
    def template(self) -> ChatTemplate:
        """The model's chat template, compiled on first use.

        Raises:
            UnsupportedModel: it has none, or a broken one.
        """
        if self._template is None:
            from edgellm.run.chat_template import ChatTemplate

            info = self.model.info
            self._template = ChatTemplate(self.model.chat_template, bos=info.bos, eos=info.eos)
        return self._template

    @property
    def call_form(self) -> CallForm | None:
        """How the model writes tool calls; None if its template shows no tools, or in another form than JSON.

        Raises:
            UnsupportedModel: it has no template, or a broken one.
        """
        if self._call_form is None:
            from edgellm.run.call_form import call_form

            self._call_form = (call_form(self.template),)
        return self._call_form[0]

    @property
    def n_params(self) -> int:
        """The model's parameters; 0 if nothing is known of them."""
        return self.model.info.n_params

    def turn(
        self,
        messages: Sequence[Message] | Sequence[Mapping[str, Any]],
        tools: Sequence[Mapping[str, Any]] = (),
        begun: str = "",
    ) -> Turn:
        """The turn that answers these messages, with tools in OpenAI's form shown to the model.

        Of the answer `begun` is there already.

        The last answer keeps its tokens: read again from its text, it may fall into other ones, and would have to be
        computed again from there.

        Raises:
            UnsupportedModel: the model has no chat template.
            UsageError: the template refuses these messages.
        """
        more = {"tools": tools} if tools else {}
        return self._turn_of(self.template.render(messages, **more) + begun)

    def _turn_of(self, rendered: str) -> Turn:
        """The turn of a prompt that has been through the template."""
        weights, last = self.model.weights, self.last
        if last and rendered.startswith(last.rendered + last.text):
            rest = rendered[len(last.rendered) + len(last.text) :]
            tokens = weights.tokenize(rest, special=True, bos=False)
            if tokens and not weights.piece(tokens[0]):  # a control token, so nothing grows together over the seam
                return Turn(rendered, [*last.prompt, *last.answer, *tokens])
        return Turn(rendered, weights.tokenize(rendered, special=True))

    def count_tokens(
        self, messages: Sequence[Message] | Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]] = ()
    ) -> int:
        """Tokens of the prompt that these messages make, with these tools."""
        return len(self.turn(messages, tools).prompt) if messages else 0

    def count(self, text: str) -> int:
        """Tokens of a text."""
        return len(self.model.weights.tokenize(text))

    def meter(self) -> Meter:
        """Measures the next answer."""
        return Meter(n_ctx=self.model.context.n_ctx, load_seconds=self.model.load_seconds)

    def answer(self, turn: Turn, sampling: Sampling, limits: Limits, hint: str = "") -> Generator[Event, None, None]:
        """Compute a turn, which fills as it goes; `hint` is what the answer may look like, for its drafts.

        Raises:
            PromptTooLong: the prompt does not fit into the context; nothing has been computed.
            UsageError: the grammar is wrong, or the model is busy or closed.
        """
        try:
            for event in self._generate(turn.prompt, sampling, limits, tuple(turn.answer), hint):
                match event:
                    case Text(text, token):
                        turn.pieces.append(text)
                        if token != NO_TOKEN:
                            turn.answer.append(token)
                    case Looped(kept_tokens=kept):
                        del turn.answer[turn.kept + kept :], turn.pieces[turn.kept + kept :]
                    case End(reason):
                        turn.reason = reason
                yield event
        finally:
            if turn.text:
                # Where a stop text was cut off, the tokens say more than the text.
                self.last = None if limits.stop and turn.reason == "stop" else turn

    def complete(self, text: str, sampling: Sampling, limits: Limits, hint: str = "") -> Generator[Event, None, None]:
        """Continue a text as it is, without the chat template."""
        yield from self._generate(self.model.weights.tokenize(text), sampling, limits, (), hint)

    def _generate(
        self, prompt: Sequence[int], sampling: Sampling, limits: Limits, begun: Sequence[int], hint: str
    ) -> Generator[Event, None, None]:
        def interrupted() -> bool:
            self.model.guard()
            return limits.interrupted()

        watched = replace(limits, interrupted=interrupted)
        model, speculation = self.model, self.model.speculation
        if speculation and hint:
            speculation = replace(speculation, hint=model.weights.tokenize(hint, bos=False))
        with model.computing():
            context, prompts = model.context, None if self.private else model.prompts
            events = generate(model.weights, context, prompt, sampling, watched, begun, speculation)
            if prompts:
                events = prompts.answer(context, [*prompt, *begun], events, in_chat=self.in_chat)
            yield from events
