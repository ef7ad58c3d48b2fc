"""A conversation with one loaded model, and a single completion: what `chat` and `run` have in common.

    session = Session(model, RunPlan(n_ctx=4096), n_threads=4)
    for event in session.ask("What is a ternary weight?", Sampling(), max_tokens=-1): ...

The context stays between turns, so only what is new is computed. `guard` is called between computations and may
raise: it watches over the memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from edgellm.engine.base import Model, Sampling
from edgellm.models.memory import RunPlan
from edgellm.run.chat_template import ChatTemplate, Message
from edgellm.run.generation import Event, Limits, Text, generate


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

    def ask(self, text: str, sampling: Sampling, limits: Limits) -> Iterator[Event]:
        """Answer a message of the user; question and answer join the conversation once there is any answer.

        Raises:
            PromptTooLong: the conversation does not fit any more; it stays as it was.
            UnsupportedModel: the model has no chat template.
        """
        turn: Message = {"role": "user", "content": text}
        prompt = self.model.tokenize(self.template.render([*self.messages, turn]), special=True)
        answer: list[str] = []
        try:
            for event in self._generate(prompt, sampling, limits):
                if isinstance(event, Text):
                    answer.append(event.text)
                yield event
        finally:
            if any(answer):
                self.messages += [turn, {"role": "assistant", "content": "".join(answer)}]

    @property
    def system(self) -> str:
        """The system message, empty when there is none of ours."""
        return next((message["content"] for message in self.messages if message["role"] == "system"), "")

    def restart(self, system: str | None = None) -> None:
        """Forget the conversation; None keeps the system message. What is still right in the cache is used again."""
        if system is None:
            self.messages = [message for message in self.messages if message["role"] == "system"]
        else:
            self.messages = [{"role": "system", "content": system}]

    def complete(self, text: str, sampling: Sampling, limits: Limits) -> Iterator[Event]:
        """Continue a text as it is, without the chat template and outside of the conversation."""
        return self._generate(self.model.tokenize(text), sampling, limits)

    @property
    def template(self) -> ChatTemplate:
        """The model's chat template, compiled on first use."""
        if self._template is None:
            info = self.model.info
            self._template = ChatTemplate(info.chat_template or self._fallback, bos=info.bos, eos=info.eos)
        return self._template

    def _generate(self, prompt: list[int], sampling: Sampling, limits: Limits) -> Iterator[Event]:
        def interrupted() -> bool:
            self._guard()
            return limits.interrupted()

        return generate(self.model, self.context, prompt, sampling, Limits(limits.max_tokens, interrupted))

    def close(self) -> None:
        """Free the context."""
        self.context.close()
