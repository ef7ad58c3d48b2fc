"""Chats that ask documents, on a scripted engine: what the model sees, what is kept, and what is checked."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from edgellm.chats.chat import Chat
from edgellm.chats.store import ChatStore
from edgellm.documents.answers.options import MOST_ANSWER
from edgellm.documents.answers.prompt import NOT_FOUND
from edgellm.engine.fake import FakeModel
from edgellm.errors import PromptTooLong, UsageError
from edgellm.models.fit.memory import RunPlan
from edgellm.run.answer_options import AnswerOptions
from edgellm.run.generation import Limits
from edgellm.run.loader import LoadedModel
from edgellm.run.structure import Structure
from tests.documents.small import SmallSource

ANSWER = "The warranty of the QF-210 is 24 months."
OTHER = "The warranty of the QF-240 is 36 months."


@pytest.fixture
def office(tmp_path: Path) -> Iterator[SmallSource]:
    source = SmallSource(tmp_path / "office.sqlite3")
    yield source
    source.collection.close()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ChatStore]:
    with ChatStore.open(tmp_path / "chats.sqlite3") as store:
        yield store


class Seeing(FakeModel):
    """Remembers the prompts that it answered."""

    def __init__(self, answers: list[str]) -> None:
        super().__init__(answers)
        self.prompts: list[str] = []

    def tokenize(self, text: str, *, special: bool = False, bos: bool = True) -> list[int]:
        if special and text.endswith("<assistant>"):
            self.prompts.append(text)
        return super().tokenize(text, special=special, bos=bos)


def model(*answers: str, n_ctx: int = 4000) -> LoadedModel:
    return LoadedModel("fake", Seeing(list(answers)), RunPlan(n_ctx=n_ctx, n_batch=64))


def last_prompt(chat: Chat) -> str:
    """What the model saw last."""
    seen = chat.model.weights
    assert isinstance(seen, Seeing)
    return seen.prompts[-1]


def test_an_answer_is_cited_and_the_chat_stays_plain(office: SmallSource, store: ChatStore, tmp_path: Path) -> None:
    chat = Chat(model(ANSWER), store=store, documents=office)
    question = "How long is the warranty of the QF-210?"
    assert chat.ask(question).text == ANSWER
    assert "Sources:" in last_prompt(chat) and "24 months" in last_prompt(chat)
    assert [each["content"] for each in chat.messages] == [question, ANSWER]
    assert chat.found is not None and chat.found.citations[0].quote == ANSWER and chat.found.stats is not None
    (_, saved) = store.messages(chat.id or "")
    assert saved.citations == chat.found.citations and saved.citations[0].lines == (1, 1)
    for name, expected in (("chat.md", f"- [1] warranty.md, line 1: “{ANSWER}”"), ("chat.json", '"quote": "The warr')):
        chat.save(tmp_path / name)
        assert expected in (tmp_path / name).read_text()
    chat.restart()
    chat.load_file(tmp_path / "chat.json")
    assert [each["content"] for each in chat.messages] == [question, ANSWER]


def test_a_private_chat_writes_its_citations_too(office: SmallSource, tmp_path: Path) -> None:
    chat = Chat(model(ANSWER), documents=office)
    chat.ask("How long is the warranty of the QF-210?")
    chat.save(tmp_path / "chat.md")
    assert "- [1] warranty.md, line 1:" in (tmp_path / "chat.md").read_text()


def test_a_follow_up_is_searched_as_a_whole_question(office: SmallSource) -> None:
    chat = Chat(model(ANSWER, OTHER), documents=office)
    chat.ask("How long is the warranty of the QF-210?")
    assert chat.ask("And for the QF-240?").text == OTHER
    assert office.asked[-1] == "How long is the warranty of the QF-240?"
    assert chat.messages[2]["content"] == "And for the QF-240?"
    assert f"<assistant>{ANSWER}</assistant>" in last_prompt(chat)  # earlier turns are there, without their sources
    assert last_prompt(chat).count("Sources:") == 1


def test_what_the_documents_do_not_say_is_refused(office: SmallSource, store: ChatStore) -> None:
    chat = Chat(model("It weighs 3 kg."), store=store, documents=office)
    assert chat.ask("How long is the warranty of the QF-210?").text == ANSWER  # quoted instead
    assert chat.found is not None and chat.found.basis == "quotation" and chat.found.draft == "It weighs 3 kg."
    assert chat.messages[-1]["content"] == ANSWER and store.messages(chat.id or "")[-1].citations
    answer = chat.ask("Does the Toronto office repair it?")  # no model is needed
    assert (answer.text, answer.finish_reason) == (NOT_FOUND, "stop")
    assert chat.found is not None and "Toronto" in chat.found.reason and chat.found.nearest
    assert [each.content for each in store.messages(chat.id or "")].count(NOT_FOUND) == 1


def test_greetings_go_to_the_model_alone(office: SmallSource) -> None:
    chat = Chat(model("You are welcome."), documents=office)
    for text in ("Thanks!", "hello there", "你好"):
        assert chat.ask(text).text == "You are welcome." and chat.found is None
    assert office.asked == [] and "Sources:" not in last_prompt(chat)
    chat.ask("ok, and what does the QF-210 cost?")
    assert len(office.asked) == 1


def test_documents_can_be_turned_off_and_on(office: SmallSource) -> None:
    chat = Chat(model("Paris."), AnswerOptions({"top_k": 3}))
    assert chat.ask("Where is the Louvre?").text == "Paris." and chat.sampling.temperature > 0
    chat.use_documents(office)
    assert (chat.sampling.temperature, chat.sampling.top_k) == (0, 3)
    assert "warranty" in chat.ask("Where is the warranty?").text
    chat.set(temperature=0.5)
    assert chat.sampling.temperature == 0.5
    chat.use_documents(None)
    assert chat.ask("Where is the Louvre?").text == "Paris." and chat.found is None


def test_a_saved_chat_remembers_its_documents(office: SmallSource, store: ChatStore) -> None:
    chat = Chat(model(ANSWER), store=store, documents=office)
    chat.ask("How long is the warranty of the QF-210?")
    assert chat.id is not None and store.get(chat.id).docs == office.name
    again = Chat(model(ANSWER), store=store, saved=store.get(chat.id))
    assert again.docs == office.name and again.documents is None
    again.use_documents(None)
    assert store.get(chat.id).docs is None
    again.use_documents(office)
    other = Chat(model(ANSWER), store=store)
    other.load(chat.id)
    assert other.docs == office.name
    other.restart()
    assert other.docs is None and store.get(chat.id).docs == office.name


def test_again_and_edit_ask_the_documents_again(office: SmallSource, store: ChatStore) -> None:
    chat = Chat(model("It weighs 3 kg.", ANSWER, OTHER), store=store, documents=office)
    chat.ask("How long is the warranty of the QF-210?")
    assert chat.again().answer.text == ANSWER and chat.messages[-1]["content"] == ANSWER
    assert store.messages(chat.id or "")[-1].citations
    assert chat.edit("How long is the warranty of the QF-240?").answer.text == OTHER
    assert chat.found is not None and chat.found.citations[0].file == "service.md" and len(chat.messages) == 2


def test_an_answer_that_is_stopped_is_kept_unchecked(office: SmallSource) -> None:
    chat = Chat(model(ANSWER), documents=office)
    pieces = iter(chat.stream("How long is the warranty of the QF-210?"))
    assert next(pieces) == "T"
    del pieces
    assert chat.messages[-1]["content"] == "T" and chat.found is None


def test_old_turns_make_room_for_sources(office: SmallSource) -> None:
    chat = Chat(model(" ".join(map(str, range(500))), ANSWER, n_ctx=2200), documents=None)
    for text in ("Write a poem.", "How long is the warranty of the QF-210?"):
        chat.ask(text)
        chat.use_documents(office)
    assert chat.consultation is not None and chat.consultation.n_forgotten == 2
    assert "101 102" not in last_prompt(chat) and "24 months" in last_prompt(chat)
    assert chat.found is not None and not chat.found.refused


def test_a_question_without_room_for_a_passage_is_too_long(office: SmallSource) -> None:
    chat = Chat(model(ANSWER, n_ctx=900), documents=office)
    with pytest.raises(PromptTooLong, match="no room for a passage"):
        chat.ask("warranty " * 50)
    assert chat.messages == []


def test_answers_are_short_unless_more_is_asked_for(office: SmallSource) -> None:
    long = f"{ANSWER} " * 3 + "And so on, and on. " * 20
    for most, reason in ((-1, MOST_ANSWER), (20, 20)):
        chat = Chat(model(long), AnswerOptions(limits=Limits(max_tokens=most, loop_guard=False)), documents=office)
        assert chat.ask("How long is the warranty of the QF-210?").stats.completion_tokens == reason


def test_a_form_and_documents_do_not_go_together(office: SmallSource) -> None:
    chat = Chat(model("{}"), AnswerOptions(structure=Structure("root ::= [^]*", "{}")))
    with pytest.raises(UsageError, match="plain text"):
        chat.use_documents(office)
    assert chat.documents is None


def test_the_system_message_holds_beside_the_rules(office: SmallSource) -> None:
    chat = Chat(model(ANSWER), system="Be polite.", documents=office)
    chat.ask("How long is the warranty of the QF-210?")
    assert "<system>Be polite.\n\nYou answer questions from" in last_prompt(chat)
    assert chat.messages[0]["content"] == "Be polite."


def test_chats_of_an_older_edgellm_get_citations(tmp_path: Path) -> None:
    path = tmp_path / "old.sqlite3"
    with ChatStore.open(path) as store:
        chat = store.create("fake", None)
        store.add(chat, "user", "Hi")
        store._write("ALTER TABLE messages DROP COLUMN citations")
        store._write("ALTER TABLE messages DROP COLUMN calls")
        store._write("ALTER TABLE chats DROP COLUMN docs")
        store._write("PRAGMA user_version = 2")
    with ChatStore.open(path) as store:
        assert [each.citations for each in store.messages(chat)] == [[]]
        store._write("UPDATE messages SET citations = '[{\"number\": 1}]'")  # nothing that can be read
        assert store.messages(chat)[0].citations == []
