"""Downloading from a local Hub with the real client: whatever breaks, the file is right or it is not there."""

import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from edgellm.errors import ChecksumMismatch, DiskFull, FileAccessError, NetworkError
from edgellm.models.hub.cache import HubCache
from edgellm.models.hub.client import Hub
from edgellm.models.hub.download import download
from edgellm.models.hub.files import RemoteFile
from edgellm.models.hub.retry import Patience
from edgellm.progress import Progress
from tests.models.hub_server import HubServer, git_sha1, sha256

REPO, NAME = "user/tiny", "model.gguf"
DATA = bytes(i * 7 % 251 for i in range(200_000))


@pytest.fixture
def server() -> Iterator[HubServer]:
    with HubServer() as server:
        server.add(REPO, {NAME: DATA, "small.json": b'{"a": 1}'})
        yield server


@pytest.fixture
def hub(server: HubServer, tmp_path: Path) -> Hub:
    return Hub(server.endpoint, tmp_path / "hub", patience=Patience(pauses=(0, 0, 0), sleep=lambda _: None))


@pytest.fixture
def file(hub: Hub) -> RemoteFile:
    return hub.file(REPO, NAME)


def left(hub: Hub) -> set[str]:
    """Names of the blobs, complete or not."""
    return {path.name for path in (HubCache(hub.cache).repository(REPO) / "blobs").iterdir()}


def test_the_layout_is_huggingface_hubs_own(hub: Hub, file: RemoteFile, server: HubServer) -> None:
    from huggingface_hub import try_to_load_from_cache

    path = download(hub, file)
    assert path.read_bytes() == DATA and path.is_symlink() and path.resolve().name == sha256(DATA)
    small = download(hub, hub.file(REPO, "small.json"))
    assert small.resolve().name == git_sha1(b'{"a": 1}')
    for name, expected in ((NAME, path), ("small.json", small)):
        assert try_to_load_from_cache(REPO, name, cache_dir=hub.cache) == str(expected)
    assert left(hub) == {sha256(DATA), git_sha1(b'{"a": 1}')}
    sent = server.sent
    assert download(hub, file) == path and server.sent == sent


