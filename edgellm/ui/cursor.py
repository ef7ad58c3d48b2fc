"""The cursor of a terminal while text streams: where it is, and the codes that take a word whole to the next row.

    cursor = Cursor(width=80)
    sys.stdout.write(cursor.write("The capital of France"))

A word is printed as it comes. When it does not fit, what is there of it is erased and printed again in the next row.
"""

from __future__ import annotations

from rich.cells import cell_len

TAB = 8
ESC = "\x1b"
ERASE_RIGHT = f"{ESC}[K"


class Cursor:
    """A cursor in a row of `width` cells. `column` is the cells before it; `width` of them fill the row."""

    def __init__(self, width: int) -> None:
        self.width = width
        self.column = 0
        self._row = ""  # the text in the cursor's row
        self._word = ""  # the end of it that is not to be divided
        self._skipped = False  # a space that fell on the edge

    def resize(self, width: int) -> None:
        """Follow a change of the width; the terminal itself breaks the row anew."""
        self.width, self.column = width, column_after(self._row, 0, width)
        if cell_len(self._word) > self.column:
            self._word = ""

    def write(self, text: str) -> str:
        """What to print for a text that comes next."""
        return "".join(map(self._put, text))

    def new_line(self) -> str:
        """What to print so that the cursor is at the beginning of a row."""
        return self._put("\n") if self.column else ""

    def _put(self, character: str) -> str:
        if character == "\n":
            return self._break()
        cells = column_after(character, self.column, self.width) - self.column
        fits = self.column + max(0, cells) <= self.width and cells >= 0
        if character == " " and not fits:
            self._word, self._skipped = "", True
            return ""
        before = "" if fits and not self._skipped else self._wrapped(character)
        self._row += character
        self.column = column_after(character, self.column, self.width)
        if character in " \t" or cell_len(character) > 1:  # between wide characters a line may break
            self._word = ""
        else:
            self._word += character
        return before + character

    def _wrapped(self, character: str) -> str:
        """The codes that begin the next row for a character, with the word that it belongs to."""
        word, start = self._word, self.column - cell_len(self._word)
        is_wide = cell_len(character) > 1
        if not self._skipped and (is_wide or (word and start == 0)):  # the terminal breaks what is longer than a row
            self._row, self._word = "", ""
            return ""
        if not word:
            return self._break()
        self._break()
        self._row, self._word, self.column = word, word, cell_len(word)
        return f"\r{ESC}[{start}C{ERASE_RIGHT}\n{word}"

    def _break(self) -> str:
        self._row, self._word, self._skipped, self.column = "", "", False, 0
        return "\n"


def column_after(text: str, column: int, width: int) -> int:
    """The column of the cursor after a text; `width` means that the row is full and about to wrap."""
    for character in text:
        cells = TAB - column % TAB if character == "\t" else cell_len(character)
        if character == "\n":
            column = 0
        elif column + cells <= width:
            column += cells
        else:
            # A tab stops at the edge; anything else goes to the next row.
            column = width if character == "\t" else cells
    return column
