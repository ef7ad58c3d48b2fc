"""A whole server with documents: the embedded models answer OpenAI's client, its agents, AnythingLLM and Open WebUI."""

import asyncio
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.conftest import REAL
from tests.serve.server import Server
from tests.serve.test_recorded_clients import CONTEXT, NODE

pytestmark = [pytest.mark.engine, pytest.mark.model]
MANUAL = (
    b"# Warranty\n\nThe warranty of the QF-210 is 24 months from the date of purchase.\n\n"
    b"# Battery\n\nThe battery of the QF-210 lasts 11 hours.\n"
)
QUESTION = "How long does the battery of the QF-210 last?"
QUOTE = "The battery of the QF-210 lasts 11 hours."


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, minilm: Path) -> dict[str, str]:
    """A home of its own with the real engine and models, for collections."""
    data = tmp_path_factory.mktemp("documents") / "data"
    data.mkdir()
    for name in ("engines", "models"):
        (data / name).symlink_to(getattr(REAL, name))
    return {"EDGELLM_HOME": str(data.parent)}


@pytest.fixture(scope="module")
def served(home: dict[str, str]) -> Iterator[Server]:
    with Server.start("smollm2", "--docs", "all", "--slots", "2", "--ctx-size", "2048", env=home) as server:
        yield server


@pytest.fixture(scope="module")
def client(served: Server) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{served.url}/v1", api_key="none", max_retries=0)


@pytest.fixture(scope="module")
def store(client: openai.OpenAI) -> str:
    """A store with a manual in it, which has been read and embedded."""
    made = client.vector_stores.create(name="Manuals")
    files = [("manual.md", MANUAL), ("sky.md", b"# Sky\n\nClouds are made of water.\n")]
    batch = client.vector_stores.file_batches.upload_and_poll(made.id, files=files, poll_interval_ms=100)
    assert batch.status == "completed" and batch.file_counts.completed == 2
    return made.id


def test_a_store_is_searched_by_meaning(client: openai.OpenAI, store: str) -> None:
    about = client.vector_stores.retrieve(store).model_extra
    assert about and about["edgellm"]["embedder"] == "minilm"
    found = client.vector_stores.search(store, query="for what time is the device guaranteed?").data
    assert found[0].filename == "manual.md" and "24 months" in found[0].content[0].text


def test_the_embedded_model_answers_with_a_citation(client: openai.OpenAI, store: str) -> None:
    tools: Any = [{"type": "file_search", "vector_store_ids": [store]}]
    answer = client.responses.create(model="smollm2", input=QUESTION, tools=tools)
    assert "11" in answer.output_text
    (cited,) = answer.output[-1].content[0].annotations  # type: ignore[union-attr,index]
    assert cited.type == "file_citation" and cited.model_dump()["quote"] == QUOTE


def test_the_search_tool_of_openai_agents(served: Server, store: str) -> None:
    from agents import Agent, FileSearchTool, OpenAIResponsesModel, RunConfig, Runner

    async def work() -> None:
        async with openai.AsyncOpenAI(base_url=f"{served.url}/v1", api_key="none") as client:
            tool = FileSearchTool(vector_store_ids=[store], max_num_results=3, include_search_results=True)
            model = OpenAIResponsesModel("smollm2", client)
            agent = Agent(name="Librarian", instructions="Answer from the documents.", model=model, tools=[tool])
            ran = await Runner.run(agent, QUESTION, run_config=quiet)
            assert "11" in ran.final_output
            assert [item.type for item in ran.new_items] == ["tool_call_item", "message_output_item"]
            # What was said goes back with the next question, the search too.
            streamed = Runner.run_streamed(agent, [*ran.to_input_list(), user(QUESTION)], run_config=quiet)
            kinds = {event.data.type async for event in streamed.stream_events() if event.type == "raw_response_event"}
            assert {"response.file_search_call.completed", "response.output_text.annotation.added"} <= kinds

    quiet = RunConfig(tracing_disabled=True)
    asyncio.run(work())


def user(text: str) -> Any:
    return {"role": "user", "content": text}


def test_anythingllm_chats_with_documents(served: Server, store: str) -> None:
    messages = [{"role": "system", "content": CONTEXT.format(minute=41)}, user(QUESTION)]
    body = {"model": "smollm2@manuals", "messages": messages, "temperature": 0.7, "max_tokens": 64, "stream": True}
    events = served.post("/v1/chat/completions", body, headers=NODE).events()
    text = "".join(event["choices"][0]["delta"].get("content") or "" for event in events)
    # At its temperature the model's words differ; the documents' do not.
    assert "\n[1] manual.md, line" in text and "11 hours" in text
    # By its connector for Ollama.
    assert "smollm2@manuals" in [model["name"] for model in served.get("/api/tags").json()["models"]]
    assert served.post("/api/show", {"model": "smollm2@manuals"}).json()["capabilities"]
    lines = served.post("/api/chat", {"model": "smollm2@manuals", "messages": messages, "keep_alive": "5m"}).lines()
    assert QUOTE in "".join(line["message"]["content"] for line in lines)


def test_open_webui_chats_with_documents(served: Server, store: str) -> None:
    tool = {"type": "function", "function": {"name": "search_web", "parameters": {"type": "object", "properties": {}}}}
    body = {
        "model": "smollm2@manuals", "messages": [user(QUESTION)], "stream": True,
        "stream_options": {"include_usage": True}, "tools": [tool] * 36,
    }  # fmt: skip
    events = served.post("/v1/chat/completions", body).events()
    text = "".join(event["choices"][0]["delta"].get("content") or "" for event in events if event["choices"])
    assert "Sources:" in text and QUOTE in text and events[-1]["usage"]["completion_tokens"]


def test_a_server_that_was_killed_while_it_read_goes_on(home: dict[str, str]) -> None:
    text = "\n\n".join(f"# Part {n}\n\n" + f"The part number {n} is about zebras and horses. " * 15 for n in range(20))
    arguments = ("smollm2", "--docs", "all", "--slots", "2", "--ctx-size", "2048")
    with Server.start(*arguments, env=home) as first:
        client = openai.OpenAI(base_url=f"{first.url}/v1", api_key="none")
        file = client.files.create(file=("zebras.md", text.encode()), purpose="assistants")
        made = client.vector_stores.create(name="zebras", file_ids=[file.id])
        until(lambda: client.vector_stores.retrieve(made.id).model_extra["edgellm"]["progress"] is not None)  # type: ignore[index]
        workers = first.workers()
        os.kill(first.process.pid, signal.SIGKILL)
        first.process.wait()
        for worker in workers:
            until(lambda pid=worker: not Path(f"/proc/{pid}").exists())  # type: ignore[misc]
    with Server.start(*arguments, env=home) as second:
        client = openai.OpenAI(base_url=f"{second.url}/v1", api_key="none")
        until(lambda: client.vector_stores.retrieve(made.id).status == "completed")
        (read,) = client.vector_stores.files.list(made.id).data
        about = read.model_extra and read.model_extra["edgellm"]
        assert about and read.id == file.id and about["chunks"] >= 10 and about["chunks_without_vector"] == 0


def until(is_so: Callable[[], bool]) -> None:
    """Wait until something is so."""
    while not is_so():
        time.sleep(0.1)
