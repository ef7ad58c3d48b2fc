"""The Hugging Face Hub: what a repository holds, and the bytes of its files, whole or in ranges.

    hub = Hub.from_environment()
    hub.repository("Qwen/Qwen2.5-7B-Instruct-GGUF").files
    hub.open_ranges("Qwen/Qwen2.5-7B-Instruct-GGUF", "x-q4_k_m.gguf").read(0, 65536)

Addresses, token, cache and metadata of files come from huggingface_hub, proxies and certificates from `transport`. The
rest is our own: its downloads discard what has arrived when they are interrupted and compare only the size; its HfApi
reads answers of any length at any pace, sleeps as long as a server asks it to, and takes half a second to import.
"""

from __future__ import annotations

import contextlib
import json
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn, TypeVar
from urllib.parse import quote, urlsplit

import httpx2
from huggingface_hub import __version__ as library_version
from huggingface_hub import constants, get_token
from huggingface_hub.errors import (
    DisabledRepoError,
    GatedRepoError,
    HfHubHTTPError,
    OfflineModeIsEnabled,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.file_download import HfFileMetadata, get_hf_file_metadata, hf_hub_url
from huggingface_hub.utils import get_session, hf_raise_for_status, set_client_factory  # type: ignore[attr-defined]

from edgellm.errors import AccessDenied, ChecksumMismatch, ModelNotFound, NetworkError
from edgellm.models.hub.cache import HubCache
from edgellm.models.hub.files import RemoteFile, Repository
from edgellm.models.hub.retry import Patience, SpeedWatch, Transient, retry_after
from edgellm.models.hub.transport import EnvironmentTransport, proxy_for
from edgellm.models.recipe import is_inside
from edgellm.progress import Progress, Report, silent
from edgellm.version import __version__

# Otherwise it asks the Hub for a list of programs first, and reports to it which of them runs us.
constants.HF_HUB_DISABLE_TELEMETRY = True
MAX_ANSWER = 64_000_000
MAX_FILES = 100_000
QUESTIONS = 3
# How long to wait for the Hub where something else can answer too.
PROBE_SECONDS = 2.0
TRANSIENT = frozenset({408, 429, 500, 502, 503, 504})
Result = TypeVar("Result")


def _client() -> httpx2.Client:
    """The session for all of this process's requests to the Hub, other users' of huggingface_hub among them."""
    hooks = {"request": [_refuse_offline]}
    return httpx2.Client(transport=EnvironmentTransport(), event_hooks=hooks, follow_redirects=True, timeout=None)


def _refuse_offline(_: httpx2.Request) -> None:
    if constants.is_offline_mode():
        raise OfflineModeIsEnabled("HF_HUB_OFFLINE is set")


set_client_factory(_client)


class RangeRefused(NetworkError):
    """The server has no such part of the file (416)."""


@dataclass(frozen=True, slots=True)
class FoundRepository:
    """A model that a search found; `updated` is a date, YYYY-MM-DD, or empty."""

    repo: str
    downloads: int
    likes: int
    gated: bool
    updated: str


@dataclass(frozen=True, slots=True)
class Hub:
    """A Hub, or a mirror of one, and the cache that belongs to it."""

    endpoint: str
    cache: Path
    token: str | None = None
    offline: bool = False
    patience: Patience = field(default_factory=Patience)

    @classmethod
    def from_environment(cls, *, offline: bool = False) -> Hub:
        """The Hub that HF_ENDPOINT, HF_HOME, HF_HUB_CACHE, HF_TOKEN (or `hf auth login`) and HF_HUB_OFFLINE describe.

        The token is for huggingface.co alone: a mirror never sees it.
        """
        endpoint = constants.ENDPOINT
        if urlsplit(endpoint).scheme not in ("http", "https") or not urlsplit(endpoint).hostname:
            raise NetworkError(f"HF_ENDPOINT is {endpoint!r}, which is no address", hint="HF_ENDPOINT=https://...")
        allowed = is_hugging_face(endpoint) and not offline and not constants.HF_HUB_DISABLE_IMPLICIT_TOKEN
        token = get_token() if allowed else None
        # A relative path means another place in every directory, and the store must find the files from all of them.
        cache = Path(constants.HF_HUB_CACHE).absolute()
        return cls(endpoint, cache, token, offline or constants.HF_HUB_OFFLINE)

    @property
    def host(self) -> str:
        """The server's name, for messages."""
        return urlsplit(self.endpoint).netloc

    def is_reachable(self) -> bool:
        """Whether the Hub answers anything within `PROBE_SECONDS`; never when offline.

        It is asked in another thread: looking up an address may hang for longer than any time limit of a connection.
        """
        reached: list[bool] = []

        def ask() -> None:
            try:
                get_session().head(self.endpoint, headers=self._headers(), timeout=PROBE_SECONDS)
                reached.append(True)
            except Exception:  # whatever is wrong here, the question itself will explain it
                reached.append(False)

        if self.offline:
            return False
        asking = threading.Thread(target=ask, daemon=True)
        asking.start()
        asking.join(PROBE_SECONDS)
        return reached == [True]

    def repository(self, repo: str, revision: str = "main", *, report: Report = silent) -> Repository:
        """The files of a model repository; offline those that are in the cache.

        Raises ModelNotFound (no such repository or revision), AccessDenied, NetworkError.
        """
        if self.offline:
            return self._cached(repo, revision)
        report(Progress(f"looking at {repo}"))
        place = f"{self.endpoint}/api/models/{quote(repo)}/revision/{quote(revision, safe='')}"
        data = self._json(place, {"blobs": "true"}, _Wanted(repo, revision), report)
        try:
            files = {_safe(entry["rfilename"]): _size(entry) for entry in data["siblings"][:MAX_FILES]}
            card = data.get("cardData")
            licence = card.get("license") if isinstance(card, dict) else None
            return Repository(repo, _commit(data["sha"]), files, licence if isinstance(licence, str) else None)
        except (KeyError, TypeError, ValueError) as error:
            raise self._nonsense(place, error) from error

    def reach(self, seconds: float = 3.0) -> str:
        """How the Hub is reached, as in "huggingface.co answers, through HTTPS_PROXY=http://proxy:3128".

        Raises NetworkError when it does not answer within some seconds, or edgellm is offline.
        """
        host = urlsplit(self.endpoint).netloc
        with self._explained(_Wanted(host)):
            answer = get_session().head(self.endpoint, headers=self._headers(), timeout=seconds, follow_redirects=False)
        proxy = proxy_for(self.endpoint)
        if proxy and answer.status_code == 407:
            raise NetworkError("the proxy wants a password", why=str(proxy), hint=f"{proxy.variable}=http://user:...@")
        return f"{host} answers, {f'through {proxy}' if proxy else 'without a proxy'}"

    def search(self, text: str, *, limit: int = 20, report: Report = silent) -> list[FoundRepository]:
        """GGUF models whose id holds `text`, the most downloaded first."""
        place = f"{self.endpoint}/api/models"
        query = {"search": text, "filter": "gguf", "sort": "downloads", "limit": str(limit)}
        entries = self._json(place, query, _Wanted(text), report)
        try:
            return [
                FoundRepository(
                    repo=str(entry["id"]),
                    downloads=int(entry.get("downloads") or 0),
                    likes=int(entry.get("likes") or 0),
                    gated=bool(entry.get("gated")),
                    updated=str(entry.get("lastModified") or entry.get("createdAt") or "")[:10],
                )
                for entry in entries[:limit]
            ]
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise self._nonsense(place, error) from error

    def file(self, repo: str, name: str, revision: str = "main", *, report: Report = silent) -> RemoteFile:
        """A file's commit, size and hash, without its bytes; offline, of one that is in the cache.

        Raises ModelNotFound (no such repository, revision or file), AccessDenied, NetworkError.
        """
        wanted = _Wanted(repo, revision, name)
        if not is_inside(name):
            raise ModelNotFound(f"{name[:200]!r} is no name of a file", repo=repo)
        if self.offline and (known := HubCache(self.cache).file(repo, name, revision)):
            return known
        url = hf_hub_url(repo, name, revision=revision, endpoint=self.endpoint)

        def ask() -> HfFileMetadata:
            with self._explained(wanted):
                timeout = constants.HF_HUB_ETAG_TIMEOUT
                return get_hf_file_metadata(url, token=False, timeout=timeout, headers=self._headers())

        found = self._persist(ask, report)
        try:
            if found.size is None or not re.fullmatch(r"[A-Za-z0-9._-]{1,128}", found.etag or ""):
                raise ValueError("the answer has neither size nor hash of the file")
            return RemoteFile(repo, name, _commit(found.commit_hash), found.size, found.etag or "")
        except ValueError as error:
            raise self._nonsense(url, error) from error

    def open_ranges(self, repo: str, name: str, revision: str = "main", *, report: Report = silent) -> RangeReader:
        """A reader of parts of a file, for headers of models that are not here."""
        return RangeReader(self, self.file(repo, name, revision, report=report), report)

    def stream(self, file: RemoteFile, start: int = 0, length: int | None = None) -> Iterator[bytes]:
        """The bytes of a file from `start` on, as they arrive, from one request.

        Raises:
            Transient: the connection broke, or the server has a bad moment; ask again for the rest.
            RangeRefused: the server refuses this start.
            ChecksumMismatch: the file's size is not the one that was announced.
            NetworkError: anything else, and a server that is too slow.
        """
        stop = file.size if length is None else min(file.size, start + length)
        if start >= stop:
            return
        url = hf_hub_url(file.repo, file.name, revision=file.commit, endpoint=self.endpoint)
        # Uncompressed, so that positions are those of the file.
        headers = {"Accept-Encoding": "identity"}
        if start or stop < file.size:
            headers["Range"] = f"bytes={start}-{stop - 1}"
        with self._answer(url, headers, {}, _Wanted(file.repo, file.commit, file.name)) as response:
            position = _first_byte(response, file, start)
            watch = SpeedWatch(self.patience, file.name)
            for chunk in response.iter_bytes():
                watch(len(chunk))
                # A server without ranges sends all of the file: what is here already is skipped.
                wanted = chunk[max(0, start - position) : max(0, stop - position)]
                position += len(chunk)
                if position > file.size:
                    raise _wrong_size(file, f"more than {file.size} bytes arrive")
                if wanted:
                    yield wanted
                if position >= stop:
                    break
        if position < stop:
            raise Transient(f"{file.name} arrives incomplete", why=f"the server ended after byte {position}")

    def _cached(self, repo: str, revision: str) -> Repository:
        cache = HubCache(self.cache)
        commit = cache.commit(repo, revision)
        files = cache.files(repo, commit) if commit else {}
        if commit is None or not files:
            raise NetworkError(
                f"{repo} is not in the cache, and edgellm is offline",
                why="HF_HUB_OFFLINE, EDGELLM_OFFLINE or --offline is set",
                hint=f"the same online, or HF_HUB_CACHE where it is (now {self.cache})",
                repo=repo,
            )
        return Repository(repo, commit, files)

    def _persist(self, action: Callable[[], Result], report: Report) -> Result:
        """Ask until there is an answer; fewer times than a download tries, because somebody waits for it."""
        pauses = iter(self.patience.pauses[:QUESTIONS])
        while True:
            try:
                return action()
            except Transient as error:
                self.patience.wait(error, pauses, report)

    def _json(self, url: str, query: Mapping[str, str], wanted: _Wanted, report: Report) -> Any:
        def read() -> bytes:
            with self._answer(url, {}, query, wanted) as response:
                watch = SpeedWatch(self.patience, urlsplit(url).netloc)
                data = bytearray()
                for chunk in response.iter_bytes():
                    watch(len(chunk))
                    data += chunk
                    if len(data) > MAX_ANSWER:
                        raise self._nonsense(url, ValueError(f"more than {MAX_ANSWER} bytes"))
                return bytes(data)

        try:
            return json.loads(self._persist(read, report))
        except (ValueError, RecursionError) as error:
            raise self._nonsense(url, error) from error

    @contextlib.contextmanager
    def _answer(
        self, url: str, headers: Mapping[str, str], query: Mapping[str, str], wanted: _Wanted
    ) -> Iterator[httpx2.Response]:
        """A successful answer; the session takes the token away when it is redirected to another host."""
        timeout = constants.HF_HUB_DOWNLOAD_TIMEOUT
        with (
            self._explained(wanted),
            get_session().stream(
                "GET", url, headers={**self._headers(), **headers}, params=query or None, timeout=timeout
            ) as response,
        ):
            if response.is_error:
                with contextlib.suppress(httpx2.HTTPError):
                    response.read() if int(response.headers.get("Content-Length") or MAX_ANSWER) < 1_000_000 else None
            hf_raise_for_status(response)
            yield response

    def _headers(self) -> dict[str, str]:
        if self.offline:
            raise OfflineModeIsEnabled("")
        headers = {"user-agent": f"edgellm/{__version__}; hf_hub/{library_version}"}
        return {**headers, "authorization": f"Bearer {self.token}"} if self.token else headers

    @contextlib.contextmanager
    def _explained(self, wanted: _Wanted) -> Iterator[None]:
        """Turn every failure of a request into an `EdgellmError`."""
        try:
            yield
        except OfflineModeIsEnabled:
            raise NetworkError(
                f"{wanted} is not here, and edgellm is offline",
                why="HF_HUB_OFFLINE, EDGELLM_OFFLINE or --offline is set",
                hint="the same without it",
            ) from None
        except HfHubHTTPError as error:
            self._refused(error, wanted)
        except httpx2.ConnectError as error:
            if "CERTIFICATE_VERIFY_FAILED" not in str(error):
                raise self._unreachable(error) from error
            what, hint = f"the certificate of {urlsplit(self.endpoint).netloc} is not trusted", "SSL_CERT_FILE=ca.pem"
            why = f"{error}; a proxy that reads what passes has a certificate of its own"
            raise NetworkError(what, why=why, hint=f"{hint}, with the certificates of your network") from error
        except (httpx2.TimeoutException, httpx2.NetworkError, httpx2.ProxyError, httpx2.ProtocolError) as error:
            raise self._unreachable(error) from error
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            raise NetworkError(f"{wanted} cannot be read", why=str(error)) from error

    def _unreachable(self, error: Exception) -> Transient:
        what = f"{urlsplit(self.endpoint).netloc} cannot be reached"
        hint = "check the network (HTTPS_PROXY, HF_ENDPOINT), then the same again; what has arrived is kept"
        return Transient(what, why=f"{type(error).__name__}: {error}".rstrip(": "), hint=hint)

    def _refused(self, error: HfHubHTTPError, wanted: _Wanted) -> NoReturn:
        status = error.response.status_code
        if isinstance(error, GatedRepoError):
            raise AccessDenied(
                f"{wanted.repo} is gated: its owner wants its terms accepted first",
                why=self._why_denied(),
                hint=f"accept them at https://huggingface.co/{wanted.repo}, then hf auth login (or HF_TOKEN=hf_...)",
                repo=wanted.repo,
            ) from error
        if isinstance(error, DisabledRepoError):
            raise AccessDenied(f"{wanted.repo} is disabled on the Hub", repo=wanted.repo) from error
        if isinstance(error, RevisionNotFoundError):
            what = f"{wanted.repo} has no revision {wanted.revision!r}"
            raise ModelNotFound(what, hint="the same without --revision", repo=wanted.repo) from error
        if isinstance(error, RemoteEntryNotFoundError):
            what = f"{wanted.repo} has no file {wanted.name}"
            raise ModelNotFound(what, hint=f"edgellm pull {wanted.repo}", repo=wanted.repo) from error
        if isinstance(error, RepositoryNotFoundError) or status == 404:
            raise ModelNotFound(
                f"there is no model {wanted.repo} on {urlsplit(self.endpoint).netloc}",
                why=f"or it is private: {self._why_denied()}",
                hint=f"edgellm search {wanted.repo.partition('/')[2] or wanted.repo}",
                repo=wanted.repo,
            ) from error
        if status in (401, 403):
            why = error.response.headers.get("X-Error-Message") or f"the server answers {status}"
            hint = "hf auth login, or set HF_TOKEN to a token that may read it"
            raise AccessDenied(
                f"{wanted.repo} may not be read", why=f"{why}; {self._why_denied()}", hint=hint, repo=wanted.repo
            ) from error
        if status == 416:
            raise RangeRefused(f"{wanted} has no such part", why="the server answers 416") from error
        if status in TRANSIENT:
            busy = "asks to slow down" if status == 429 else "has a problem"
            transient = Transient(f"{urlsplit(self.endpoint).netloc} {busy}", why=f"it answers {status}")
            transient.wait = retry_after(error.response.headers)
            transient.hint = "the same again later; what has arrived is kept"
            raise transient from error
        raise NetworkError(f"{wanted} cannot be read", why=f"the server answers {status}", status=status) from error

    def _why_denied(self) -> str:
        if self.token:
            return "your token has no access"
        if not is_hugging_face(self.endpoint):
            return "no token was sent, for HF_ENDPOINT is a mirror"
        return "no token was sent, for none is set"

    def _nonsense(self, url: str, error: Exception) -> NetworkError:
        return NetworkError(
            f"{urlsplit(url).netloc} does not answer as a Hub does",
            why=f"{url}: {type(error).__name__} {error}"[:300],
            hint="check HF_ENDPOINT, or whether a proxy or a login page answers instead",
        )


class RangeReader:
    """Parts of a remote file; `n_read` counts the bytes that were asked for."""

    def __init__(self, hub: Hub, file: RemoteFile, report: Report = silent) -> None:
        self.file = file
        self.size = file.size
        self.n_read = 0
        self._hub = hub
        self._report = report

    def read(self, offset: int, length: int) -> bytes:
        """`length` bytes from `offset` on, fewer only at the end of the file."""
        data = bytearray()
        stop = min(self.size, offset + length)
        pauses = iter(self._hub.patience.pauses)
        while offset + len(data) < stop:
            try:
                for chunk in self._hub.stream(self.file, offset + len(data), stop - offset - len(data)):
                    data += chunk
            except Transient as error:
                self._hub.patience.wait(error, pauses, self._report)
        self.n_read += len(data)
        return bytes(data)


@dataclass(frozen=True, slots=True)
class _Wanted:
    """The subject of a request, for the message when it fails."""

    repo: str
    revision: str = "main"
    name: str = ""

    def __str__(self) -> str:
        return f"{self.name} of {self.repo}" if self.name else self.repo


def is_hugging_face(endpoint: str) -> bool:
    """Whether an address is the Hub itself, over a connection that others cannot read."""
    parts = urlsplit(endpoint)
    host = (parts.hostname or "").lower()
    return parts.scheme == "https" and (host in ("huggingface.co", "hf.co") or host.endswith(".huggingface.co"))


def _first_byte(response: httpx2.Response, file: RemoteFile, start: int) -> int:
    """Where in the file an answer begins; ChecksumMismatch when it is of another size."""
    if response.status_code != 206:
        total = response.headers.get("Content-Length")
        if total is not None and total.isdigit() and int(total) != file.size:
            raise _wrong_size(file, f"{total} bytes are offered, {file.size} were promised")
        return 0
    match = re.fullmatch(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18}|\*)", response.headers.get("Content-Range", ""))
    if match is None or int(match[1]) != start:
        raise NetworkError(f"{file.name} cannot be read in parts", why="the server sends another part than asked for")
    if match[3] not in ("*", str(file.size)):
        raise _wrong_size(file, f"it has {match[3]} bytes, {file.size} were promised")
    return start


def _wrong_size(file: RemoteFile, why: str) -> ChecksumMismatch:
    what = f"{file.name} has another size than {file.repo} says"
    return ChecksumMismatch(what, why=why, hint="try again later, or without HF_ENDPOINT", expected=file.size)


def _commit(value: object) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"[0-9a-f]{40}", value):
        raise ValueError("no commit id")
    return value


def _safe(name: object) -> str:
    if not isinstance(name, str) or not is_inside(name):
        raise ValueError(f"no name of a file: {name!r}")
    return name


def _size(entry: Mapping[str, Any]) -> int | None:
    lfs = entry.get("lfs")
    size = lfs.get("size") if isinstance(lfs, dict) else entry.get("size")
    return size if isinstance(size, int) and size >= 0 else None
