"""What a server writes to its standard error: kept in a file of bounded size, and its last words for our errors.

log = ServerLog(settings.logs, "files")
log.add(b"Secure MCP Filesystem Server running on stdio\\n")
log.last_words
"""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path

MOST_BYTES = 1 << 20


class ServerLog:
    """One server's log; it is also kept where several programs write to it, and nothing fails when it cannot be."""

    def __init__(self, directory: Path, name: str) -> None:
        self.path = directory / f"mcp-{re.sub(r'[^A-Za-z0-9_.-]+', '-', name)}.log"
        self.last_words = ""

    def add(self, line: bytes) -> None:
        """Keep a line; of the older half only one file stays."""
        if line.strip():
            self.last_words = line.decode(errors="replace").strip()[:300]
        with contextlib.suppress(OSError):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)  # it may hold secrets
            with os.fdopen(descriptor, "ab") as file:
                file.write(line if line.endswith(b"\n") else line + b"\n")
                is_full = file.tell() > MOST_BYTES
            if is_full:
                self.path.replace(self.path.with_suffix(".log.1"))
