"""A headless Chromium, driven over the DevTools protocol.

with Browser.start() as browser:
    page = browser.open(url)
    page.until("document.title === 'edgellm'")
"""

import asyncio
import base64
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import aiohttp

PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "chrome")
START_SECONDS = 60
T = TypeVar("T")


def program() -> str | None:
    return next(filter(None, map(shutil.which, PROGRAMS)), None)


class Page:
    """A tab: what it asked for, and what went wrong in it."""

    def __init__(self, browser: "Browser", session: str) -> None:
        self._browser = browser
        self._session = session
        self.requested: list[str] = []
        self.problems: list[str] = []
        self.posted: list[Any] = []
        self.answers: dict[str, tuple[int, str, bytes]] = {}
        self._loaded = asyncio.Event()

    def send(self, method: str, **params: Any) -> Any:
        return self._browser.wait(self._browser.call(method, params, self._session))

    def evaluate(self, expression: str) -> Any:
        reply = self.send("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in reply, reply["exceptionDetails"]
        return reply["result"].get("value")

    def until(self, expression: str, seconds: float = 60) -> None:
        end = time.monotonic() + seconds
        while not self.evaluate(f"!!({expression})"):
            assert time.monotonic() < end, f"never: {expression}\n{self.text}\n{self.problems}"
            self._browser.wait(asyncio.sleep(0.05))

    def _loads(self, method: str, **params: Any) -> None:
        """Do what loads a page, and wait for its load event: what is asked of a page that is being left may fail."""
        self._loaded.clear()
        self.send(method, **params)
        self._browser.wait(self._loaded.wait())

    @property
    def text(self) -> str:
        return str(self.evaluate("document.body.innerText"))

    def click(self, selector: str) -> None:
        self.evaluate(f"document.querySelector({json.dumps(selector)}).click()")

    def type(self, selector: str, text: str) -> None:
        self.evaluate(f"document.querySelector({json.dumps(selector)}).focus()")
        self.send("Input.insertText", text=text)

    def press_enter(self, *, shift: bool = False) -> None:
        key = {"key": "Enter", "code": "Enter", "windowsVirtualKeyCode": 13, "text": "\r", "modifiers": 8 * shift}
        for kind in ("keyDown", "keyUp"):
            self.send("Input.dispatchKeyEvent", type=kind, **key)

    def press_escape(self) -> None:
        for kind in ("keyDown", "keyUp"):
            self.send("Input.dispatchKeyEvent", type=kind, key="Escape", code="Escape", windowsVirtualKeyCode=27)

    def set_offline(self, offline: bool) -> None:
        """Cut the tab off from every server, or connect it again."""
        self.send(
            "Network.emulateNetworkConditions", offline=offline, latency=0, downloadThroughput=-1, uploadThroughput=-1
        )

    def reload(self) -> None:
        self._loads("Page.reload")

    def answer_instead(
        self, path: str, body: bytes, *, status: int = 200, media_type: str = "text/event-stream"
    ) -> None:
        """From now on a request for this path gets this answer, not the server's; `posted` has what it said."""
        self.answers[path] = (status, media_type, body)
        self.send("Fetch.enable", patterns=[{"urlPattern": f"*{each}"} for each in self.answers])

    def answer_itself(self) -> None:
        self.answers.clear()
        self.send("Fetch.disable")

    def accessible_names(self) -> list[tuple[str, str]]:
        """The role and the name of everything that a screen reader can go to, without what has neither."""
        nodes = self.send("Accessibility.getFullAXTree")["nodes"]
        shown = [node for node in nodes if not node.get("ignored") and "role" in node]
        return [(node["role"]["value"], node.get("name", {}).get("value", "")) for node in shown]

    def close(self) -> None:
        """Close the tab."""
        self._browser.wait(self._browser.call("Page.close", {}, self._session))

    def screenshot(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self.send("Page.captureScreenshot")["data"]))

    async def _heard(self, method: str, params: Any) -> None:
        if method == "Network.requestWillBeSent":
            self.requested.append(params["request"]["url"])
        elif method == "Page.loadEventFired":
            self._loaded.set()
        elif method == "Runtime.exceptionThrown":
            self.problems.append(str(params["exceptionDetails"]))
        elif method == "Log.entryAdded" and params["entry"]["level"] == "error":
            self.problems.append(params["entry"]["text"])
        elif method == "Fetch.requestPaused":
            status, media_type, body = self.answers[urlsplit(params["request"]["url"]).path]
            self.posted.append(json.loads(params["request"].get("postData", "null")))
            headers = [{"name": "Content-Type", "value": media_type}]
            answer = {"requestId": params["requestId"], "responseCode": status, "responseHeaders": headers}
            await self._browser.call(
                "Fetch.fulfillRequest", {**answer, "body": base64.b64encode(body).decode()}, self._session, heard=False
            )


