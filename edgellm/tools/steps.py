"""An answer that may call tools, as steps: what the model is to write next, each call, and what it returned.

    steps = tool_steps(messages, rounds, form, room=room)
    item = next(steps)                     # a ToolStep, a Call or a Returned
    item = steps.send(text)                # the text of a ToolStep; None after a Call or a Returned
    ...                                    # the last ToolStep is the answer

It is the one loop of calls. `dialogue.py` streams its steps, a batch computes them in its slots, and a server asks
llama-server for them. It computes nothing itself.

A model whose template shows tools writes freely until it begins a call. From there a grammar takes over, which permits
only calls of the tools that are offered, with arguments of their schemas. For other models, and for small ones where it
is sure which tool fits, edgellm chooses the tool; they write only its arguments, by the same grammar, and then answer
from the result.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from edgellm.engine.sampling import Sampling
from edgellm.run.call_form import CallForm, arguments_structure
from edgellm.run.events import Call, Returned
from edgellm.run.structure import Structure
from edgellm.tools.call_watch import CallWatch
from edgellm.tools.prompt import with_call, with_result
from edgellm.tools.rounds import ToolRounds

# The tokens that a call may have.
MOST_CALL = 400
# The part of the context that is kept free for the answer after a result, at most so many tokens.
ANSWER_SHARE, MOST_ANSWER = 4, 512
# Models with fewer parameters call the wrong tool too often (docs/explanation/tools.md).
SMALL = 1_000_000_000

Messages = Sequence[Mapping[str, Any]]
# The tokens that a result may have, beside a prompt of these messages and tools.
Room = Callable[[Messages, Messages], int]


@dataclass(frozen=True, slots=True)
class ToolStep:
    """What the model writes next, after `messages` with `tools` shown.

    With `structure` it is a call, or its arguments, which `begun` precedes; it is not shown. With `watch` it may turn
    into a call; whoever computes it may stop once the watch has found one. With `is_probe` only that matters, and
    nothing of it is shown. `grammar` is what an answer has to state.
    """

    messages: Messages
    tools: Messages = ()
    begun: str = ""
    structure: Structure | None = None
    watch: CallWatch | None = None
    is_probe: bool = False
    grammar: str = ""

    def sampling(self, sampling: Sampling) -> Sampling:
        """How to draw it, where the whole answer is to be drawn like `sampling`."""
        if self.structure is not None:
            return self.structure.constrain(sampling)
        if self.is_probe:
            return replace(sampling, grammar="")
        if self.grammar and not sampling.grammar:
            return Structure(self.grammar, is_harmless=True).constrain(sampling)
        return sampling


ToolItem = ToolStep | Call | Returned
ToolSteps = Generator[ToolItem, str | None, None]


def tool_steps(
    messages: Messages, rounds: ToolRounds, form: CallForm | None, *, room: Room, has_form: bool = False
) -> ToolSteps:
    """The steps of one answer.

    Args:
        messages: the chat; the last one is the user's.
        form: how the model writes calls; None for one that writes only the arguments.
        has_form: the answer follows a grammar, so that a call can only come instead of it.
    """
    if form is None or not rounds.offered:
        yield from _chosen(messages, rounds, room)
    elif (yield from _choosing(messages, rounds, form, room, has_form)):
        return
    shown = messages
    if rounds.shown:
        shown = with_result(messages, rounds.shown, rounds.toolbox, rounds.answered_examples)
    yield ToolStep(shown, grammar=rounds.answer_grammar)


def own_form(form: CallForm | None, n_params: int, rounds: ToolRounds) -> CallForm | None:
    """The form of the model's calls, if it may choose its tools itself."""
    is_small = 0 < n_params < SMALL
    return None if is_small and rounds.fitting is not None else form


def room_beside(n_ctx: int, n_prompt: int) -> int:
    """The tokens that a result may have in a context, beside a prompt and the answer."""
    return n_ctx - n_prompt - min(MOST_ANSWER, n_ctx // ANSWER_SHARE)


def _chosen(messages: Messages, rounds: ToolRounds, room: Room) -> ToolSteps:
    """Call the tool that fits the question, for a model that does not choose."""
    while (tool := rounds.fitting) is not None:
        structure = arguments_structure(json.dumps(tool.as_function["function"]["parameters"]))
        text = yield ToolStep(with_call(messages, tool, rounds.examples(tool), rounds.returned), structure=structure)
        yield from _run(rounds, tool.name, _arguments(text or ""), room(messages, ()))


def _choosing(
    messages: Messages, rounds: ToolRounds, form: CallForm, room: Room, has_form: bool
) -> Generator[ToolItem, str | None, bool]:
    """Run the calls of a model that chooses; whether it has answered, else it must do so without seeing the tools."""
    tools, history = [tool.as_function for tool in rounds.offered], list(messages)
    while rounds.may_call:
        watch = CallWatch(form, [tool.name for tool in rounds.offered])
        yield ToolStep(history, tools, watch=watch, is_probe=has_form)
        if not watch.found:
            if has_form:  # the answer has the form from its first token
                yield ToolStep(history, tools)
            return True
        text = yield ToolStep(history, tools, f"{watch.before}{form.marker}", form.structure(tools))
        name, arguments = form.read(text or "") or ("", {})
        returned = yield from _run(rounds, name, arguments, room(history, tools))
        history += called(returned, arguments, watch.before)
    return False


def _run(
    rounds: ToolRounds, name: str, arguments: Mapping[str, Any], room: int
) -> Generator[ToolItem, str | None, Returned]:
    """Run a call; one that was cut off is an error that the model reads."""
    text = json.dumps(arguments, ensure_ascii=False)
    call = Call(len(rounds.returned), rounds.next_id, name, text)
    yield call
    returned = rounds.run(call.id, name, text, room=room)
    yield returned
    return returned


def called(returned: Returned, arguments: Mapping[str, Any], before: str) -> list[dict[str, Any]]:
    """A call and its result as messages for a chat template, which takes arguments as an object."""
    function = {"name": returned.name, "arguments": arguments}
    call = {"id": returned.id, "type": "function", "function": function}
    return [
        {"role": "assistant", "content": before, "tool_calls": [call]},
        {"role": "tool", "name": returned.name, "tool_call_id": returned.id, "content": returned.text},
    ]


def _arguments(text: str) -> dict[str, Any]:
    """Arguments that were written by a grammar; none where they were cut off."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
