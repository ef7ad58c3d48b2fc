"""`edgellm serve [MODEL...]`: one local server that clients of OpenAI, Ollama and Anthropic accept."""

from __future__ import annotations

import contextlib
import socket
import sys
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from edgellm.adapters import named_adapter
from edgellm.cache.decision import DEFAULT_ERROR
from edgellm.cache.decision import EMBEDDER as COMPARER
from edgellm.documents.collection import RERANKER
from edgellm.documents.index import EMBEDDER
from edgellm.documents.shelf import Shelf
from edgellm.engine.adapters import Adapter
from edgellm.engine.rpc.address import parse_addresses
from edgellm.errors import EdgellmError, ModelNotFound, UsageError
from edgellm.library import DEFAULT_EMBEDDER, NO_EMBEDDER
from edgellm.serve.documents.stores import ALL
from edgellm.serve.http.current import Handled
from edgellm.serve.http.handed_over import handed_over
from edgellm.serve.http.origins import ANY, Origins
from edgellm.serve.options import ServeOptions
from edgellm.serve.server import serve as run
from edgellm.serve.service import Service
from edgellm.serve.watch.status import status_of
from edgellm.serve.workers.catalog import Catalog, ServedModel, served_model
from edgellm.ui import options
from edgellm.ui.console import note, printable
from edgellm.ui.flags import prompt_cache_size
from edgellm.ui.front import print_address, refuse_with_upstreams, serve_front
from edgellm.ui.local_engine import building_workspace
from edgellm.ui.local_model import find_model
from edgellm.ui.model_names import model_names
from edgellm.ui.options import LoadFlags, QuietOutput
from edgellm.ui.render import render
from edgellm.ui.served_tools import served_tools
from edgellm.units import parse_size, size
from edgellm.weights.convert.adapter import ready_adapters
from edgellm.workspace import Workspace

# Models that the greeting lists.
MOST_SHOWN = 8


@dataclass(frozen=True, slots=True)
class ServedModels:
    """Where the server is, and the names of its models; printed when it is ready."""

    url: str
    models: list[str]


