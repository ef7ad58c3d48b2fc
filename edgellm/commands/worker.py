"""`edgellm worker`: this machine holds a part of a model that is larger than another one."""

from __future__ import annotations

import ipaddress
import sys
import threading
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Annotated

import typer

from edgellm.engine.rpc.address import DEFAULT_PORT, LOOPBACK, Address
from edgellm.engine.rpc.tunnel import Tunnel
from edgellm.engine.rpc.worker import WorkerServer
from edgellm.errors import NetworkError, UsageError
from edgellm.machine import memory
from edgellm.machine.cpu import usable_cores
from edgellm.ui import options
from edgellm.ui.console import note
from edgellm.ui.local_engine import building_workspace
from edgellm.ui.options import QuietOutput
from edgellm.ui.render import render
from edgellm.units import parse_size, size
from edgellm.units import threads as in_words


@dataclass(frozen=True, slots=True)
class WorkerReady:
    """Where the worker is, for `--workers`; printed when it is ready. Bytes of memory that it offers.

    With a tunnel, `address` is one of the machine `via`, else one of this machine.
    """

    address: str
    via: str | None
    n_threads: int
    available: int


def worker(
    port: Annotated[
        int,
        typer.Option(
            "--port",
            min=1,
            max=65535,
            envvar="EDGELLM_WORKER_PORT",
            help="Port to listen on; with --via that of the other machine.",
        ),
    ] = DEFAULT_PORT,
    via: Annotated[
        str | None,
        typer.Option("--via", metavar="USER@HOST", help="Be reached from that machine, through an SSH tunnel to it."),
    ] = None,
    ssh_option: Annotated[
        list[str] | None,
        typer.Option("--ssh-option", metavar="OPTION", help="As in -o of ssh: Port=2222. Can be repeated."),
    ] = None,
    bind: Annotated[
        str, typer.Option("--bind", metavar="ADDRESS", help="Address to listen on; another one needs --open.")
    ] = LOOPBACK,
    is_open: Annotated[
        bool,
        typer.Option(
            "--open",
            help="With --bind: let everybody who reaches that address use this machine. There is no password and no "
            "encryption, and llama.cpp's RPC trusts what it is sent: only for a network that is yours alone.",
        ),
    ] = False,
    max_memory: Annotated[
        str | None,
        typer.Option("--memory", metavar="SIZE", help="Offer at most this: 8GB. [default: what is free]"),
    ] = None,
    threads: options.Threads = None,
    offline: options.Offline = False,
    *,
    output: QuietOutput,
) -> WorkerReady:
    """Hold a part of a model for another machine, which names this one with --workers.

    It listens on 127.0.0.1: with --via the other machine reaches it through SSH. One client at a time computes here.
    Both machines need the same version of edgellm. Ctrl-C ends it.

    \b
    Examples: edgellm worker --via ada@main.example
              edgellm worker --bind 10.0.0.2 --open
    then, on the other machine:
              edgellm run qwen2.5-7b --workers 127.0.0.1:7531 "What is the capital of France?"
    """
    _check(bind, via, ssh_option, is_open=is_open)
    cap = parse_size(max_memory, "--memory") if max_memory else None
    engine = building_workspace(offline=offline, quiet=output.silent).installed_engine
    n_threads = threads or usable_cores()
    say = (lambda text: None) if output.silent else note
    ended: list[NetworkError] = []
    with ExitStack() as stack:
        at = Address(bind, port if via is None else 0)
        server = stack.enter_context(WorkerServer(at, engine, n_threads=n_threads, cap=cap, say=say))
        address = server.address
        if via is not None:
            extra = [word for option in ssh_option or () for word in ("-o", option)]
            tunnel = stack.enter_context(Tunnel(via, remote_port=port, local_port=server.address.port, options=extra))
            address = Address(LOOPBACK, port)

            def watch() -> None:
                ended.append(tunnel.wait())
                server.close()

            threading.Thread(target=watch, daemon=True).start()
        free = memory.available()
        result = WorkerReady(str(address), via, n_threads, free if cap is None else min(free, cap))
        render(output, result, lambda ready: None if output.quiet else _greet(ready, is_open=is_open))
        sys.stdout.flush()
        server.run()
    if ended:
        raise ended[0]
    return result


def _check(bind: str, via: str | None, ssh_options: list[str] | None, *, is_open: bool) -> None:
    """Refuse an address that others reach, unless that is meant, and options that do not go together."""
    try:
        is_local = ipaddress.ip_address(bind).is_loopback
    except ValueError as error:
        raise UsageError(f"--bind {bind[:60]!r} is no address", hint="--bind 10.0.0.2 --open") from error
    if via is not None and bind != LOOPBACK:
        raise UsageError("--via and --bind do not go together", why="the tunnel ends on the loopback")
    if ssh_options and via is None:
        raise UsageError("--ssh-option is for a tunnel", hint="--via USER@HOST")
    if not is_local and not is_open:
        why = "whoever reaches it could use this machine without a password, and read and change what is computed"
        raise UsageError(f"--bind {bind} needs --open", why=why, hint="edgellm worker --via USER@HOST")


def _greet(ready: WorkerReady, *, is_open: bool) -> None:
    """Print what the worker offers, who reaches it, and what to type next."""
    where = f"on {ready.via}" if ready.via else "here"
    reach = f"127.0.0.1 of {ready.via}" if ready.via else "everybody who reaches it" if is_open else "this machine only"
    note(f"worker at {ready.address} {where}: {size(ready.available)}, {in_words(ready.n_threads)}; for {reach}")
    note(f"next: edgellm run MODEL --workers {ready.address}    Ctrl-C stops")
