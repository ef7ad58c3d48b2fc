import struct
import sys
from pathlib import Path

import pytest

from edgellm.errors import FileAccessError, UsageError
from edgellm.report.page import ReportPage
from edgellm.report.picture import png
from edgellm.report.report_file import ReportFile
from edgellm.report.speed import benchmark_page
from tests.report.benchmarks import two_models
from tests.report.test_speed import NOTHING

EMPTY = ReportPage("nothing", "", [], [])


@pytest.mark.parametrize("name", ["report", "report.pdf", "report.html.gz", ".html", ""])
def test_strange_endings_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be written") as caught:
        ReportFile.at(tmp_path / name if name else Path())
    assert ".png" in caught.value.why and caught.value.hint.endswith(".html")


def test_what_cannot_be_written_is_refused_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "folder.html").mkdir()
    (tmp_path / "file").touch()
    for name in ("folder.html", "file/r.html", "/proc/r.html", "x" * 300 + ".html"):
        with pytest.raises(FileAccessError):
            ReportFile.at(tmp_path / name)
    ReportFile.at(tmp_path / "new" / "folder" / "r.HTML")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder.html"]  # looking leaves nothing


def test_each_ending_gets_its_kind(tmp_path: Path) -> None:
    page = benchmark_page(two_models(), NOTHING)
    for name in ("r.html", "r.SVG", "r.png"):
        ReportFile.at(tmp_path / name).write(page)
    assert (tmp_path / "r.html").read_text().startswith("<!doctype html>")
    assert (tmp_path / "r.SVG").read_text().startswith("<svg ")
    picture = (tmp_path / "r.png").read_bytes()
    width, height = struct.unpack(">II", picture[16:24])
    assert picture.startswith(b"\x89PNG") and width == 1744 and height > 1000
    assert len(list(tmp_path.iterdir())) == 3


def test_a_report_without_charts_is_no_picture(tmp_path: Path) -> None:
    (tmp_path / "r.svg").write_text("before")
    with pytest.raises(UsageError) as caught:
        ReportFile.at(tmp_path / "r.svg").write(EMPTY)
    assert "no charts" in caught.value.why
    assert (tmp_path / "r.svg").read_text() == "before"
    ReportFile.at(tmp_path / "r.html").write(EMPTY)


def test_a_picture_without_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "resvg_py", None)  # as Python sees a module that is not there
    with pytest.raises(UsageError) as caught:
        ReportFile.at(tmp_path / "r.png")
    assert "not installed" in caught.value.why and "edgellm[png]" in caught.value.hint


def test_pictures_have_their_text() -> None:
    frame = '<svg xmlns="http://www.w3.org/2000/svg" width="99" height="30">{}</svg>'
    words = '<text x="5" y="20" font-family="system-ui, sans-serif">words</text>'
    assert png(frame.format(words)) != png(frame.format(""))
