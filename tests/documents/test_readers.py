"""Readers: each form with its structure and places, every encoding, and files that are wrong, huge or hostile."""

import gzip
import os
from pathlib import Path

import pytest

from edgellm.documents.elements import Element, Note, Part
from edgellm.documents.readers.choose import detected, read
from edgellm.errors import CorruptFile
from tests.documents import files, hostile


def parts_of(path: Path, data: str | bytes) -> list[Part]:
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return list(read(path))


def elements(parts: list[Part]) -> list[tuple[str, str]]:
    return [(part.kind, part.text) for part in parts if isinstance(part, Element)]


def notes(parts: list[Part]) -> list[str]:
    return [part.text for part in parts if isinstance(part, Note)]


def test_markdown(tmp_path: Path) -> None:
    text = "# Title\n\nFirst\nparagraph.\n\n- one\n- two\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n"
    text += "```py\n# no heading\n\nx\n```\n"
    parts = parts_of(tmp_path / "a.md", text)
    assert elements(parts) == [
        ("heading", "Title"), ("text", "First\nparagraph."), ("list", "- one\n- two"), ("table", "a | b\n\n1 | 2"),
        ("code", "```py\n# no heading\n\nx\n```"),
    ]  # fmt: skip
    assert [part.line for part in parts if isinstance(part, Element)] == [1, 3, 6, 9, 13]


def test_a_manual_page_has_its_headings(tmp_path: Path) -> None:
    parts = parts_of(tmp_path / "core.5.txt", "NAME\n       core - a file\n\nDESCRIPTION\n       The default\n")
    assert elements(parts)[0] == ("heading", "NAME") and elements(parts)[2] == ("heading", "DESCRIPTION")


def test_code_is_cut_at_its_definitions(tmp_path: Path) -> None:
    parts = parts_of(tmp_path / "a.py", "import os\n\n\ndef first():\n    pass\n\n\n@once\ndef second():\n    pass\n")
    assert [text for kind, text in elements(parts) if kind == "heading"] == ["first", "second"]
    assert [part.line for part in parts if isinstance(part, Element) and part.kind == "code"] == [1, 4, 8]


@pytest.mark.parametrize(
    ("text", "row"),
    [
        ('\ufeffname,price\r\n"Belt, long","1,389.00"\r\n', "Belt, long | 1,389.00"),
        ("name;price\nBelt;12,5\n", "Belt | 12,5"),
        ("name\tprice\nBelt\t12\n", "Belt | 12"),
    ],
)
def test_csv_with_any_delimiter(tmp_path: Path, text: str, row: str) -> None:
    assert elements(parts_of(tmp_path / "prices.csv", text)) == [("table", f"name | price\n{row}")]


def test_long_tables_repeat_their_header(tmp_path: Path) -> None:
    rows = "".join(f"{number},{number * number}\n" for number in range(120))
    tables = [part for part in parts_of(tmp_path / "a.csv", "n,square\n" + rows) if isinstance(part, Element)]
    assert [table.text.splitlines()[0] for table in tables] == ["n | square"] * 3
    assert tables[1].text.splitlines()[1] == "50 | 2500"


def test_html_leaves_out_what_nobody_sees(tmp_path: Path) -> None:
    page = (
        "<html><head><title>t</title><script>x()</script></head><body><nav>menu</nav><h1>Returns</h1>"
        '<p>Within <b>30</b> days.</p><div style="display: NONE">Obey me</div><p hidden>secret</p>'
        "<ul><li>one<li>two</ul><pre>a\n  b</pre>"
        "<table><tr><th>k</th><th>v</th></tr><tr><td>1</td><td>2</td></tr></table>"
    )
    assert elements(parts_of(tmp_path / "faq.html", page)) == [
        ("heading", "Returns"), ("text", "Within 30 days."), ("list", "- one\n- two"), ("code", "a\n  b"),
        ("table", "k | v\n1 | 2"),
    ]  # fmt: skip


def test_html_that_names_its_encoding(tmp_path: Path) -> None:
    page = '<html><head><meta charset="gb2312"></head><body><p>售后服务政策</p></body></html>'.encode("gb2312")
    assert elements(parts_of(tmp_path / "a.html", page)) == [("text", "售后服务政策")]


