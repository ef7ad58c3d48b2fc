"""The addresses of upstreams, as people type them."""

import pytest

from edgellm.errors import UsageError
from edgellm.serve.options import ServeOptions
from edgellm.serve.upstreams.addresses import refuse_self, upstream_urls


def test_addresses_are_made_equal() -> None:
    given = ["http://Box1:11435/v1/, http://box2:80", "https://box3 http://[::1]:8080/"]
    assert upstream_urls(given) == ["http://box1:11435", "http://box2:80", "https://box3:443", "http://[::1]:8080"]


@pytest.mark.parametrize(
    "given",
    ["", ",", "box1:11435", "ftp://box1", "http://", "http://box1:99999", "http://box1/path", "http://box1?x=1",
     "http://u:secret@box1", "http://box1,http://box1:80/v1", "http://box:0"],
)  # fmt: skip
def test_what_is_no_address_is_refused(given: str) -> None:
    with pytest.raises(UsageError) as caught:
        upstream_urls([given])
    assert caught.value.hint and "secret" not in f"{caught.value.what} {caught.value.why}"


@pytest.mark.parametrize(
    ("url", "host", "is_self"),
    [
        ("http://127.0.0.1:11435", "127.0.0.1", True),
        ("http://localhost:11435", "127.0.0.1", True),
        ("http://localhost:11435", "0.0.0.0", True),
        ("http://box1:11435", "127.0.0.1", False),
        ("http://127.0.0.1:11436", "127.0.0.1", False),
        ("http://127.0.0.1:11435", "10.0.0.7", False),
        ("http://10.0.0.7:11435", "10.0.0.7", True),
    ],
)
def test_a_server_is_not_its_own_upstream(url: str, host: str, is_self: bool) -> None:
    options = ServeOptions(host=host)
    if not is_self:
        refuse_self([url], options)
        return
    with pytest.raises(UsageError, match="is this server"):
        refuse_self([url], options)
