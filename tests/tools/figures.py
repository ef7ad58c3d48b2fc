"""Measures how well a model uses tools: the figures of docs/explanation/tools.md.

python -m tests.tools.figures arithmetic smollm2      # right arguments, and right answers among those
python -m tests.tools.figures choice MODEL.gguf       # which of three tools a model calls for fifty questions

Two more numbers take only a part of them: the first item, and the one after the last.
"""

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import edgellm
from edgellm.engine.sampling import Sampling
from edgellm.evaluation.checkers import checker
from edgellm.evaluation.item import Item
from edgellm.evaluation.suite import OURS, find_suite
from edgellm.evaluation.verdict import GivenAnswer
from edgellm.run.events import Returned, Text
from edgellm.run.generation import Limits
from edgellm.run.loader import LoadedModel
from edgellm.run.session import Session
from edgellm.tools.builtin.calculator import calculator
from edgellm.tools.builtin.clock import clock
from edgellm.tools.builtin.wikipedia import wikipedia
from edgellm.tools.choice import Embed, by_meaning
from edgellm.tools.consent import Consent
from edgellm.tools.dialogue import answer
from edgellm.tools.rounds import ToolRounds
from edgellm.tools.tool import Risk, Tool, ToolResult
from edgellm.tools.toolbox import Toolbox
from tests.tools.questions import QUESTIONS


@dataclass(frozen=True)
class Outcome:
    """One question: what was called, whether the result was right, and whether the answer was."""

    question: str
    called: str
    arguments: str
    result: str
    text: str
    result_is_right: bool = False
    is_right: bool = False


def ask(model: LoadedModel, tools: Sequence[Tool], embed: Embed, question: str, only_call: bool = False) -> Outcome:
    """Ask one question at temperature 0; with `only_call` up to the first result."""
    chooser = by_meaning(embed)
    toolbox = Toolbox(tools, Consent(everything=True))
    rounds = ToolRounds(toolbox, question, count=lambda text: len(model.weights.tokenize(text)), choose=chooser)
    session, limits = Session(model), Limits(max_tokens=160)
    events = answer(
        session, [{"role": "user", "content": question}], rounds, Sampling(temperature=0), limits, n_ctx=4096
    )
    text = ""
    for event in events:
        text += event.text if isinstance(event, Text) else ""
        if only_call and isinstance(event, Returned):
            break
    good = next((each for each in rounds.returned if not each.error), rounds.returned[0] if rounds.returned else None)
    return Outcome(question, *((good.name, good.arguments, good.text) if good else ("", "", "")), text.strip())


def arithmetic(model: LoadedModel, embed: Embed, items: Sequence[Item]) -> Iterator[Outcome]:
    """Items of the suite arithmetic, with the calculator."""
    for item in items:
        outcome, check = ask(model, [calculator()], embed, item.prompt), checker(item.check)
        value = outcome.result if "no result" in outcome.result else outcome.result.rpartition("=")[2]
        right = bool(outcome.called) and check.check(GivenAnswer(value)).score == 1
        is_right = check.check(GivenAnswer(outcome.text)).score == 1
        yield Outcome(item.prompt, outcome.called, outcome.arguments, outcome.result, outcome.text, right, is_right)


def three_tools() -> list[Tool]:
    """The tools of the fifty questions; the encyclopedia answers that it found nothing."""
    book = wikipedia(Path("none.zim"))
    found = ToolResult("An article was found.")
    looks_up = Tool(
        book.name, book.description, book.parameters, Risk.HERE, lambda _: found, examples=book.examples,
        signs=book.signs,
    )  # fmt: skip
    return [calculator(), clock(), looks_up]


def main() -> None:
    """Print each outcome and the sums."""
    what, name = sys.argv[1:3]
    first, last = map(int, sys.argv[3:5] or (0, 1000))
    with edgellm.open(name, n_ctx=4096) as model, edgellm.open("minilm") as embedder:

        def embed(texts: Sequence[str]) -> object:
            return embedder.embed(list(texts))

        if what == "arithmetic":
            found = []
            for outcome in arithmetic(model, embed, find_suite("arithmetic", [OURS]).items[first:last]):
                found.append(outcome)
                print(json.dumps(outcome.__dict__, ensure_ascii=False), flush=True)
            right = [each for each in found if each.result_is_right]
            print(f"{len(found)} items, {sum(bool(each.called) for each in found)} called, {len(right)} right results, "
                  f"{sum(each.is_right for each in right)} right answers from these, "
                  f"{sum(each.is_right for each in found)} right answers in all")  # fmt: skip
        else:
            n_right = 0
            for question, wanted in QUESTIONS[first:last]:
                outcome = ask(model, three_tools(), embed, question, only_call=True)
                n_right += outcome.called == wanted
                print(wanted, outcome.called or "none", question, outcome.arguments, sep="\t", flush=True)
            print(f"{n_right} of {len(QUESTIONS[first:last])}")


if __name__ == "__main__":
    main()