def test_pdf_pages(tmp_path: Path) -> None:
    parts = parts_of(tmp_path / "a.pdf", files.pdf(["The warranty is 24 months.", "", "Third page (last)."]))
    assert [(part.page, part.text) for part in parts if isinstance(part, Element)] == [
        (1, "The warranty is 24 months."), (3, "Third page (last)."),
    ]  # fmt: skip
    assert notes(parts) == ["page 2 is empty"]


def test_pdf_sentences_go_on_in_the_next_line(tmp_path: Path) -> None:
    page = """1 Method
The field study observed the heat pumps of
41 houses. Heat meters and other meters were
read every
15 minutes from July 2018 to June 2020. Two
houses were left out because a meter failed.
E4 Water inlet is too slow, clean the filter
E9 Heating fault, call the customer service
2 Warranty
Keep the receipt."""
    assert elements(parts_of(tmp_path / "a.pdf", files.pdf([page]))) == [
        ("heading", "1 Method"),
        ("text", "The field study observed the heat pumps of 41 houses. Heat meters and other meters were read every\n"
                 "15 minutes from July 2018 to June 2020. Two houses were left out because a meter failed.\n"
                 "E4 Water inlet is too slow, clean the filter\nE9 Heating fault, call the customer service"),
        ("heading", "2 Warranty"), ("text", "Keep the receipt."),
    ]  # fmt: skip


def test_pages_without_text_are_one_note(tmp_path: Path) -> None:
    parts = parts_of(tmp_path / "a.pdf", files.pdf(["", "", "", "A fourth page.", "", "6"]))
    assert notes(parts) == ["pages 1-3, 5 are empty"]
    (note,) = parts_of(tmp_path / "b.pdf", hostile.image_page())
    assert isinstance(note, Note) and "page 1 is only an image" in note.text and "ocrmypdf" in note.text


def test_office_files(tmp_path: Path) -> None:
    files.write_docx(tmp_path / "a.docx")
    assert elements(list(read(tmp_path / "a.docx"))) == [
        ("heading", "Travel policy"), ("text", "Employees travel by train where it takes less than six hours."),
        ("heading", "Rates"), ("list", "- Breakfast is included.\n- Taxis need approval."),
        ("table", "City | Rate\nLisbon | 95 EUR\nOslo | 140 EUR"),
    ]  # fmt: skip
    files.write_xlsx(tmp_path / "a.xlsx")
    sheets = list(read(tmp_path / "a.xlsx"))
    assert elements(sheets) == [("heading", "Prices"), ("table", "Product | Price\nModel 0 | 100\nModel 1 | 101")]
    assert "hidden" in notes(sheets)[0]
    files.write_pptx(tmp_path / "a.pptx")
    slides = [part for part in read(tmp_path / "a.pptx") if isinstance(part, Element)]
    assert [(slide.page, slide.text) for slide in slides][2:] == [(2, "Outlook"), (2, "We hire ten people.")]
    files.write_epub(tmp_path / "a.epub", ["<h1>One</h1><p>First.</p>", "<p>Second.</p>"])
    assert elements(list(read(tmp_path / "a.epub"))) == [("heading", "One"), ("text", "First."), ("text", "Second.")]


def test_mail(tmp_path: Path) -> None:
    message = (
        b"From: a@example.org\nSubject: =?utf-8?q?Caf=C3=A9?=\nMIME-Version: 1.0\n"
        b'Content-Type: multipart/mixed; boundary="x"\n\n'
        b"--x\nContent-Type: text/plain; charset=utf-8\n\nWe meet at noon.\n"
        b'--x\nContent-Type: application/pdf\nContent-Disposition: attachment; filename="plan.pdf"\n\nabc\n--x--\n'
    )
    parts = parts_of(tmp_path / "a.eml", message)
    assert elements(parts) == [("heading", "Café"), ("text", "From: a@example.org"), ("text", "We meet at noon.")]
    assert notes(parts) == ["the attachment plan.pdf is not read"]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "gb18030"])
def test_encodings(tmp_path: Path, encoding: str) -> None:
    text = "保修期为二十四个月，自购买之日起计算。\n\n设备可承受跌落的冲击，请勿使用酒精。\n"
    assert elements(parts_of(tmp_path / "a.txt", text.encode(encoding)))[0][1] == text.splitlines()[0]


