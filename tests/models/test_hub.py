"""The Hub over HTTP: what it tells of repositories and files, parts of files, and each way in which it refuses."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edgellm.errors import AccessDenied, ChecksumMismatch, EdgellmError, ModelNotFound, NetworkError
from edgellm.models.hub import client
from edgellm.models.hub.client import Hub, is_hugging_face
from edgellm.models.hub.retry import Patience
from edgellm.progress import Progress
from tests.models.hub_server import HubServer, git_sha1, sha256

BIG = bytes(range(256)) * 400
REPO = "user/tiny-gguf"
FILES = {"tiny-Q4_0.gguf": BIG, "config.json": b"{}", "sub/notes.txt": b"hello"}


@pytest.fixture
def server() -> Iterator[HubServer]:
    with HubServer() as server:
        server.add(REPO, FILES, licence="mit")
        yield server


@pytest.fixture
def slept() -> list[float]:
    return []


@pytest.fixture
def hub(server: HubServer, tmp_path: Path, slept: list[float]) -> Hub:
    return Hub(server.endpoint, tmp_path / "hub", patience=Patience(sleep=slept.append))


def test_what_a_repository_holds(hub: Hub, server: HubServer) -> None:
    found = hub.repository(REPO)
    assert found.commit == server.repos[REPO].commit and found.licence == "mit"
    assert found.files == {name: len(data) for name, data in FILES.items()}
    assert hub.repository(REPO, found.commit) == found


def test_size_and_hash_of_large_and_small_files(hub: Hub, server: HubServer) -> None:
    large, small = hub.file(REPO, "tiny-Q4_0.gguf"), hub.file(REPO, "sub/notes.txt")
    assert (large.size, large.sha256) == (len(BIG), sha256(BIG))
    assert (small.size, small.etag, small.sha256) == (5, git_sha1(b"hello"), None)
    assert large.commit == small.commit == server.repos[REPO].commit
    assert server.count("cdn") == 0


def wait_until(happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 5
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_parts_of_a_file_are_all_that_is_read(hub: Hub, server: HubServer) -> None:
    reader = hub.open_ranges(REPO, "tiny-Q4_0.gguf")
    assert reader.read(1000, 300) == BIG[1000:1300] and reader.read(len(BIG) - 5, 100) == BIG[-5:]
    assert reader.read(len(BIG), 10) == b"" and reader.n_read == 305
    wait_until(lambda: server.sent == 305)  # it counts after the bytes have left
    server.fail("/cdn", ignore_range=True)
    assert reader.read(1000, 300) == BIG[1000:1300]
    server.fail("/cdn", drop_after=100)
    assert reader.read(1000, 300) == BIG[1000:1300]


@pytest.mark.parametrize(
    ("how", "kind", "said"),
    [
        ({"status": 401}, AccessDenied, "may not be read"),
        ({"status": 403}, AccessDenied, "hf auth login"),
        ({"status": 403, "headers": {"X-Error-Code": "GatedRepo"}}, AccessDenied, f"huggingface.co/{REPO}"),
        ({"status": 401, "headers": {"X-Error-Code": "RepoNotFound"}}, ModelNotFound, "there is no model"),
        ({"status": 404, "headers": {"X-Error-Code": "RepoNotFound"}}, ModelNotFound, "there is no model"),
        ({"status": 404, "headers": {"X-Error-Code": "RevisionNotFound"}}, ModelNotFound, "has no revision"),
        ({"status": 404, "headers": {"X-Error-Code": "EntryNotFound"}}, ModelNotFound, "has no file"),
        ({"status": 400}, NetworkError, "answers 400"),
        ({"status": 503, "times": 9}, NetworkError, "answers 503"),
        ({"status": 429, "headers": {"Retry-After": "86400"}}, NetworkError, "in 86400 s"),
    ],
)  # fmt: skip
def test_every_refusal_says_what_to_do(
    how: dict[str, object], kind: type[EdgellmError], said: str, hub: Hub, server: HubServer
) -> None:
    server.fail("HEAD", **how)
    with pytest.raises(kind) as caught:
        hub.file(REPO, "tiny-Q4_0.gguf")
    error = caught.value
    assert said in f"{error.what} {error.why} {error.hint}" and error.exit_code in (3, 4)


def test_missing_things_are_told_apart(hub: Hub) -> None:
    for arguments, said in [
        (("user/nosuch", "x"), "there is no model"),
        ((REPO, "nosuch.gguf"), "has no file"),
        ((REPO, "config.json", "v9"), "has no revision"),
    ]:
        with pytest.raises(ModelNotFound, match=said):
            hub.file(*arguments)


def test_what_the_server_asks_for_is_waited(hub: Hub, server: HubServer, slept: list[float]) -> None:
    server.fail("HEAD", status=429, headers={"Retry-After": "7"})
    server.fail("HEAD", status=429, headers={"RateLimit": '"api";r=0;t=55'})
    server.fail("HEAD", status=429, headers={"Retry-After": "Thu, 01 Jan 2026 00:00:00 GMT"})
    seen: list[Progress] = []
    assert hub.file(REPO, "config.json", report=seen.append).size == 2
    assert slept == [7, 55, 0] and "trying again in 7 s" in seen[0].stage
    server.fail("/api/models", status=500, times=2)
    assert hub.repository(REPO).repo == REPO and slept[3:] == [1, 2]


def test_an_endless_slow_answer_is_given_up(server: HubServer, tmp_path: Path) -> None:
    impatient = Hub(server.endpoint, tmp_path, patience=Patience(window=0.3, least_rate=100_000, pauses=()))
    server.fail("/cdn", rate=2000)
    reader = impatient.open_ranges(REPO, "tiny-Q4_0.gguf")
    with pytest.raises(NetworkError, match="too slowly") as caught:
        reader.read(0, len(BIG))
    assert "bytes a second, less than 100000" in caught.value.why
    server.fail("/api/models", rate=50)
    with pytest.raises(NetworkError, match="too slowly"):
        impatient.repository(REPO)


@pytest.mark.parametrize("body", [b"", b"<html>login</html>", b"[]", b"{}", b'{"sha": 1, "siblings": []}', b"[" * 99999,
                                  b'{"sha": "' + b"a" * 40 + b'", "siblings": [{"rfilename": []}]}'])  # fmt: skip
def test_an_answer_of_something_else(body: bytes, hub: Hub, server: HubServer) -> None:
    server.fail("/api/models", body=body, times=2)
    with pytest.raises(NetworkError, match="does not answer as a Hub does"):
        hub.repository(REPO)


def test_an_answer_without_end(hub: Hub, server: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "MAX_ANSWER", 100_000)
    server.fail("/api/models", body=b" " * 30_000_000, chunked=True)
    with pytest.raises(NetworkError, match="does not answer as a Hub does") as caught:
        hub.repository(REPO)
    assert "more than 100000 bytes" in caught.value.why and server.sent < 30_000_000


def test_redirects_without_end(hub: Hub, server: HubServer) -> None:
    for method, ask in (("HEAD", lambda: hub.file(REPO, "config.json")), ("GET", lambda: hub.repository(REPO))):
        server.fail(method, status=302, times=999, headers={"Location": f"/{REPO}/resolve/main/config.json"})
        with pytest.raises(NetworkError, match="cannot be read") as caught:
            ask()
        assert "redirects" in caught.value.why and server.count(method) < 30


@pytest.mark.parametrize(
    "headers",
    [{}, {"X-Repo-Commit": "../../x", "ETag": '"a"'}, {"X-Repo-Commit": "a" * 40, "ETag": '"../../a"'}],
)
def test_headers_that_lead_out_of_the_cache(headers: dict[str, str], hub: Hub, server: HubServer) -> None:
    server.fail("HEAD", status=200, headers=headers)
    with pytest.raises(NetworkError, match="does not answer as a Hub does"):
        hub.file(REPO, "config.json")


def test_another_size_than_promised(hub: Hub, server: HubServer) -> None:
    file = hub.file(REPO, "tiny-Q4_0.gguf")
    for body in (BIG + b"x", BIG[:-1]):
        for start in (0, 50):
            server.fail("/cdn", body=body)
            with pytest.raises(ChecksumMismatch, match="another size"):
                list(hub.stream(file, start))
    server.fail("/cdn", body=BIG * 2, chunked=True)
    with pytest.raises(ChecksumMismatch, match="another size"):
        list(hub.stream(file))


def test_a_server_that_is_not_there(tmp_path: Path) -> None:
    hub = Hub("http://127.0.0.1:9", tmp_path, patience=Patience(pauses=(0,)))
    with pytest.raises(NetworkError, match="cannot be reached") as caught:
        hub.repository(REPO)
    assert "HF_ENDPOINT" in caught.value.hint and caught.value.exit_code == 4


def test_offline_asks_nobody(server: HubServer, tmp_path: Path) -> None:
    hub = Hub(server.endpoint, tmp_path, offline=True)
    for ask in (hub.repository, hub.search):
        with pytest.raises(NetworkError, match="edgellm is offline"):
            ask(REPO)
    with pytest.raises(NetworkError, match="edgellm is offline"):
        hub.file(REPO, "config.json")
    assert server.requests == []


def test_search(hub: Hub, server: HubServer) -> None:
    server.add("user/other", {})
    assert [found.repo for found in hub.search("TINY")] == [REPO]
    assert [found.repo for found in hub.search("user", limit=1)] == [REPO]
    assert "sort=downloads" in server.requests[0].path and "direction" not in server.requests[0].path


@pytest.mark.parametrize(
    ("endpoint", "expected"),
    [
        ("https://huggingface.co", True), ("https://HuggingFace.co/", True), ("https://hub.huggingface.co", True),
        ("http://huggingface.co", False), ("https://hf-mirror.com", False), ("https://huggingface.co.evil.org", False),
        ("https://evilhuggingface.co", False), ("https://huggingface.co@evil.org", False), ("", False),
    ],
)  # fmt: skip
def test_who_may_see_the_token(endpoint: str, expected: bool) -> None:
    assert is_hugging_face(endpoint) is expected
