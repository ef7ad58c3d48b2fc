"""Many conversations over three servers, of which one after the other is killed and started again."""

from __future__ import annotations

import asyncio
import statistics
import sys
import threading
import time
from collections.abc import Callable

import psutil
import pytest

from tests.serve.server import Server
from tests.serve.upstreams.conftest import until
from tests.serve.upstreams.conversations import Outcome, converse

pytestmark = [pytest.mark.engine, pytest.mark.model]


class Kills(threading.Thread):
    """Kills a server every so many seconds, one after the other, and starts it again at once."""

    def __init__(self, servers: list[Server], options: list[str], home: dict[str, str], every: float, n: int) -> None:
        super().__init__()
        self._servers, self._options, self._home, self._every, self._n = servers, options, home, every, n
        self.problem: BaseException | None = None

    def run(self) -> None:
        try:
            for n in range(self._n):
                time.sleep(self._every)
                victim = self._servers[n % len(self._servers)]
                victim.process.kill()
                victim.stop()
                self._servers[n % len(self._servers)] = Server.start(*self._options, env=self._home, port=victim.port)
        except BaseException as error:
            self.problem = error


@pytest.mark.parametrize(
    ("n_clients", "seconds", "every", "kills", "n_slots", "most_grown"),
    [(8, 9.0, 3.0, 1, 8, 40e6), pytest.param(64, 120.0, 20.0, 5, 24, 60e6, marks=pytest.mark.soak)],
)
def test_conversations_go_on_while_servers_are_killed(
    serve_home: dict[str, str], starts_front: Callable[..., Server],
    n_clients: int, seconds: float, every: float, kills: int, n_slots: int, most_grown: float,
) -> None:  # fmt: skip
    options = ["smollm2", "--slots", str(n_slots), "--ctx-size", "1024", "--prompt-cache", "off", "--draft", "off"]
    servers = [Server.start(*options, env=serve_home) for _ in range(3)]
    front = starts_front([server.url for server in servers])
    try:
        for server in servers:
            assert server.post("/v1/completions", {"prompt": "a", "max_tokens": 1}).status == 200
        process = psutil.Process(front.process.pid)
        before = process.memory_info().rss
        killing = Kills(servers, options, serve_home, every, kills)
        killing.start()
        outcome = asyncio.run(converse(front.url, n_clients=n_clients, seconds=seconds, pause=1.0))
        killing.join()
        assert killing.problem is None
        assert not outcome.wrong, outcome.wrong[:3]
        assert set(outcome.statuses) <= {200, 429, 503}
        assert outcome.whole and outcome.later and outcome.hits  # how many is a matter of the machine
        assert len(outcome.told) <= kills * n_slots  # no more than were being answered
        assert process.memory_info().rss - before < most_grown
        status = until(lambda: _all_up(front))
        assert sum(each["answered"] for each in status["upstreams"]) >= outcome.whole
        sys.stdout.write(f"\n{_shown(outcome)}; retries {status['retries']}\n")  # pytest -s shows it
    finally:
        for server in servers:
            server.stop()


def _all_up(front: Server) -> dict[str, list[dict[str, int]]] | None:
    status: dict[str, list[dict[str, int]]] = front.get("/status.json").json()
    return status if all(each["problem"] is None for each in status["upstreams"]) else None


def _shown(outcome: Outcome) -> str:
    rate = outcome.hits / max(outcome.later, 1)
    tokens = outcome.cached_tokens / max(outcome.prompt_tokens, 1)
    return (
        f"{outcome.whole} whole streams, {len(outcome.told)} broken off, statuses {dict(outcome.statuses)}; "
        f"{outcome.later} later turns, {rate:.0%} hit, {tokens:.0%} of their tokens cached; "
        f"median {statistics.median(outcome.seconds):.1f} s"
    )
