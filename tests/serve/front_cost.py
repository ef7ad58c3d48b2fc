"""What the front costs: requests and streams through it and past it, in turns.

    python -m tests.serve.front_cost            (a few minutes; nothing else should run)

It starts a server with the embedded model and, beside it, llama-server alone with the options of the server's worker:
one that hands on each token when it comes, as llama-server does by itself. Round by round it measures the time of a
short request, and the tokens per second of one stream and of eight.
"""

import asyncio
import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import psutil

from edgellm.serve.workers.upstream import Upstream
from tests.serve.server import Server

ROUNDS, N_REQUESTS, N_TOKENS = 7, 40, 320


async def request_seconds(session: aiohttp.ClientSession) -> float:
    """Median seconds of a request that generates one token."""
    body = {"model": "smollm2", "prompt": "Once", "max_tokens": 1, "temperature": 0}
    times = []
    for _ in range(N_REQUESTS):
        begin = time.perf_counter()
        async with session.post("/v1/completions", json=body) as reply:
            assert reply.status == 200
            await reply.read()
        times.append(time.perf_counter() - begin)
    return statistics.median(times)


async def stream_rate(session: aiohttp.ClientSession, n_streams: int) -> float:
    """Tokens per second of so many streams together."""

    async def one(number: int) -> int:
        body = {
            "model": "smollm2", "prompt": f"Story {number}. Once upon a time", "max_tokens": N_TOKENS, "temperature": 1,
            "stream": True, "ignore_eos": True,
        }  # fmt: skip
        async with session.post("/v1/completions", json=body) as reply:
            assert reply.status == 200
            return sum([line.startswith(b"data: {") async for line in reply.content])

    begin = time.perf_counter()
    n_tokens = sum(await asyncio.gather(*map(one, range(n_streams))))
    return n_tokens / (time.perf_counter() - begin)


async def measure(url: str, socket: Path) -> None:
    """Print medians and their ratio."""
    waiting = Upstream(socket)
    while not await waiting.is_ready():
        await asyncio.sleep(0.1)
    await waiting.close()
    timeout = aiohttp.ClientTimeout(total=None)
    direct = aiohttp.UnixConnector(str(socket), limit=0, force_close=True)
    async with (
        aiohttp.ClientSession(url, timeout=timeout, connector=aiohttp.TCPConnector(limit=0)) as front,
        aiohttp.ClientSession("http://worker", timeout=timeout, connector=direct) as alone,
    ):
        requests: dict[str, list[float]] = {"front": [], "alone": []}
        rates: dict[tuple[str, int], list[float]] = {}
        for turn in range(ROUNDS + 1):
            ways = [("front", front), ("alone", alone)]
            for name, session in ways if turn % 2 else reversed(ways):
                seconds = await request_seconds(session)
                measured = {n: await stream_rate(session, n) for n in (1, 8)}
                if turn:  # the first is to warm up
                    requests[name].append(seconds)
                    for n, rate in measured.items():
                        rates.setdefault((name, n), []).append(rate)
    cost = [a - b for a, b in zip(requests["front"], requests["alone"], strict=True)]
    sys.stdout.write(f"a request: {1000 * statistics.median(cost):.2f} ms more through the front\n")
    for n in (1, 8):
        ratios = [a / b for a, b in zip(rates["front", n], rates["alone", n], strict=True)]
        sys.stdout.write(
            f"{n} stream{'s' * (n > 1)}: {statistics.median(rates['front', n]):.1f} tok/s through the front, "
            f"{statistics.median(rates['alone', n]):.1f} past it: {statistics.median(ratios):.3f}, "
            f"{min(ratios):.3f} to {max(ratios):.3f}\n"
        )


@contextlib.contextmanager
def llama_server(command: list[str]) -> Iterator[Path]:
    """llama-server alone, with these options but a socket of its own."""
    ours = {name: value for name, value in os.environ.items() if name != "EDGELLM_STREAM_BEAT_MS"}
    with tempfile.TemporaryDirectory() as directory:
        socket = Path(directory) / "alone.sock"
        command = [str(socket) if each.endswith(".sock") else each for each in command]
        with subprocess.Popen(command, env=ours, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            try:
                yield socket
            finally:
                process.kill()


def main() -> None:
    """Measure."""
    with Server.start("smollm2", "--slots", "8") as server:
        server.post("/v1/completions", {"prompt": "a", "max_tokens": 1})
        (worker,) = server.workers()
        with llama_server(psutil.Process(worker).cmdline()) as socket:
            asyncio.run(measure(server.url, socket))


if __name__ == "__main__":
    main()
