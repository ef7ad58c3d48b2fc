"""The address of a Ray cluster: `auto`, or HOST:PORT of its head; looked at before Ray is, which waits for minutes.

require_answer("10.0.0.1:6379")
"""

from __future__ import annotations

import re
import socket

from edgellm.errors import NetworkError, UsageError

AUTO = "auto"
# HOST:PORT of the head.
ADDRESS = re.compile(r"(?P<host>[\w.-]+|\[[0-9A-Fa-f:.]+\]):(?P<port>\d{1,5})", re.ASCII)
ANSWER_SECONDS = 5.0


def check_address(address: str) -> None:
    """Raise `UsageError` unless an address has one of the two forms."""
    found = ADDRESS.fullmatch(address)
    if address != AUTO and (found is None or not 0 < int(found["port"]) < 1 << 16):
        why = "it is auto, or HOST:PORT of the cluster's head; this machine must be a node of it"
        hint = "edgellm batch questions.jsonl -o answers.jsonl -m smollm2 --ray auto"
        raise UsageError(f"--ray {address[:100]}: not the address of a Ray cluster", why=why, hint=hint)


def require_answer(address: str) -> None:
    """Raise `NetworkError` unless something answers at an address; `auto` is Ray's to find."""
    found = ADDRESS.fullmatch(address)
    if found is None:
        return
    host, port = found["host"].strip("[]"), int(found["port"])
    try:
        socket.create_connection((host, port), ANSWER_SECONDS).close()
    except OSError as error:
        what, hint = f"no Ray cluster answers at {address}", "ray start --head starts one, and says its address"
        raise NetworkError(what, why=error.strerror or str(error), hint=hint) from error
