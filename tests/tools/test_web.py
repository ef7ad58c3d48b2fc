"""Pages and searches from a server on loopback; a ZIM file that libzim writes."""

import gzip
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgellm.tools.builtin.fetch import fetch
from edgellm.tools.builtin.web_search import web_search
from edgellm.tools.builtin.wikipedia import wikipedia
from edgellm.tools.consent import Consent
from edgellm.tools.toolbox import Toolbox
from edgellm.tools.web.address import is_public
from tests.tools.web_server import WebServer, web_server

ARTICLE = """<html><head><title>The old bridge</title><style>p {}</style></head><body>
<nav><a href="/">Home</a> Menu</nav><script>alert("x")</script>
<article><h1>The old bridge</h1><p>The old bridge over the river was built in 1932 by two engineers of the town.</p>
<p>It is 214 metres long and carries a road and a railway line to the other side of the valley.</p></article>
<footer>Imprint</footer></body></html>"""


@pytest.fixture(scope="module")
def web() -> Iterator[WebServer]:
    with web_server() as server:
        yield server


def get(url: str, *, private: bool = True) -> str:
    return Toolbox([fetch(private=private)], Consent(everything=True)).call("fetch", {"url": url}).text


def test_a_page_is_read_as_text(web: WebServer) -> None:
    text = get(web.page("/bridge", ARTICLE))
    assert text.startswith("The old bridge\n") and "built in 1932" in text and "214 metres" in text
    assert "alert" not in text and "Menu" not in text


def test_without_trafilatura_the_text_of_all_blocks_is_read() -> None:
    from edgellm.tools.web.readable import _PlainText

    plain = _PlainText()
    plain.feed(ARTICLE + "</nav></script><p>after &amp; all")
    plain.close()
    assert plain.title == "The old bridge" and "built in 1932" in plain.text and "after & all" in plain.text
    assert "alert" not in plain.text and "Menu" not in plain.text


@pytest.mark.parametrize(
    ("body", "kind", "shown"),
    [
        (b"caf\xe9", "text/plain; charset=latin-1", "café"), ("zürich".encode(), "text/plain", "zürich"),
        (b"na\xefve", "text/plain", "naïve"), (b'{"a": 1}', "application/json", '{"a": 1}'),
        (b"x", "text/plain; charset=nonsense", "x"),
    ],
)  # fmt: skip
def test_pages_of_other_kinds(web: WebServer, body: bytes, kind: str, shown: str) -> None:
    assert get(web.page("/kind", body, kind)) == shown


def test_redirects_and_packed_bodies(web: WebServer) -> None:
    web.page("/packed", gzip.compress(ARTICLE.encode()), content_encoding="gzip")
    web.pages["/moved"] = 302, {"Location": "packed"}, b""
    assert "1932" in get(f"{web.url}/moved")


def searx(web: WebServer, results: object) -> str:
    web.page("/search", json.dumps({"query": "x", "results": results}), "application/json")
    found = Toolbox([web_search(web.url)], Consent(everything=True)).call("web_search", {"query": "old bridge"})
    assert all(source.place.startswith("http") for source in found.sources)
    return found.text


def test_a_search_by_searxng(web: WebServer) -> None:
    text = searx(web, [
        {"title": "Bridges", "url": "https://example.com/b", "content": "Built in  1932."},
        {"title": "Bad", "url": "javascript:alert(1)", "content": "x"},
        {"title": None, "url": "https://example.com/c", "content": None},
    ])  # fmt: skip
    assert text == "[1] Bridges: Built in 1932.\n[2] https://example.com/c"
    assert web.asked[-1] == "/search?q=old+bridge&format=json"


@pytest.mark.parametrize("results", [[], None, {"a": 1}, "x", [1, 2]])
def test_a_search_that_finds_nothing_or_nonsense(web: WebServer, results: object) -> None:
    assert searx(web, results).endswith(".")