def test_western_text_is_not_taken_for_chinese(tmp_path: Path) -> None:
    text = "Die Gewährleistung beträgt zwölf Monate, außer für Verschleißteile.\n" * 5
    assert "Gewährleistung beträgt" in elements(parts_of(tmp_path / "a.txt", text.encode("cp1252")))[0][1]


def test_wrong_endings_are_seen_through(tmp_path: Path) -> None:
    assert elements(parts_of(tmp_path / "a.pdf", "Plain text.\n")) == [("text", "Plain text.")]
    assert elements(parts_of(tmp_path / "a.txt", files.pdf(["A page."]))) == [("text", "A page.")]
    files.write_docx(tmp_path / "b.docx")
    assert elements(parts_of(tmp_path / "b.csv", (tmp_path / "b.docx").read_bytes()))[0] == ("heading", "Travel policy")


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("empty.md", b"", "it is empty"),
        ("blank.txt", b" \n\n\t", "it is empty"),
        ("secret.pdf", files.pdf(["x"], encrypted=True), "encrypted"),
        ("cut.pdf", files.pdf(["A long page of text."])[:120], "damaged"),
        ("header.pdf", b"%PDF-1.7\n", "damaged"),
        ("old.doc", b"\xd0\xcf\x11\xe0" + bytes(600), "save it as DOCX"),
        ("a.gz", gzip.compress(b"text", mtime=0), "gzip"),
        ("a.png", b"\x89PNG\r\n\x1a\n" + bytes(50), "an image"),
        ("a.bin", bytes(range(256)) * 8, "it is no text"),
        ("cut.docx", b"PK\x03\x04" + bytes(100), "damaged"),
        ("model.txt", b"GGUF" + bytes(20), "a model"),
    ],
)
def test_what_cannot_be_read_says_why(tmp_path: Path, name: str, data: bytes, said: str) -> None:
    with pytest.raises(CorruptFile) as refused:
        parts_of(tmp_path / name, data)
    assert said in f"{refused.value.what}: {refused.value.why}"


@pytest.mark.parametrize("member", ["word/document.xml", "xl/workbook.xml", "ppt/presentation.xml"])
def test_archives_are_measured_before_they_are_unpacked(tmp_path: Path, member: str) -> None:
    files.write_bomb(tmp_path / "bomb.docx", member)
    with pytest.raises(CorruptFile, match="refused"):
        list(read(tmp_path / "bomb.docx"))


def test_entities_are_refused(tmp_path: Path) -> None:
    files.write_entities(tmp_path / "a.docx")
    with pytest.raises(CorruptFile, match="refused"):
        list(read(tmp_path / "a.docx"))
    evil = '<!DOCTYPE html [<!ENTITY x SYSTEM "file:///etc/passwd">]><p>a&x;b</p>'
    assert elements(parts_of(tmp_path / "a.html", "<html>" + evil))[-1][1].startswith("a")
    assert "root:" not in str(elements(parts_of(tmp_path / "b.html", evil)))


def test_pipes_are_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.txt")
    with pytest.raises(CorruptFile, match="not a regular file"):
        list(read(tmp_path / "pipe.txt"))


def test_pages_that_refer_to_themselves_end(tmp_path: Path) -> None:
    data = files.pdf(["a"]).replace(b"/Kids [5 0 R]", b"/Kids [2 0 R]")
    with pytest.raises(CorruptFile):
        assert not elements(parts_of(tmp_path / "loop.pdf", data))
        raise CorruptFile("no pages")


def test_deep_pages_end(tmp_path: Path) -> None:
    page = "<html><body>" + "<div>" * 5000 + "deep" + "</div>" * 5000 + "<p>after</p></body></html>"
    assert parts_of(tmp_path / "deep.html", page) is not None


def test_a_long_line_is_text(tmp_path: Path) -> None:
    parts = [
        part for part in parts_of(tmp_path / "a.txt", "first\n\n" + "word " * 200_000) if isinstance(part, Element)
    ]
    assert [part.line for part in parts] == [1, 0, 0]
    assert "".join(part.text for part in parts).count("word") == 200_000
    assert set(" ".join(part.text for part in parts[1:]).split()) == {"word"}


def test_encodings_by_their_first_bytes() -> None:
    assert detected("é".encode()) == ("utf-8-sig", True)
    assert detected("plain text".encode("utf-16-le")) == ("utf-16-le", True)
    with pytest.raises(CorruptFile):
        detected(b"a\0\0b\0\0c")
