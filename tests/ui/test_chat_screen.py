"""What the chat's screen does with a line that was typed, on a scripted engine; `test_chat` has a real terminal."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from prompt_toolkit.completion import CompleteEvent
from prompt_toolkit.document import Document

from edgellm.chats.chat import Chat
from edgellm.chats.store import ChatStore
from edgellm.documents.answers.options import MOST_ANSWER
from edgellm.engine.fake import FakeModel
from edgellm.errors import AnswerMismatch, CollectionNotFound
from edgellm.models.fit.memory import RunPlan
from edgellm.run.answer_options import AnswerOptions
from edgellm.run.generation import Limits
from edgellm.run.loader import LoadedModel
from edgellm.run.structure import Structure
from edgellm.ui.chat_screen import COMMANDS, ChatScreen
from edgellm.ui.chat_settings import SETTINGS
from edgellm.ui.options import JsonOutput
from edgellm.ui.prompt import _completer
from tests.documents.small import SmallSource

LOOP = "Well. " + "It is so. " * 80


def screen(*answers: str, options: AnswerOptions | None = None, store: ChatStore | None = None) -> ChatScreen:
    model = LoadedModel("fake", FakeModel(answers or ["Hello!"]), RunPlan(n_ctx=2000, n_batch=16))
    return ChatScreen(Chat(model, options, store=store), switch=lambda _: None, quiet=True)


def typed(on: ChatScreen, line: str, capsys: pytest.CaptureFixture[str]) -> str:
    """What typing a line prints: the answer, then the notes."""
    on._take(line)
    captured = capsys.readouterr()
    return captured.out + captured.err


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("/set temp 0.5", "temp            0.5"),
        ("/set typical-p 0.9", "typical_p       0.9"),
        ("/set top_k 7", "top_k           7"),
        ("/set max_tokens 5", "max_tokens      5"),
        ("/set max-time 0.5", "max_time        0.5"),
        ("/set loop_guard off", "loop_guard      off"),
        ("/set on_loop retry", "on_loop         retry"),
        ("/set max_time", "max_time        none"),
        ("/set temp 9", "temp is a number from 0 to 5, not '9'"),
        ("/set temp nan", "temp is a number from 0 to 5, not 'nan'"),
        ("/set top_k 1.5", "top_k is a number from 0 to 2.14748e+09, not '1.5'"),
        ("/set loop_guard maybe", "loop_guard is on or off, not 'maybe'"),
        ("/set on_loop on", "on_loop is stop or retry, not 'on'"),
        ("/set tmp 1", "there is no setting 'tmp', did you mean temp?"),
        ("/hlp", "there is no /hlp, did you mean /help?"),
        ("/edit", "nothing has been asked yet"),
        ("/undo", "there is nothing to take back"),
        ("/undo 7x", "'7x' is no such number"),
        ("/load abc", "this chat is private"),
        ("/stats", "nothing has been answered yet"),
        ("/model", "fake  fake.gguf"),
        ("/system", "no system message"),
        ("/tmp/x is a path", "Hello!"),
        ("/?", "/help set: what /set can change"),
        ("/help set", "Keep the K likeliest tokens"),
        ("/help nosuch", "there is no /nosuch"),
        ("/show info", "fake  fake.gguf"),
        ("/set parameter temperature 0.5", "temp            0.5"),
        ("/set num_predict 5", "max_tokens      5"),
        ("/set system Be brief.", "a new chat begins with this system message"),
        ("/set stop \\n\\n", 'stop            "\\n\\n"'),
        ("/set stop none", "stop            none"),
        ("/set seed -1", "seed            "),
        ("/set ctx", "ctx             2000"),
        ("/set ctx x", "ctx is a number from 8 to"),
    ],
)
def test_a_line(line: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert said in typed(screen(), line, capsys)


def test_settings_reach_the_next_answer(capsys: pytest.CaptureFixture[str]) -> None:
    on = screen("abcdef")
    assert all(name in typed(on, "/set", capsys) for name in SETTINGS)
    typed(on, "/set max_tokens 3", capsys)
    assert typed(on, "Hi", capsys) == "abc\n[stopped after 3 tokens, as --max-tokens says]\n"


def test_a_file_goes_with_the_next_question_only(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    on, note = screen("one", "two"), tmp_path / "note.txt"
    note.write_text("bluebird")
    assert "8 tokens, which go with the next question" in typed(on, f"/file '{note}'", capsys)
    typed(on, "What is it?", capsys)
    typed(on, "And now?", capsys)
    questions = [message["content"] for message in on._chat.messages if message["role"] == "user"]
    assert questions == ["note.txt:\n```\nbluebird\n```\n\nWhat is it?", "And now?"]


def test_an_answer_after_a_loop_is_printed_once_it_is_whole(capsys: pytest.CaptureFixture[str]) -> None:
    on = screen(LOOP, "The end.", options=AnswerOptions(limits=Limits(retry=True)))
    printed = typed(on, "Why?", capsys)
    answer, _, notes = printed.partition("The end.\n")
    assert answer.startswith("Well. It is") and answer.count("It is so") <= 1 and "came" in notes
    assert "[going on from before the loop: " in notes
    stopped = typed(screen(LOOP), "Why?", capsys)
    assert "[stopped: " in stopped and "/regen goes on from before the loop" in stopped


def test_lines_from_a_pipe_as_text_and_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    screen("one", "two").answer_lines(["a", "b"], JsonOutput("chat"))
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("one\ntwo\n", "")
    with ChatStore.open(tmp_path / "chats.sqlite3") as store:
        on = screen("one", "two", store=store)
        last = on.answer_lines(["a", "b"], JsonOutput("chat", as_json=True))
        documents = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        assert [document["data"]["text"] for document in documents] == ["one", "two"] and last is not None
        assert documents[1]["data"]["chat"] == store.latest().id and documents[0]["command"] == "chat"


def test_an_answer_of_the_wrong_form_stays_and_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    structure = Structure("root ::= [^]*", '{"type": "object"}')
    on = screen("no json", options=AnswerOptions(structure=structure))
    with pytest.raises(AnswerMismatch):
        on._take("Hi")
    assert capsys.readouterr().out == "no json\n" and len(on._chat.messages) == 2


def test_undo_takes_back_as_many_as_it_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    on = screen("One.", "Two.", "Three.")
    for line in ("first", "second", "third"):
        typed(on, line, capsys)
    assert typed(on, "/undo 2", capsys) == "taken back: third\ntaken back: second\n"
    assert typed(on, "/undo 9", capsys) == "taken back: first\nthere is nothing to take back\n"


@pytest.fixture
def office(tmp_path: Path) -> Iterator[SmallSource]:
    source = SmallSource(tmp_path / "office.sqlite3")
    yield source
    source.close()


def with_documents(office: SmallSource, *answers: str) -> ChatScreen:
    """A screen that can turn the documents of an office on and off."""
    chat = Chat(LoadedModel("fake", FakeModel(answers), RunPlan(n_ctx=4000, n_batch=64)))

    def use(name: str | None) -> None:
        if name not in (None, "office"):
            raise CollectionNotFound(f"there are no documents named {name}")
        chat.use_documents(office if name else None)

    return ChatScreen(chat, switch=lambda _: None, use_documents=use, collections=lambda: ["office"], quiet=True)


def test_documents_are_turned_on_and_off_in_the_chat(office: SmallSource, capsys: pytest.CaptureFixture[str]) -> None:
    on = with_documents(office, "Hello!", "The warranty of the QF-210 is 24 months.", "Hello again!")
    question = "How long is the warranty of the QF-210?"
    assert typed(on, "/docs", capsys) == "/docs NAME answers from documents; there are office\n"
    assert typed(on, question, capsys) == "Hello!\n"
    with pytest.raises(CollectionNotFound):
        on._take("/docs ofice")
    assert "answers come from the collection office" in typed(on, "/docs office", capsys)
    assert on._status().startswith("docs office") or "docs office" in on._status()
    assert typed(on, question, capsys) == (
        "The warranty of the QF-210 is 24 months.\n\n[1] warranty.md, line 1\n"
        "    “The warranty of the QF-210 is 24 months.”\n"
    )
    on._introduce()
    assert "answers from the collection office" in capsys.readouterr().err
    assert typed(on, "/docs off", capsys) == "the model answers alone\n"
    assert typed(on, question, capsys) == "Hello again!\n" and "docs" not in on._status()
    assert "/docs NAME" in typed(on, "/help docs", capsys)


def test_what_documents_do_not_say_is_said_once(office: SmallSource, capsys: pytest.CaptureFixture[str]) -> None:
    on = with_documents(office, "It weighs 3 kg.")
    on._take("/docs office")
    capsys.readouterr()
    refused = typed(on, "Does the Toronto office sell the QF-210?", capsys)
    assert refused.startswith("Not found in these documents.  (Toronto: nowhere in these documents)\nnearest: ")
    doubtful = typed(on, "How long is the warranty of the QF-210?", capsys)
    assert doubtful.startswith("It weighs 3 kg.\n[not confirmed: ")


def test_a_brief_answer_says_how_to_get_a_longer_one(office: SmallSource, capsys: pytest.CaptureFixture[str]) -> None:
    on = with_documents(office, "The warranty of the QF-210 is 24 months. " + " ".join(map(str, range(300))))
    on._take("/docs office")
    assert f"[stopped after {MOST_ANSWER} tokens; /set max_tokens 400 lets it be longer]" in typed(
        on, "What warranty?", capsys
    )


def test_lines_from_a_pipe_have_citations(office: SmallSource, capsys: pytest.CaptureFixture[str]) -> None:
    on = with_documents(office, "The warranty of the QF-210 is 24 months.")
    on._take("/docs office")
    capsys.readouterr()
    on.answer_lines(
        ["How long is the warranty of the QF-210?", "Who is Mr Pemberton?", "Thanks!"], JsonOutput("chat", True)
    )
    first, second, third = (json.loads(line)["data"] for line in capsys.readouterr().out.splitlines())
    assert first["docs"] == "office" and first["citations"][0]["file"] == "warranty.md" and not first["refused"]
    assert second["refused"] and second["text"] == "Not found in these documents." and second["citations"] == []
    assert third["docs"] is None and third["text"] == "The warranty of the QF-210 is 24 months."


def test_names_of_documents_are_completed(office: SmallSource) -> None:
    completer = _completer(COMMANDS, with_documents(office, "x")._names)

    def completed(text: str) -> list[str]:
        return [each.text for each in completer.get_completions(Document(text), CompleteEvent())]

    assert completed("/docs o") == ["office", "off"] and completed("/set tem") == ["temp"]
    assert completed("/do") == ["/docs"] and completed("/file ") != [] and completed("what") == []
