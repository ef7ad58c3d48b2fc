"""The user's config.toml: read within limits, with the line of everything that is wrong, and changed with its comments.

    config = ConfigFile.read(settings.config_file)
    config.at(("chat", "temp"))              # 0.7, or None
    change(settings.config_file, ("chat", "temp"), 0.5)

It knows TOML and nothing of options; `ui/defaults.py` knows which keys there are.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgellm.errors import ConfigInvalid, FileAccessError
from edgellm.files import locked, write_atomically
from edgellm.suggest import did_you_mean

# A key's names from the outside in: ("chat", "temp") is `temp` in the section [chat].
Place = tuple[str, ...]

MOST_BYTES = 1 << 20
# Finding the line of a key reads the file again and again; in longer ones a mistake is named without its line.
MOST_LINES = 2000
EDIT = "edgellm config edit"


@dataclass(frozen=True, slots=True)
class ConfigFile:
    """What stands in the file: `values` as plain tables, `text` to find lines in. A file that is not there is empty."""

    path: Path
    values: Mapping[str, Any] = field(default_factory=dict)
    text: str = ""

    @classmethod
    def read(cls, path: Path) -> ConfigFile:
        """Read the file.

        Raises:
            ConfigInvalid: it is no TOML in UTF-8, or too large.
            FileAccessError: it cannot be read.
        """
        text = _read_text(path)
        return cls(path, _parse(path, text), text) if text else cls(path)

    def at(self, place: Place) -> Any:
        """The value at a place, None when there is none."""
        found: Any = self.values
        for name in place:
            found = found.get(name) if isinstance(found, dict) else None
        return found

    def places(self) -> Iterator[Place]:
        """The places of all values, in the order of the file."""
        return _leaves(self.values, ())

    def line_of(self, place: Place) -> int | None:
        """The line on which the value at a place begins, from 1; None where it cannot be found."""
        lines = self.text.splitlines()
        if len(lines) > MOST_LINES:
            return None
        whole = 0
        for end in range(1, len(lines) + 1):
            try:
                beginning = ConfigFile(self.path, _toml_loads("\n".join(lines[:end])))
            except ValueError:  # inside a value of several lines
                continue
            if beginning.at(place) is not None:
                return whole + 1
            whole = end
        return None

    def invalid(self, place: Place, why: str, *, known: Mapping[str, Any] | list[str] | None = None) -> ConfigInvalid:
        """The error for a key; `known` are the names that could have been meant."""
        line = self.line_of(place)
        where = f"{self.path}, line {line}" if line else str(self.path)
        guess = did_you_mean(place[-1], known) if known else None
        why = f"{why}; did you mean {guess}?" if guess else why
        return ConfigInvalid(
            f"{where}: {dotted(place)}", why=why, hint=EDIT, path=str(self.path), line=line, key=dotted(place)
        )


def change(path: Path, place: Place, value: Any) -> bool:
    """Set the value at a place, or remove it with None; comments and order stay. Whether the file is different now.

    Others who change the file at the same time are waited for, so that nothing is lost.

    Raises:
        ConfigInvalid: it is no TOML, or something else is where a section is needed.
        FileAccessError: it cannot be read or written.
    """
    import tomlkit

    path = path.resolve()  # a link into somebody's dotfiles stays one
    with locked(path.with_name(f".{path.name}.lock")):
        text = _read_text(path)
        config = ConfigFile(path, _parse(path, text), text)
        if config.at(place) == value and type(config.at(place)) is type(value):
            return False
        document = tomlkit.parse(text)
        if value is None:
            _remove(document, place)
        else:
            _table(document, place[:-1], config)[place[-1]] = value
        mode = path.stat().st_mode & 0o777 if path.exists() else 0o600  # it may hold keys
        write_atomically(path, tomlkit.dumps(document).encode(), mode=mode)
    return True


def dotted(place: Place) -> str:
    """A place as people write it: `chat.temp`, `models.smollm2.system`."""
    return ".".join(place)


def _table(document: Any, section: Place, config: ConfigFile) -> Any:
    """The table of a section, made if need be."""
    import tomlkit

    table = document
    for depth, name in enumerate(section, 1):
        if name not in table:
            # A section that only holds others needs no line of its own.
            table.add(name, tomlkit.table(is_super_table=depth < len(section)))
        table = table[name]
        if not isinstance(table, dict):
            raise config.invalid(section[:depth], "this is a value, and a section is needed here")
    return table


def _remove(document: Any, place: Place) -> None:
    """Remove a value, and the sections that are empty then and have no comment."""
    tables = [document]
    for name in place[:-1]:
        tables.append(tables[-1][name])
    for table, name in zip(reversed(tables), reversed(place), strict=True):
        del table[name]
        if table or table is document or "#" in table.as_string():
            return


def _leaves(table: Mapping[str, Any], section: Place) -> Iterator[Place]:
    for name, value in table.items():
        if isinstance(value, dict):
            yield from _leaves(value, (*section, name))
        else:
            yield (*section, name)


def _read_text(path: Path) -> str:
    """The file as text without a byte order mark; empty when there is no file."""
    try:
        with path.open("rb") as file:
            data = file.read(MOST_BYTES + 1)
    except (FileNotFoundError, NotADirectoryError):
        return ""
    except OSError as error:
        hint = "EDGELLM_CONFIG names another file"
        raise FileAccessError(f"cannot read {path}", why=str(error.strerror), hint=hint, path=str(path)) from error
    if len(data) > MOST_BYTES:
        raise ConfigInvalid(f"{path} is too large for a config file", why="the limit is 1 MiB", path=str(path))
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        why = f"it is not in UTF-8: byte {data[error.start]:#04x}"
        raise ConfigInvalid(f"{path}, line {line}", why=why, hint=EDIT, path=str(path), line=line) from None


def _parse(path: Path, text: str) -> dict[str, Any]:
    try:
        return _toml_loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigInvalid(f"{path} is not valid TOML", why=_reason(error), hint=EDIT, path=str(path)) from None


def _reason(error: Exception) -> str:
    """The parser's own words, which have the line, without more of the file than the key."""
    return str(error) if isinstance(error, ValueError) else "it is nested too deeply"


def _toml_loads(text: str) -> dict[str, Any]:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    return tomllib.loads(text)
