"""The socket that systemd listens on before the server runs: nothing runs until somebody connects.

    listening = handed_over()          # of edgellm.socket; None when nobody hands one over
    host, port = listening.getsockname()[:2]

The protocol is that of sd_listen_fds(3): variables say for which process descriptors are meant, and 3 is the first.
"""

from __future__ import annotations

import os
import socket

from edgellm.errors import UsageError

FIRST = 3
VARIABLES = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")


def handed_over() -> socket.socket | None:
    """Return the listening socket that this process was started with, and keep it from child processes.

    Raises:
        UsageError: there are several, or it is no TCP socket that listens.
    """
    pid, count = (os.environ.get(name, "") for name in VARIABLES[:2])
    if pid != str(os.getpid()) or count in ("", "0"):
        return None
    for name in VARIABLES:
        os.environ.pop(name, None)
    hint = "one ListenStream=ADDRESS:PORT in the .socket unit, and Accept=no"
    if count != "1":
        raise UsageError(f"{count} sockets were handed over", why="a server listens on one", hint=hint)
    try:
        found = socket.socket(fileno=FIRST)
        listens = found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    except OSError as error:
        raise UsageError("no socket was handed over", why=error.strerror or str(error), hint=hint) from error
    if found.family not in (socket.AF_INET, socket.AF_INET6) or not listens:
        raise UsageError("the socket that was handed over does not listen on a TCP port", hint=hint)
    found.set_inheritable(False)
    return found
