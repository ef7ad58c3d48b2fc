"""One question with tools: which are offered, what was called, what came back, and when an answer is due.

    rounds = ToolRounds(toolbox, "What is 17 * 23?", count=count_tokens)
    rounds.offered                                    # the tools to show the model
    returned = rounds.run("call_1", "calculator", '{"expression": "17 * 23"}', room=900)
    messages += rounds.messages(returned)             # as chat templates and OpenAI's requests have them
    rounds.may_call                                   # else the model must answer now

It generates nothing: `steps.py` is the loop over it, and a server lets llama-server write calls where the model can.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from edgellm.run.call_form import ID_LENGTH
from edgellm.run.events import Returned, ToolSource
from edgellm.tools.budget import ToolBudget
from edgellm.tools.choice import ToolChooser
from edgellm.tools.outside import as_data
from edgellm.tools.relevance import shortened
from edgellm.tools.stated import numbers_in, stating
from edgellm.tools.tool import OWN, Risk, Tool, ToolResult
from edgellm.tools.toolbox import Toolbox

USUAL_BUDGET = ToolBudget()
# So many equal calls end the calls of a question.
MOST_EQUAL = 2
LEAST_TOKENS = 64
# Examples of calls that a model is shown which knows no tools.
MOST_EXAMPLES = 6
# Examples of answers from a result.
MOST_ANSWERED = 2


def _numbered(n: int) -> str:
    return f"call{n:0{ID_LENGTH - 4}}"


class ToolRounds:
    """The calls of one question."""

    def __init__(
        self,
        toolbox: Toolbox,
        question: str,
        *,
        count: Callable[[str], int],
        choose: ToolChooser | None = None,
        budget: ToolBudget = USUAL_BUDGET,
        first: Sequence[Tool] = (),
        new_id: Callable[[int], str] = _numbered,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Begin; the clock of the budget starts.

        Args:
            count: the tokens of a text, as the model counts them.
            choose: which tools to offer when there are too many, and which one fits; by words if there is none.
            first: one of these must be called first; none if the model may answer at once.
            new_id: makes the id of a call from its number.
        """
        self.toolbox = toolbox
        self.question = question
        self.returned: list[Returned] = []
        # What an answer has to state: the value of the only good result.
        self._values: tuple[str, ...] = ()
        self._count, self._budget, self._clock = count, budget, clock
        self._first, self._new_id = first, new_id
        self._began = self._now()
        self._closed = False
        self._choose = choose or ToolChooser()
        offerable = toolbox.offerable
        # The tools that the model is shown.
        self.offered = (
            offerable if len(offerable) <= budget.offered else self._choose(question, offerable, budget.offered)
        )

    @property
    def fitting(self) -> Tool | None:
        """The tool to call next for a model that cannot choose itself: the one that fits, until it has a result."""
        if self._first and not self.returned:
            fits = self._choose.fitting(self.question, self._first)
            return fits or self._choose(self.question, self._first, 1)[0]
        if not self.may_call or any(not each.error for each in self.returned):
            return None
        return self._choose.fitting(self.question, list(filter(self.toolbox.consent.may_offer, self.offered)))

    @property
    def may_call(self) -> bool:
        """Whether the model may call once more; otherwise its answer is due."""
        return bool(
            not self._closed
            and any(map(self.toolbox.consent.may_offer, self.offered))
            and len(self.returned) < self._budget.calls
            and self._now() - self._began < self._budget.seconds
        )

    @property
    def next_id(self) -> str:
        """An id for the next call."""
        return self._new_id(len(self.returned))

    def examples(self, tool: Tool) -> list[tuple[str, Mapping[str, Any]]]:
        """The examples of a tool that are most like the question."""
        return self._choose.examples(self.question, tool, MOST_EXAMPLES)

    @property
    def answered_examples(self) -> list[tuple[str, str]]:
        """Questions like this one with the results of the tool that was called, if it only computes."""
        tool = self.toolbox.get(self.returned[-1].name) if self.returned else None
        if tool is None or tool.risk is not Risk.NOTHING or tool.source != OWN:
            return []
        shown = self._choose.examples(self.question, tool, MOST_ANSWERED)
        return [(asked, self.toolbox.call(tool.name, given).text) for asked, given in shown]

    def run(self, call_id: str, name: str, arguments: str, *, room: int) -> Returned:
        """Run a call, and keep what it returned; never raises.

        Args:
            arguments: the JSON text of an object.
            room: the tokens that the result may have; what is less relevant to the question is cut.
        """
        began = self._now()
        equal = [each for each in self.returned if (each.name, _plain(each.arguments)) == (name, _plain(arguments))]
        if len(equal) >= MOST_EQUAL - 1:
            self._closed = True
            result = ToolResult(f"This is the same call as before. It returned: {equal[-1].text}", error=True)
        elif not self.may_call:
            result = ToolResult("There are no calls left. Answer from what you have.", error=True)
        else:
            result = self.toolbox.call(name, arguments)
        if not result.error:
            self._values = () if any(not each.error for each in self.returned) else result.values
        returned = self._fitted(call_id, name, arguments, result, room)
        self.returned.append(replace(returned, seconds=self._now() - began))
        return self.returned[-1]

    def _fitted(self, call_id: str, name: str, arguments: str, result: ToolResult, room: int) -> Returned:
        """A result as the model shall see it: data marked as data, and no longer than there is room."""
        tool, notes = self.toolbox.get(name), []
        text, n_orders = as_data(tool, result.text, error=result.error) if tool else (result.text, 0)
        if n_orders:
            notes.append(f"{n_orders} sentence{'s' * (n_orders > 1)} that gave orders left out")
        most = max(LEAST_TOKENS, min(room, self._budget.tokens or room))
        short = shortened(text, self.question, count=self._count, room=most)
        if short.left_out:
            notes.append(f"cut to what is relevant: {short.kept} of {short.kept + short.left_out} parts")
        position = len(self.returned)
        return Returned(position, call_id, name, arguments, short.text, result.error, result.sources, tuple(notes))

    def _now(self) -> float:
        """The time without what the user took to decide, which is no time of the tools."""
        return self._clock() - self.toolbox.consent.waited

    @property
    def shown(self) -> list[Returned]:
        """What the model is shown for its answer: of a call that the user did not allow, nothing."""
        return [each for each in self.returned if not each.error or not self._is_refused(each.name)]

    def _is_refused(self, name: str) -> bool:
        tool = self.toolbox.get(name)
        return tool is not None and not self.toolbox.consent.may_offer(tool)

    @property
    def answer_grammar(self) -> str:
        """The grammar of an answer that states the value that a tool returned; empty where any answer will do."""
        if not self._values:
            return ""
        good = next(each for each in self.returned if not each.error)
        return stating(self._values, numbers_in(good.text, self.question, good.arguments))

    @property
    def sources(self) -> list[ToolSource]:
        """The sources of all results, each place once."""
        found = (source for each in self.returned if not each.error for source in each.sources)
        return list({source.place: source for source in found}.values())

    def messages(self, returned: Returned) -> list[dict[str, Any]]:
        """The call and its result as two messages, in OpenAI's form; the arguments are text."""
        function = {"name": returned.name, "arguments": returned.arguments}
        calls = [{"id": returned.id, "type": "function", "function": function}]
        return [
            {"role": "assistant", "content": "", "tool_calls": calls},
            {"role": "tool", "tool_call_id": returned.id, "content": returned.text},
        ]


def _plain(arguments: str) -> str:
    """Arguments in one spelling, so that equal calls are seen."""
    try:
        return json.dumps(json.loads(arguments or "{}"), sort_keys=True)
    except (ValueError, RecursionError):
        return arguments
