"""Writes what a bug report needs as Markdown: versions, machine, checks and settings, without names and keys.

    text = bug_report(checks, models=["smollm2", "mine"], recipes=["smollm2"], environ=os.environ)

Home directories, the names of user and machine, addresses, tokens and the values of secret settings are taken out. A
model is named only if its name is that of a recipe.
"""

from __future__ import annotations

import getpass
import importlib.metadata
import platform
import re
import socket
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from edgellm.diagnosis import PATCH, Check
from edgellm.settings import SECRET
from edgellm.version import __version__

# Variables that change how edgellm, the engine or the Hub's library behave.
VARIABLE_PREFIXES = ("EDGELLM_", "HF_", "GGML_", "LLAMA_", "GOMP_", "OMP_", "CC", "CXX")
PLACEHOLDERS = (
    # Tokens of well-known services, and anything that is as long and mixed as a key.
    (re.compile(r"\b(?:hf|sk|pk|gsk|ghp|gho|github_pat|xox[abp])[-_][\w-]{8,}"), "(key)"),
    (re.compile(r"(?i)\b(bearer|basic) [\w.~+/=-]+"), r"\1 (key)"),
    (re.compile(r"\b(?=[\w-]*\d)(?=[\w-]*[A-Za-z])[\w-]{32,}"), "(key)"),
    (re.compile(r"(?<=://)[^/\s@]+@"), "(user)@"),
    (re.compile(r"[\w.+-]+@[\w-]+\.[\w.-]+"), "(address)"),
    (re.compile(r"\b(?!127\.|0\.0\.0\.0)\d{1,3}(?:\.\d{1,3}){3}\b"), "(address)"),
    (re.compile(r"/(?:home|Users)/[^/\s:]+"), "~"),
)
# Shorter names, and root, are also parts of ordinary words.
SHORTEST_NAME = 3


class Redaction:
    """Takes out of a text what says who the user is, or opens a door."""

    def __init__(self, home: Path, user: str, host: str) -> None:
        names = [(str(home), "~")] if len(home.parts) > 1 else []
        self._literal = [*names, *((name, place) for name, place in ((user, "(user)"), (host, "(host)")) if name)]

    @classmethod
    def here(cls) -> Redaction:
        """For this user on this machine."""
        try:
            user = getpass.getuser()
        except (KeyError, OSError):  # a user id without a name, as in containers
            user = ""
        return cls(Path.home(), user, socket.gethostname().partition(".")[0])

    def __call__(self, text: str) -> str:
        """Return the text without them."""
        for literal, place in self._literal:
            if literal.startswith("/"):
                text = text.replace(literal, place)
            elif len(literal) >= SHORTEST_NAME and literal not in ("root", "localhost"):
                text = re.sub(rf"(?<![\w-]){re.escape(literal)}(?![\w-])", place, text)
        for pattern, place in PLACEHOLDERS:
            text = pattern.sub(place, text)
        return text


def bug_report(
    checks: Sequence[Check],
    models: Sequence[str],
    recipes: Sequence[str],
    environ: Mapping[str, str],
    redact: Redaction | None = None,
) -> str:
    """Return the report.

    Args:
        checks: what `doctor` found.
        models: the names of all installed models.
        recipes: the names of models that anybody can pull.
        environ: the environment.
        redact: by default that of this user on this machine.
    """
    clean = redact or Redaction.here()
    sections = {
        "Versions": _versions(),
        "Checks": [f"{'ok  ' if check.ok else 'FAIL'} {check.name}: {check.detail}" for check in _findings(checks)],
        "Models": _models(models, recipes),
        "Environment": [*_variables(environ)],
    }
    parts = [f"### {title}\n\n```\n{clean(chr(10).join(lines)) or 'none'}\n```\n" for title, lines in sections.items()]
    return "\n".join(["## edgellm doctor --report\n", *parts])


def _findings(checks: Sequence[Check]) -> list[Check]:
    return [check for check in checks if check.name != PATCH]


def _versions() -> list[str]:
    libc = " ".join(platform.libc_ver()) or "unknown libc"
    return [
        f"edgellm {__version__}, Python {platform.python_version()} ({platform.python_implementation()})",
        f"{_system()}, {platform.system()} {platform.release()} {platform.machine()}, {libc}",
        f"in {'a virtual environment' if sys.prefix != sys.base_prefix else 'the system'}: "
        + ", ".join(_requirements()),
    ]


def _system() -> str:
    if sys.platform == "darwin":
        return f"macOS {platform.mac_ver()[0]}"
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME", "unknown system")
    except OSError:
        return "unknown system"


def _requirements() -> Iterator[str]:
    """Yield the version of each library that edgellm itself asks for."""
    for requirement in importlib.metadata.requires("edgellm") or ():
        if "extra ==" not in requirement:
            name = re.split(r"[^\w.-]", requirement, maxsplit=1)[0]
            try:
                yield f"{name} {importlib.metadata.version(name)}"
            except importlib.metadata.PackageNotFoundError:
                continue


def _models(models: Sequence[str], recipes: Sequence[str]) -> list[str]:
    known = [name for name in models if name in recipes]
    return [*known, f"and {len(models) - len(known)} with names of the user's own"]


def _variables(environ: Mapping[str, str]) -> Iterator[str]:
    for name, value in sorted(environ.items()):
        if name.startswith(VARIABLE_PREFIXES):
            yield f"{name}={'(set)' if SECRET.search(name) else value}"
