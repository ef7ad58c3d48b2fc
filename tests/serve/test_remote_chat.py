"""A chat with the model of a server: what a chat does here it does there, and where it cannot it goes on here."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edgellm.api import OpenModel
from edgellm.chats.chat import Chat
from edgellm.chats.model import ChatModel
from edgellm.chats.store import ChatStore
from edgellm.engine.builds.installed import InstalledEngine
from edgellm.engine.fake import FakeModel
from edgellm.engine.llama import LlamaEngine
from edgellm.errors import ContextFixed, EdgellmError, ModelNotFound, NetworkError, PromptTooLong, UsageError
from edgellm.models.fit.memory import RunPlan
from edgellm.models.recipe import Recipe, find_recipe
from edgellm.run.answer_options import AnswerOptions
from edgellm.run.events import Looped, Text
from edgellm.run.generation import Limits
from edgellm.run.loader import LoadedModel, LoadOptions
from edgellm.run.message import Message
from edgellm.serve.remote.choice import named
from edgellm.serve.remote.connection import ServerAddress
from edgellm.serve.remote.model import RemoteModel
from edgellm.settings import resource_directory
from edgellm.tools.builtin.calculator import calculator
from edgellm.tools.consent import Consent
from edgellm.tools.in_use import ToolsInUse
from edgellm.tools.toolbox import Toolbox
from edgellm.ui.chat_models import ChatModels
from edgellm.ui.chat_screen import ChatScreen
from edgellm.workspace import workspace
from tests.commands.cli import data, edgellm
from tests.documents.small import SmallSource
from tests.serve.server import Server
from tests.serve.test_remote import CHAT, answering, loaded, reply

pytestmark = [pytest.mark.engine, pytest.mark.model]
STATUS = {"n_ctx": 512, "n_slots": 1, "n_threads": 2, "kv_type": "F16", "n_params": 135_000_000, "quant": "Q4_1"}
LOOPING = "Repeat the word 'no' forever: no no no no"
assert loaded  # the fixture


def recipe() -> Recipe:
    return find_recipe("smollm2", [resource_directory("recipes")])


@pytest.fixture(scope="module")
def remote(server: Server) -> RemoteModel:
    assert server.post("/v1/chat/completions", CHAT).status == 200
    found = named(ServerAddress.of(server.url, None), "smollm2")
    return RemoteModel("smollm2", found.address, found.status, recipe=recipe())


@pytest.fixture(scope="module")
def local(engine: InstalledEngine, smollm2: Path) -> Iterator[LoadedModel]:
    plan = RunPlan(n_ctx=2048, n_batch=512, n_threads=2)
    model = LoadedModel("smollm2", LlamaEngine(engine).load(smollm2), plan, recipe=recipe())
    yield model
    model.close()


def chat_of(model: ChatModel, most: int = 24, *, retry: bool = False) -> Chat:
    return Chat(model, AnswerOptions({"temperature": 0, "seed": 4}, Limits(most, retry=retry)))


def talked(model: ChatModel) -> list[Any]:
    """All that a chat can do, and what there was after each step."""
    chat, seen = chat_of(model), []

    def note() -> None:
        seen.append((list(chat.messages), chat.n_tokens, chat.stats and chat.stats.finish_reason))

    chat.ask("What is the capital of France?")
    note()
    chat.ask("And of Italy?")
    note()
    assert chat.edit("And of Spain?").answer.text
    note()
    chat.set(temperature=0.8)
    assert chat.again().answer.text
    note()
    chat.undo()
    note()
    chat.set(temperature=0)
    chat.limit(Limits(40, stop=(".",)))
    chat.ask("Write one sentence about the sea.")
    note()
    assert chat.can_compact and chat.compact().answer.text
    note()
    return seen


def test_a_chat_with_a_server_is_the_chat_with_a_model_here(remote: RemoteModel, local: LoadedModel) -> None:
    there, here = talked(remote), talked(local)
    for step, (one, other) in enumerate(zip(there, here, strict=True)):
        assert one == other, step
    assert remote.about == local.about and remote.threads == local.threads
    assert remote.count("One 🌍 and 你好.") == local.open_session().count("One 🌍 and 你好.")


@pytest.mark.parametrize("retry", [False, True])
def test_a_loop_ends_and_is_gone_on_from_as_here(remote: RemoteModel, local: LoadedModel, retry: bool) -> None:
    found = []
    for model in (remote, local):
        chat = chat_of(model, 220, retry=retry)
        stream = chat.stream(LOOPING)
        looped = [event for event in stream.events() if isinstance(event, Looped)]
        assert [event.retrying for event in looped] == [retry]
        stats = stream.answer.stats
        assert stats.dropped_tokens > 50 and stats.context_used == stats.prompt_tokens + (
            stats.completion_tokens - stats.dropped_tokens
        )
        found.append((stream.text, chat.messages[-1]["content"], stats.finish_reason, stats.context_used))
        if not retry:  # /regen goes on from before the loop
            found[-1] += (chat.again().answer.text,)
            assert chat.messages[-1]["content"].startswith(stream.text)
    assert found[0] == found[1]


def test_an_interruption_keeps_the_beginning_and_the_chat_goes_on(remote: RemoteModel, tmp_path: Path) -> None:
    with ChatStore.open(tmp_path / "chats.sqlite3") as store:
        chat = Chat(remote, AnswerOptions({"temperature": 0}, Limits(200, loop_guard=False)), store=store)
        n_seen = 0
        stream = chat.stream("Tell me a long story of a fox.", interrupted=lambda: n_seen > 5)
        for event in stream.events():
            n_seen += isinstance(event, Text)
        assert stream.answer.finish_reason == "interrupted" and 0 < len(stream.text) < 200
        assert chat.messages[-1] == {"role": "assistant", "content": stream.text}
        saved = store.get(chat.id or "")
        chat = Chat(remote, AnswerOptions({"temperature": 0}, Limits(8)), store=store, saved=saved)
        assert chat.ask("What is 2+2?").stats.prompt_tokens > 20 and len(chat.messages) >= 4


def test_a_chat_that_does_not_fit_stays_as_it_was(remote: RemoteModel) -> None:
    chat = chat_of(remote)
    chat.ask("Hi.")
    before = list(chat.messages)
    with pytest.raises(PromptTooLong):
        chat.ask("word " * 3000)
    assert chat.messages == before
    with pytest.raises(ContextFixed) as fixed:
        remote.resize(4096)
    assert fixed.value.n_ctx == 4096 and "-c 4096" in fixed.value.hint
    remote.resize(remote.plan.n_ctx)


def test_documents_are_asked_with_the_model_of_a_server(
    remote: RemoteModel, local: LoadedModel, tmp_path: Path
) -> None:
    found = []
    for number, model in enumerate((remote, local)):
        source = SmallSource(tmp_path / f"{number}.sqlite3")
        chat = Chat(model, AnswerOptions({"temperature": 0}), documents=source)
        answer = chat.ask("How long is the warranty of the QF-210?")
        assert chat.found is not None and "24 months" in answer.text
        found.append((answer.text, chat.found.citations, answer.stats.prompt_tokens))
        source.close()
    assert found[0] == found[1]


def test_a_model_moves_from_a_server_to_here_and_back(
    remote: RemoteModel, serve_home: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in serve_home.items():
        monkeypatch.setenv(name, value)
    with ChatModels(workspace(), LoadOptions(n_threads=2), "auto", quiet=True) as models:
        first = models.open("smollm2")
        chat = chat_of(first)
        assert first.server == remote.server and chat.ask("Hi.").text
        here = models.load_here(512)
        chat.use(here)
        assert isinstance(here, OpenModel) and here.plan.n_ctx == 512 and here.name == first.name
        assert chat.ask("What is 2+2?").text
        with pytest.raises(ModelNotFound):
            models.switch("no-such-model")
        back = models.switch("smollm2")
        chat.use(back)
        assert back.server == remote.server and chat.ask("Thanks.").text
        with pytest.raises(UsageError, match="closed"):
            _ = here.weights
    with ChatModels(workspace(), LoadOptions(), remote.server, quiet=True) as models:
        assert models.open("smollm2").server == remote.server
        with pytest.raises(ModelNotFound, match="has no chat model"):
            models.switch("bert")
        with pytest.raises(UsageError):
            models.load_here()


def test_the_verb_says_which_server_answers(remote: RemoteModel, serve_home: dict[str, str]) -> None:
    asked = "What is the capital of France?\nAnd of Italy?\n"
    there, here = (
        edgellm("chat", "smollm2", "--private", "--temp", "0", "-n", "20", *more, stdin=asked, env=serve_home)
        for more in ((), ("--server", "never"))
    )
    assert there.returncode == 0 and there.stdout == here.stdout
    assert "using edgellm serve on port" in there.stderr and "using" not in here.stderr
    answer = data(edgellm("chat", "smollm2", "--private", "-n", "4", "--json", stdin="Hi.", env=serve_home))
    assert answer["server"] == remote.server and answer["stats"]["load_seconds"] == 0
    assert answer["stats"]["resident_bytes"] > 100e6, "the worker's"
    refused = edgellm("chat", "smollm2", "-t", "1", "--server", remote.server, stdin=asked, env=serve_home)
    assert refused.returncode == 2 and "--threads 1" in refused.stderr and refused.stdout == ""


def screen_of(model: RemoteModel, *, may_load: bool, said: list[EdgellmError]) -> tuple[ChatScreen, Chat]:
    chat = Chat(model)

    def load_here(error: EdgellmError) -> bool:
        said.append(error)
        if may_load:
            chat.use(LoadedModel("fake", FakeModel(["Hello!"]), RunPlan(n_ctx=2000, n_batch=16)))
        return may_load

    return ChatScreen(chat, switch=lambda _: None, load_here=load_here, quiet=True), chat


def test_a_server_that_is_gone_before_a_word_is_replaced(capsys: pytest.CaptureFixture[str]) -> None:
    said: list[EdgellmError] = []
    screen, chat = screen_of(
        RemoteModel("smollm2", ServerAddress("http://127.0.0.1:9"), STATUS), may_load=True, said=said
    )
    screen._take("Hi.")
    assert capsys.readouterr().out == "Hello!\n" and isinstance(said[0], NetworkError)
    assert [each["content"] for each in chat.messages] == ["Hi.", "Hello!"]
    screen, chat = screen_of(
        RemoteModel("smollm2", ServerAddress("http://127.0.0.1:9"), STATUS), may_load=False, said=said
    )
    with pytest.raises(NetworkError):
        screen._take("Hi.")
    assert chat.messages == []


def test_a_server_that_dies_in_the_middle_leaves_what_it_said(capsys: pytest.CaptureFixture[str]) -> None:
    said: list[EdgellmError] = []
    piece = b'data: {"choices": [{"index": 0, "delta": {"content": "Once"}}]}\n\n'
    with answering(reply("200 OK", piece)) as address:
        model = RemoteModel("smollm2", address, STATUS)
        model.look = lambda: None  # type: ignore[method-assign]  # the server answers one request
        screen, chat = screen_of(model, may_load=True, said=said)
        with pytest.raises(NetworkError):
            screen._take("Hi.")
    assert chat.messages == [Message(role="user", content="Hi."), Message(role="assistant", content="Once")]
    assert not said and "Once" in capsys.readouterr().out
    screen._take("/set ctx 4096")
    assert isinstance(said[0], ContextFixed) and chat.model.name == "fake"


def test_the_screen_says_where_the_model_is(capsys: pytest.CaptureFixture[str]) -> None:
    screen, _ = screen_of(
        RemoteModel("phi", ServerAddress("http://box:1"), STATUS, served_as="phi-3"), may_load=False, said=[]
    )
    screen._introduce()
    screen._take("/model")
    shown = capsys.readouterr().err
    assert "phi  135M Q4_1  512 tokens  2 threads" in shown and "phi  at http://box:1 as phi-3" in shown


def test_tools_run_here_between_the_steps_of_a_server(remote: RemoteModel, local: LoadedModel) -> None:
    def asked(model: ChatModel) -> tuple[str, list[str]]:
        use = ToolsInUse(Toolbox([calculator()], Consent()))
        with Chat(model, AnswerOptions({"temperature": 0, "seed": 4}, Limits(48)), tools=use) as chat:
            text = chat.ask("What is 17 * 23?").text
            assert chat.messages[-1]["content"] == text
            return text, [f"{each.line}: {each.text}" for each in chat.calls]

    text, calls = asked(remote)
    assert calls == ["calculator(expression=17 * 23): 17 * 23 = 391"] and "391" in text
    assert asked(local)[1] == calls
