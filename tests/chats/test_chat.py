"""A chat on a scripted engine and a real store: whatever happens, what is saved is what the model sees."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from edgellm.chats.chat import Chat
from edgellm.chats.store import ChatStore
from edgellm.chats.summary import SUMMARISE
from edgellm.engine.fake import FakeModel
from edgellm.errors import AnswerMismatch, ChatNotFound, PromptTooLong, UnsupportedModel, UsageError
from edgellm.models.fit.memory import RunPlan
from edgellm.run.answer_options import AnswerOptions
from edgellm.run.generation import Limits
from edgellm.run.loader import LoadedModel, LoadOptions
from edgellm.run.structure import Structure


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ChatStore]:
    with ChatStore.open(tmp_path / "chats.sqlite3") as store:
        yield store


def model(*answers: str, n_ctx: int = 2000, name: str = "fake", **how: str) -> LoadedModel:
    options = LoadOptions(system=how.pop("system", None))
    return LoadedModel(name, FakeModel(answers or ["Hello!"], **how), RunPlan(n_ctx=n_ctx, n_batch=16), options=options)


def said(chat: Chat) -> list[str]:
    """What the model sees; checked against what a new process would find in the store."""
    contents = [message["content"] for message in chat.messages]
    if chat.store is not None and chat.id is not None:
        again = Chat(model(name=chat.model.name), store=chat.store, saved=chat.store.get(chat.id))
        assert again.messages == chat.messages
    return contents


@pytest.mark.parametrize("saved", [True, False])
def test_questions_and_answers_join_the_chat(store: ChatStore, saved: bool) -> None:
    chat = Chat(model("Hello!", "Fine."), store=store if saved else None, system="Be brief.")
    assert store.chats() == [] and chat.id is None  # nothing is saved before anything was asked
    assert chat.ask("Hi").text == "Hello!" and chat.ask("How are you?").finish_reason == "stop"
    assert said(chat) == ["Be brief.", "Hi", "Hello!", "How are you?", "Fine."]
    assert (chat.id is not None) is saved and len(store.chats()) == saved
    assert chat.stats is not None and chat.stats.reused_tokens > 0


def test_a_question_is_saved_before_it_is_answered(store: ChatStore) -> None:
    chat = Chat(model("abcdef"), store=store)
    pieces = iter(chat.stream("Hi"))
    next(pieces)
    assert chat.id is not None
    assert [message.content for message in store.messages(chat.id)] == ["Hi"]
    del pieces  # the stream is left
    assert said(chat) == ["Hi", "a"]
    assert store.messages(chat.id)[-1].finish_reason == "interrupted"


def test_an_answer_that_was_stopped_is_kept_and_one_that_never_began_is_not(store: ChatStore) -> None:
    chat = Chat(model("abcdef"), AnswerOptions(limits=Limits(max_tokens=3)), store=store)
    assert chat.ask("Hi").finish_reason == "length" and said(chat) == ["Hi", "abc"]
    assert chat.ask("Ho", interrupted=lambda: True).text == "" and said(chat) == ["Hi", "abc"]
    with pytest.raises(PromptTooLong):
        chat.ask("x" * 5000)
    assert said(chat) == ["Hi", "abc"]


def test_leaving_before_the_first_token_keeps_the_question_for_later(store: ChatStore) -> None:
    chat = Chat(model("one", "two"), store=store)
    events = chat.stream("Hi").events()
    next(events)  # the prompt is being read
    events.close()  # type: ignore[attr-defined]
    assert said(chat) == ["Hi"] and chat.is_unanswered
    assert chat.again().answer.text == "one" and said(chat) == ["Hi", "one"]
    events = chat.stream("And?").events()
    next(events)
    events.close()  # type: ignore[attr-defined]
    assert chat.ask("Then this.").text == "two"  # in the place of the question without an answer
    assert said(chat) == ["Hi", "one", "Then this.", "two"]


def test_a_failure_takes_the_question_back(store: ChatStore, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = model("one")
    chat = Chat(loaded, store=store)
    chat.ask("Hi")
    monkeypatch.setattr(loaded, "guard", lambda: (_ for _ in ()).throw(MemoryError()))
    with pytest.raises(MemoryError):
        chat.ask("Ho")
    assert said(chat) == ["Hi", "one"]


def test_again_replaces_the_answer_and_draws_with_the_next_seed(store: ChatStore) -> None:
    chat = Chat(model("one", "two", "three"), AnswerOptions({"seed": 5}), store=store)
    chat.ask("Hi")
    stream = chat.again()
    assert stream.sampling.seed == 6 and stream.answer.text == "two" and said(chat) == ["Hi", "two"]
    assert chat.again(interrupted=lambda: True).answer.text == "" and said(chat) == ["Hi", "two"]
    assert chat.again().sampling.seed == 8 and chat.sampling.seed == 5
    with pytest.raises(UsageError, match="no question"):
        Chat(model()).again()


def test_after_a_loop_the_answer_goes_on_from_before_it(store: ChatStore) -> None:
    chat = Chat(model("Well. " + "It is so. " * 80, "The end.", "Hm."), store=store)
    assert chat.ask("Why?").finish_reason == "repetition"
    kept = said(chat)[-1]
    assert kept.startswith("Well. It is") and len(kept) < 30
    assert chat.again().answer.text == "The end." and said(chat) == ["Why?", kept + "The end."]
    chat.ask("Hm?")
    assert len(said(chat)) == 4


def test_undo_and_edit(store: ChatStore) -> None:
    chat = Chat(model("one", "two", "three"), store=store, system="s")
    chat.ask("first")
    chat.ask("second")
    assert chat.edit("other").answer.text == "three" and said(chat) == ["s", "first", "one", "other", "three"]
    assert [message["content"] for message in chat.undo()] == ["other", "three"]
    assert [message["content"] for message in chat.undo()] == ["first", "one"]
    assert chat.undo() == [] and said(chat) == ["s"]


def test_an_edit_that_does_not_fit_changes_nothing(store: ChatStore) -> None:
    chat = Chat(model("One.", "Two.", n_ctx=60), store=store)
    chat.ask("First?")
    before = said(chat)
    with pytest.raises(PromptTooLong):
        chat.edit("x" * 500).answer  # noqa: B018
    assert said(chat) == before


def test_an_edit_replaces_a_question_without_an_answer_and_nothing_more(store: ChatStore) -> None:
    chat = Chat(model("One.", "Two.", "Three."), store=store)
    chat.ask("First?")
    pieces = iter(chat.stream("Second?", interrupted=lambda: False))
    next(pieces)
    del pieces
    chat.undo()
    store.add(chat.id or "", "user", "Second?")  # as a process that was killed leaves it
    resumed = Chat(model("Three."), store=store, saved=store.latest())
    assert resumed.is_unanswered
    assert resumed.edit("Third?").answer.text == "Three."
    assert said(resumed) == ["First?", "One.", "Third?", "Three."]


def test_a_summary_takes_the_place_of_what_it_covers(store: ChatStore) -> None:
    chat = Chat(model("one", "two", "A summary.", "three"), store=store, system="s")
    chat.ask("first")
    chat.ask("second")
    assert chat.compact().answer.text == "A summary."
    assert said(chat) == ["s", SUMMARISE, "A summary."]
    assert chat.ask("third").text == "three"
    assert chat.id is not None and len(store.messages(chat.id)) == 8  # what the summary covers is still there


def test_a_summary_covers_what_fits_and_the_rest_stays(store: ChatStore) -> None:
    chat = Chat(model("x" * 150, "y" * 150, "A summary.", n_ctx=750), store=store)
    chat.ask("first")
    chat.ask("second")
    assert chat.compact().answer.text == "A summary."
    assert said(chat) == [SUMMARISE, "A summary.", "second", "y" * 150]


def test_a_summary_that_is_stopped_or_impossible_changes_nothing(store: ChatStore) -> None:
    chat = Chat(model("one", "A long summary. " * 6), store=store)
    with pytest.raises(UsageError, match="nothing to summarise"):
        chat.compact()
    chat.ask("first")
    count = iter(range(1000))
    assert chat.compact(interrupted=lambda: next(count) > 60).answer.finish_reason == "interrupted"
    assert said(chat) == ["first", "one"]
    next(iter(chat.compact()))
    assert said(chat) == ["first", "one"]
    small = Chat(model("x" * 200, n_ctx=300), store=store)
    small.ask("first")
    with pytest.raises(PromptTooLong, match="too long to be summarised"):
        small.compact()
    assert len(said(small)) == 2


def test_the_form_holds_for_answers_and_not_for_summaries(store: ChatStore) -> None:
    structure = Structure("root ::= [^]*", '{"type": "object"}')
    chat = Chat(model('{"a": 1}', "no json", "A summary."), AnswerOptions(structure=structure), store=store)
    assert chat.ask("Hi").text == '{"a": 1}'
    with pytest.raises(AnswerMismatch):
        chat.ask("Ho")
    assert said(chat) == ["Hi", '{"a": 1}', "Ho", "no json"]
    stream = chat.compact()
    assert list(stream) and not stream.sampling.grammar


def test_restarting_and_another_system_message(store: ChatStore) -> None:
    chat = Chat(model(), store=store, system="one")
    chat.ask("Hi")
    first = chat.id
    chat.restart()
    assert said(chat) == ["one"] and chat.id is None and chat.stats is None
    chat.set_system("two")
    chat.ask("Ho")
    assert said(chat)[0] == "two" and chat.id != first and len(store.chats()) == 2


def test_loading_a_saved_chat_and_a_file(store: ChatStore, tmp_path: Path) -> None:
    chat = Chat(model("one", "two"), store=store, system="s")
    chat.ask("first")
    first = chat.id
    file = tmp_path / "chat.json"
    chat.save(file)
    chat.restart()
    chat.ask("second")
    assert first is not None
    chat.load(first[:5])
    assert chat.id == first and said(chat) == ["s", "first", "one"]
    chat.load_file(file)
    assert said(chat) == ["s", "first", "one"] and chat.id != first and len(store.chats()) == 3
    with pytest.raises(UsageError, match="exists already"):
        chat.save(file)
    with pytest.raises(ChatNotFound):
        chat.load("nosuch")
    with pytest.raises(UsageError, match="private"):
        Chat(model()).load(first)


def test_a_chat_that_was_removed_meanwhile(store: ChatStore) -> None:
    chat = Chat(model("one"), store=store)
    chat.ask("Hi")
    assert chat.id is not None
    store.remove([chat.id])
    with pytest.raises(ChatNotFound, match="removed meanwhile"):
        chat.ask("Ho")
    chat.restart()
    assert chat.ask("Ho").text == "one"


def test_another_model_brings_its_own_system_message_unless_one_was_chosen(store: ChatStore) -> None:
    chat = Chat(model("one"), store=store)
    chat.ask("Hi")
    chat.use(model("two", name="other"))
    assert chat.ask("Ho").text == "two" and said(chat) == ["Hi", "one", "Ho", "two"]
    assert chat.id is not None and store.get(chat.id).model == "other"
    chosen = Chat(model("one", system="mine"), store=store)
    chosen.use(model("two", name="other", system="theirs"))
    assert chosen.system == "mine"
    with pytest.raises(UnsupportedModel):
        chat.use(model(chat_template=""))
    assert chat.model.name == "other" and chat.ask("Still?").text == "two"


def test_a_resumed_chat_goes_on_with_another_model(store: ChatStore) -> None:
    chat = Chat(model("one"), store=store, system="s")
    chat.ask("Hi")
    assert chat.id is not None
    again = Chat(model("two", name="other"), store=store, saved=store.get(chat.id))
    assert again.ask("Ho").text == "two" and said(again) == ["s", "Hi", "one", "Ho", "two"]
    assert store.get(chat.id).model == "other"


def test_settings_hold_from_the_next_answer_on() -> None:
    chat = Chat(model("abcdef"))
    seed = chat.sampling.seed
    chat.set(temperature=0.5, top_k=3)
    chat.limit(Limits(max_tokens=2))
    assert (chat.sampling.temperature, chat.sampling.top_k, chat.sampling.seed) == (0.5, 3, seed)
    assert chat.ask("Hi").text == "ab"
    with pytest.raises(UsageError, match="temperature is a number from 0 to 5"):
        chat.set(temperature=9)


def test_a_closed_model_and_a_chat_on_it(store: ChatStore) -> None:
    loaded = model()
    chat = Chat(loaded, store=store)
    loaded.close()
    with pytest.raises(UsageError, match="is closed"):
        chat.ask("Hi")
    assert said(chat) == []