def test_a_server_that_refuses_json_says_how_to_allow_it(web: WebServer) -> None:
    web.page("/search", "<html>no</html>")
    found = Toolbox([web_search(web.url)], Consent(everything=True)).call("web_search", {"query": "x"})
    assert found.error and "does not answer like SearXNG" in found.text


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("93.184.216.34", True), ("2606:4700::1111", True), ("127.0.0.1", False), ("10.1.2.3", False),
        ("192.168.0.1", False), ("172.16.0.1", False), ("169.254.169.254", False), ("100.64.0.1", False),
        ("0.0.0.0", False), ("255.255.255.255", False), ("224.0.0.1", False), ("198.18.0.1", False), ("::1", False),
        ("::", False), ("fe80::1", False), ("fe80::1%eth0", False), ("fc00::1", False), ("ff02::1", False),
        ("::ffff:127.0.0.1", False), ("::ffff:10.0.0.1", False), ("64:ff9b::7f00:1", False), ("2002:7f00:1::", False),
        ("::7f00:1", False), ("240.0.0.1", False),
    ],
)  # fmt: skip
def test_which_addresses_are_public(address: str, public: bool) -> None:
    assert is_public(address) is public


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ZIM file of three articles with a full-text index, and a redirect."""
    from libzim.writer import Creator, Hint, Item, StringProvider

    class Article(Item):
        def __init__(self, title: str, path: str, text: str) -> None:
            super().__init__()
            self._title, self._path, self._text = title, path, text

        def get_path(self) -> str:
            return self._path

        def get_title(self) -> str:
            return self._title

        def get_mimetype(self) -> str:
            return "text/html"

        def get_contentprovider(self) -> StringProvider:
            return StringProvider(self._text)

        def get_hints(self) -> dict[Hint, int]:
            return {Hint.FRONT_ARTICLE: 1}

    path = tmp_path_factory.mktemp("zim") / "small.zim"
    with Creator(path).config_indexing(True, "eng") as creator:
        for title, text in (
            ("Eiffel Tower", "The Eiffel Tower in Paris is 330 metres high. It was completed in 1889."),
            ("Guernica (Picasso)", "Guernica was painted by Pablo Picasso in 1937."),
            ("Photosynthesis", "Photosynthesis turns light, water and carbon dioxide into sugar and oxygen."),
        ):
            creator.add_item(Article(title, title.replace(" ", "_"), f"<html><body><p>{text}</p></body></html>"))
        creator.add_redirection("Tour_Eiffel", "Tour Eiffel", "Eiffel_Tower", {Hint.FRONT_ARTICLE: 1})
        for name, value in (("Title", "Small"), ("Language", "eng"), ("Creator", "x"), ("Publisher", "x"),
                            ("Description", "x"), ("Date", "2026-11-01"), ("Name", "small")):  # fmt: skip
            creator.add_metadata(name, value)
    return path


@pytest.mark.parametrize(
    ("query", "says", "title"),
    [
        ("Eiffel Tower", "330 metres", "Eiffel Tower"), ("eiffel tower", "330 metres", "Eiffel Tower"),
        ("Tour Eiffel", "330 metres", "Eiffel Tower"), ("painted Picasso", "1937", "Guernica (Picasso)"),
        ("carbon dioxide", "oxygen", "Photosynthesis"),
    ],
)  # fmt: skip
def test_articles_are_found_offline(archive: Path, query: str, says: str, title: str) -> None:
    found = Toolbox([wikipedia(archive)], Consent(everything=True)).call("wikipedia", {"query": query})
    assert says in found.text and not found.error
    assert found.sources[0].title == title and found.sources[0].place.startswith("small.zim/")


def test_an_article_that_is_not_there(archive: Path, tmp_path: Path) -> None:
    box = Toolbox([wikipedia(archive)], Consent(everything=True))
    assert box.call("wikipedia", {"query": "zzzyx"}).text == "There is no article about 'zzzyx'."
    broken = tmp_path / "broken.zim"
    broken.write_bytes(archive.read_bytes()[:5000])
    for path, why in ((tmp_path / "none.zim", "there is no file"), (broken, "is no ZIM file")):
        found = Toolbox([wikipedia(path)], Consent(everything=True)).call("wikipedia", {"query": "x"})
        assert found.error and why in found.text
