"""The page as a browser shows it."""

from pathlib import Path

import pytest

from edgellm.report.evaluation import evaluation_page
from edgellm.report.page import ReportPage
from edgellm.report.report_file import ReportFile
from edgellm.report.speed import benchmark_page
from tests.report.benchmarks import two_models
from tests.report.evaluations import HOSTILE, evaluation, hostile, item
from tests.report.test_evaluation import ITEMS, against
from tests.report.test_speed import earlier
from tests.serve.browser import Browser, Page

SHOWN = "Array.from(document.querySelectorAll('#item-list > .item')).filter((item) => !item.hidden)"
# What is wider than the window, but for what scrolls by itself.
TOO_WIDE = (
    "Array.from(document.querySelectorAll('body *')).filter((each) => !each.closest('.scroll table, svg')"
    " && each.getBoundingClientRect().right > innerWidth + 1).map((each) => each.outerHTML.slice(0, 80))"
)


def opened(browser: Browser, path: Path, page: ReportPage, *, width: int = 1280, scheme: str = "light") -> Page:
    ReportFile.at(path).write(page)
    return browser.open(path.as_uri(), width=width, scheme=scheme)


def choose(page: Page, name: str, value: str) -> None:
    page.evaluate(
        f"{{ const it = document.querySelector('#filter-{name}'); it.value = {value!r};"
        " for (const kind of ['input', 'change']) it.dispatchEvent(new Event(kind, {bubbles: true})); }"
    )


def names(page: Page) -> list[str]:
    found: list[str] = page.evaluate(f"{SHOWN}.map((item) => item.querySelector('b').firstChild.textContent)")
    return found


@pytest.mark.parametrize(("width", "scheme"), [(400, "dark"), (1280, "light")])
def test_pages_are_quiet_and_fit(browser: Browser, tmp_path: Path, width: int, scheme: str) -> None:
    result = two_models()
    past = earlier(result, "2026-01-01T00:00:00+00:00", "0.1")
    for name, report in (
        ("speed", benchmark_page(result, past)),
        ("answers", evaluation_page(evaluation(ITEMS), against())),
        ("hostile", evaluation_page(hostile())),
    ):
        page = opened(browser, tmp_path / f"{name}.html", report, width=width, scheme=scheme)
        page.evaluate("for (const each of document.querySelectorAll('details')) each.open = true")
        assert page.evaluate("document.scrollingElement.scrollWidth <= innerWidth"), page.evaluate(TOO_WIDE)
        assert page.evaluate(TOO_WIDE) == []
        assert page.problems == [] and page.requested == [(tmp_path / f"{name}.html").as_uri()]
        assert page.evaluate("window.hacked === undefined && document.images.length === 0")
        assert page.evaluate("getComputedStyle(document.body).display") == "block"
        dark = page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(20, 22, 24)"
        assert dark == (scheme == "dark")
        page.close()


def test_hostile_texts_are_shown_as_they_are(browser: Browser, tmp_path: Path) -> None:
    page = opened(browser, tmp_path / "r.html", evaluation_page(hostile()))
    shown = page.evaluate("Array.from(document.querySelectorAll('#item-list pre')).map((pre) => pre.textContent)")
    for text in HOSTILE[:3]:
        assert text in shown
    assert "[U+001B][31mred[U+001B][0m [U+0000] \ufffd [U+202E]gnp.exe[U+202C] [U+2069]" in shown
    assert page.evaluate("document.title") == f"Answers of {HOSTILE[0]}"
    assert page.evaluate("document.querySelectorAll('script').length") == 1
    page.close()


def test_the_policy_forbids_the_network_and_other_scripts(browser: Browser, tmp_path: Path) -> None:
    page = opened(browser, tmp_path / "r.html", evaluation_page(evaluation(ITEMS)))
    assert page.evaluate("fetch('https://example.com').then(() => 'sent', () => 'refused')") == "refused"
    page.evaluate(
        "{ const it = document.createElement('script'); it.textContent = 'window.hacked = 1';"
        " document.body.append(it); }"
    )
    assert page.evaluate("window.hacked === undefined")
    page.close()


def test_filters_and_order(browser: Browser, tmp_path: Path) -> None:
    items = [*ITEMS, item(12, finish_reason="repetition", answer="again and again", prefill_seconds=9.0)]
    page = opened(browser, tmp_path / "r.html", evaluation_page(evaluation(items)))
    assert len(names(page)) == 13 and "13 items" in page.text
    choose(page, "suite", "json")
    assert names(page) == [f"json / item-{n:04d}" for n in range(1, 12, 2)] and "6 of 13 items" in page.text
    choose(page, "verdict", "wrong")
    assert names(page) == ["json / item-0003", "json / item-0009"]
    choose(page, "category", "knowledge")
    assert names(page) == ["json / item-0003"]
    for name in ("suite", "verdict", "category"):
        choose(page, name, "")
    choose(page, "ending", "loop")
    assert names(page) == ["kinds / item-0012"]
    choose(page, "ending", "")
    page.type("#filter-text", "What AGAIN")
    assert names(page) == ["kinds / item-0012"]
    page.evaluate("document.querySelector('#filter-text').value = ''")
    choose(page, "sort", "score")
    assert names(page)[:6] == [f"{('kinds', 'json')[n % 2]} / item-{n:04d}" for n in (0, 3, 6, 9, 12, 1)]
    choose(page, "sort", "seconds")
    assert names(page)[:2] == ["kinds / item-0012", "kinds / item-0000"]
    choose(page, "sort", "tokens")
    assert names(page)[0] == "kinds / item-0012" and names(page)[-1] == "kinds / item-0000"
    choose(page, "sort", "number")
    assert names(page)[0] == "kinds / item-0000"
    page.close()


def test_without_scripts_everything_can_be_read(browser: Browser, tmp_path: Path) -> None:
    path = tmp_path / "r.html"
    ReportFile.at(path).write(evaluation_page(evaluation(ITEMS), against()))
    path.write_text(path.read_text().replace("sha256-", "sha256-0", 1))  # the policy refuses the script
    page = browser.open(path.as_uri())
    assert page.evaluate("document.querySelector('#filters').hidden")
    assert page.evaluate("document.querySelectorAll('table').length") == 2
    page.click("#item-list summary")
    assert "It is 0." in page.text and "expected 0" in page.text and "66.7 %" in page.text
    page.close()


def test_it_prints_light_and_without_filters(browser: Browser, tmp_path: Path) -> None:
    page = opened(browser, tmp_path / "r.html", evaluation_page(evaluation(ITEMS)), scheme="dark")
    page.send("Emulation.setEmulatedMedia", media="print", features=[{"name": "prefers-color-scheme", "value": "dark"}])
    assert page.evaluate("getComputedStyle(document.querySelector('#filters')).display") == "none"
    assert page.evaluate("getComputedStyle(document.querySelector('h1')).color") == "rgb(28, 29, 31)"
    assert page.evaluate("getComputedStyle(document.querySelector('svg text')).fill") == "rgb(28, 29, 31)"
    page.close()


def test_charts_have_names_for_screen_readers(browser: Browser, tmp_path: Path) -> None:
    page = opened(browser, tmp_path / "r.html", evaluation_page(evaluation(ITEMS)))
    images = [name for role, name in page.accessible_names() if role in ("image", "img")]
    assert len(images) == 2 and images[0].startswith("kinds. all: 67 % (30 to 90 %)")
    controls = [name for role, name in page.accessible_names() if role in ("combobox", "searchbox", "MenuListPopup")]
    assert {"suite", "category", "language", "verdict", "sort", "text"} <= {name.strip() for name in controls}
    page.close()
