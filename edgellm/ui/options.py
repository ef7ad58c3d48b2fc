"""Options that several verbs share, spelled and explained once. Each can also come from EDGELLM_<NAME>."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

_asked: set[str] = set()


def _remember_json(value: bool) -> bool:
    if value:
        _asked.add("json")
    return value


def json_was_asked() -> bool:
    """Whether this command line, or the environment, asked for JSON; errors follow it."""
    return "json" in _asked


class LoopAction(str, Enum):
    """What to do with an answer that repeats itself without end."""

    STOP = "stop"
    RETRY = "retry"


Json = Annotated[
    bool, typer.Option("--json", help="Print one JSON document.", envvar="EDGELLM_JSON", callback=_remember_json)
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress and no notes.", envvar="EDGELLM_QUIET")]
Offline = Annotated[bool, typer.Option("--offline", help="Never use the network.", envvar="EDGELLM_OFFLINE")]
Force = Annotated[bool, typer.Option("--force", help="Go on although memory seems too small.", envvar="EDGELLM_FORCE")]
ContextSize = Annotated[
    int | None,
    typer.Option(
        "--ctx-size",
        "-c",
        min=8,
        help="Context in tokens. [default: 4096, or the model's own]",
        envvar="EDGELLM_CTX_SIZE",
    ),
]
KVType = Annotated[
    str | None,
    typer.Option(
        "--kv",
        metavar="TYPE",
        help="Type of the KV cache: f16, q8_0 (half the memory), q4_0 ... [default: f16]",
        envvar="EDGELLM_KV",
    ),
]
MaxMemory = Annotated[
    str | None,
    typer.Option(
        "--max-memory",
        metavar="SIZE",
        help="Stay below this, e.g. 1.5GB: context and cache type are chosen for it.",
        envvar="EDGELLM_MAX_MEMORY",
    ),
]
MaxTokens = Annotated[
    int,
    typer.Option(
        "--max-tokens", "-n", min=-1, help="Tokens to generate at most; -1: no limit.", envvar="EDGELLM_MAX_TOKENS"
    ),
]
MaxTime = Annotated[
    float | None,
    typer.Option(
        "--max-time", min=0.001, help="Seconds after which an answer ends. [default: none]", envvar="EDGELLM_MAX_TIME"
    ),
]
Guard = Annotated[
    bool,
    typer.Option(
        "--loop-guard/--no-loop-guard", help="End an answer that repeats itself endlessly.", envvar="EDGELLM_LOOP_GUARD"
    ),
]
OnLoop = Annotated[
    LoopAction,
    typer.Option("--on-loop", help="At a loop: stop, or go on once from before it.", envvar="EDGELLM_ON_LOOP"),
]
Threads = Annotated[
    int | None,
    typer.Option(
        "--threads",
        "-t",
        min=1,
        max=1024,
        help="Threads. [default: physical cores we may use]",
        envvar="EDGELLM_THREADS",
    ),
]
System = Annotated[
    str | None,
    typer.Option(
        "--system",
        "-s",
        help="System message. [default: the recipe's, or the chat template's]",
        envvar="EDGELLM_SYSTEM",
    ),
]
Temperature = Annotated[
    float | None,
    typer.Option(
        "--temp",
        min=0.0,
        max=5.0,
        help="Temperature; 0 is greedy. [default: the recipe's, or 0.8]",
        envvar="EDGELLM_TEMP",
    ),
]
TopK = Annotated[
    int | None,
    typer.Option(
        "--top-k",
        min=0,
        max=2**31 - 1,
        help="Keep the K likeliest tokens; 0: all. [default: 40]",
        envvar="EDGELLM_TOP_K",
    ),
]
TopP = Annotated[
    float | None,
    typer.Option(
        "--top-p", min=0.0, max=1.0, help="Keep this much probability. [default: 0.95]", envvar="EDGELLM_TOP_P"
    ),
]
MinP = Annotated[
    float | None,
    typer.Option(
        "--min-p",
        min=0.0,
        max=1.0,
        help="Drop tokens less likely than this share of the likeliest. [default: 0.05]",
        envvar="EDGELLM_MIN_P",
    ),
]
RepeatPenalty = Annotated[
    float | None,
    typer.Option(
        "--repeat-penalty",
        min=0.01,
        max=5.0,
        help="Penalty on recent tokens; 1: none. [default: 1]",
        envvar="EDGELLM_REPEAT_PENALTY",
    ),
]
Seed = Annotated[
    int | None,
    typer.Option(
        "--seed", min=0, max=2**32 - 2, help="Repeat an answer exactly. [default: random]", envvar="EDGELLM_SEED"
    ),
]
Format = Annotated[
    str | None,
    typer.Option(
        "--format",
        metavar="json|SCHEMA.json",
        help="Only JSON as the answer, of the form that a JSON schema describes.",
        envvar="EDGELLM_FORMAT",
    ),
]
Grammar = Annotated[
    Path | None,
    typer.Option("--grammar", help="A file with a GBNF grammar that the answer must follow.", envvar="EDGELLM_GRAMMAR"),
]
