from hypothesis import given
from hypothesis import strategies as st

from edgellm.report.markup import Markup, element, escaped, visible


def test_only_markup_is_markup() -> None:
    inner = element("b", "<i>&")
    assert element("td", inner, "a < b", class_="x") == '<td class="x"><b>&lt;i&gt;&amp;</b>a &lt; b</td>'


def test_attributes() -> None:
    found = element("rect", x=0.5, y=2.0, width=1.005, class_='"><script>', data_name=None, hidden=True, off=False)
    assert found == '<rect x="0.5" y="2" width="1" class="&quot;&gt;&lt;script&gt;" hidden=""/>'


def test_what_acts_on_the_text_around_it_is_shown() -> None:
    assert visible("\x1b[31m\u202ea\u2069\ud800\x00\r\nb\tc") == "[U+001B][31m[U+202E]a[U+2069]\ufffd[U+0000]\nb\tc"
    assert visible("👩‍👩‍👧 עברית") == "👩‍👩‍👧 עברית"  # joiners and other scripts are as they were


@given(st.text(st.characters(codec=None)))
def test_any_text_is_carried_by_html_and_utf_8(text: str) -> None:
    found = escaped(text)
    assert isinstance(found, Markup)
    assert not set(found) & set("<>\x00\x1b\u202e")
    assert element("a", title=text).count('"') == 2
    found.encode()