def serve(
    models: Annotated[
        list[str] | None,
        typer.Argument(
            help="Models to offer, by name or path. [default: all installed ones]", autocompletion=model_names
        ),
    ] = None,
    host: Annotated[str, typer.Option("--host", help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=1, max=65535, help="Port to listen on.")] = 11435,
    slots: Annotated[int, typer.Option("--slots", min=1, max=256, help="Requests a model answers at once.")] = 4,
    api_key: Annotated[
        list[str] | None,
        typer.Option("--api-key", help="A key that clients must send; can be repeated."),
    ] = None,
    no_auth: Annotated[
        bool, typer.Option("--no-auth", help="With another --host: let anybody who reaches it use it without a key.")
    ] = False,
    max_loaded: Annotated[int, typer.Option("--max-loaded", min=1, help="Models in memory at once.")] = 3,
    keep_alive: Annotated[
        float,
        typer.Option("--keep-alive", help="Seconds to keep an unused model in memory; -1: always."),
    ] = 900,
    queue: Annotated[
        int,
        typer.Option("--queue", min=0, max=10000, help="Requests that may wait for a slot."),
    ] = 64,
    allowed_host: Annotated[
        list[str] | None,
        typer.Option("--allowed-host", help="Another host name that clients use for this server."),
    ] = None,
    allowed_origin: Annotated[
        list[str] | None,
        typer.Option(
            "--allowed-origin",
            help="The origin of web pages that may use it: https://chat.example, app://obsidian.md, "
            "'vscode-webview://*', or '*' for all. Can be repeated.",
        ),
    ] = None,
    chats: Annotated[
        bool | None,
        typer.Option(
            "--chats/--no-chats",
            help="Share the saved chats with the page. [default: only on 127.0.0.1, without keys and allowed hosts]",
            show_default=False,
        ),
    ] = None,
    documents: Annotated[
        list[str] | None,
        typer.Option(
            "--docs",
            help="Answer from a collection of documents, as the model MODEL@NAME and through OpenAI's vector stores; "
            "'all' for all collections. Can be repeated. [default: all, for the page and for programs of this machine "
            "only, on 127.0.0.1 without keys and allowed hosts]",
            show_default=False,
        ),
    ] = None,
    no_documents: Annotated[bool, typer.Option("--no-docs", help="Offer no documents, on the page either.")] = False,
    tools: Annotated[
        list[str] | None,
        typer.Option(
            "--tools",
            metavar="NAME,...",
            help="Run these tools here for clients that ask for them, without a question: as `edgellm tools` lists "
            "them. Can be repeated. [default: none]",
            show_default=False,
        ),
    ] = None,
    mcp: options.McpFile = None,
    mcp_host: Annotated[
        list[str] | None,
        typer.Option(
            "--mcp-host",
            help="A host (HOST or HOST:PORT) where clients may use MCP servers of their own choice; 'public' "
            "for all public addresses. Can be repeated. [default: none]",
            show_default=False,
        ),
    ] = None,
    workers: options.Workers = None,
    layers_here: options.LayersHere = None,
    upstreams: Annotated[
        list[str] | None,
        typer.Option(
            "--upstreams",
            metavar="URL,...",
            help="Load no model: spread requests over these servers of edgellm, and keep conversations where they are "
            "cached. Can be repeated. [default: none]",
            show_default=False,
        ),
    ] = None,
    upstream_key: Annotated[
        str | None,
        typer.Option("--upstream-key", help="The key of the --upstreams. [default: the --api-key, if there is one]"),
    ] = None,
    lora: options.Lora = None,
    answer_cache: options.AnswerCaching = False,
    answer_cache_error: options.AnswerError = DEFAULT_ERROR,
    answer_cache_sampled: options.AnswersSampled = False,
    loop_guard: options.Guard = True,
    truncate: Annotated[
        bool,
        typer.Option(
            "--truncate",
            help="Drop the oldest part of prompts longer than the context, for clients that cannot ask for it; "
            "the system message and the last question stay. [default: an error with both counts]",
        ),
    ] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="A line for each request, on stderr.")] = False,
    offline: options.Offline = False,
    *,
    load: LoadFlags,
    output: QuietOutput,
) -> ServedModels:
    """Serve models over HTTP: the APIs of OpenAI, Ollama and Anthropic on one port.

    A model is loaded by its first request. --ctx-size is the context of each request. Ctrl-C or SIGTERM lets running
    answers end first. Started by a socket of systemd, it listens there.

    \b
    Examples: edgellm serve smollm2
              edgellm serve bitnet-2b minilm --slots 2 --ctx-size 8192
              edgellm serve smollm2 --docs manuals
              edgellm serve smollm2 --lora dates-lora.gguf:0.5
              edgellm serve smollm2 --tools calculator,web_search,files
              edgellm serve qwen2.5-7b --workers 10.0.0.2,10.0.0.3
              edgellm serve --host 0.0.0.0 --api-key "$(openssl rand -hex 16)"
              edgellm serve --upstreams http://box1:11435,http://box2:11435
    """

    here = building_workspace(offline=offline, quiet=output.silent)
    listening = handed_over()
    if listening is not None:
        host, port = listening.getsockname()[:2]
    asked = ServeOptions(
        host=host,
        port=port,
        n_slots=slots,
        n_ctx=load.ctx_size,
        kv_type=load.kv,
        n_threads=load.threads,
        tuned=load.tuned,
        draft=load.drafts,
        max_memory=parse_size(load.max_memory, "--max-memory") if load.max_memory else None,
        max_loaded=max_loaded,
        idle_seconds=None if keep_alive < 0 else keep_alive,
        force=load.force,
        loop_guard=loop_guard,
        truncate=truncate,
        api_keys=frozenset(api_key or ()),
        allowed_hosts=frozenset(name.lower() for name in allowed_host or ()),
        allowed_origins=Origins.of(allowed_origin or ()).patterns,
        chats=chats,
        documents=() if no_documents else tuple(documents) if documents else None,
        embedder=DEFAULT_EMBEDDER,
        prompt_cache=prompt_cache_size(load.prompt_cache),
        answer_cache=answer_cache,
        answer_cache_error=answer_cache_error,
        answer_cache_sampled=answer_cache_sampled,
        max_queue=queue,
    )
    if not asked.is_local and not asked.api_keys and not no_auth:
        why = "anybody who reaches the port could use it, and so could any web page"
        raise UsageError(f"--host {host} needs a key", why=why, hint="--api-key KEY, or --no-auth if that is meant")
    if upstreams:
        mine = {
            "MODEL": models, "--docs": documents, "--tools": tools, "--mcp": mcp, "--mcp-host": mcp_host,
            "--workers": workers, "--layers-here": layers_here, "--lora": lora, "--answer-cache": answer_cache,
            "--ctx-size": load.ctx_size, "--chats": chats,
        }  # fmt: skip
        refuse_with_upstreams([name for name, value in mine.items() if value])
        return _serve_front(asked, upstreams, upstream_key, output, listening, verbose=verbose)
    if workers is not None or layers_here is not None:
        asked = _on_workers(asked, workers, layers_here, models or [], lora)
    if upstream_key:
        raise UsageError("--upstream-key belongs to --upstreams", hint="edgellm serve --upstreams URL,URL")
    if no_documents and documents:
        raise UsageError("--docs and --no-docs exclude each other", hint="leave one out")
    if ANY in asked.allowed_origins and not asked.api_keys:
        note("--allowed-origin '*' without a key: every web page that you open can use this server")
    adapters = _adapters(here, lora or [], models or [], cached=answer_cache)
    engine = here.engine_with_tools
    helpers = _helpers(here, asked) if asked.offers_documents else []
    if (answer_cache or tools) and COMPARER in here.store.names():
        helpers.append(COMPARER)  # which compares questions, with others or with what tools are for
    served = [_adapted(here, model, adapters) for model in _served(here, models or [], quiet=output.silent)]
    names = {model.name for model in served}
    helpers = [name for name in helpers if name not in names]
    if asked.documents is None:  # nobody has asked for them: nothing is pulled, and no list has another model
        helpers = [name for name in helpers if here.store.find(name) or Path(name).is_file()]
        catalog = Catalog(served, _offered_if_here(here, helpers, quiet=output.silent))
    else:
        catalog = Catalog([*served, *_offered_if_here(here, helpers, quiet=output.silent)])

    result = ServedModels(asked.url, [model.name for model in catalog])

    def ready(service: Service) -> None:
        render(output, result, lambda _: None if output.quiet else _greet(service))
        sys.stdout.flush()

    report = _print_request if verbose else None
    with served_tools(here, tools or (), mcp=mcp, hosts=mcp_host or (), quiet=output.silent) as running:
        run(
            asked, catalog, engine, here.settings, on_ready=ready, on_request=report, tools=running, listening=listening
        )
    return result


