"""The loop on a scripted engine: models that know tools, models that do not, and what goes wrong with both."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from edgellm.chats.chat import Chat
from edgellm.chats.store import ChatStore
from edgellm.chats.transcript import markdown
from edgellm.engine.fake import FakeModel
from edgellm.models.fit.memory import RunPlan
from edgellm.run.answer_options import AnswerOptions
from edgellm.run.call_form import CallForm, call_form
from edgellm.run.chat_template import ChatTemplate
from edgellm.run.events import Call, Returned
from edgellm.run.generation import Limits
from edgellm.run.loader import LoadedModel, LoadOptions
from edgellm.tools.builtin.calculator import calculator
from edgellm.tools.call_watch import CallWatch
from edgellm.tools.consent import Consent, Permission
from edgellm.tools.in_use import ToolsInUse
from edgellm.tools.tool import Risk, Tool, ToolResult
from edgellm.tools.toolbox import Toolbox

HERMES = """{%- if tools %}<tools>{% for tool in tools %}{{ tool | tojson }}{% endfor %}</tools>{% endif -%}
{%- for m in messages %}<{{ m.role }}>{{ m.content }}{% if m.tool_calls %}{% for call in m.tool_calls %}
<tool_call>
{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}}
</tool_call>{% endfor %}{% endif %}</{{ m.role }}>{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"""
LLAMA = """{%- if tools %}{% for tool in tools %}{{ tool | tojson }}{% endfor %}{% endif -%}
{%- for m in messages %}<{{ m.role }}>{% if m.tool_calls %}{% set call = m.tool_calls[0].function -%}
{"name": "{{ call.name }}", "parameters": {{ call.arguments | tojson }}}{% else %}{{ m.content }}{% endif -%}
</{{ m.role }}>{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"""
MISTRAL = """{%- if tools %}[AVAILABLE_TOOLS]{{ tools | tojson }}[/AVAILABLE_TOOLS]{% endif -%}
{%- for m in messages %}{% if m.role == 'user' %}[INST]{{ m.content }}[/INST]{% elif m.tool_calls -%}
[TOOL_CALLS][{% for call in m.tool_calls %}{% if call.id | length != 9 %}{{ raise_exception('id') }}{% endif -%}
{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}, "id": "{{ call.id }}"}
{%- endfor %}]{% else %}{{ m.content }}{% endif %}{% endfor %}"""
XML = """{% for tool in tools %}{{ tool.function.name }}{% endfor %}{% for m in messages %}<{{ m.role }}>{{ m.content }}
{%- for call in m.tool_calls %}<function={{ call.function.name }}></function>{% endfor %}{% endfor %}<assistant>"""
PLAIN = "{% for m in messages %}<{{ m.role }}>{{ m.content }}</{{ m.role }}>{% endfor %}<assistant>"


@pytest.mark.parametrize(
    ("template", "form"),
    [
        (HERMES, CallForm("<tool_call>\n")), (LLAMA, CallForm("", "name", "parameters")),
        (MISTRAL, CallForm("[TOOL_CALLS][")), (XML, None), (PLAIN, None), ("{{ raise_exception('no') }}", None),
    ],
)  # fmt: skip
def test_the_form_of_a_call_is_read_off_the_template(template: str, form: CallForm | None) -> None:
    assert call_form(ChatTemplate(template)) == form


@pytest.mark.parametrize(
    ("pieces", "shown", "found"),
    [
        (["Let me see.\n", "<tool", "_call>", "\n{"], "Let me see.\n", True),
        (["a < b and <tool", "s"], "a < b and <tools", False),
        (['{"na', 'me": "calc', 'ulator", '], "", True),
        (["```json\n{\n  ", '"name": "x", ', '"arguments": {'], "", True),
        (['{"name": "Bob", ', '"age": 3}'], '{"name": "Bob", "age": 3}', False),
        (["Text first ", '{"name": "calculator"'], 'Text first {"name": "calculator"', False),
        (["`code`"], "`code`", False),
    ],
)
def test_where_a_call_begins(pieces: list[str], shown: str, found: bool) -> None:
    watch = CallWatch(CallForm("<tool_call>\n"), ["calculator"])
    said = "".join(watch.feed(piece) for piece in pieces)
    assert watch.found is found
    assert said + ("" if found else watch.held) == shown


def model(*answers: str, template: str = HERMES, n_ctx: int = 4000) -> LoadedModel:
    fake = FakeModel(list(answers), chat_template=template)
    return LoadedModel("fake", fake, RunPlan(n_ctx=n_ctx, n_batch=16), options=LoadOptions())


def chat(*answers: str, tools: list[Tool] | None = None, template: str = HERMES, **how: Any) -> Chat:
    box = Toolbox([calculator()] if tools is None else tools, how.pop("consent", None) or Consent(everything=True))
    return Chat(model(*answers, template=template), how.pop("options", None), tools=ToolsInUse(box), **how)


CALL = '{"name": "calculator", "arguments": {"expression": "17 * 23"}}'


def test_a_model_that_knows_tools_calls_and_answers() -> None:
    talk = chat(f"I compute.\n<tool_call>\n{CALL}", CALL, "It is 391.")
    stream = talk.stream("What is 17 * 23?")
    events = list(stream.events())
    (call,) = [each for each in events if isinstance(each, Call)]
    (returned,) = [each for each in events if isinstance(each, Returned)]
    assert call.arguments == '{"expression": "17 * 23"}' and returned.text == "17 * 23 = 391"
    assert stream.answer.text == "I compute.\n\n\nIt is 391." and stream.answer.calls == (returned,)
    assert talk.messages[-1]["content"] == "I compute.\n\n\nIt is 391."
    assert [each.line for each in talk.calls] == ["calculator(expression=17 * 23)"]
    assert "tool_call" not in stream.answer.text


def test_an_answer_without_a_call_costs_nothing_more() -> None:
    talk = chat("Hello!")
    assert talk.ask("Hi").text == "Hello!" and talk.calls == []


def test_a_bare_call_counts_and_an_answer_in_json_does_not() -> None:
    assert chat(f"```json\n{CALL}", CALL, "391").ask("17 * 23?").text == "391"
    assert chat('{"name": "Bob"}').ask("Who?").text == '{"name": "Bob"}'


def test_for_a_model_that_knows_no_tools_edgellm_chooses() -> None:
    talk = chat('{"expression": "17 * 23"}', "17 * 23 = 391", template=PLAIN)
    assert talk.ask("What is 17 * 23?").text == "17 * 23 = 391"
    assert [each.text for each in talk.calls] == ["17 * 23 = 391"]
    assert chat("Hello!", template=PLAIN).ask("Hi there").text == "Hello!"


def test_a_wrong_call_is_tried_again_and_then_answered_without() -> None:
    talk = chat('{"expression": "17 *"}', '{"expression": "17 * 23"}', "391", template=PLAIN)
    assert talk.ask("What is 17 * 23?").text == "391"
    assert [each.error for each in talk.calls] == [True, False]
    talk = chat('{"expression": "17 *"}', '{"expression": "17 *"}', "I do not know.", template=PLAIN)
    assert talk.ask("What is 17 * 23?").text == "I do not know."


def test_a_call_that_is_cut_off_is_an_error_for_the_model() -> None:
    talk = chat("<tool_call>", '{"name": "calcul', "No idea.")
    assert talk.ask("17 * 23?").text == "No idea." and talk.calls[0].error


def test_a_model_that_only_calls_must_answer_at_last() -> None:
    talk = chat("<tool_call>", CALL, "<tool_call>", CALL, "It is 391.")
    assert talk.ask("What is 17 * 23?").text == "It is 391."
    assert [each.error for each in talk.calls] == [False, True]


def test_limits_hold_for_the_whole() -> None:
    talk = chat("<tool_call>", CALL, "391 and more", options=AnswerOptions(limits=Limits(max_tokens=20)))
    answer = talk.ask("What is 17 * 23?")
    assert answer.finish_reason == "length" and answer.stats.completion_tokens <= 21


def test_a_refusal_goes_back_in_one_sentence() -> None:
    def act(_: Mapping[str, Any]) -> ToolResult:
        raise AssertionError("it ran")

    tool = Tool("act", "Acts.", {"type": "object"}, Risk.ACTS, act)
    consent = Consent(ask=lambda *_: Permission.NO)
    talk = chat("<tool_call>", '{"name": "act", "arguments": {}}', "Then not.", tools=[tool], consent=consent)
    assert (
        talk.ask("Do it").text == "Then not."
        and talk.calls[0].text == "The user does not allow act. Answer without it."
    )


def test_calls_are_saved_exported_and_found(tmp_path: Path) -> None:
    with ChatStore.open(tmp_path / "chats.sqlite3") as store:
        talk = chat("<tool_call>", CALL, "It is that.", store=store)
        talk.ask("What is it?")
        assert talk.id is not None
        (saved,) = [each for each in store.messages(talk.id) if each.role == "assistant"]
        assert saved.calls == talk.calls and saved.calls[0].arguments == {"expression": "17 * 23"}
        assert [found.role for found in store.search("391")] == ["assistant"]  # only the call says so
        assert store.search("391 nowhere") == []
        text = markdown("fake", talk._record.whole)
        assert "> `calculator(expression=17 * 23)`: 17 * 23 = 391\n" in text
        again = Chat(model("Fine."), store=store, saved=store.get(talk.id))
        assert again.messages == talk.messages and again._record.entries[-1].calls == talk.calls


def test_chats_of_the_format_before_are_brought_up(tmp_path: Path) -> None:
    import sqlite3

    path = tmp_path / "chats.sqlite3"
    with ChatStore.open(path) as store:
        old = store.create("fake", None)
        store.add(old, "user", "Hello there")
    db = sqlite3.connect(path)
    db.execute("ALTER TABLE messages DROP COLUMN calls")
    db.execute("PRAGMA user_version = 4")
    db.commit()
    db.close()
    with ChatStore.open(path) as store:
        assert [each.calls for each in store.messages(old)] == [[]] and store.search("there")


def test_an_answer_with_a_form_may_call_before() -> None:
    from edgellm.run.structure import from_schema

    form = AnswerOptions(structure=from_schema('{"type": "object"}'))
    talk = chat("<tool_call>", CALL, "not yet", '{"value": 391}', options=form)
    assert talk.ask("What is 17 * 23?").text == '{"value": 391}' and len(talk.calls) == 1
