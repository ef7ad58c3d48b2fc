"""The steps of a batch's answer that may call tools: each is one prompt, which a slot computes.

    steps = answer_steps(session, messages, rounds, sampling, n_ctx=4096, max_tokens=-1)
    step = next(steps)                      # a prompt with its sampling
    step = steps.send(text)                 # ... until StopIteration, whose value is the text of the answer

A batch streams nothing: a call that a model begins is only seen when its text is whole, and the grammar then writes it
again.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgellm.engine.sampling import Sampling
from edgellm.run.session import Session
from edgellm.tools.rounds import ToolRounds
from edgellm.tools.steps import MOST_CALL, ToolStep, own_form, room_beside, tool_steps


@dataclass(frozen=True, slots=True)
class SlotStep:
    """A prompt, how to draw, and the most tokens; `is_call` is a call by its grammar, which nothing else may end."""

    prompt: list[int]
    sampling: Sampling
    is_call: bool = False
    max_tokens: int = MOST_CALL


SlotSteps = Generator[SlotStep, str, str]


def answer_steps(
    session: Session,
    messages: Sequence[Mapping[str, Any]],
    rounds: ToolRounds,
    sampling: Sampling,
    *,
    n_ctx: int,
    max_tokens: int,
) -> SlotSteps:
    """The steps of one answer.

    Args:
        n_ctx: the context of a slot.
        max_tokens: of the answer itself, -1 for as many as fit.
    """

    def room(shown: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]]) -> int:
        return room_beside(n_ctx, session.count_tokens(shown, tools))

    form = own_form(session.call_form, session.n_params, rounds) if rounds.offered else None
    steps = tool_steps(messages, rounds, form, room=room, has_form=bool(sampling.grammar))
    answer, written = "", None
    while True:
        try:
            item = steps.send(written)
        except StopIteration:
            return answer
        written = None
        if isinstance(item, ToolStep):
            written = yield _slot_step(session, item, sampling, max_tokens)
            if item.watch is not None:
                item.watch.feed(written)
            if item.structure is None:
                answer = written


def _slot_step(session: Session, step: ToolStep, sampling: Sampling, max_tokens: int) -> SlotStep:
    turn = session.turn(step.messages, step.tools, step.begun)
    is_call = step.structure is not None
    return SlotStep(turn.prompt, step.sampling(sampling), is_call, MOST_CALL if is_call else max_tokens)
