"""Documents over HTTP inside one process: OpenAI's own client, uploads of all kinds, and answers of a fake model."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest

from edgellm.documents.collection import Collection
from edgellm.documents.index import add_roots, update
from edgellm.documents.search import Searcher
from edgellm.documents.shelf import Shelf
from edgellm.errors import DoesNotFit
from edgellm.serve.app import application
from edgellm.serve.documents.embedder import Bridge
from edgellm.serve.documents.reranker import ServedReranker, WorkerRanker
from edgellm.serve.documents.store import VectorStore
from edgellm.serve.documents.stores import ALL, VectorStores
from edgellm.serve.documents.uploads import MOST_NAME_BYTES, Uploads, safe_name
from edgellm.serve.http.listener import _protocol
from edgellm.serve.options import ServeOptions
from edgellm.serve.protocols.openai import API
from edgellm.serve.workers.worker import CONTROL
from tests.serve.test_service import House, directory, within

__all__ = ["directory"]
FOX = b"# Animals\n\nThe quick brown fox jumps over the lazy dog.\n"
CLOUDS = b"# Sky\n\nClouds are made of water.\n"
QUESTION = "What jumps over the lazy dog?"


class DocumentHouse(House):
    """A service with a fake model, which writes "The quick brown fox", and documents that are found by words alone."""

    def __init__(self, directory: Path, names: tuple[str, ...] = (ALL,), **options: Any) -> None:
        made = ServeOptions(n_slots=2, n_ctx=2048, documents=names, **options)
        super().__init__(directory, made, stream="chat_progress", replies={"/tokenize": {"tokens": list(range(40))}})
        self.directory = directory
        self.stores = VectorStores(
            Shelf(directory / "documents"), Uploads(directory / "uploads"), names, lambda _: None, Bridge()
        )
        self.service = replace(self.service, documents=self.stores)
        self.app = application(self.service)
        self.http = httpx2.AsyncClient(transport=httpx2.ASGITransport(self.app), base_url="http://localhost")
        self.sdk = openai.AsyncOpenAI(
            base_url="http://localhost/v1", api_key="none", max_retries=0, http_client=self.http
        )

    async def upload(self, data: bytes, name: str = "animals.md") -> str:
        """The id of an uploaded file."""
        return (await self.sdk.files.create(file=(name, data), purpose="assistants")).id

    async def store(self, *texts: bytes, name: str = "zoo") -> str:
        """The id of a store with these texts, once they have been read."""
        ids = [await self.upload(text, f"{number}.md") for number, text in enumerate(texts)]
        made = await self.sdk.vector_stores.create(name=name, file_ids=ids)
        await self.until_read(made.id)
        return made.id

    async def until_read(self, store: str) -> None:
        while (await self.sdk.vector_stores.retrieve(store)).status != "completed":
            await asyncio.sleep(0.02)

    @property
    def prompts(self) -> list[str]:
        """What the model was asked."""
        bodies = [each["body"] for each in self.fake.requests if each["path"] not in (CONTROL, "/tokenize")]
        return [each["messages"][-1]["content"] for each in bodies]


@asynccontextmanager
async def documents(directory: Path, names: tuple[str, ...] = (ALL,), **options: Any) -> AsyncIterator[DocumentHouse]:
    made = DocumentHouse(directory, names, **options)
    made.stores.bridge.open()
    running = asyncio.create_task(made.stores.run())
    try:
        yield made
    finally:
        running.cancel()
        made.stores.bridge.close()
        await made.stores.stop()
        await made.pool.stop()


def collection(directory: Path, name: str, text: bytes) -> None:
    """A collection as `edgellm docs add` makes it."""
    file = directory / f"{name}.md"
    file.write_bytes(text)
    with Collection.open(directory / "documents" / f"{name}.sqlite3") as made:
        add_roots(made, [file])
        update(made, None)


def test_a_file_is_uploaded_read_searched_and_cited(directory: Path) -> None:
    async def work() -> None:
        async with documents(directory) as made:
            file = await made.sdk.files.create(file=("animals.md", FOX), purpose="assistants")
            assert (file.filename, file.bytes, file.purpose) == ("animals.md", len(FOX), "assistants")
            assert (await made.sdk.files.content(file.id)).content == FOX
            store = await made.sdk.vector_stores.create(name="My Zoo", metadata={"a": "b"})
            read = await made.sdk.vector_stores.files.create_and_poll(file.id, vector_store_id=store.id)
            assert read.status == "completed" and read.last_error is None
            store = await made.sdk.vector_stores.retrieve(store.id)
            assert (store.name, store.file_counts.completed, store.metadata) == ("My Zoo", 1, {"a": "b"})
            found = (await made.sdk.vector_stores.search(store.id, query="lazy dog")).data
            assert found[0].file_id == file.id and "lazy dog" in found[0].content[0].text
            tools: Any = [{"type": "file_search", "vector_store_ids": [store.id]}]
            whole = await made.sdk.responses.create(
                model="fake", input=QUESTION, tools=tools, include=["file_search_call.results"]
            )
            search, message = whole.output
            assert search.type == "file_search_call" and search.queries == [QUESTION]
            assert search.results and search.results[0].file_id == file.id
            assert message.type == "message" and whole.output_text == "The quick brown fox"
            (cited,) = message.content[0].annotations  # type: ignore[union-attr]
            about = cited.model_dump()
            assert about["type"] == "file_citation" and about["file_id"] == file.id
            assert about["index"] == len(whole.output_text) and about["lines"] == [3, 3]
            assert about["quote"] == "The quick brown fox jumps over the lazy dog."
            assert QUESTION in made.prompts[-1] and "lazy dog" in made.prompts[-1]

    within(work())


def test_a_streamed_search_has_the_events_of_openai(directory: Path) -> None:
    async def work() -> None:
        async with documents(directory) as made:
            store = await made.store(FOX)
            tools: Any = [{"type": "file_search", "vector_store_ids": [store]}]
            stream = await made.sdk.responses.create(model="fake", input=QUESTION, tools=tools, stream=True)
            events = [event async for event in stream]
            kinds = [event.type for event in events]
            assert kinds[:8] == [
                "response.created", "response.in_progress", "response.output_item.added",
                "response.file_search_call.in_progress", "response.file_search_call.searching",
                "response.file_search_call.completed", "response.output_item.done", "response.output_item.added",
            ]  # fmt: skip
            added = [event for event in events if event.type == "response.output_text.annotation.added"]
            assert kinds.index(added[0].type) < kinds.index("response.output_text.done")
            assert [event.sequence_number for event in events] == list(range(len(events)))
            last = events[-1]
            assert last.type == "response.incomplete"  # the recording ends at its limit
            assert [item.type for item in last.response.output] == ["file_search_call", "message"]
            text = last.response.output[1].content[0]  # type: ignore[union-attr]
            assert text.annotations[0].model_dump() == added[0].annotation.model_dump()  # type: ignore[union-attr]
            assert {event.output_index for event in events if event.type.startswith("response.output_text")} == {1}

    within(work())


def text_of(reply: Any) -> str:
    """The text of an answer in any protocol."""
    if "choices" in reply:
        return str(reply["choices"][0]["message"]["content"])
    if "message" in reply:
        return str(reply["message"]["content"])
    parts = reply.get("content") or reply["output"][-1]["content"]
    return "".join(part["text"] for part in parts)


def test_a_client_that_knows_nothing_of_documents_chooses_a_model_by_name(directory: Path) -> None:
    async def work() -> None:
        async with documents(directory) as made:
            await made.store(FOX)
            assert [model.id async for model in made.sdk.models.list()] == ["fake", "fake@zoo"]
            assert [each["name"] for each in (await made.http.get("/api/tags")).json()["models"]] == [
                "fake", "fake@zoo",
            ]  # fmt: skip
            messages = [{"role": "user", "content": QUESTION}]
            bodies: dict[str, dict[str, Any]] = {
                "/v1/chat/completions": {"messages": messages},
                "/v1/responses": {"input": QUESTION},
                "/v1/messages": {"messages": messages, "max_tokens": 64},
                "/api/chat": {"messages": messages, "stream": False},
            }
            for path, body in bodies.items():
                reply = (await made.http.post(path, json={"model": "fake@zoo", **body})).json()
                assert text_of(reply).startswith(
                    "The quick brown fox\n\nSources:\n[1] 0.md, line 3, Animals: “The quick"
                )
                (cited,) = reply["edgellm"]["documents"]["citations"]
                assert cited["quote"] == "The quick brown fox jumps over the lazy dog."
                streamed = await made.http.post(path, json={"model": "fake@zoo", **body, "stream": True})
                assert "Sources:" in streamed.text and "lazy dog" in streamed.text

    within(work())


def test_what_the_documents_do_not_say_is_replaced_or_refused(directory: Path) -> None:
    async def work() -> None:
        async with documents(directory) as made:
            await made.store(CLOUDS)
            ask: Callable[..., Any] = made.sdk.chat.completions.create
            messages = [{"role": "user", "content": "What are clouds made of?"}]
            whole = await ask(model="fake@zoo", messages=messages)
            # The model speaks of a fox: the documents themselves are quoted.
            quoted = whole.choices[0].message.content
            assert "Clouds are made of water.\n\nSources:\n[1] 0.md" in quoted and "fox" not in quoted
            assert whole.model_extra["edgellm"]["documents"]["basis"] == "quotation"
            stream = await ask(model="fake@zoo", messages=messages, stream=True)
            text = "".join([each.choices[0].delta.content or "" async for each in stream])
            assert text.startswith("The quick brown fox\n\n[not confirmed: ") and "Clouds are made of water." in text
            asked = len(made.prompts)
            unknown = await ask(model="fake@zoo", messages=[{"role": "user", "content": "What does the XR-77 cost?"}])
            said = unknown.choices[0].message.content
            assert said.startswith("Not found in these documents.") and "XR-77: nowhere in these documents" in said
            assert unknown.model_extra["edgellm"]["documents"]["refused"]
            assert len(made.prompts) == asked  # no model was needed

    within(work())


def test_a_follow_up_is_searched_with_what_it_refers_to_and_tools_are_left_out(directory: Path) -> None:
    async def work() -> None:
        async with documents(directory) as made:
            await made.store(FOX)
            tool = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
            messages = [
                {"role": "system", "content": "Answer briefly."},
                {"role": "user", "content": QUESTION},
                {"role": "assistant", "content": "The fox."},
                {"role": "user", "content": "Is it quick?"},
            ]
            body = {"model": "fake@zoo", "messages": messages, "tools": [tool]}
            reply = (await made.http.post("/v1/chat/completions", json=body)).json()
            assert "lazy dog" in reply["edgellm"]["documents"]["question"]
            assert "tools" not in made.fake.requests[-1]["body"] and "tools" in reply["edgellm"]["warnings"][0]
            system = made.fake.requests[-1]["body"]["messages"][0]["content"]
            assert system.endswith("Answer briefly.") and "numbered sources" in system

    within(work())


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("a.pdf", "a.pdf"),
        ("../../etc/passwd", "passwd"),
        ("C:\\docs\\a.docx", "a.docx"),
        ("a\nb\x00\x1b[31m.pdf", "a_nb_x00_x1b[31m.pdf"),
        ("..", "file"),
        ("", "file"),
        (".bashrc", "bashrc"),
        ("手册.pdf", "手册.pdf"),
    ],
)
def test_names_of_clients_are_made_safe(given: str, kept: str) -> None:
    assert safe_name(given) == kept


def test_a_long_name_keeps_its_ending() -> None:
    for letter in ("a", "手"):
        name = safe_name(letter * 400 + ".pdf")
        assert name.endswith(f"{letter}.pdf") and MOST_NAME_BYTES - 3 < len(name.encode()) <= MOST_NAME_BYTES


def form(data: bytes, boundary: str = "x") -> dict[str, Any]:
    return {"content": data, "headers": {"content-type": f"multipart/form-data; boundary={boundary}"}}


PART = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.md"\r\n\r\n'


@pytest.mark.parametrize(
    ("request_", "status", "says"),
    [
        ({"files": {"file": ("a.md", b"")}}, 400, "the file is empty"),
        ({"files": {"file": ("a.md", FOX)}, "data": {"purpose": "mischief"}}, 400, "purpose"),
        ({"data": {"purpose": "assistants"}, "files": {"other": ("a.md", FOX)}}, 400, "file is missing"),
        ({"files": [("file", ("a.md", FOX)), ("file", ("b.md", FOX))]}, 400, "two files"),
        ({"json": {"file": "a"}}, 400, "must be a form"),
        (form(PART + FOX), 400, "has no end"),
        (form(b"garbage"), 400, "cannot be read"),
        (form(b"--x\r\nA: " + b"A" * 40_000), 400, "cannot be read"),
        (form(b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n' + b"A" * 90_000), 413, "a is too long"),
        ({"files": {"file": ("a.md", b"x" * 9000)}}, 413, "larger than 8,000 bytes"),
        ({"content": b"", "headers": {"content-length": str(5 << 30)}}, 413, "larger than 8,000 bytes"),
    ],
)
def test_a_wrong_upload_is_one_clear_error_and_leaves_nothing(
    directory: Path, request_: dict[str, Any], status: int, says: str
) -> None:
    async def work() -> None:
        limit = 8000 if says.endswith("bytes") else 1 << 20
        async with documents(directory, max_upload=limit) as made:
            reply = await made.http.post("/v1/files", **request_)
            assert reply.status_code == status and says in reply.json()["error"]["message"]
            uploads = directory / "uploads"
            assert not uploads.exists() or not list(uploads.iterdir())

    within(work())


def test_a_body_that_is_not_announced_is_bounded_too(directory: Path) -> None:
    async def endless() -> AsyncIterator[bytes]:
        yield PART
        for _ in range(1000):
            yield b"x" * 1000

    async def work() -> None:
        async with documents(directory, max_upload=8000) as made:
            headers = {"content-type": "multipart/form-data; boundary=x"}
            reply = await made.http.post("/v1/files", content=endless(), headers=headers)
            assert reply.status_code == 413 and not list((directory / "uploads").iterdir())

    within(work())


def test_the_listener_lets_files_through_where_there_are_documents() -> None:
    limits = [_protocol(ServeOptions(documents=names), API).most_bytes for names in ((), (ALL,))]
    assert limits[0] < ServeOptions().max_upload < limits[1]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/files/file-0"),
        ("GET", "/v1/files/..%2f..%2fetc"),
        ("DELETE", f"/v1/files/file-{'0' * 24}"),
        ("GET", f"/v1/files/file-{'0' * 24}/content"),
        ("GET", "/v1/vector_stores/vs_0"),
        ("DELETE", "/v1/vector_stores/vs_0"),
        ("POST", "/v1/vector_stores/vs_0/search"),
        ("POST", "/v1/vector_stores/ZOO/files"),
        ("GET", f"/v1/vector_stores/ZOO/files/file-{'0' * 24}/content"),
        ("GET", "/v1/vector_stores/ZOO/file_batches/vsfb_..%2f..%2fzoo"),
    ],
)
def test_ids_that_are_none_are_not_found(directory: Path, method: str, path: str) -> None:
    async def work() -> None:
        async with documents(directory) as made:
            store = await made.store(FOX)
            body = {"POST": {"json": {"query": "a"} if "search" in path else {"file_id": f"file-{'0' * 24}"}}}
            reply = await made.http.request(method, path.replace("ZOO", store), **body.get(method, {}))
            assert reply.status_code == 404, reply.text

    within(work())


def test_only_named_collections_are_offered_and_those_made_over_http(directory: Path) -> None:
    collection(directory, "open", FOX)
    collection(directory, "secret", CLOUDS)

    async def work() -> None:
        async with documents(directory, ("open",)) as made:
            await made.store(CLOUDS, name="Mine!")
            stores = [store async for store in made.sdk.vector_stores.list()]
            assert sorted(store.name for store in stores) == ["Mine!", "open"]
            assert {model.id async for model in made.sdk.models.list()} == {"fake", "fake@open", "fake@mine"}
            for name in ("fake@secret", "fake@none", "fake@../open", "other@open"):
                body = {"model": name, "messages": [{"role": "user", "content": QUESTION}]}
                reply = await made.http.post("/v1/chat/completions", json=body)
                assert reply.status_code == (400 if "/" in name else 404), name
            secret = VectorStore("secret", Collection.open(directory / "documents" / "secret.sqlite3"),
                                 made.stores.uploads, lambda _: None, lambda _: None)  # fmt: skip
            assert (await made.http.get(f"/v1/vector_stores/{secret.id}")).status_code == 404
            # What was made on the machine is not deleted over HTTP.
            (theirs,) = [store for store in stores if store.name == "open"]
            assert (await made.http.delete(f"/v1/vector_stores/{theirs.id}")).status_code == 403
            (file,) = (await made.sdk.vector_stores.files.list(theirs.id)).data
            gone = await made.http.delete(f"/v1/vector_stores/{theirs.id}/files/{file.id}")
            assert gone.status_code == 403 and (directory / "open.md").exists()

    within(work())


def test_without_documents_the_endpoints_are_closed(directory: Path) -> None:
    async def work() -> None:
        async with documents(directory) as made:
            made.app = application(replace(made.service, documents=None))
            async with httpx2.AsyncClient(
                transport=httpx2.ASGITransport(made.app), base_url="http://localhost"
            ) as client:
                for path in ("/v1/files", "/v1/vector_stores"):
                    reply = await client.get(path)
                    assert reply.status_code == 403 and "--docs" in reply.json()["error"]["message"]
                tools = [{"type": "file_search", "vector_store_ids": ["vs_0"]}]
                reply = await client.post("/v1/responses", json={"model": "fake", "input": "Hello", "tools": tools})
                assert reply.json()["edgellm"]["tools_left_out"] == [{"type": "file_search"}]

    within(work())


def test_a_deleted_file_is_found_no_more_even_while_it_is_read(directory: Path) -> None:
    async def work() -> None:
        async with documents(directory) as made:
            store = await made.store(FOX, CLOUDS)
            ids = {file.id async for file in made.sdk.vector_stores.files.list(store)}
            for file in ids:
                about = await made.sdk.vector_stores.files.retrieve(file, vector_store_id=store)
                if about.model_extra and about.model_extra["edgellm"]["filename"] == "0.md":
                    assert (await made.sdk.files.delete(file)).deleted
            assert not (await made.sdk.vector_stores.search(store, query="quick fox")).data
            # One that has just been put in, and is being read.
            large = await made.upload(b"\n\n".join(b"The zebra %d has stripes." % n for n in range(20_000)))
            await made.sdk.vector_stores.files.create(store, file_id=large)
            await asyncio.sleep(0.1)
            await made.sdk.files.delete(large)
            await made.until_read(store)
            assert not (await made.sdk.vector_stores.search(store, query="zebra stripes")).data
            assert (await made.sdk.vector_stores.retrieve(store)).file_counts.total == 1
            await idle(made)
            with Collection.open(directory / "documents" / "zoo.sqlite3") as kept:
                assert [Path(file.path).name for file in kept.files()] == ["1.md"]

    within(work())


async def idle(made: DocumentHouse) -> None:
    """Wait until nothing is read, or waits to be."""
    while made.stores.is_busy:
        await asyncio.sleep(0.02)


def test_uploads_at_once_all_arrive_and_come_as_a_batch(directory: Path) -> None:
    async def work() -> None:
        async with documents(directory) as made:
            texts = [b"The animal number %d lives here." % number for number in range(8)]
            ids = await asyncio.gather(*(made.upload(text, "same.md") for text in texts))
            store = await made.sdk.vector_stores.create(name="many")
            halves = ids[:4], ids[4:]
            batches = await asyncio.gather(
                *(made.sdk.vector_stores.file_batches.create(store.id, file_ids=half) for half in halves)
            )
            await made.until_read(store.id)
            for batch in batches:
                found = await made.sdk.vector_stores.file_batches.retrieve(batch.id, vector_store_id=store.id)
                assert (found.status, found.file_counts.completed) == ("completed", 4)
                files = await made.sdk.vector_stores.file_batches.list_files(batch.id, vector_store_id=store.id)
                assert len(files.data) == 4
            listed = [file.id async for file in made.sdk.vector_stores.files.list(store.id, limit=3)]
            assert sorted(listed) == sorted(ids)

    within(work())


def test_files_that_cannot_be_read_say_why(directory: Path) -> None:
    async def work() -> None:
        async with documents(directory) as made:
            store = await made.sdk.vector_stores.create(name="broken")
            for name, data in {
                "a.pdf": b"%PDF-1.7\nnothing",
                "b.docx": b"PK\x03\x04garbage",
                "c.bin": bytes(500),
            }.items():
                file = await made.upload(data, name)
                read = await made.sdk.vector_stores.files.create_and_poll(file, vector_store_id=store.id)
                assert read.status == "failed" and read.last_error and read.last_error.message, name
                assert str(directory) not in read.last_error.message
            assert (await made.sdk.vector_stores.retrieve(store.id)).file_counts.failed == 3

    within(work())


def test_the_text_of_a_file_comes_by_lines_and_in_pieces(directory: Path) -> None:
    text = "\n\n".join(f"# Part {n}\n\n" + f"The part number {n} is about zebras. " * 60 for n in range(12))

    async def work() -> None:
        async with documents(directory) as made:
            store = await made.store(text.encode())
            (file,) = (await made.sdk.vector_stores.files.list(store)).data
            path = f"/v1/vector_stores/{store}/files/{file.id}/content"
            first = (await made.http.get(path, params={"limit": "2"})).json()
            assert len(first["data"]) == 2 and first["has_more"] and first["next_page"] == "2"
            rest = (await made.http.get(path, params={"after": "2"})).json()
            assert rest["data"][0]["index"] == 2 and not rest["has_more"]
            whole = "".join(each["text"][each["n_repeated"] :] for each in first["data"] + rest["data"])
            assert all(f"part number {n} is" in whole for n in range(12))
            (some,) = (await made.http.get(path, params={"lines": "1-1"})).json()["data"]
            assert some["lines"][0] == 1 and some["heading"].startswith("Part 0")
            assert (await made.http.get(path, params={"page": "nine"})).status_code == 400

    within(work())


def test_a_collection_that_is_removed_and_made_anew_is_another_one(directory: Path) -> None:
    collection(directory, "zoo", FOX)

    async def work() -> None:
        async with documents(directory) as made:
            (store,) = [each async for each in made.sdk.vector_stores.list()]
            assert (await made.sdk.vector_stores.search(store.id, query="fox")).data
            Shelf(directory / "documents").remove("zoo")
            assert (await made.http.get(f"/v1/vector_stores/{store.id}")).status_code == 404
            collection(directory, "zoo", CLOUDS)
            assert not (await made.sdk.vector_stores.search(store.id, query="fox")).data
            assert (await made.sdk.vector_stores.search(store.id, query="clouds")).data

    within(work())


def test_a_store_is_deleted_and_its_files_stay(directory: Path) -> None:
    async def work() -> None:
        async with documents(directory) as made:
            store = await made.store(FOX)
            assert (await made.sdk.vector_stores.delete(store)).deleted
            assert not list((directory / "documents").glob("*.sqlite3"))
            (file,) = [each async for each in made.sdk.files.list()]
            again = await made.sdk.vector_stores.create(name="zoo")
            assert again.file_counts.total == 0 and file.bytes == len(FOX)

    within(work())


class Busy(WorkerRanker):
    """A reranker for which there is no room."""

    n_pair = 100

    def __init__(self) -> None:
        pass

    def count_pair(self, question: str, text: str) -> int:
        return 10

    def rank(self, question: str, texts: Sequence[str]) -> list[float]:
        raise DoesNotFit("there is no room")


def test_without_room_for_the_reranker_passages_stay_in_their_order(tmp_path: Path) -> None:
    (tmp_path / "animals.md").write_bytes(FOX)
    (tmp_path / "sky.md").write_bytes(CLOUDS + FOX)
    with Collection.open(tmp_path / "c.sqlite3") as collection:
        add_roots(collection, [tmp_path])
        update(collection, None)
        plain = Searcher(collection, None).search(QUESTION)
        assert len(plain) == 2
        found = Searcher(collection, None, ServedReranker(Busy(), "busy")).search(QUESTION)
    assert [each.file for each in found] == [each.file for each in plain]
