"""One hundred hostile files, made here: bombs, loops, lies, odd names and things that are no files.

    for case in CASES: case.make(folder)

Each case says what shall become of it: a word of the one line that tells why it was not read, or a word of its text.
"""

import base64
import bz2
import gzip
import io
import lzma
import os
import socket
import sqlite3
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import docx
import openpyxl

from tests.documents import files


@dataclass(frozen=True)
class Case:
    """A file: it is refused with `refused` in its reason, or else `text` is found in it."""

    name: bytes
    make: Callable[[Path], None]
    refused: str = ""
    text: str = ""


CASES: list[Case] = []


def case(name: str | bytes, make: bytes | Callable[[Path], None], *, refused: str = "", text: str = "") -> None:
    """Note one."""
    write = make if callable(make) else lambda path: write_bytes(path, make)
    CASES.append(Case(os.fsencode(name), write, refused, text))


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file whatever its name."""
    path.write_bytes(data)


def made(write: Callable[[Path], None], change: Callable[[dict[str, bytes]], None]) -> Callable[[Path], None]:
    """An office file with other members."""

    def make(path: Path) -> None:
        write(path)
        with zipfile.ZipFile(path) as archive:
            parts = {name: archive.read(name) for name in archive.namelist()}
        change(parts)
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, data in parts.items():
                archive.writestr(name, data)

    return make


def with_part(write: Callable[[Path], None], name: str, change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    """An office file one of whose members is other."""
    return made(write, lambda parts: parts.update({name: change(parts.get(name, b""))}))


def book(path: Path) -> None:
    """An EPUB."""
    files.write_epub(path, ["<h1>One</h1><p>The first chapter.</p>", "<p>The second chapter.</p>"])


def laughs(start: bytes = b"") -> Callable[[bytes], bytes]:
    """Entities of entities before a document's root."""
    levels = b"".join(b'<!ENTITY l%d "%s">' % (n, b"&l%d;" % (n - 1) * 10) for n in range(1, 10))
    kind = start + b'<!DOCTYPE lolz [<!ENTITY l0 "laugh">' + levels + b"]>"
    return lambda data: b'<?xml version="1.0"?>' + kind + data.partition(b"?>")[2].replace(b"Travel", b"&l9;")


def outside(data: bytes) -> bytes:
    """A document that would show a file of this machine."""
    kind = b'<!DOCTYPE w [<!ENTITY secret SYSTEM "file:///etc/passwd">]>'
    return b'<?xml version="1.0"?>' + kind + data.partition(b"?>")[2].replace(b"Travel", b"&secret;")


def in_utf16(data: bytes) -> bytes:
    """Entities that a search for ASCII does not see."""
    text = laughs()(data).decode().replace('version="1.0"', 'version="1.0" encoding="UTF-16"')
    return text.encode("utf-16")


