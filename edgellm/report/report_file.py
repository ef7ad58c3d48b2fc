"""Writes a report where the user wants it: .html is the page, .svg its charts, .png its charts as a picture.

target = ReportFile.at(Path("speed.html"))      # refuses what could not be written, before anything is measured
target.write(page)
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

from edgellm.errors import FileAccessError, UsageError
from edgellm.files import write_atomically
from edgellm.report.charts.chart import sheet
from edgellm.report.page import ReportPage, html_file
from edgellm.report.picture import png, require_rasteriser

ENDINGS = (".html", ".svg", ".png")


@dataclass(frozen=True, slots=True)
class ReportFile:
    """A file that a report can be written to."""

    path: Path

    @classmethod
    def at(cls, path: Path) -> ReportFile:
        """Check a path that the user typed.

        Raises:
            UsageError: its ending says no kind of report, or what makes pictures is not installed.
            FileAccessError: no file can be written there.
        """
        if path.suffix.lower() not in ENDINGS:
            raise UsageError(
                f"a report cannot be written to {str(path)!r:.200}",
                why=f"its name must end in {', '.join(ENDINGS[:-1])} or {ENDINGS[-1]}",
                hint=f"--report {path.stem[:60] or 'report'}.html",
            )
        if path.suffix.lower() == ".png":
            require_rasteriser()
        _require_writable(path)
        return cls(path)

    def write(self, page: ReportPage) -> None:
        """Write the report; a crash leaves the complete file or the one before.

        Raises:
            UsageError: the report has no charts, and the file is of charts alone.
        """
        write_atomically(self.path, self._content(page))

    def _content(self, page: ReportPage) -> bytes:
        ending = self.path.suffix.lower()
        if ending == ".html":
            return html_file(page).encode()
        if not page.charts:
            raise UsageError(
                f"{self.path.name} was not written", why="this report has no charts", hint="--report FILE.html"
            )
        if ending == ".png":
            return png(sheet(page.title, page.subtitle, page.charts, is_for_screens=False))
        return sheet(page.title, page.subtitle, page.charts).encode()


def _require_writable(path: Path) -> None:
    """Try it: permissions alone do not say whether a file system can be written to."""
    place = path.parent
    try:
        if path.is_dir():
            raise FileAccessError(f"a report cannot be written to {path}", why="it is a directory", path=str(path))
        while not place.exists():
            place = place.parent
        with tempfile.TemporaryFile(dir=place):
            pass
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise FileAccessError(f"a report cannot be written to {str(path)!r:.200}", why=why, path=str(path)) from error
