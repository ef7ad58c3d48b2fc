"""A conversation with one loaded model, and a single completion: what `chat` and `run` have in common.

    session = Session(model, RunPlan(n_ctx=4096), n_threads=4)
    for event in session.ask("What is a ternary weight?", Sampling(), Limits()): ...

The context stays between turns, so only what is new is computed. `guard` is called between computations and may
raise: it watches over the memory.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field, replace

from edgellm.engine.base import Model, Sampling
from edgellm.errors import PromptTooLong, UsageError
from edgellm.models.memory import RunPlan
from edgellm.run.chat_template import ChatTemplate, Message
from edgellm.run.generation import NO_TOKEN, Event, Finished, Limits, Looped, Text, generate, penalised

SUMMARISE = (
    "Summarise our conversation so far, so that we can go on from the summary alone. Keep names, numbers, decisions and"
    " open questions. Answer in the language of the conversation, with the summary and nothing else."
)


@dataclass(slots=True)
class _Turn:
    """The last answer as it was computed: the prompt as text and tokens, and the answer as both."""

    rendered: str
    prompt: list[int]
    answer: list[int] = field(default_factory=list)
    pieces: list[str] = field(default_factory=list)
    reason: str = ""

    @property
    def text(self) -> str:
        return "".join(self.pieces)


class Session:
    """Messages so far, and the context that holds them; `chat_template` is for a model that has none of its own."""

    def __init__(
        self,
        model: Model,
        plan: RunPlan,
        *,
        n_threads: int,
        system: str | None = None,
        guard: Callable[[], None] = lambda: None,
        chat_template: str | None = None,
    ) -> None:
        self.model = model
        self._guard = guard
        self._fallback = chat_template or ""
        self.messages: list[Message] = [] if system is None else [{"role": "system", "content": system}]
        self.context = model.open_context(
            n_ctx=plan.n_ctx, n_batch=min(plan.n_batch, plan.n_ctx), n_threads=n_threads,
            type_k=plan.kv_type, type_v=plan.kv_type,
        )  # fmt: skip
        self._template: ChatTemplate | None = None
        self._turn: _Turn | None = None

    def ask(self, text: str, sampling: Sampling, limits: Limits) -> Generator[Event, None, None]:
        """Answer a message of the user; question and answer join the conversation once there is any answer.

        Raises:
            PromptTooLong: the conversation does not fit any more; it stays as it was.
            UnsupportedModel: the model has no chat template.
        """
        return self._answer([*self.messages, {"role": "user", "content": text}], sampling, limits)

    def again(self, sampling: Sampling, limits: Limits) -> Generator[Event, None, None]:
        """Answer the last question again; the new answer replaces the old one once there is any of it.

        An answer that ended because it repeated itself is not begun anew: it goes on from before that, with penalties
        (with a grammar it is begun anew, as its place in the grammar is not known half-way).

        Raises:
            UsageError: there is nothing to answer.
        """
        turn = self._turn
        if turn and turn.reason == "repetition" and self.messages and turn.text == self.messages[-1]["content"]:
            sampling = penalised(sampling)
            if not sampling.grammar:
                return self._answer(self.messages[:-1], sampling, limits, begun=turn)
        asked = self.messages[:-1] if self.messages and self.messages[-1]["role"] == "assistant" else self.messages
        if not asked or asked[-1]["role"] != "user":
            raise UsageError("there is no question to answer again")
        return self._answer(list(asked), sampling, limits)

    def undo(self) -> list[Message]:
        """Take back the last question and its answer; returns them, or an empty list."""
        last = max((n for n, message in enumerate(self.messages) if message["role"] == "user"), default=None)
        if last is None:
            return []
        taken = self.messages[last:]
        del self.messages[last:]
        return taken

    def compact(self, sampling: Sampling, limits: Limits) -> Generator[Event, None, None]:
        """Let the model summarise the conversation; the summary takes the place of what it covers, once it is whole.

        Those are the oldest turns, as many as fit beside a summary of a quarter of the context; later ones stay.

        Raises:
            UsageError: there is nothing to summarise.
            PromptTooLong: not even the first turn fits.
        """
        first = 1 if self.system_message else 0
        turns = range(len(self.messages), first, -1)
        ends = [end for end in turns if self.messages[end - 1]["role"] == "assistant"]
        if not ends:
            raise UsageError("there is nothing to summarise yet")
        room = self.context.n_ctx // 4
        request: Message = {"role": "user", "content": SUMMARISE}
        for end in ends:
            asked = [*self.messages[:end], request]
            if len(self._prompt(asked)[1]) + room <= self.context.n_ctx:
                break
        else:
            raise PromptTooLong("the conversation is too long to be summarised", hint="/undo, /clear, or a larger -c")
        return self._compact(
            asked, self.messages[:first], self.messages[end:], sampling, replace(limits, max_tokens=room)
        )

    def _compact(
        self, asked: list[Message], head: list[Message], rest: list[Message], sampling: Sampling, limits: Limits
    ) -> Generator[Event, None, None]:
        before, reason = self.messages, ""
        try:
            for event in self._answer(asked, sampling, limits):
                if isinstance(event, Finished):
                    reason = event.reason
                yield event
        finally:
            whole = reason in ("stop", "length", "repetition") and self.messages is not before
            self.messages = [*head, *self.messages[-2:], *rest] if whole else before

    @property
    def system_message(self) -> Message | None:
        """The system message, if there is one of ours."""
        return next((message for message in self.messages if message["role"] == "system"), None)

    @property
    def system(self) -> str:
        """Its text, empty when there is none."""
        return self.system_message["content"] if self.system_message else ""

    def restart(self, system: str | None = None) -> None:
        """Forget the conversation; None keeps the system message. What is still right in the cache is used again."""
        if system is None:
            self.messages = [self.system_message] if self.system_message else []
        else:
            self.messages = [{"role": "system", "content": system}]

    def complete(self, text: str, sampling: Sampling, limits: Limits) -> Generator[Event, None, None]:
        """Continue a text as it is, without the chat template and outside of the conversation."""
        return self._generate(self.model.tokenize(text), sampling, limits)

    @property
    def template(self) -> ChatTemplate:
        """The model's chat template, compiled on first use."""
        if self._template is None:
            info = self.model.info
            self._template = ChatTemplate(info.chat_template or self._fallback, bos=info.bos, eos=info.eos)
        return self._template

    def count_tokens(self, messages: Sequence[Message] | None = None) -> int:
        """Tokens of a prompt that consists of the conversation so far, or of other messages."""
        wanted = self.messages if messages is None else messages
        return len(self._prompt(wanted)[1]) if wanted else 0

    def _prompt(self, messages: Sequence[Message]) -> tuple[str, list[int]]:
        """The prompt as text and as tokens.

        What was computed in the last turn keeps its tokens: read again from its text, an answer may fall into other
        ones, and would have to be computed again from there.
        """
        rendered = self.template.render(messages)
        turn = self._turn
        if turn and rendered.startswith(turn.rendered + turn.text):
            rest = rendered[len(turn.rendered) + len(turn.text) :]
            tokens = self.model.tokenize(rest, special=True, bos=False)
            if tokens and not self.model.piece(tokens[0]):  # a control token, so nothing grows together over the seam
                return rendered, [*turn.prompt, *turn.answer, *tokens]
        return rendered, self.model.tokenize(rendered, special=True)

    def _answer(
        self, messages: list[Message], sampling: Sampling, limits: Limits, begun: _Turn | None = None
    ) -> Generator[Event, None, None]:
        """Answer messages that end with a question; with `begun`, from within the last answer."""
        rendered, prompt = (begun.rendered, begun.prompt) if begun else self._prompt(messages)
        turn = _Turn(rendered, prompt, list(begun.answer) if begun else [], list(begun.pieces) if begun else [])
        before = len(turn.answer)
        try:
            for event in self._generate(prompt, sampling, limits, list(turn.answer)):
                match event:
                    case Text(text, token):
                        turn.pieces.append(text)
                        if token != NO_TOKEN:
                            turn.answer.append(token)
                    case Looped(kept_tokens=kept):
                        del turn.answer[before + kept :], turn.pieces[before + kept :]
                    case Finished(reason):
                        turn.reason = reason
                yield event
        finally:
            if turn.text:
                self._turn = turn
                self.messages = [*messages, {"role": "assistant", "content": turn.text}]

    def _generate(
        self, prompt: list[int], sampling: Sampling, limits: Limits, begun: Sequence[int] = ()
    ) -> Generator[Event, None, None]:
        def interrupted() -> bool:
            self._guard()
            return limits.interrupted()

        watched = replace(limits, interrupted=interrupted)
        yield from generate(self.model, self.context, prompt, sampling, watched, begun)

    def close(self) -> None:
        """Free the context."""
        self.context.close()
