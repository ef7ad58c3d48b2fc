"""Answers that state what a tool returned: the grammar, on the real grammar engine, and when it holds."""

import json
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest

from edgellm.engine.builds.installed import InstalledEngine
from edgellm.engine.fake import FakeModel
from edgellm.engine.grammar.watch import GrammarWatch
from edgellm.engine.llama import LlamaEngine, LlamaModel
from edgellm.run.call_form import CallForm
from edgellm.run.events import Call, Returned
from edgellm.tools.builtin.calculator import calculator
from edgellm.tools.builtin.clock import clock
from edgellm.tools.consent import Consent, Permission
from edgellm.tools.rounds import ToolRounds
from edgellm.tools.stated import numbers_in, stating
from edgellm.tools.steps import SMALL, ToolItem, ToolStep, own_form, tool_steps
from edgellm.tools.tool import Risk, Tool, ToolResult
from edgellm.tools.toolbox import Toolbox

NOON = datetime(2026, 11, 3, 12, 5, tzinfo=timezone.utc)
QUESTION = "What is 17 * 23?"


def rounds(*tools: Tool, question: str = QUESTION, consent: Consent | None = None) -> ToolRounds:
    return ToolRounds(Toolbox(tools, consent or Consent(everything=True)), question, count=len)


def ran(name: str, arguments: Mapping[str, Any], question: str = QUESTION) -> ToolRounds:
    made = rounds(calculator(), clock(lambda: NOON), question=question)
    made.run("1", name, json.dumps(arguments), room=500)
    return made


def test_numbers_of_texts() -> None:
    assert numbers_in("What is 17 * 23?", "17 * 23 = 391") == ["17", "23", "391"]
    assert numbers_in("3.50 and 1,200 on 2026-01") == ["3.50", "1,200", "2026", "01", "3", "50", "1", "200"]
    assert numbers_in("none") == [] and len(numbers_in(" ".join(map(str, range(500))))) == 64


@pytest.mark.parametrize(
    ("name", "arguments", "values"),
    [
        ("calculator", {"expression": "17 * 23"}, ["391"]),
        ("calculator", {"expression": "50 - 72"}, ["-22"]),
        ("calculator", {"expression": "1/2 + 1/3"}, ["5/6", "0.8333333333"]),
        ("calculator", {"expression": "5 m * 5 m^2"}, ["125"]),
        ("calculator", {"expression": "6 / 0"}, []),
        ("clock", {"zone": "UTC"}, ["12:05", "3 November 2026", "November 3, 2026", "2026-11-03", "2026"]),
        ("clock", {"date": "2026-12-24"}, ["Thursday", "in 51 days"]),
        ("clock", {"date": "2026-01-01", "until": "2030-01-01"}, ["1,461", "1461"]),
        ("clock", {"date": "2026-01-01", "days": 30}, ["31 January 2026", "January 31, 2026", "2026-01-31"]),
    ],
)  # fmt: skip
def test_the_values_of_results(name: str, arguments: Mapping[str, Any], values: list[str]) -> None:
    result = Toolbox([calculator(), clock(lambda: NOON)]).call(name, arguments)
    assert list(result.values) == values


def test_a_grammar_holds_for_one_value_only() -> None:
    made = ran("calculator", {"expression": "17 * 23"})
    assert 'value ::= "391"' in made.answer_grammar and 'number ::= "17 * 23"' not in made.answer_grammar
    made.run("2", "calculator", '{"expression": "2 + 2"}', room=500)
    assert made.answer_grammar == ""  # which of the two is not known
    assert ran("calculator", {"expression": "6 / 0"}).answer_grammar == ""
    text = Tool("page", "", {"type": "object"}, Risk.NETWORK, lambda _: ToolResult("It was 1932."))
    made = rounds(text)
    made.run("1", "page", "{}", room=50)
    assert made.answer_grammar == ""


def steps_of(made: ToolRounds, form: CallForm | None = None, written: tuple[str, ...] = ()) -> list[ToolItem]:
    """The steps where these texts are written, one after the other."""
    steps = tool_steps([{"role": "user", "content": made.question}], made, form, room=lambda *_: 500)
    texts = list(written)
    found: list[ToolItem] = []
    text: str | None = None
    while True:
        try:
            item = steps.send(text)
        except StopIteration:
            return found
        found.append(item)
        text = (texts.pop(0) if texts else "") if isinstance(item, ToolStep) else None


