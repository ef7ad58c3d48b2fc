"""Conversations: what the template sees, what is kept after each kind of end, what is reused."""

import pytest

from edgellm.engine.base import Sampling
from edgellm.engine.fake import FakeModel
from edgellm.errors import PromptTooLong, UnsupportedModel, UsageError
from edgellm.models.memory import RunPlan
from edgellm.run.chat_template import ChatTemplate
from edgellm.run.generation import Limits, Text
from edgellm.run.session import SUMMARISE, Session
from edgellm.run.telemetry import Meter

GREEDY = Sampling(temperature=0)


def opened(model: FakeModel, n_ctx: int = 500, system: str | None = None) -> Session:
    return Session(model, RunPlan(n_ctx=n_ctx, n_batch=16), n_threads=1, system=system)


def ask(session: Session, text: str, limits: Limits | None = None) -> str:
    events = session.ask(text, GREEDY, limits or Limits())
    return "".join(event.text for event in events if isinstance(event, Text))


def test_question_and_answer_join_the_conversation() -> None:
    session = opened(FakeModel(["Hello!", "Fine."]), system="Be brief.")
    assert ask(session, "Hi") == "Hello!" and ask(session, "How are you?") == "Fine."
    assert [message["role"] for message in session.messages] == ["system", "user", "assistant", "user", "assistant"]
    assert session.messages[-1]["content"] == "Fine."


def test_the_second_turn_computes_only_what_is_new() -> None:
    session = opened(FakeModel(["Hello!", "Fine."]))
    ask(session, "Hi")
    before = len(session.context.tokens)
    meter = Meter(n_ctx=500)
    list(meter.watch(session.ask("How are you?", GREEDY, Limits())))
    assert meter.prefill.reused == before


def test_an_answer_that_was_stopped_is_kept_as_far_as_it_came() -> None:
    session = opened(FakeModel(["abcdef"]))
    assert ask(session, "Hi", Limits(max_tokens=3)) == "abc"
    assert session.messages[-1]["content"] == "abc"


def test_a_turn_that_never_began_leaves_the_conversation_as_it_was() -> None:
    session = opened(FakeModel(["Hello!"]), n_ctx=90)
    ask(session, "Hi")
    kept = list(session.messages)
    with pytest.raises(PromptTooLong):
        ask(session, "x" * 100)
    assert session.messages == kept
    ask(session, "y", Limits(interrupted=lambda: True))
    assert session.messages == kept


def test_restarting_keeps_or_replaces_the_system_message() -> None:
    session = opened(FakeModel(), system="one")
    ask(session, "Hi")
    session.restart()
    assert session.messages == [{"role": "system", "content": "one"}]
    session.restart(system="two")
    assert session.messages == [{"role": "system", "content": "two"}]


def test_a_model_without_a_template_can_complete_but_not_chat() -> None:
    session = opened(FakeModel(["there was"], chat_template=""))
    with pytest.raises(UnsupportedModel, match="not a chat model"):
        ask(session, "Hi")
    events = session.complete("Once upon a time", GREEDY, Limits())
    assert "".join(event.text for event in events if isinstance(event, Text)) == "there was"
    assert session.messages == []


def test_templates_render_with_special_tokens_and_helpers() -> None:
    template = ChatTemplate(
        "{{ bos_token }}{% for m in messages %}[{{ m.role }}]{{ m.content | tojson }}{% endfor %}"
        "{% if add_generation_prompt %}[assistant]{% endif %}{{ eos_token }}",
        bos="<s>",
        eos="</s>",
    )
    assert template.render([{"role": "user", "content": "é<"}]) == '<s>[user]"é<"[assistant]</s>'


@pytest.mark.parametrize(
    "source",
    [
        "{{ raise_exception('only users may speak') }}",
        "{{ messages[7].content }}",
        "{{ 1 / 0 }}",
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{% for i in range(10 ** 12) %}{% endfor %}",
        "{{ messages.append(1) }}",
    ],
)
def test_a_template_that_fails_or_is_hostile_is_one_error(source: str) -> None:
    with pytest.raises(UsageError, match="refuses this conversation"):
        ChatTemplate(source).render([{"role": "user", "content": "x"}])


def test_a_template_that_does_not_parse() -> None:
    with pytest.raises(UnsupportedModel, match="broken"):
        ChatTemplate("{% for %}")


def test_an_answer_is_given_again_and_replaces_the_old_one() -> None:
    session = opened(FakeModel(["one", "two", "three"]))
    ask(session, "Hi")
    list(session.again(GREEDY, Limits()))
    assert [message["content"] for message in session.messages] == ["Hi", "two"]
    list(session.again(GREEDY, Limits(interrupted=lambda: True)))
    assert session.messages[-1]["content"] == "two"
    with pytest.raises(UsageError):
        list(opened(FakeModel()).again(GREEDY, Limits()))


def test_after_a_loop_the_answer_goes_on_from_before_it() -> None:
    session = opened(FakeModel(["Well. " + "It is so. " * 80, "The end."]), n_ctx=2000)
    ask(session, "Why?")
    kept = session.messages[-1]["content"]
    assert kept.startswith("Well. It is") and len(kept) < 30
    list(session.again(GREEDY, Limits()))
    assert session.messages[-1]["content"] == kept + "The end." and len(session.messages) == 2
    ask(session, "Hm?")
    assert len(session.messages) == 4


def test_undoing_takes_question_and_answer() -> None:
    session = opened(FakeModel(["one", "two"]), system="s")
    ask(session, "first")
    ask(session, "second")
    assert [message["content"] for message in session.undo()] == ["second", "two"]
    assert [message["content"] for message in session.undo()] == ["first", "one"]
    assert session.undo() == [] and session.system == "s"


def test_a_summary_takes_the_place_of_what_it_covers() -> None:
    session = opened(FakeModel(["one", "two", "A summary.", "three"]), n_ctx=2000, system="s")
    ask(session, "first")
    ask(session, "second")
    list(session.compact(GREEDY, Limits()))
    assert [message["content"] for message in session.messages] == ["s", SUMMARISE, "A summary."]
    assert ask(session, "third") == "three"


def test_a_summary_covers_what_fits_and_the_rest_stays() -> None:
    session = opened(FakeModel(["x" * 150, "y" * 150, "A summary."]), n_ctx=750)
    ask(session, "first")
    ask(session, "second")
    list(session.compact(GREEDY, Limits()))
    assert [message["content"][:10] for message in session.messages] == [
        SUMMARISE[:10],
        "A summary.",
        "second",
        "y" * 10,
    ]


def test_a_summary_that_is_stopped_or_impossible_changes_nothing() -> None:
    session = opened(FakeModel(["one", "A long summary. " * 6]), n_ctx=2000)
    with pytest.raises(UsageError, match="nothing to summarise"):
        list(session.compact(GREEDY, Limits()))
    ask(session, "first")
    kept = list(session.messages)
    count = iter(range(1000))
    list(session.compact(GREEDY, Limits(interrupted=lambda: next(count) > 60)))
    assert session.messages == kept
    small = opened(FakeModel(["x" * 200]), n_ctx=300)
    ask(small, "first")
    with pytest.raises(PromptTooLong, match="too long to be summarised"):
        list(small.compact(GREEDY, Limits()))
    assert len(small.messages) == 2
