"""Prompts and answers of one model: what the template sees, what is reused, and who may compute."""

import threading
from collections.abc import Callable

import pytest

from edgellm.engine.fake import FakeModel
from edgellm.engine.sampling import Sampling
from edgellm.errors import PromptTooLong, UnsupportedModel, UsageError
from edgellm.models.fit.memory import RunPlan
from edgellm.run.chat_template import ChatTemplate
from edgellm.run.events import Text
from edgellm.run.generation import Limits
from edgellm.run.loader import LoadedModel
from edgellm.run.message import Message
from edgellm.run.session import Session, Turn
from edgellm.run.telemetry import Meter

GREEDY = Sampling(temperature=0)


def opened(model: FakeModel, n_ctx: int = 500) -> LoadedModel:
    return LoadedModel("fake", model, RunPlan(n_ctx=n_ctx, n_batch=16))


def user(text: str) -> list[Message]:
    return [Message(role="user", content=text)]


def answer(session: Session, messages: list[Message], limits: Limits | None = None) -> Turn:
    turn = session.turn(messages)
    list(session.answer(turn, GREEDY, limits or Limits()))
    return turn


def test_the_second_turn_computes_only_what_is_new() -> None:
    session = Session(opened(FakeModel(["Hello!", "Fine."])))
    first = answer(session, user("Hi"))
    before = len(session.model.context.tokens)
    turn = session.turn([*user("Hi"), Message(role="assistant", content=first.text), *user("How are you?")])
    meter = Meter(n_ctx=500)
    list(meter.watch(session.answer(turn, GREEDY, Limits())))
    assert meter.prefill.reused == before and turn.text == "Fine." and turn.reason == "stop"


def test_two_sessions_share_the_context_of_a_model() -> None:
    model = opened(FakeModel(["one", "two"]))
    first, second = Session(model), Session(model)
    assert answer(first, user("Hi")).text == "one" and answer(second, user("Ho")).text == "two"
    assert len(model.context.tokens) == len(second.turn(user("Ho")).prompt) + len("two")


def test_a_turn_that_never_began_is_not_remembered() -> None:
    session = Session(opened(FakeModel(["Hello!"]), n_ctx=90))
    kept = answer(session, user("Hi"))
    with pytest.raises(PromptTooLong):
        answer(session, user("x" * 100))
    answer(session, user("y"), Limits(interrupted=lambda: True))
    assert session.last is kept


def test_a_model_without_a_template_can_complete_but_not_chat() -> None:
    session = Session(opened(FakeModel(["there was"], chat_template="")))
    with pytest.raises(UnsupportedModel, match="not a chat model"):
        session.turn(user("Hi"))
    events = session.complete("Once upon a time", GREEDY, Limits())
    assert "".join(event.text for event in events if isinstance(event, Text)) == "there was"
    assert session.last is None


def test_one_thread_cannot_begin_a_second_answer_and_another_one_waits() -> None:
    model = opened(FakeModel(["one", "two"]))
    stream = Session(model).complete("a", GREEDY, Limits())
    next(stream)
    with pytest.raises(UsageError, match="in the middle of another answer"):
        next(Session(model).complete("b", GREEDY, Limits()))
    texts: list[str] = []
    other = threading.Thread(
        target=lambda: texts.extend(
            e.text for e in Session(model).complete("c", GREEDY, Limits()) if isinstance(e, Text)
        )
    )
    other.start()
    other.join(0.1)
    assert other.is_alive() and texts == []
    stream.close()
    other.join(10)
    assert "".join(texts) in ("one", "two")


@pytest.mark.parametrize(
    "begin", [lambda model: model.context, lambda model: model.embedder, lambda model: model.guard()]
)
def test_a_closed_model_says_so_whatever_it_is_used_for(begin: Callable[[LoadedModel], object]) -> None:
    model = opened(FakeModel())
    model.close()
    model.close()
    with pytest.raises(UsageError, match="the model fake is closed"):
        begin(model)


def test_a_model_that_is_closed_in_the_middle_of_an_answer() -> None:
    model = opened(FakeModel(["Hello!"]))
    events = Session(model).complete("a", GREEDY, Limits())
    while not isinstance(next(events), Text):
        pass
    model.close()
    with pytest.raises(UsageError, match="is closed"):
        next(events)


def test_what_is_held_goes_with_the_model() -> None:
    class Held:
        closed = 0

        def close(self) -> None:
            self.closed += 1

    model, first, second = opened(FakeModel()), Held(), Held()
    with model.holding(first):
        assert first.closed == 0
    with model.holding(second):
        model.close()
        assert second.closed == 1
    assert (first.closed, second.closed) == (1, 1)


def test_templates_render_with_special_tokens_and_helpers() -> None:
    template = ChatTemplate(
        "{{ bos_token }}{% for m in messages %}[{{ m.role }}]{{ m.content | tojson }}{% endfor %}"
        "{% if add_generation_prompt %}[assistant]{% endif %}{{ eos_token }}",
        bos="<s>",
        eos="</s>",
    )
    assert template.render(user("é<")) == '<s>[user]"é<"[assistant]</s>'


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
        ChatTemplate(source).render(user("x"))


def test_a_template_that_does_not_parse() -> None:
    with pytest.raises(UnsupportedModel, match="broken"):
        ChatTemplate("{% for %}")
