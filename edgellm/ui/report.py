"""Writes the report that the user asked for, and says where it is.

write_report(ReportFile.at(path), benchmark_page(result, past), quiet=False)
"""

from __future__ import annotations

from edgellm.report.page import ReportPage
from edgellm.report.report_file import ReportFile
from edgellm.ui.console import note


def write_report(file: ReportFile, page: ReportPage, *, quiet: bool) -> None:
    """Write the file and print a note; `quiet` leaves out the note."""
    file.write(page)
    if not quiet:
        note(f"report: {file.path}")
