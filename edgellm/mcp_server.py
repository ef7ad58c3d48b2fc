"""edgellm as an MCP server: other programs ask a local model, search the user's documents, and embed texts.

    serve_stdio(McpOffer(workspace(), model="smollm2"))

It speaks over standard input and output, or HTTP (`mcp_http.py`); what else is printed goes to standard error. Models
and documents are opened when they are first needed, and used by one thread: one question is answered at a time, others
wait. A client that asks for progress gets it; one that cancels ends the computation with its next token.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from edgellm.documents.answers.citation import place
from edgellm.documents.shelf import Shelf
from edgellm.engine.grammar.validation import SchemaChecker
from edgellm.errors import EdgellmError, UsageError
from edgellm.library import DEFAULT_EMBEDDER, Documents, LateModel, existing_documents
from edgellm.progress import Progress
from edgellm.run.events import Prefill, Text
from edgellm.run.loader import LoadOptions
from edgellm.settings import DEFAULT_MODEL
from edgellm.tools.mcp.servers import require_sdk
from edgellm.version import __version__
from edgellm.workspace import Workspace

if TYPE_CHECKING:
    from mcp.server import Server
    from mcp.server.context import ServerRequestContext
    from mcp.types import CallToolRequestParams, CallToolResult, ListToolsResult, PaginatedRequestParams

    from edgellm.api import OpenModel
    from edgellm.run.answer import Answer, AnswerStream

MOST_TEXTS, MOST_CHARACTERS = 256, 200_000
# Between two notices of progress.
BEAT_SECONDS = 0.25
NAME = "edgellm"
Found = TypeVar("Found")


@dataclass(frozen=True, slots=True)
class McpOffer:
    """What is offered: the model that answers, the embedding model, and the collections of documents, None for all.

    `max_tokens` is the most that an answer may have.
    """

    here: Workspace
    model: str = DEFAULT_MODEL
    embedder: str = DEFAULT_EMBEDDER
    documents: tuple[str, ...] | None = None
    max_tokens: int = 1024
    load: LoadOptions = field(default_factory=LoadOptions)

    @property
    def collections(self) -> list[str]:
        """The collections of documents that there are now."""
        names = Shelf(self.here.settings.documents).names()
        return names if self.documents is None else [name for name in names if name in self.documents]


class Cancelled(Exception):
    """The client does not wait any more."""


class HostCall:
    """One call under way: says how far it is, and whether it is still wanted."""

    def __init__(self, report: Callable[[float, float | None, str], None]) -> None:
        self._report = report
        self._stopped = threading.Event()
        self._next = 0.0

    def stop(self) -> None:
        """The client does not wait any more."""
        self._stopped.set()

    def check(self) -> None:
        """Raise `Cancelled` if it is not wanted."""
        if self._stopped.is_set():
            raise Cancelled

    def report(self, done: float, total: float | None, message: str) -> None:
        """Say how far it is, a few times a second."""
        self.check()
        if (now := time.monotonic()) >= self._next:
            self._next = now + BEAT_SECONDS
            self._report(done, total, message)

    def progress(self, event: Progress) -> None:
        """The same, for what reports `Progress`."""
        self.report(event.done, event.total, event.stage)


class OfferedTools:
    """The tools, for one thread: they keep what they have opened."""

    def __init__(self, offer: McpOffer) -> None:
        self._offer = offer
        self._open = ExitStack()
        self._model: OpenModel | None = None
        self._embedder: LateModel | None = None
        self._documents: dict[str, Documents] = {}

    def ask(
        self, call: HostCall, prompt: str, system: str | None = None, max_tokens: int | None = None
    ) -> dict[str, Any]:
        """Answer a prompt."""
        most = min(max_tokens or self._offer.max_tokens, self._offer.max_tokens)
        answer = self._answered(call, self._opened(call).stream(prompt, system=system, max_tokens=most), most)
        return {"text": answer.text, "finish_reason": answer.finish_reason, "model": self._offer.model}

    def search_documents(
        self, call: HostCall, question: str, collection: str | None = None, n: int = 5
    ) -> dict[str, Any]:
        """Find passages."""
        name = self._collection(collection)
        passages = [
            {
                "place": place(each),
                "file": each.file,
                "page": each.page,
                "score": round(each.score, 4),
                "text": each.text,
            }
            for each in self._searched(call, name).search(question, n)
        ]
        text = "\n\n".join(f"[{number}] {each['place']}\n{each['text']}" for number, each in enumerate(passages, 1))
        return {"text": text or "nothing found", "collection": name, "passages": passages}

    def ask_documents(self, call: HostCall, question: str, collection: str | None = None, n: int = 5) -> dict[str, Any]:
        """Answer a question from documents, with citations that are checked."""
        name = self._collection(collection)
        asked = self._searched(call, name).stream(question, self._opened(call), n=n)
        if asked.stream is not None:
            self._answered(call, asked.stream, None)
        answer = asked.result
        citations = [{"number": each.number, "place": place(each), "quote": each.quote} for each in answer.citations]
        lines = [f"[{each['number']}] {each['place']}: {each['quote']}" for each in citations]
        text = answer.answer if not answer.refused else f"{answer.answer} ({answer.reason})"
        about = {"answer": answer.answer, "refused": answer.refused, "reason": answer.reason, "basis": answer.basis}
        return {"text": "\n".join([text, *lines]), "collection": name, **about, "citations": citations}

    def embed(self, call: HostCall, texts: list[str]) -> dict[str, Any]:
        """Compute vectors of texts."""
        if self._embedder is None:
            here = self._offer.here
            local = here.model(self._offer.embedder, report=call.progress)
            self._embedder = LateModel(here, local, report=call.progress)
            self._open.callback(self._embedder.close)
        vectors = []
        for done, text in enumerate(texts):
            call.report(done, len(texts), "embedding")
            vectors.append([round(float(each), 7) for each in self._embedder.embed([text])[0]])
        size = len(vectors[0]) if vectors else 0
        text = f"{len(vectors)} vectors of {size} numbers; they are in the structured content"
        return {"text": text, "model": self._offer.embedder, "vectors": vectors}

    def close(self) -> None:
        """Give everything back."""
        self._open.close()

    def _opened(self, call: HostCall) -> OpenModel:
        if self._model is None:
            from edgellm.api import OpenModel

            here = self._offer.here
            here.require_chat(self._offer.model)
            local = here.model(self._offer.model, report=call.progress)
            self._model = self._open.enter_context(OpenModel(here, local, self._offer.load, report=call.progress))
        return self._model

    def _collection(self, name: str | None) -> str:
        names = self._offer.collections
        if name is None and len(names) == 1:
            return names[0]
        if name is None or name not in names:
            known = ", ".join(names) or "none; edgellm docs add makes one"
            raise UsageError(
                "name the collection" if name is None else f"there is no collection {name}", why=f"there are: {known}"
            )
        return name

    def _searched(self, call: HostCall, name: str) -> Documents:
        if name not in self._documents:
            found = existing_documents(self._offer.here, name, report=call.progress)
            self._documents[name] = self._open.enter_context(found)
            found.prepare()
        self._documents[name].report = call.progress
        return self._documents[name]

    @staticmethod
    def _answered(call: HostCall, stream: AnswerStream, most: int | None) -> Answer:
        """A whole answer; it ends with the next token once it is not wanted."""
        n_tokens = 0
        try:
            for event in stream.events():
                call.check()
                if isinstance(event, Prefill):
                    call.report(0, None, f"reading the prompt: {event.done} of {event.total} tokens")
                elif isinstance(event, Text):
                    n_tokens += 1
                    call.report(n_tokens, most, f"{n_tokens} tokens")
        finally:
            stream.close()
        return stream.answer


@dataclass(frozen=True, slots=True)
class OfferedTool:
    """A tool as hosts see it; it is the method of that name of `OfferedTools`."""

    name: str
    title: str
    description: str
    schema: Mapping[str, Any]


def offered_tools(offer: McpOffer) -> list[OfferedTool]:
    """The tools that hosts are shown now; without documents there are none for them."""
    text = {"type": "string", "minLength": 1, "maxLength": MOST_CHARACTERS}
    most = {
        "type": "integer",
        "minimum": 1,
        "maximum": offer.max_tokens,
        "description": "tokens of the answer, at most",
    }
    asked = {
        "prompt": {**text, "description": "what to answer"},
        "system": {**text, "description": "instructions for the model"},
        "max_tokens": most,
    }
    texts = {"type": "array", "items": text, "minItems": 1, "maxItems": MOST_TEXTS}
    found = [
        OfferedTool(
            "ask", "Ask a local model", f"Answer a prompt with {offer.model}, a language model on this machine: "
            "private, and slow for long answers.", _schema(asked, "prompt"),
        ),
        OfferedTool(
            "embed", "Embed texts", f"Compute vectors of texts with {offer.embedder}, each of length 1.",
            _schema({"texts": texts}, "texts"),
        ),
    ]  # fmt: skip
    if names := offer.collections:
        one = names[0] if len(names) == 1 else None
        question = {
            "question": {**text, "description": "what to look for"},
            "collection": {"enum": names, "description": "the documents" + (f"; {one} by default" if one else "")},
            "n": {"type": "integer", "minimum": 1, "maximum": 20, "description": "passages; 5 by default"},
        }
        schema = _schema(question, *(["question"] if one else ["question", "collection"]))
        found += [
            OfferedTool(
                "search_documents", "Search the user's documents",
                "Find the passages of the user's own documents that fit a question, by words and by meaning.", schema,
            ),
            OfferedTool(
                "ask_documents", "Ask the user's documents",
                f"Answer a question from the user's own documents with {offer.model}; quotations are checked.", schema,
            ),
        ]  # fmt: skip
    return found


def _schema(properties: Mapping[str, Any], *required: str) -> dict[str, Any]:
    return {"type": "object", "properties": dict(properties), "required": list(required), "additionalProperties": False}


class McpServer:
    """The handlers of the protocol, and the thread that does the work."""

    def __init__(self, offer: McpOffer) -> None:
        self._offer = offer
        self._tools = OfferedTools(offer)
        self._thread = ThreadPoolExecutor(1, "mcp-work")
        self._calls: set[HostCall] = set()

    def build(self) -> Server[Any]:
        """The SDK's server."""
        from mcp.server import Server

        return Server(NAME, version=__version__, on_list_tools=self._list, on_call_tool=self._call)

    async def close(self) -> None:
        """End what is under way, and give everything back."""
        self.stop_calls()
        await self._work(self._tools.close)
        self._thread.shutdown()

    def stop_calls(self) -> None:
        """End what is under way with its next token."""
        for call in list(self._calls):
            call.stop()

    async def _list(self, _: ServerRequestContext[Any], __: PaginatedRequestParams | None) -> ListToolsResult:
        from mcp.types import ListToolsResult, Tool, ToolAnnotations

        reads = ToolAnnotations(read_only_hint=True, open_world_hint=False)
        tools = await asyncio.to_thread(offered_tools, self._offer)
        return ListToolsResult(
            tools=[
                Tool(
                    name=each.name, title=each.title, description=each.description, input_schema=dict(each.schema),
                    annotations=reads,
                )
                for each in tools
            ]
        )  # fmt: skip

    async def _call(self, ctx: ServerRequestContext[Any], params: CallToolRequestParams) -> CallToolResult:
        from mcp.types import CallToolResult, TextContent

        arguments = params.arguments or {}
        tool = next((each for each in offered_tools(self._offer) if each.name == params.name), None)
        if tool is None:
            return _refused(f"there is no tool {params.name[:64]}")
        if fault := SchemaChecker(dict(tool.schema)).fault(arguments):
            return _refused(f"the arguments of {tool.name} are wrong: {fault}")
        loop = asyncio.get_running_loop()

        def report(done: float, total: float | None, message: str) -> None:
            asyncio.run_coroutine_threadsafe(ctx.session.report_progress(done, total, message), loop)

        call = HostCall(report)
        self._calls.add(call)
        try:
            found = await self._work(lambda: _done(getattr(self._tools, tool.name), call, arguments))
        except EdgellmError as error:
            return _refused(
                error.what + (f" ({error.why})" if error.why else "") + (f"; try: {error.hint}" if error.hint else "")
            )
        finally:
            call.stop()  # a cancelled call must not keep the thread
            self._calls.discard(call)
        text = found.pop("text")
        return CallToolResult(content=[TextContent(text=text)], structured_content=found | {"text": text})

    async def _work(self, do: Callable[[], Found]) -> Found:
        return await asyncio.get_running_loop().run_in_executor(self._thread, do)


def _done(do: Callable[..., dict[str, Any]], call: HostCall, arguments: Mapping[str, Any]) -> dict[str, Any]:
    call.check()
    return do(call, **arguments)


def _refused(text: str) -> CallToolResult:
    from mcp.types import CallToolResult, TextContent

    return CallToolResult(content=[TextContent(text=text)], is_error=True)


def check_offer(offer: McpOffer) -> None:
    """Refuse what cannot be offered.

    Raises:
        McpMissing: the SDK is not installed.
        CollectionNotFound: a collection that was named is not there.
    """
    require_sdk()
    for name in offer.documents or ():
        Shelf(offer.here.settings.documents).require(name)


def serve_stdio(offer: McpOffer) -> None:
    """Serve over standard input and output until the input ends; raises as `check_offer` does."""
    check_offer(offer)

    async def run() -> None:
        from mcp.server.stdio import stdio_server

        host = McpServer(offer)
        server = host.build()
        try:
            async with stdio_server() as (received, sent):
                await server.run(received, sent, server.create_initialization_options())
        finally:
            await host.close()

    asyncio.run(run())