def _greet(service: Service) -> None:
    """Print the models, the address, who can reach it, and what to type next."""
    options, status = service.options, status_of(service)
    print_address(options)
    shown = status.models[:MOST_SHOWN]
    width = max(len(model.name) for model in shown)
    for model in shown:
        context = f"{model.n_ctx:,} tokens x {model.n_slots}"
        needs = f"needs {size(model.needed_bytes)}"
        note(printable(f"  {model.name:<{width}}  {model.kind:<10}  {model.quant:<7}  {context:<18}  {needs}"))
    if len(status.models) > len(shown):
        note(f"  and {len(status.models) - len(shown)} more: edgellm list")
    note(f"{size(status.available_bytes)} of memory available; a model is loaded by its first request")
    if options.shares_chats:
        note("the page shares the saved chats of edgellm chats; --no-chats keeps them closed")
    if service.documents is not None and options.documents is None:
        note("documents: drop files on the page, and ask; --no-docs keeps that closed")
    elif service.documents is not None:
        names = ", ".join(store.name for store in service.documents.all()) or "none yet"
        note(printable(f"documents  {names}: choose the model NAME@COLLECTION, or use OpenAI's file_search"))
    if service.tools is not None:
        names = ", ".join(service.tools.tools) or "none of its own"
        note(printable(f"tools  {names}: they run here, without a question, for clients that ask for them"))
    if options.answer_cache:
        note("answers at temperature 0 are kept and given again for questions that mean the same: edgellm cache stats")
    note(f"page  {options.url}/    OpenAI  {options.url}/v1    Ollama, Anthropic  {options.url}")
    note("next: edgellm connect CLIENT    edgellm ps    Ctrl-C stops")