def test_what_another_tool_has_downloaded_is_used(hub: Hub, file: RemoteFile, server: HubServer) -> None:
    command = "import sys, huggingface_hub as h; print(h.hf_hub_download(*sys.argv[1:3], cache_dir=sys.argv[3]))"
    environment = {**os.environ, "HF_ENDPOINT": server.endpoint, "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    result = subprocess.run(
        [sys.executable, "-c", command, REPO, NAME, str(hub.cache)],
        env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    sent = server.sent
    assert str(download(hub, file)) == result.stdout.strip() and server.sent == sent


@pytest.mark.parametrize("tenth", range(10))
def test_a_connection_that_breaks_at_each_tenth(tenth: int, hub: Hub, file: RemoteFile, server: HubServer) -> None:
    server.fail("GET /cdn", drop_after=len(DATA) * tenth // 10)
    server.fail("GET /cdn", drop_after=1000)
    assert download(hub, file).read_bytes() == DATA
    assert server.sent == len(DATA)  # not a byte twice
    assert left(hub) == {sha256(DATA)}


def test_what_has_arrived_is_kept_when_it_is_given_up(hub: Hub, file: RemoteFile, server: HubServer) -> None:
    server.fail("GET /cdn", drop_after=60_000)
    broken = server.fail("GET /cdn", status=503, times=99)
    with pytest.raises(NetworkError, match="has a problem"):
        download(hub, file)
    assert not HubCache(hub.cache).snapshot(file).exists() and HubCache(hub.cache).here(file) == 60_000
    broken.times = 0
    seen: list[Progress] = []
    assert download(hub, file, report=seen.append).read_bytes() == DATA and server.sent == len(DATA)
    assert seen[0].stage == f"checking what is here of {NAME}" and (seen[-1].stage, seen[-1].done) == (NAME, len(DATA))


def test_wrong_bytes_of_the_right_size_are_set_aside(hub: Hub, file: RemoteFile, server: HubServer) -> None:
    wrong = bytes(len(DATA))
    server.fail("GET /cdn", body=wrong)
    with pytest.raises(ChecksumMismatch, match="set aside as") as caught:
        download(hub, file)
    assert caught.value.exit_code == 6 and caught.value.facts["actual"] == sha256(wrong)
    assert Path(str(caught.value.facts["path"])).read_bytes() == wrong
    assert left(hub) == {f"{sha256(DATA)}.corrupt"}
    assert download(hub, file).read_bytes() == DATA


@pytest.mark.parametrize("body", [DATA[:-1], DATA + b"x", b""])
@pytest.mark.parametrize("here", [0, 1000])
def test_a_wrong_size_is_no_success(body: bytes, here: int, hub: Hub, file: RemoteFile, server: HubServer) -> None:
    partial = HubCache(hub.cache).partial(file)
    partial.parent.mkdir(parents=True)
    partial.write_bytes(DATA[:here])
    server.fail("GET /cdn", body=body, times=9)
    server.fail("GET /cdn", body=DATA + b"x", chunked=True)
    with pytest.raises((ChecksumMismatch, NetworkError)):
        download(hub, file)
    assert not HubCache(hub.cache).snapshot(file).exists()
    server.faults.clear()
    assert download(hub, file).read_bytes() == DATA


def test_a_refused_range_starts_over(hub: Hub, file: RemoteFile, server: HubServer) -> None:
    server.fail("GET /cdn", drop_after=60_000)
    server.fail("GET /cdn", status=416)
    assert download(hub, file).read_bytes() == DATA
    server.fail("GET /cdn", drop_after=60_000)
    server.fail("GET /cdn", ignore_range=True)
    assert download(hub, file, force=True).read_bytes() == DATA


def test_a_partial_file_that_is_not_ours(hub: Hub, file: RemoteFile) -> None:
    partial = HubCache(hub.cache).partial(file)
    partial.parent.mkdir(parents=True)
    partial.write_bytes(bytes(len(DATA) + 1))  # too long to be of this file
    assert download(hub, file).read_bytes() == DATA
    HubCache(hub.cache).blob(file).unlink()
    partial.write_bytes(bytes(1000))  # as a power cut may leave it
    with pytest.raises(ChecksumMismatch, match="set aside"):
        download(hub, file)
    assert download(hub, file).read_bytes() == DATA


def test_damage_in_the_cache_is_found_and_mended(hub: Hub, file: RemoteFile) -> None:
    blob = download(hub, file).resolve()
    for damage in (DATA[:-1], DATA[:-1] + b"?"):
        blob.write_bytes(damage)
        assert download(hub, file).read_bytes() == DATA
        assert HubCache(hub.cache).corrupt(file).read_bytes() == damage


def test_a_full_disk(hub: Hub, file: RemoteFile) -> None:
    partial = HubCache(hub.cache).partial(file)
    partial.parent.mkdir(parents=True)
    partial.symlink_to("/dev/full")
    with pytest.raises(DiskFull, match="disk is full"):
        download(hub, file)
    partial.unlink()
    assert left(hub) == set() and download(hub, file).read_bytes() == DATA


def test_a_disk_that_will_be_too_small(hub: Hub, file: RemoteFile, server: HubServer) -> None:
    with pytest.raises(DiskFull, match="is free on the disk") as caught:
        download(hub, replace(file, size=1 << 60))
    assert "HF_HUB_CACHE" in caught.value.hint and server.count("GET /cdn") == 0


READ_ONLY = """
import os, sys
from pathlib import Path
from edgellm.errors import FileAccessError
from edgellm.models.hub.download import download
from edgellm.models.hub.client import Hub
hub = Hub(sys.argv[1], Path(sys.argv[2]))
files = [hub.file(sys.argv[3], name) for name in sys.argv[4:]]
if os.getuid() == 0:
    os.setuid(65534)  # root may write anywhere
print(download(hub, files[0]))
try:
    download(hub, files[1])
except FileAccessError as error:
    print(error, error.hint)
"""


def test_a_read_only_cache_can_be_read(hub: Hub, file: RemoteFile, server: HubServer) -> None:
    path = download(hub, file)
    for place in (hub.cache, *hub.cache.rglob("*")):
        place.chmod(0o555 if place.is_dir() else 0o444)
    temporary = Path(tempfile.gettempdir())
    for parent in hub.cache.parents:
        if temporary in parent.parents:
            parent.chmod(0o755)
    command = [sys.executable, "-c", READ_ONLY, server.endpoint, str(hub.cache), REPO, NAME, "small.json"]
    try:
        result = subprocess.run(command, capture_output=True, text=True, check=False)
    finally:
        for place in (hub.cache, *hub.cache.rglob("*")):
            place.chmod(0o755)
    assert result.returncode == 0, result.stderr
    found, refused = result.stdout.splitlines()
    assert found == str(path) and "cannot be written" in refused and "HF_HUB_CACHE" in refused


def test_a_cache_that_cannot_be(hub: Hub, file: RemoteFile, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    for place in (tmp_path / "taken", Path("/proc/nosuch")):
        with pytest.raises(FileAccessError, match="cannot be written") as caught:
            download(replace(hub, cache=place), file)
        assert "HF_HUB_CACHE" in caught.value.hint


def test_two_at_once_share_the_work(hub: Hub, file: RemoteFile, server: HubServer) -> None:
    server.fail("GET /cdn", rate=400_000)
    paths: list[Path] = []
    stages: list[str] = []
    threads = [
        threading.Thread(target=lambda: paths.append(download(hub, file, report=lambda p: stages.append(p.stage))))
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert paths[0] == paths[1] and paths[0].read_bytes() == DATA and server.sent == len(DATA)
    assert f"waiting for another pull of {NAME}" in stages


def test_a_mirror_without_hashes_is_held_to_the_size(hub: Hub, server: HubServer) -> None:
    server.repos[REPO].etags[NAME] = "tag-of-a-mirror"
    assert download(hub, hub.file(REPO, NAME)).read_bytes() == DATA
