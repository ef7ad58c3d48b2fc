"""`edgellm serve [MODEL...]`: one local server that clients of OpenAI, Ollama and Anthropic accept."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from edgellm.commands.completion import model_names
from edgellm.commands.workspace import Workspace, workspace
from edgellm.ui import options

if TYPE_CHECKING:
    from edgellm.engine.installed import InstalledEngine
    from edgellm.serve.catalog import ServedModel
    from edgellm.serve.current import Handled
    from edgellm.serve.service import Service

# Models that the greeting lists.
MOST_SHOWN = 8


def serve(
    models: Annotated[
        list[str] | None,
        typer.Argument(
            help="Models to offer, by name or path. [default: all installed ones]", autocompletion=model_names
        ),
    ] = None,
    host: Annotated[str, typer.Option("--host", help="Address to listen on.", envvar="EDGELLM_HOST")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option("--port", min=1, max=65535, help="Port to listen on.", envvar="EDGELLM_PORT")
    ] = 11435,
    slots: Annotated[
        int, typer.Option("--slots", min=1, max=256, help="Requests a model answers at once.", envvar="EDGELLM_SLOTS")
    ] = 4,
    api_key: Annotated[
        list[str] | None,
        typer.Option("--api-key", help="A key that clients must send; may be given again.", envvar="EDGELLM_API_KEY"),
    ] = None,
    no_auth: Annotated[
        bool, typer.Option("--no-auth", help="Let anybody who reaches another --host use it without a key.")
    ] = False,
    ctx_size: options.ContextSize = None,
    kv: options.KVType = None,
    max_memory: options.MaxMemory = None,
    max_loaded: Annotated[
        int, typer.Option("--max-loaded", min=1, help="Models in memory at once.", envvar="EDGELLM_MAX_LOADED")
    ] = 3,
    keep_alive: Annotated[
        float,
        typer.Option(
            "--keep-alive", help="Seconds to keep a model that nobody uses; -1: always.", envvar="EDGELLM_KEEP_ALIVE"
        ),
    ] = 900,
    queue: Annotated[
        int,
        typer.Option("--queue", min=0, max=10000, help="Requests that may wait for a slot.", envvar="EDGELLM_QUEUE"),
    ] = 64,
    allowed_host: Annotated[
        list[str] | None, typer.Option("--allowed-host", help="Another name that this server is reached by.")
    ] = None,
    allowed_origin: Annotated[
        list[str] | None,
        typer.Option("--allowed-origin", help="A web page's origin that may use it, e.g. https://chat.example."),
    ] = None,
    loop_guard: options.Guard = True,
    threads: options.Threads = None,
    force: options.Force = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="A line for each request, on stderr.")] = False,
    offline: options.Offline = False,
) -> None:
    """Serve models over HTTP: the APIs of OpenAI, Ollama and Anthropic on one port.

    A model is loaded by its first request. The context holds for each request. Ctrl-C or SIGTERM lets answers under way
    end first.

    \b
    Examples: edgellm serve smollm2
              edgellm serve bitnet-2b minilm --slots 2 --ctx-size 8192
              edgellm serve --host 0.0.0.0 --api-key "$(openssl rand -hex 16)"
    """
    from edgellm.errors import UsageError
    from edgellm.serve.catalog import Catalog
    from edgellm.serve.options import ServeOptions
    from edgellm.serve.server import serve as run
    from edgellm.ui.console import print_json
    from edgellm.ui.units import parse_size

    here = workspace(offline=offline)
    asked = ServeOptions(
        host=host,
        port=port,
        n_slots=slots,
        n_ctx=ctx_size,
        kv_type=kv,
        n_threads=threads,
        max_memory=parse_size(max_memory, "--max-memory") if max_memory else None,
        max_loaded=max_loaded,
        idle_seconds=None if keep_alive < 0 else keep_alive,
        force=force,
        loop_guard=loop_guard,
        api_keys=frozenset(api_key or ()),
        allowed_hosts=frozenset(name.lower() for name in allowed_host or ()),
        allowed_origins=frozenset(allowed_origin or ()),
        max_queue=queue,
    )
    if not asked.is_local and not asked.api_keys and not no_auth:
        why = "whoever reaches the port could use it, and any web page could"
        raise UsageError(f"--host {host} needs a key", why=why, hint="--api-key KEY, or --no-auth if that is meant")
    engine = _engine(here)
    catalog = Catalog(_served(here, models or [], quiet=quiet or as_json))

    def ready(service: Service) -> None:
        if as_json:
            print_json({"url": asked.url, "models": [model.name for model in catalog]})
        elif not quiet:
            _greet(service)

    run(asked, catalog, engine, here.settings, on_ready=ready, on_request=_tell if verbose else None)


def _greet(service: Service) -> None:
    """What is served, where, to whom, and what to type next."""
    from edgellm.serve.status import status_of
    from edgellm.ui.console import note, printable, stderr
    from edgellm.ui.units import size

    options, status = service.options, status_of(service)
    reach = "only this machine can reach it" if options.is_local else f"reachable at {options.host}:{options.port}"
    lock = "with a key" if options.api_keys else "without a key"
    stderr().print(f"[bold]{options.url}[/]   {reach}, {lock}")
    shown = status.models[:MOST_SHOWN]
    width = max(len(model.name) for model in shown)
    for model in shown:
        context = f"{model.n_ctx:,} tokens x {model.n_slots}"
        needs = f"needs {size(model.needed_bytes)}"
        note(printable(f"  {model.name:<{width}}  {model.kind:<10}  {model.quant:<7}  {context:<18}  {needs}"))
    if len(status.models) > len(shown):
        note(f"  and {len(status.models) - len(shown)} more: edgellm list")
    note(f"{size(status.available_bytes)} of memory available; a model is loaded by its first request")
    note(f"page  {options.url}/    OpenAI  {options.url}/v1    Ollama, Anthropic  {options.url}")
    note("next: edgellm connect CLIENT    edgellm ps    Ctrl-C stops")


def _tell(request: Handled) -> None:
    """A request that is over, as a line."""
    import sys

    from edgellm.ui.console import printable

    speed = f"  {request.decode_rate:.1f} tok/s" if request.decode_rate else ""
    model = f"  {request.model}" if request.model else ""
    status = request.status or "gone"
    line = f"{request.method} {request.path[:200]}  {status}  {request.seconds * 1000:.1f} ms{model}{speed}"
    sys.stderr.write(f"{printable(line)}\n")
    sys.stderr.flush()


def _engine(here: Workspace) -> InstalledEngine:
    from edgellm.engine.installed import require
    from edgellm.errors import EngineMissing
    from edgellm.serve.server import PROGRAM

    engine = require(here.settings, here.stack)
    if not (engine.programs / PROGRAM).exists():
        why = "it is compiled on demand, in three to six minutes"
        raise EngineMissing("llama-server is not built", why=why, hint="edgellm engine build --tools")
    return engine


def _served(here: Workspace, names: list[str], *, quiet: bool) -> list[ServedModel]:
    from edgellm.errors import EdgellmError, ModelNotFound
    from edgellm.serve.catalog import served_model
    from edgellm.ui.console import note

    if names:
        found = [(name, *here.model_file(name, quiet=quiet)) for name in names]
        return [
            served_model(path.stem if name.endswith(".gguf") else name, path, recipe) for name, path, recipe in found
        ]
    served = []
    for name in here.store.names():
        try:
            served.append(served_model(name, *here.model_file(name, quiet=quiet)))
        except EdgellmError as error:
            note(f"{name} is left out: {error.what}")
    if not served:
        raise ModelNotFound("no model is installed", hint="edgellm pull smollm2, or edgellm serve smollm2")
    return served
