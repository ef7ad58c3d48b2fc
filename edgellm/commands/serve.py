"""`edgellm serve [MODEL...]`: one local server that clients of OpenAI, Ollama and Anthropic accept."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgellm.commands.completion import model_names
from edgellm.commands.workspace import Workspace, workspace
from edgellm.ui import options

if TYPE_CHECKING:
    from edgellm.serve.catalog import ServedModel


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
    from edgellm.ui.console import note, print_json
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
    program = _llama_server(here)
    catalog = Catalog(_served(here, models or [], quiet=quiet or as_json))
    names = [model.name for model in catalog]

    def ready(_: object) -> None:
        if as_json:
            print_json({"url": asked.url, "models": names})
        elif not quiet:
            note(f"{asked.url}  {', '.join(names[:6])}{' ...' if len(names) > 6 else ''}")
            note(f"OPENAI_BASE_URL={asked.url}/v1    Ctrl-C stops")

    run(asked, catalog, program, here.settings, on_ready=ready)


def _llama_server(here: Workspace) -> Path:
    from edgellm.engine.installed import require
    from edgellm.errors import EngineMissing

    program = require(here.settings, here.stack).programs / "llama-server"
    if not program.exists():
        why = "it is compiled on demand, in three to six minutes"
        raise EngineMissing("llama-server is not built", why=why, hint="edgellm engine build --tools")
    return program


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
