"""The server's own log: starts, loaded models, dead workers and errors, in files of bounded size.

with logging_to(settings.logs / "serve.log", secrets=options.api_keys): ...

It never contains the text of a request, or a key.
"""

from __future__ import annotations

import contextlib
import logging
import logging.handlers
from collections.abc import Collection, Iterator
from pathlib import Path

LOG_BYTES, LOG_FILES = 4 << 20, 3
LOGGERS = ("edgellm.serve", "uvicorn.error")


class BoundedLog(logging.handlers.RotatingFileHandler):
    """A log file, and a few older ones."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, maxBytes=LOG_BYTES, backupCount=LOG_FILES, encoding="utf-8")

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802, the library's name
        """Ignore errors: a full disk must not end an answer."""


class _Discreet(logging.Formatter):
    """Lines with time and level; keys are masked, should one get into a line."""

    def __init__(self, secrets: Collection[str]) -> None:
        super().__init__("%(asctime)s %(levelname)s %(process)d %(message)s")
        self._secrets = [secret for secret in secrets if secret]

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        line = super().format(record)
        for secret in self._secrets:
            line = line.replace(secret, "***")
        return line


@contextlib.contextmanager
def logging_to(path: Path, *, secrets: Collection[str] = ()) -> Iterator[None]:
    """Log to a file until the end of the block; the server also runs if it cannot be written."""
    handler: logging.Handler = logging.NullHandler()
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        handler = BoundedLog(path)
    handler.setFormatter(_Discreet(secrets))
    loggers = [logging.getLogger(name) for name in LOGGERS]
    levels = [logger.level for logger in loggers]
    loggers[0].setLevel(logging.INFO)
    for logger in loggers:
        logger.addHandler(handler)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.removeHandler(handler)
            logger.setLevel(level)
        handler.close()
