"""An answer with tools as steps: each is one prompt, whose text comes back; a batch computes them in its slots.

    steps = answer_steps(session, messages, rounds, sampling, n_ctx=4096, max_tokens=-1)
    step = next(steps)                      # a prompt with its sampling
    step = steps.send(text)                 # ... until StopIteration, whose value is the text of the answer

It is `dialogue.py` for whoever computes many answers at once and streams none: a call that a model begins is only seen
when its text is whole, and is then written again by the grammar.
"""

from __future__ import annotations

import json
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from edgellm.engine.sampling import Sampling
from edgellm.run.call_form import CallForm, arguments_structure
from edgellm.run.session import Session, Turn
from edgellm.tools.call_watch import CallWatch
from edgellm.tools.dialogue import ANSWER_SHARE, MOST_ANSWER, MOST_CALL, called, read_arguments
from edgellm.tools.prompt import with_call, with_result
from edgellm.tools.rounds import ToolRounds


@dataclass(frozen=True, slots=True)
class ToolStep:
    """A prompt, how to draw, and the most tokens; `is_call` is a call by its grammar, which nothing else may end."""

    prompt: list[int]
    sampling: Sampling
    is_call: bool = False
    max_tokens: int = MOST_CALL


ToolSteps = Generator[ToolStep, str, str]


def answer_steps(
    session: Session,
    messages: Sequence[Mapping[str, Any]],
    rounds: ToolRounds,
    sampling: Sampling,
    *,
    n_ctx: int,
    max_tokens: int,
) -> ToolSteps:
    """The steps of one answer.

    Args:
        n_ctx: the context of a slot.
        max_tokens: of the answer itself, -1 for as many as fit.
    """
    form = session.call_form if rounds.offered else None
    if form is None:
        yield from _chosen(session, messages, rounds, sampling, n_ctx)
    else:
        text = yield from _choosing(session, messages, rounds, sampling, n_ctx, form, max_tokens)
        if text is not None:
            return text
    shown = messages
    if rounds.returned:
        shown = with_result(messages, rounds.returned, rounds.toolbox, rounds.answered_examples)
    return (yield ToolStep(session.turn(shown).prompt, sampling, max_tokens=max_tokens))


def _chosen(
    session: Session, messages: Sequence[Mapping[str, Any]], rounds: ToolRounds, sampling: Sampling, n_ctx: int
) -> Generator[ToolStep, str, None]:
    """Call the tool that fits, for a model that knows none."""
    while (tool := rounds.fitting) is not None:
        structure = arguments_structure(json.dumps(tool.as_function["function"]["parameters"]))
        asked = session.turn(with_call(messages, tool, rounds.examples(tool), rounds.returned))
        text = yield ToolStep(asked.prompt, structure.constrain(sampling), is_call=True)
        arguments = json.dumps(read_arguments(text), ensure_ascii=False)
        rounds.run(rounds.next_id, tool.name, arguments, room=_room(n_ctx, session.turn(messages)))


def _choosing(
    session: Session,
    messages: Sequence[Mapping[str, Any]],
    rounds: ToolRounds,
    sampling: Sampling,
    n_ctx: int,
    form: CallForm,
    max_tokens: int,
) -> Generator[ToolStep, str, str | None]:
    """Run the calls of a model that knows tools; its answer, or None where it must answer without seeing them."""
    tools, history = [tool.as_function for tool in rounds.offered], list(messages)
    while rounds.may_call:
        prompt = session.turn(history, tools)
        watch = CallWatch(form, [tool.name for tool in rounds.offered])
        text = yield ToolStep(prompt.prompt, replace(sampling, grammar=""), max_tokens=max_tokens)
        watch.feed(text)
        if not watch.found:
            return None if sampling.grammar else text
        begun = session.turn_of(f"{prompt.rendered}{watch.before}{form.marker}")
        text = yield ToolStep(begun.prompt, form.structure(tools).constrain(sampling), is_call=True)
        name, arguments = form.read(text) or ("", {})
        call_id = rounds.next_id
        returned = rounds.run(
            call_id, name, json.dumps(arguments, ensure_ascii=False), room=_room(n_ctx, session.turn(history, tools))
        )
        history += called(call_id, name, arguments, watch.before, returned.text)
    return None


def _room(n_ctx: int, prompt: Turn) -> int:
    return n_ctx - len(prompt.prompt) - min(MOST_ANSWER, n_ctx // ANSWER_SHARE)