def _print_request(request: Handled) -> None:
    """Print a line for a request that is over."""

    speed = f"  {request.decode_rate:.1f} tok/s" if request.decode_rate else ""
    model = f"  {request.model}" if request.model else ""
    status = request.status or "gone"
    line = f"{request.method} {request.path[:200]}  {status}  {request.seconds * 1000:.1f} ms{model}{speed}"
    sys.stderr.write(f"{printable(line)}\n")
    sys.stderr.flush()


def _helpers(here: Workspace, options: ServeOptions) -> list[str]:
    """The embedding models and rerankers of the collections that are offered, and the embedding model for new ones.

    Raises:
        CollectionNotFound: there is no such collection.
    """
    shelf = Shelf(here.settings.documents)
    for name in options.documents or ():
        if name != ALL:
            shelf.require(name)
    found = [options.embedder]
    for name in shelf.names():
        with contextlib.suppress(EdgellmError), shelf.open(name) as collection:
            found += [collection.setting(each) or "" for each in (EMBEDDER, RERANKER)]
    return [name for name in dict.fromkeys(found) if name not in ("", NO_EMBEDDER)]


def _offered_if_here(here: Workspace, names: list[str], *, quiet: bool) -> list[ServedModel]:
    """Models that find documents; without one they are found by the others, or by their words alone."""
    found = []
    for name in names:
        try:
            found.append(_offered(here, name, quiet=quiet))
        except EdgellmError as error:
            note(f"{name}: {error.what}; documents are found without it: edgellm pull {name}")
    return found


def _serve_front(
    asked: ServeOptions,
    urls: list[str],
    key: str | None,
    output: QuietOutput,
    listening: socket.socket | None,
    *,
    verbose: bool,
) -> ServedModels:
    """Serve for upstreams until the server stops; the result is printed when it is ready."""
    front = ServedModels(asked.url, [])
    shows, report = partial(render, output, front), _print_request if verbose else None
    serve_front(
        asked, urls, key, front.models, shows, quiet=output.quiet, on_request=report, listening=listening
    )  # fmt: skip
    return front


def _on_workers(
    asked: ServeOptions, workers: str | None, n_here: int | None, models: list[str], lora: list[str] | None
) -> ServeOptions:
    """The options of a server whose model is on several machines; what is known of it on one does not hold there."""
    if workers is None:
        raise UsageError("--layers-here is for a model on workers", hint="--workers HOST:PORT")
    if len(models) != 1 or lora:
        what = "--workers needs one model" + (" without --lora" if lora else "")
        raise UsageError(what, why="a worker computes for one", hint="edgellm serve MODEL --workers HOST:PORT")
    addresses = parse_addresses(workers)
    return replace(asked, workers=addresses, n_here=n_here, tuned=False, draft=False, prompt_cache=0)


def _adapters(here: Workspace, lora: list[str], models: list[str], *, cached: bool) -> list[Adapter]:
    """The adapters that were typed; they need the one model that they belong to."""
    if lora and len(models) != 1:
        raise UsageError(
            "--lora needs one model", why="an adapter belongs to it", hint="edgellm serve MODEL --lora FILE"
        )
    if lora and cached:
        raise UsageError("--lora and --answer-cache do not go together", why="kept answers are the model's own")
    return [named_adapter(here, text) for text in lora]


def _adapted(here: Workspace, model: ServedModel, adapters: list[Adapter]) -> ServedModel:
    if not adapters:
        return model
    return replace(model, adapters=ready_adapters(adapters, model.path, here.settings.cache / "adapters"))


def _served(here: Workspace, names: list[str], *, quiet: bool) -> list[ServedModel]:
    if names:
        return [_offered(here, name, quiet=quiet) for name in names]
    served = []
    for name in here.store.names():
        try:
            served.append(_offered(here, name, quiet=quiet))
        except EdgellmError as error:
            note(f"{name} is left out: {error.what}")
    if not served:
        raise ModelNotFound("no model is installed", hint="edgellm pull smollm2, or edgellm serve smollm2")
    return served


def _offered(here: Workspace, name: str, *, quiet: bool) -> ServedModel:
    local = find_model(here, name, quiet=quiet)
    return served_model(local.path.stem if name.endswith(".gguf") else name, local.path, local.recipe)
