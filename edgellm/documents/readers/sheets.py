"""Tables: CSV and TSV with any delimiter, and the sheets of XLSX files. Rows keep their header."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import IO, Any

from edgellm.documents.elements import Element, Note, Part, row

# Rows of one element; each element repeats the header.
ROWS = 50
# Cells of one sheet: a sheet may claim a million empty rows.
MOST_CELLS = 2_000_000
MOST_COLUMNS = 512
DELIMITERS = ",;\t|"


def read_csv(lines: Iterable[str], start: str) -> Iterator[Part]:
    """The rows of a file whose first characters are `start`."""
    numbered = _Counted(lines)
    header, rows, begins = "", [], 1
    previous = 0
    for cells in _cells(numbered, delimiter(start)):
        text = row(cells)
        if text and not header:
            header, begins = text, previous + 1
            previous = numbered.n_read
            continue
        if text:
            rows.append(text)
        previous = numbered.n_read
        if len(rows) >= ROWS:
            yield Element("table", "\n".join([header, *rows]), line=begins)
            rows, begins = [], previous
    if rows or header:
        yield Element("table", "\n".join([header, *rows]), line=begins)


def _cells(lines: _Counted, separator: str) -> Iterator[list[str]]:
    """The cells of each row; from a quotation mark on that is never closed, those of each line."""
    try:
        for cells in csv.reader(lines, delimiter=separator):
            lines.of_row.clear()
            yield cells
    except csv.Error:
        lines.go_back()
        for line in lines:
            yield line.split(separator)


class _Counted:
    """Lines without NUL, which csv refuses, and how many were read; `of_row` are those since it was last cleared."""

    def __init__(self, lines: Iterable[str]) -> None:
        self._lines = iter(lines)
        self.n_read = 0
        self.of_row: list[str] = []

    def go_back(self) -> None:
        """Have the lines of the row come again."""
        self._lines = chain(self.of_row, self._lines)
        self.n_read -= len(self.of_row)
        self.of_row = []

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = next(self._lines).replace("\0", "")
        self.n_read += 1
        self.of_row.append(line)
        return line


def delimiter(start: str) -> str:
    """The delimiter that gives the most columns in each of the first lines."""
    lines = [line for line in start.splitlines()[:10] if line.strip()]
    found = [(min(len(cells) for cells in csv.reader(lines, delimiter=each)), each) for each in DELIMITERS]
    return max(found, key=lambda pair: pair[0])[1] if lines else ","


def read_xlsx(file: IO[bytes]) -> Iterator[Part]:
    """The sheets of a workbook as tables, with the values that were computed when it was saved."""
    from openpyxl import load_workbook

    book = load_workbook(file, read_only=True, data_only=True, keep_links=False)
    try:
        for sheet in book.worksheets:
            if sheet.sheet_state != "visible":
                yield Note(f"the sheet {sheet.title} is hidden and is left out")
                continue
            yield Element("heading", str(sheet.title), level=1)
            yield from _rows(sheet)
    finally:
        book.close()


def _rows(sheet: Any) -> Iterator[Part]:
    header, rows, n_cells = "", [], 0
    for cells in sheet.iter_rows(values_only=True, max_col=MOST_COLUMNS):
        n_cells += len(cells)
        if n_cells > MOST_CELLS:
            yield Note(f"the sheet {sheet.title} is read up to its first {MOST_CELLS:,} cells")
            break
        text = row([_shown(cell) for cell in cells])
        if not text:
            continue
        if not header:
            header = text
            continue
        rows.append(text)
        if len(rows) >= ROWS:
            yield Element("table", "\n".join([header, *rows]))
            rows = []
    if rows or header:
        yield Element("table", "\n".join([header, *rows]))


def _shown(cell: Any) -> str:
    if cell is None:
        return ""
    if isinstance(cell, float) and cell.is_integer() and abs(cell) < 1e15:
        return str(int(cell))
    if hasattr(cell, "isoformat"):
        return str(cell.isoformat()).removesuffix("T00:00:00")
    return str(cell)
