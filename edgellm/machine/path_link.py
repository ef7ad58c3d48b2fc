"""Puts `edgellm` on PATH from a checkout, and takes it away again; the Makefile runs it.

    python -m edgellm.machine.path_link install PROGRAM     # with pipx if it is there, else a link in ~/.local/bin
    python -m edgellm.machine.path_link uninstall PROGRAM
    python -m edgellm.machine.path_link hint PROGRAM        # what to type next, if `edgellm` is not found

Another program of that name is never overwritten. Only the standard library and `edgellm.errors`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from edgellm.errors import EdgellmError, FileAccessError

NAME = "edgellm"
CHECKOUT = Path(__file__).resolve().parent.parent.parent


def directory() -> Path:
    """Where programs of this user lie; pipx may have been given another place."""
    return Path(os.environ.get("PIPX_BIN_DIR") or "~/.local/bin").expanduser()


def install(place: Path, program: Path) -> str:
    """Put the program on PATH; returns what was done.

    Raises:
        FileAccessError: another program of that name is there, or the directory cannot be written.
    """
    if not (is_free(place) or is_ours(place, program)):
        why = f"it leads to {place.resolve()}" if place.is_symlink() else "it is no link to this checkout"
        hint = f"remove it, or make a link to {program} elsewhere"
        raise FileAccessError(f"{place} is another program", why=why, hint=hint, path=str(place))
    if shutil.which("pipx"):
        place.unlink(missing_ok=True)  # a link of ours, or one to nothing: pipx would leave it there
        _pipx("install", "--force", str(CHECKOUT))
        return f"{NAME} is installed with pipx; the same again after an update of the checkout"
    place.parent.mkdir(parents=True, exist_ok=True)
    if not is_ours(place, program):
        place.unlink(missing_ok=True)
        place.symlink_to(program)  # fails if another program came in between
    return f"{place} leads to {program}"


def uninstall(place: Path, program: Path) -> str:
    """Take the program from PATH again; engines, models and chats stay. Returns what was done."""
    if _is_of_pipx(place):
        _pipx("uninstall", NAME)
        return f"{NAME} is no longer installed with pipx"
    if is_ours(place, program):
        place.unlink()
        return f"{place} is removed"
    return f"{place} is another program, and stays" if os.path.lexists(place) else f"there is no {place}"


def hint(place: Path, program: Path) -> str:
    """What to type so that `edgellm` is found; empty when it is."""
    found = shutil.which(NAME)
    if found and (Path(found) == program or is_ours(Path(found), program)):
        return ""
    if found and Path(found) != place:
        return f"note: `{NAME}` is {found}, not {program}; see: command -v {NAME}"
    if not is_ours(place, program):
        return f"next: make install puts `{NAME}` on your PATH; until then it is {_short(program)}"
    return f"next: {place.parent} is not on your PATH yet: {_path_command(place.parent)}"


def is_free(place: Path) -> bool:
    """Whether nothing is there, or a link to nothing, such as one to a checkout that was removed."""
    return not os.path.lexists(place) or (place.is_symlink() and not place.exists())


def is_ours(place: Path, program: Path) -> bool:
    """Whether it is a link to the program, or what pipx made of a checkout."""
    linked = place.is_symlink() and place.readlink() == program
    return linked or _is_of_pipx(place)


def _is_of_pipx(place: Path) -> bool:
    return place.is_symlink() and f"/venvs/{NAME}/" in str(place.readlink())


def _pipx(*arguments: str) -> None:
    result = subprocess.run(["pipx", *arguments], stdout=sys.stderr, check=False)
    if result.returncode != 0:
        why = f"its exit code is {result.returncode}"
        raise EdgellmError(f"pipx {arguments[0]} failed", why=why, hint=f"pipx {' '.join(arguments)} --verbose")


def _path_command(place: Path) -> str:
    """What puts a directory on PATH, now and in new shells."""
    home = Path.home()
    shown = f"$HOME/{place.relative_to(home)}" if place.is_relative_to(home) else str(place)
    shell = Path(os.environ.get("SHELL") or "sh").name
    if shell == "fish":
        return f'fish_add_path "{shown}"'
    profile = {"zsh": "~/.zshrc", "bash": "~/.bashrc"}.get(shell, "~/.profile")
    return f"""echo 'export PATH="{shown}:$PATH"' >> {profile}, then a new terminal"""


def _short(program: Path) -> str:
    """A path as it is typed from the checkout."""
    return str(program.relative_to(CHECKOUT)) if program.is_relative_to(CHECKOUT) else str(program)


def main(action: str, program: Path) -> int:
    """Do it, and say so on stderr; returns the exit code."""
    place = directory() / NAME
    try:
        lines = [install(place, program)] if action == "install" else []
        lines += [uninstall(place, program)] if action == "uninstall" else [hint(place, program)]
    except OSError as error:
        sys.stderr.write(f"error: cannot use {error.filename}: {error.strerror}\n")
        return FileAccessError.exit_code
    except EdgellmError as error:
        sys.stderr.write(f"error: {error.what}: {error.why}\n  try: {error.hint}\n")
        return error.exit_code
    sys.stderr.write("".join(f"{line}\n" for line in lines if line))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], Path(sys.argv[2])))