def many_members(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("word/document.xml", "<x/>")
        for number in range(20_001):
            archive.writestr(f"m/{number}", "")


def lying(path: Path) -> None:
    """A part of 40 MB of which the archive says that it has 100 bytes."""
    files.write_bomb(path, "word/document.xml")
    data = path.read_bytes()
    true = (48 << 20).to_bytes(4, "little")
    path.write_bytes(data.replace(true, (100).to_bytes(4, "little")))


def locked_member(path: Path) -> None:
    """An archive that says its members have a password."""
    files.write_docx(path)
    data = bytearray(path.read_bytes())
    at = data.find(b"PK\x01\x02")
    while at >= 0:
        data[at + 8] |= 1
        at = data.find(b"PK\x01\x02", at + 1)
    path.write_bytes(data)


def wide_table(path: Path) -> None:
    """Four thousand rows in a document."""
    document = docx.Document()
    document.add_paragraph("Rows follow.")
    body = document.element.body
    row = "<w:tr>" + "<w:tc><w:p><w:r><w:t>cell</w:t></w:r></w:p></w:tc>" * 5 + "</w:tr>"
    space = 'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"'
    body.insert(1, docx.oxml.parse_xml(f"<w:tbl {space}><w:tblPr/><w:tblGrid/>{row * 4000}</w:tbl>"))
    document.save(str(path))


def far_cell(path: Path) -> None:
    """A sheet with one cell in its first row and one in its last."""
    workbook = openpyxl.Workbook()
    workbook.active["A1"] = "a near cell"
    workbook.active["XFD1048576"] = "a far cell"
    workbook.save(path)


def formulas(path: Path) -> None:
    """A sheet of commands."""
    workbook = openpyxl.Workbook()
    workbook.active.append(["a sheet of commands", "=cmd|'/C calc'!A0", '=WEBSERVICE("http://127.0.0.1/")'])
    workbook.save(path)


def again_and_again(parts: dict[str, bytes]) -> None:
    """A book that shows one chapter a hundred thousand times."""
    parts["O/c 0.xhtml"] = b"<p>" + b"again " * 2000 + b"</p>"
    parts["O/b.opf"] = parts["O/b.opf"].replace(b'<itemref idref="c0"/>', b'<itemref idref="c0"/>' * 100_000)


def pdf(objects: dict[int, bytes], *, trailer: bytes = b"", start: bytes = b"") -> bytes:
    """A PDF of these objects; the first is the catalog."""
    out, places = io.BytesIO(), {}
    out.write(start + b"%PDF-1.7\n")
    for number, body in objects.items():
        places[number] = out.tell()
        out.write(b"%d 0 obj\n%s\nendobj\n" % (number, body))
    at = out.tell()
    out.write(b"xref\n0 1\n0000000000 65535 f \n")
    for number, place in places.items():
        out.write(b"%d 1\n%010d 00000 n \n" % (number, place))
    out.write(b"trailer << /Size %d /Root 1 0 R %s >>\n" % (max(objects) + 1, trailer.replace(b"HERE", b"%d" % at)))
    out.write(b"startxref\n%d\n%%%%EOF\n" % at)
    return out.getvalue()


CATALOG = b"<< /Type /Catalog /Pages 2 0 R >>"
FONT = b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>"
PAGE = (
    b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents 5 0 R /Resources << /Font << /F1 3 0 R >> %s >> >>"
)


def stream(data: bytes, about: bytes = b"") -> bytes:
    """A stream object."""
    return b"<< /Length %d %s >>\nstream\n%s\nendstream" % (len(data), about, data)


def one_page(
    text: str = "A page of text.", *, catalog: bytes = b"", page: bytes = b"", trailer: bytes = b"", **more: bytes
) -> bytes:
    """A PDF of one page, with more in its catalog, in its page, and more objects ("o7")."""
    shown = f"BT /F1 11 Tf 60 760 Td ({text}) Tj ET".encode()
    objects = {
        1: b"<< /Type /Catalog /Pages 2 0 R %s >>" % catalog, 2: b"<< /Type /Pages /Count 1 /Kids [4 0 R] >>",
        3: FONT, 4: page or PAGE % b"", 5: stream(shown),
    }  # fmt: skip
    return pdf(objects | {int(name[1:]): body for name, body in more.items()}, trailer=trailer)


def image_page() -> bytes:
    """A page that is one pixel, as large as the page."""
    about = b"/Type /XObject /Subtype /Image /Width 1 /Height 1 /ColorSpace /DeviceGray /BitsPerComponent 8"
    page = PAGE % b"/XObject << /X 6 0 R >>"
    return one_page(page=page, o5=stream(b"612 0 0 792 0 0 cm /X Do"), o6=stream(b"\x80", about))


def flat_bomb() -> bytes:
    """A page whose text unpacks twice, to 60 MB of spaces."""
    once = zlib.compress(bytes(1) + b" " * (60 << 20), 9)
    data = stream(zlib.compress(once, 9), b"/Filter [/FlateDecode /FlateDecode]")
    return one_page(o5=data)


def deep_tree() -> bytes:
    """Ten thousand nodes of pages inside each other."""
    nodes = {n: b"<< /Type /Pages /Count 1 /Kids [%d 0 R] >>" % (n + 1) for n in range(10, 10_010)}
    objects = {1: CATALOG, 2: b"<< /Type /Pages /Count 1 /Kids [10 0 R] >>", 3: FONT}
    return pdf(objects | nodes | {10_010: PAGE % b"", 5: stream(b"BT /F1 9 Tf (deep) Tj ET")})


def outline_loop() -> bytes:
    """Headings that follow each other in a circle."""
    item = b"<< /Title (Round) /Parent 6 0 R /Next %d 0 R /Dest [4 0 R /Fit] %s >>"
    first, second = item % (8, b"/First 7 0 R"), item % (7, b"")
    return one_page(
        "Round and round.",
        catalog=b"/Outlines 6 0 R",
        o6=b"<< /First 7 0 R /Last 8 0 R /Count 9 >>",
        o7=first,
        o8=second,
    )


def many_headings() -> bytes:
    """Five thousand headings on one page."""
    items = {
        f"o{n}": b"<< /Title (H%d) /Parent 6 0 R /Next %d 0 R /Dest [4 0 R /Fit] >>" % (n, n + 1)
        for n in range(7, 5007)
    }
    return one_page("Under many headings.", catalog=b"/Outlines 6 0 R", o6=b"<< /First 7 0 R /Count 5000 >>", **items)


def script_pdf() -> bytes:
    """A page that wants to run a script, a program and a form when it is opened."""
    action = b"<< /S /JavaScript /JS (app.alert\\(1\\); this.submitForm\\('http://127.0.0.1'\\)) /Next 7 0 R >>"
    launch = b"<< /S /Launch /F (/bin/sh) /Next << /S /URI /URI (http://127.0.0.1/) >> >>"
    return one_page("A page with scripts.", catalog=b"/OpenAction 6 0 R /AA << /WC 6 0 R >>", o6=action, o7=launch)


def many_pages(count: int) -> bytes:
    """The same page so many times."""
    kids = b" ".join([b"4 0 R"] * count)
    return pdf({
        1: CATALOG, 2: b"<< /Type /Pages /Count %d /Kids [%s] >>" % (count, kids), 3: FONT, 4: PAGE % b"",
        5: stream(b"BT /F1 9 Tf 60 700 Td (repeated) Tj ET"),
    })  # fmt: skip


def nested(depth: int) -> bytes:
    """A mail with a part in a part in a part."""
    head = b"".join(
        b'Content-Type: multipart/mixed; boundary="b%d"\n\n--b%d\n' % (number, number) for number in range(depth)
    )
    return b"From: a@b.c\nSubject: nested\nMIME-Version: 1.0\n" + head + b"Content-Type: text/plain\n\ninside\n"


def mail(headers: bytes, body: bytes) -> bytes:
    """A message."""
    return b"From: a@example.org\nSubject: a mail\nMIME-Version: 1.0\n" + headers + b"\n\n" + body


def packed(name: str, data: bytes) -> bytes:
    """A tar file."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        about = tarfile.TarInfo(name)
        about.size = len(data)
        archive.addfile(about, io.BytesIO(data))
    return out.getvalue()


def zipped(members: dict[str, str]) -> bytes:
    """A zip file."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, text in members.items():
            archive.writestr(name, text)
    return out.getvalue()


def database(path: Path) -> None:
    db = sqlite3.connect(path)
    db.execute("CREATE TABLE secrets (a)")
    db.commit()
    db.close()


def sparse(size: int, start: bytes = b"text ") -> Callable[[Path], None]:
    """A file that claims a size and takes no room."""

    def make(path: Path) -> None:
        with path.open("wb") as file:
            file.write(start)
            file.truncate(size)

    return make


def unix_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        here = Path.cwd()
        os.chdir(path.parent)  # the path of a socket has at most 108 bytes
        try:
            listening.bind(path.name)
        finally:
            os.chdir(here)


def device(path: Path) -> None:
    """A terminal without end; where only root may make one, a link to it."""
    try:
        os.mknod(path, 0o020600, os.makedev(1, 5))
    except PermissionError:
        path.symlink_to("/dev/zero")


def directory(path: Path) -> None:
    path.mkdir()
    (path / "inside.txt").write_text("A text in a directory named like a PDF.\n")


# Archives.
case("bomb.docx", lambda path: files.write_bomb(path, "word/document.xml"), refused="unpack")
case("bomb.xlsx", lambda path: files.write_bomb(path, "xl/workbook.xml"), refused="unpack")
case("bomb.pptx", lambda path: files.write_bomb(path, "ppt/presentation.xml"), refused="unpack")
case("bomb.epub", lambda path: files.write_bomb(path, "META-INF/container.xml"), refused="unpack")
case("lying.docx", lying, refused="damaged")
case("members.docx", many_members, refused="files unpack")
case("password.docx", locked_member, refused="password")
case("slip.docx", made(files.write_docx, lambda parts: parts.update({"../../evil.txt": b"x"})), text="Employees")
case(
    "slip.epub",
    with_part(book, "O/b.opf", lambda data: data.replace(b"c%200", b"../../../../etc/passwd")),
    text="second",
)
case("again.epub", made(book, again_and_again), text="again")
case("nothing.docx", with_part(files.write_docx, "word/document.xml", lambda _: b""), refused="damaged")
case("deep.docx", with_part(files.write_docx, "word/document.xml", lambda _: b"<w>" * 100_000), refused="damaged")
case("table.docx", wide_table, text="Rows follow")
case("far.xlsx", far_cell, text="near cell")
case("commands.xlsx", formulas, text="commands")
case("book.docx", files.write_xlsx, text="Prices")
case(
    "half.xlsx",
    lambda path: (files.write_xlsx(path), os.truncate(path, path.stat().st_size // 2))[0],
    refused="damaged",
)
case("text.odt", zipped({"mimetype": "application/vnd.oasis.opendocument.text", "content.xml": "<x/>"}), refused="DOCX")
case("plain.zip", zipped({"a.txt": "text"}), refused="archive")
case("app.jar", zipped({"META-INF/MANIFEST.MF": "x"}), refused="archive")
case("text.tar", packed("a.txt", b"text"), refused="archive")
case("text.tar.gz", gzip.compress(packed("a.txt", b"text"), mtime=0), refused="archive")
case("text.txt.bz2", bz2.compress(b"text"), refused="archive")
case("text.txt.xz", lzma.compress(b"text"), refused="archive")
case("text.7z", b"7z\xbc\xaf\x27\x1c" + bytes(60), refused="archive")
# Entities.
case("laughs.docx", with_part(files.write_docx, "word/document.xml", laughs()), refused="document type")
case(
    "padded.docx",
    with_part(files.write_docx, "word/document.xml", laughs(b"<!--" + b" " * 9000 + b"-->")),
    refused="document type",
)
case("utf16.docx", with_part(files.write_docx, "word/document.xml", in_utf16), refused="document type")
case("laughs.xlsx", with_part(files.write_xlsx, "xl/sharedStrings.xml", laughs()), refused="document type")
case("padded.xlsx", with_part(files.write_xlsx, "xl/workbook.xml", laughs(b" " * 9000)), refused="document type")
case("laughs.pptx", with_part(files.write_pptx, "ppt/slides/slide1.xml", laughs()), refused="document type")
case("laughs.epub", with_part(book, "O/b.opf", lambda data: laughs()(b"?>" + data)), refused="entities")
case("outside.docx", with_part(files.write_docx, "word/document.xml", outside), refused="document type")
case("outside.epub", with_part(book, "O/c 0.xhtml", lambda data: outside(b"?>" + data)), text="second")
case("laughs.xml", laughs()(b"?><a>Travel</a>"), text="laugh")
case("outside.svg", outside(b"?><svg>Travel</svg>"), text="svg")
case("laughs.html", laughs()(b"?><html>Travel and a word</html>").replace(b"<?xml", b"<html><?xml"), text="word")
# PDF.
case("tree.pdf", pdf({1: CATALOG, 2: b"<< /Type /Pages /Count 3 /Kids [2 0 R 2 0 R] >>"}), refused="no text")
case("deep.pdf", deep_tree(), refused="page 1 is damaged")
case("outline.pdf", outline_loop(), text="Round and round")
case("headings.pdf", many_headings(), text="many headings")
case("script.pdf", script_pdf(), text="scripts")
case("encrypted.pdf", files.pdf(["x"], encrypted=True), refused="encrypted")
case("count.pdf", one_page().replace(b"/Count 1", b"/Count 2000000000"), text="page of text")
case("negative.pdf", one_page().replace(b"/Count 1", b"/Count -1"), text="page of text")
case("huge.pdf", one_page(page=(PAGE % b"").replace(b"612 792", b"1000000000 1000000000")), text="page of text")
case("image.pdf", image_page(), refused="only an image")
case("flat.pdf", lambda path: write_bytes(path, flat_bomb()), refused="no text")
case("own-form.pdf", one_page(
    page=PAGE % b"/XObject << /X 6 0 R >>", o5=stream(b"BT /F1 9 Tf (a form of itself) Tj ET /X Do"),
    o6=stream(b"/X Do", b"/Type /XObject /Subtype /Form /BBox [0 0 9 9] /Resources << /XObject << /X 6 0 R >> >>"),
), text="form of itself")  # fmt: skip
case("own-length.pdf", one_page(o5=b"<< /Length 5 0 R >>\nstream\nBT ET\nendstream"), refused="no text")
case("chain.pdf", one_page("A chained page.", trailer=b"/Prev HERE"), text="chained")
case("late.pdf", b"rubbish\n" * 100 + one_page("A late page."), text="late page")
case("pages.pdf", many_pages(1000), text="repeated")
whole_pdf = files.pdf(["A long page of text. " * 40, "A second page. " * 40])
for tenth in range(1, 10):
    case(f"cut{tenth}.pdf", whole_pdf[: len(whole_pdf) * tenth // 10], refused="damaged")
# Names.
case("new\nline.txt", b"A name of two lines.\n", text="two lines")
case("\x1b[31mred\x07.txt", b"A name that rings.\n", text="rings")
case(b"bytes\xff\xfe.txt", b"A name of bytes.\n", text="name of bytes")
case("n" * 251 + ".txt", b"A long name.\n", text="long name")
case("\u202etxt.exe", b"A name from right to left.\n", text="right to left")
case("-rf", b"A name like an option.\n", text="like an option")
case("%s{0}[bold]'; DROP TABLE files; --.txt", b"A name for programs.\n", text="for programs")
# No files.
case("outside.txt", lambda path: path.symlink_to("/etc/passwd"), refused="link")
case("itself.txt", lambda path: path.symlink_to(path.name), refused="link")
case("nowhere.txt", lambda path: path.symlink_to("nosuch"), refused="link")
case("up", lambda path: path.symlink_to(".."), refused="link")
case("pipe.txt", lambda path: os.mkfifo(path), refused="regular")
case("socket.txt", unix_socket, refused="regular")
case("zeros.txt", device, refused="it is")
case("folder.pdf", directory, text="named like a PDF")
case("sparse.txt", sparse(1 << 40), refused="larger")
case("sparse.html", b"<html>" + b" " * (65 << 20), refused="larger")
case("empty.txt", b"", refused="empty")
# Texts.
case("deep.html", b"<html><body>" + b"<div>" * 100_000 + b"deep", refused="no text")
case("deep2.html", b"<html><body><p>before</p>" + b"<table><tr><td>" * 20_000 + b"deep", text="before")
case("bold.html", b"<html><body>" + b"<b><i>" * 110 + b"bold", text="bold")
case("line.txt", b"one line " * 60_000, text="one line")
case("line.json", b'{"key": [' + b'"value",' * 60_000 + b'"end"]}', text="value")
case(
    "line.md",
    b"| a |" + b" " * 300_000 + b"x\n# a" + b" " * 300_000 + b"x\n" + b" " * 300_000 + b"| marked\n",
    text="marked",
)
case("no-spaces.txt", b"x" * 400_000, text="xxx")
case("columns.csv", b",".join(b"c%d" % n for n in range(100_000)) + b"\n" + b"1," * 100_000, text="c1")
case("quote.csv", b'name,price\nBelt,"12\n' + b"Hose,13\n" * 20_000, text="Hose")
case("nul.csv", b"name,price\nBe\0lt,12\n", refused="NUL")
case("late-nul.txt", b"A text with zeros later.\n" * 4000 + bytes(5000), text="zeros later")
case("nested.eml", nested(1000), refused="nested")
case("charset.eml", mail(b"Content-Type: text/plain; charset=klingon", b"A lying mail.\n"), text="lying")
case(
    "broken.eml",
    mail(b"Content-Transfer-Encoding: base64", b"!!!!" + base64.b64encode(b"half of it")[:-3]),
    text="a mail",
)
case("bytes.eml", mail(b"To: \xff\xfe\xfd", b"Bytes in its head.\n"), text="in its head")
case("heads.eml", mail(b"\n".join(b"X-%d: y" % n for n in range(50_000)), b"Many heads.\n"), text="Many heads")
case("fence.md", b"```\n" + b"never closed\n" * 5000, text="never closed")
case("tags.yaml", b"a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n# anchors\n", text="anchors")
case("rows.jsonl", b'{"city": "Lisbon"}\n' * 50, text="Lisbon")
case("old.doc", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(2000), refused="DOCX")
case("old.xls", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(2000), refused="XLSX")
case("text.rtf", b"{\\rtf1 text}", refused="RTF")
case("program.txt", b"MZ" + bytes(range(256)) * 4, refused="program")
case("data.txt", database, refused="database")
case("image.docx", b"\x89PNG\r\n\x1a\n" + bytes(50), refused="image")
case("photo.pdf", b"\xff\xd8\xff\xe0" + bytes(50), refused="image")
case("no-ending", b"A text without an ending.\n", text="without an ending")
# Encodings without a mark.
ENGLISH, CHINESE = "A plain text about calibration.\n" * 9, "保修期为二十四个月，自购买之日起计算。\n" * 9
JAPANESE, KOREAN = (
    "保証期間は購入日から二十四か月です。修理は無料です。\n" * 9,
    "보증 기간은 구입일로부터 이십사 개월입니다.\n" * 9,
)
RUSSIAN = "Гарантия действует двадцать четыре месяца со дня покупки.\n" * 9
for encoding, words in (
    ("utf-16-le", ENGLISH), ("utf-16-be", ENGLISH), ("utf-32-le", ENGLISH), ("utf-32-be", CHINESE),
    ("gb18030", CHINESE),
    ("big5", "保固期為二十四個月，自購買之日起計算。\n" * 9), ("shift_jis", JAPANESE), ("euc-jp", JAPANESE),
    ("euc-kr", KOREAN), ("koi8-r", RUSSIAN), ("cp1251", RUSSIAN), ("iso-8859-15", "Prüfgebühr: zwölf €\n" * 9),
):  # fmt: skip
    case(f"{encoding}.txt", words.encode(encoding), text=words.split("\n")[0][:12])
