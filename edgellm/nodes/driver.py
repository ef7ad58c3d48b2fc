"""The child process that is Ray's driver: rows in, answers out, a line of JSON each; `slots` starts it.

    python -m edgellm.nodes.driver ADDRESS

The first line of its input is the model, each other one a row. It reports what goes on several times a second, so that
its silence is a sign. At the end of its input, hence with the process that started it, it leaves the cluster, and its
actors end.
"""

from __future__ import annotations

import os
import queue
import sys
import threading
import time
from collections.abc import Callable, Iterator

from edgellm.errors import EdgellmError
from edgellm.machine.child import Message, describe, open_answers, requests
from edgellm.nodes.cluster import RayCluster
from edgellm.nodes.messages import job_from
from edgellm.nodes.model_spec import ModelSpec
from edgellm.nodes.pool import NodePool

STEP_SECONDS, STATE_SECONDS = 0.05, 0.5
# How long Ray may look for a head that is gone before it ends this process; its own default is a minute.
RAY_SETTINGS = {"RAY_gcs_rpc_server_reconnect_timeout_s": "20", "RAY_DEDUP_LOGS": "0"}


def main() -> None:
    """Serve one batch."""
    answer = open_answers()
    lines = requests()
    first = next(lines, None)
    if first is None:
        return
    for name, value in RAY_SETTINGS.items():
        os.environ.setdefault(name, value)
    try:
        spec = ModelSpec.from_message(first)
        with RayCluster.connect(sys.argv[1]) as cluster:
            answer({"connected": True})
            pool = NodePool(cluster, spec)
            try:
                _serve(pool, lines, answer)
            finally:
                pool.close()
    except EdgellmError as error:
        answer({"error": describe(error)})


def _serve(pool: NodePool, lines: Iterator[Message], answer: Callable[[Message], None]) -> None:
    """Answer rows until there are no more."""
    inbox: queue.SimpleQueue[Message | None] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(lines, inbox), daemon=True).start()
    stated = 0.0
    while True:
        try:
            while True:
                message = inbox.get_nowait()
                if message is None:
                    return
                pool.admit(job_from(message))
        except queue.Empty:
            pass
        events = pool.step(STEP_SECONDS)
        if (now := time.monotonic()) - stated > STATE_SECONDS or events:  # the last answer comes with its numbers
            stated = now
            answer({"state": pool.state()})
        for each in events:
            answer(each)


def _read(lines: Iterator[Message], inbox: queue.SimpleQueue[Message | None]) -> None:
    try:
        for line in lines:
            inbox.put(line)
    finally:
        inbox.put(None)


if __name__ == "__main__":
    main()
