"""Where edgellm keeps things, and what the environment says.

    settings = Settings.from_environment()
    settings.engines / "0.3.36-…"

`EDGELLM_HOME` moves everything under one directory; without it the platform's usual places are used.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

TRUE_WORDS = frozenset({"1", "true", "yes", "on"})


@dataclass(frozen=True, slots=True)
class Settings:
    """Directories (not necessarily existing yet) and the switches that hold for every command."""

    data: Path
    cache: Path
    config: Path
    offline: bool = False

    @property
    def engines(self) -> Path:
        """Finished engines, one directory for each version, patch stack and CPU."""
        return self.data / "engines"

    @property
    def models(self) -> Path:
        """Model files that came from elsewhere than the Hugging Face cache."""
        return self.data / "models"

    @property
    def chats(self) -> Path:
        """The database of saved chats."""
        return self.data / "chats.sqlite3"

    @property
    def logs(self) -> Path:
        """What servers and their workers say, in files of bounded size."""
        return self.data / "logs"

    @property
    def servers(self) -> Path:
        """A record of each running server."""
        return self.data / "servers"

    @property
    def benchmarks(self) -> Path:
        """Results of `edgellm bench`, one JSON file each."""
        return self.data / "benchmarks"

    @property
    def bench_models(self) -> Path:
        """Models that were made only to measure; they can be deleted at any time."""
        return self.cache / "bench"

    @property
    def usage(self) -> Path:
        """When each model was last used, and how fast it was."""
        return self.data / "usage.json"

    @property
    def cards(self) -> Path:
        """What the headers of the installed models said, for `list`; it can be deleted at any time."""
        return self.cache / "cards.json"

    @property
    def downloads(self) -> Path:
        """Archives as they arrived, already checked."""
        return self.cache / "downloads"

    @property
    def builds(self) -> Path:
        """Source and object trees of engines; they can be deleted at any time."""
        return self.cache / "builds"

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] | None = None) -> Settings:
        """Read `EDGELLM_HOME`, `EDGELLM_OFFLINE` and `HF_HUB_OFFLINE`."""
        env = os.environ if environ is None else environ
        offline = any(is_true(env.get(name)) for name in ("EDGELLM_OFFLINE", "HF_HUB_OFFLINE"))
        if home := env.get("EDGELLM_HOME"):
            root = Path(os.path.expanduser(home)).absolute()  # noqa: PTH111, Path's own raises for unknown users
            return cls(root / "data", root / "cache", root / "config", offline)
        from platformdirs import PlatformDirs

        dirs = PlatformDirs("edgellm", appauthor=False)
        return cls(dirs.user_data_path, dirs.user_cache_path, dirs.user_config_path, offline)


def is_true(value: str | None) -> bool:
    """Whether the value of an environment variable means yes."""
    return value is not None and value.strip().lower() in TRUE_WORDS


def resource_directory(name: str) -> Path:
    """`recipes` or `patches`: inside the wheel when installed from one, else beside the package in the checkout."""
    package = Path(__file__).parent
    packaged = package / "_data" / name
    return packaged if packaged.is_dir() else package.parent / name