def test_the_steps_of_a_model_that_does_not_choose() -> None:
    call, made, back, answer = steps_of(rounds(calculator()), written=('{"expression": "17 * 23"}',))
    assert isinstance(call, ToolStep) and call.structure is not None and not call.grammar
    assert isinstance(made, Call) and made.arguments == '{"expression": "17 * 23"}'
    assert isinstance(back, Returned) and back.text == "17 * 23 = 391"
    assert isinstance(answer, ToolStep) and 'value ::= "391"' in answer.grammar


def test_what_the_user_did_not_allow_is_not_shown() -> None:
    tool = Tool("fetch", "Reads a page.", {"type": "object"}, Risk.NETWORK, lambda _: ToolResult("x"), signs="page")
    consent = Consent(ask=lambda *_: Permission.NO)
    *_, back, answer = steps_of(rounds(tool, question="Read the page.", consent=consent), written=("{}",))
    assert isinstance(back, Returned) and back.error
    assert isinstance(answer, ToolStep) and answer.messages == [{"role": "user", "content": "Read the page."}]


def test_small_models_get_the_tool_that_fits() -> None:
    form = CallForm("<tool_call>\n")
    fits, none = rounds(calculator()), rounds(calculator(), question="Hello!")
    assert own_form(form, SMALL - 1, fits) is None
    assert own_form(form, SMALL - 1, none) is form and own_form(form, SMALL, fits) is form
    assert own_form(form, 0, fits) is form  # nobody knows how large it is
    assert own_form(None, 10 * SMALL, none) is None


def test_the_users_time_is_not_the_tools() -> None:
    now = [0.0]

    def ask(*_: object) -> Permission:
        consent.waited += 1_000.0
        now[0] += 1_000.0
        return Permission.YES

    consent = Consent(ask=ask)
    tool = Tool("fetch", "Reads a page.", {"type": "object"}, Risk.NETWORK, lambda _: ToolResult("x"))
    made = ToolRounds(Toolbox([tool], consent), "Read it.", count=len, clock=lambda: now[0])
    assert made.run("1", "fetch", "{}", room=50).seconds < 1 and made.may_call


@pytest.fixture(scope="module")
def smol(llama: LlamaEngine, smollm2: Path) -> Iterator[LlamaModel]:
    model = llama.load(smollm2, only_vocabulary=True)
    yield model
    model.close()


@pytest.fixture(scope="module")
def accepts(engine: InstalledEngine, smollm2: Path, smol: LlamaModel) -> Iterator[Callable[[str, str], bool]]:
    """Whether a grammar permits a whole text, token by token."""
    watch = GrammarWatch(engine.directory, smollm2)

    def accepts(grammar: str, text: str) -> bool:
        opened = watch.open(grammar)
        for token in smol.tokenize(text, bos=False):
            if not opened.permits(token):
                return False
            opened.accept(token)
        (tokens,) = opened.permitted().nonzero()
        return any(smol.is_end(int(token)) for token in tokens)

    yield accepts
    watch.close()


@pytest.mark.engine
@pytest.mark.model
@pytest.mark.parametrize(
    ("answer", "permitted"),
    [
        ("391", True), ("17 * 23 = 391", True), ("The product of 17 and 23 is 391.", True), ("391\nAnd 12 more.", True),
        ("= 391", True), ("17 times 23 is 391, as 17 and 23 are small.", True), ("那是391。", True),
        ("The answer is 381.", False), ("17 * 23 = 17 * 23 = 391", False), ("17 * 23", False), ("No idea.", False),
        ("3910", False), ("391, or 400", False), ("391 = 17 * 23", False), ("", False), ("No.\n391", False),
    ],
)  # fmt: skip
def test_what_the_grammar_permits(answer: str, permitted: bool, accepts: Callable[[str, str], bool]) -> None:
    assert accepts(stating(["391"], numbers_in(QUESTION, "17 * 23 = 391")), answer) is permitted


def test_a_fake_model_has_no_size() -> None:
    assert FakeModel(["x"]).info.n_params == 0