class Browser:
    """A Chromium with a profile of its own."""

    def __init__(self, process: "subprocess.Popen[bytes]", profile: Path) -> None:
        self._process = process
        self._profile = profile
        self._loop = asyncio.new_event_loop()
        self._pages: dict[str, Page] = {}
        self._replies: dict[int, asyncio.Future[Any]] = {}
        self._n = 0

    @classmethod
    def start(cls) -> "Browser":
        profile = Path(tempfile.mkdtemp(prefix="edgellm-browser-"))
        found = program()
        assert found is not None
        command = [
            found, "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-dev-shm-usage",
            "--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-proxy-server",
            f"--user-data-dir={profile}", "--remote-debugging-port=0", "about:blank",
        ]  # fmt: skip
        environment = {**os.environ, "HOME": str(profile)}
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment,
            start_new_session=True,
        )  # fmt: skip
        browser = cls(process, profile)
        try:
            browser.wait(browser._connect())
        except BaseException:
            browser.close()
            raise
        return browser

    def wait(self, work: Coroutine[Any, Any, T]) -> T:
        return self._loop.run_until_complete(asyncio.wait_for(work, START_SECONDS))

    def open(self, url: str, *, width: int = 1200, height: int = 800, scheme: str = "light") -> Page:
        target = self.wait(self.call("Target.createTarget", {"url": "about:blank"}))["targetId"]
        session = self.wait(self.call("Target.attachToTarget", {"targetId": target, "flatten": True}))["sessionId"]
        page = self._pages[session] = Page(self, session)
        for domain in ("Page", "Network", "Runtime", "Log"):
            page.send(f"{domain}.enable")
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        page.send("Emulation.setDeviceMetricsOverride", **size)
        page.send("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        page._loads("Page.navigate", url=url)
        return page

    async def call(self, method: str, params: dict[str, Any], session: str | None = None, *, heard: bool = True) -> Any:
        self._n += 1
        message = {"id": self._n, "method": method, "params": params}
        if session is not None:
            message["sessionId"] = session
        reply: asyncio.Future[Any] = self._loop.create_future()
        if heard:
            self._replies[self._n] = reply
        await self._socket.send_str(json.dumps(message))
        return await reply if heard else None

    async def _connect(self) -> None:
        end = time.monotonic() + START_SECONDS
        told = self._profile / "DevToolsActivePort"
        while not told.exists() or len(told.read_text().splitlines()) < 2:
            assert self._process.poll() is None, "the browser ended at once"
            assert time.monotonic() < end, "the browser did not start"
            await asyncio.sleep(0.05)
        port, path = told.read_text().splitlines()
        self._client = aiohttp.ClientSession()
        self._socket = await self._client.ws_connect(f"ws://127.0.0.1:{port}{path}", max_msg_size=0)
        self._listening = asyncio.create_task(self._listen())

    async def _listen(self) -> None:
        async for message in self._socket:
            data = json.loads(message.data)
            if "method" in data:
                if page := self._pages.get(data.get("sessionId", "")):
                    await page._heard(data["method"], data["params"])
            elif reply := self._replies.pop(data["id"], None):
                if "error" in data:
                    reply.set_exception(AssertionError(data["error"]))
                else:
                    reply.set_result(data["result"])

    async def _disconnect(self) -> None:
        if hasattr(self, "_client"):
            self._listening.cancel()
            await asyncio.gather(self._listening, return_exceptions=True)
            await self._socket.close()
            await self._client.close()

    def close(self) -> None:
        self.wait(self._disconnect())
        self._loop.close()
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        shutil.rmtree(self._profile, ignore_errors=True)

    def __enter__(self) -> "Browser":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
