"""The directories that edgellm uses, and the settings from the environment.

    settings = Settings.from_environment()
    settings.engines / "0.3.36-…"

`EDGELLM_HOME` moves everything into one directory; by default the platform's usual directories are used. They are the
same from every working directory.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

# The directory of the package itself.
PACKAGE = Path(__file__).parent
# Used when no model is named: small, and anybody can pull it.
DEFAULT_MODEL = "smollm2"
# Each of them forbids the network.
OFFLINE = ("EDGELLM_OFFLINE", "HF_HUB_OFFLINE")
# Those that typer accepts for a switch, so that a variable means the same wherever it is read.
TRUE_WORDS = frozenset({"1", "true", "t", "yes", "y", "on"})
FALSE_WORDS = frozenset({"0", "false", "f", "no", "n", "off"})
# The variables that are no options, and what they mean; docs/reference/environment.md is made of them.
VARIABLES: Mapping[str, str] = {
    "EDGELLM_HOME": (
        "one directory for everything that edgellm stores; `~` and `$VAR` are expanded, and a relative path begins in "
        "the home directory"
    ),
    "EDGELLM_CONFIG": "the config file, in place of `config.toml` where files go; `/dev/null` for none",
    "EDGELLM_NO_BUILD": "`1`: never build the engine or its tools unless `edgellm engine build` is typed",
    "EDGELLM_DEBUG": "`1`: tracebacks instead of messages",
    "EDGELLM_KERNELS": (
        "our kernels, for packed weights, several tokens at once and attention: `stock` for llama.cpp's own, or a "
        "level below the best of this CPU: `scalar`, `avx2`, `avx-vnni`, `avx512-vnni`, `amx`, `neon-dotprod`, "
        "`neon-i8mm`"
    ),
    "EDGELLM_KEEP_PACKED": (
        "`off`: keep no [packed files](../explanation/memory.md#packed-files), and use none; every process packs the "
        "weights of large models again"
    ),
    "EDGELLM_STREAM_BEAT_MS": (
        "how many milliseconds a token of a `serve` stream may wait for others, to be handed on together (30); 0: none"
    ),
    "EDGELLM_OPEN_SANDBOX": (
        "`1`: run code of a model even where the [sandbox](../explanation/sandbox.md) cannot be closed; it can then "
        "read and change whatever you can"
    ),
    "EDGELLM_SEARXNG": "the URL of the SearXNG server that the tool `web_search` asks",
    "EDGELLM_ZIM": "the ZIM file in which the tool `wikipedia` looks",
    "HF_HUB_OFFLINE": "`1`: never use the network, as `EDGELLM_OFFLINE`",
    "HF_HOME": "the directory of the Hugging Face cache",
    "HF_HUB_CACHE": "the same, for models alone",
    "HF_ENDPOINT": "a mirror of the Hub",
    "HF_TOKEN": "a token for restricted models",
    "NO_COLOR": "no colours",
    "CC": "the C compiler for the engine",
    "CXX": "the C++ compiler for the engine",
}
# Never shown in full.
SECRET = re.compile(r"(^|[-_.])(key|keys|token|secret|password)$", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Settings:
    """Directories, which may not exist yet, and the switches that apply to every command."""

    data: Path
    cache: Path
    config: Path
    offline: bool = False
    config_file: Path = Path()
    keep_packed: bool = True

    def __post_init__(self) -> None:
        """Where nothing else is said, the config file lies in its directory."""
        if self.config_file == Path():
            object.__setattr__(self, "config_file", self.config / "config.toml")

    @property
    def engines(self) -> Path:
        """Finished engines, one directory for each version, patch stack and CPU."""
        return self.data / "engines"

    @property
    def models(self) -> Path:
        """Model files that are not in the Hugging Face cache."""
        return self.data / "models"

    @property
    def adapters(self) -> Path:
        """Adapters that were pulled, which change the answers of a model."""
        return self.data / "adapters"

    @property
    def chats(self) -> Path:
        """The database of saved chats."""
        return self.data / "chats.sqlite3"

    @property
    def documents(self) -> Path:
        """The collections of documents, a database each."""
        return self.data / "documents"

    @property
    def uploads(self) -> Path:
        """The files that clients of `serve` have uploaded."""
        return self.data / "uploads"

    @property
    def answers(self) -> Path:
        """The answer cache; it can be deleted at any time."""
        return self.cache / "answers.sqlite3"

    @property
    def logs(self) -> Path:
        """Logs of servers and their workers, in files of bounded size."""
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
    def tunings(self) -> Path:
        """What `edgellm tune` found, one JSON file for each model file."""
        return self.data / "tunings"

    @property
    def evaluations(self) -> Path:
        """Logs of `edgellm eval`, and the work of evaluations that were interrupted."""
        return self.data / "evaluations"

    @property
    def responses(self) -> Path:
        """What models have answered to lm-eval's tasks; without it they are computed again."""
        return self.evaluations / "responses"

    @property
    def bench_models(self) -> Path:
        """Models that exist only for benchmarks; they can be deleted at any time."""
        return self.cache / "bench"

    @property
    def mcp_servers(self) -> Path:
        """The MCP servers of the user, in the shape that other programs use."""
        return self.config / "mcp.json"

    @property
    def usage(self) -> Path:
        """When each model was last used, and how fast it was."""
        return self.data / "usage.json"

    @property
    def cards(self) -> Path:
        """Cached header values of the installed models, for `list`; it can be deleted at any time."""
        return self.cache / "cards.json"

    @property
    def self_tests(self) -> Path:
        """What the self-test found in each model file; it can be deleted at any time."""
        return self.cache / "self-tests.json"

    @property
    def draft_costs(self) -> Path:
        """What passes over several tokens cost, by model file; it can be deleted at any time."""
        return self.cache / "draft-costs.json"

    @property
    def packed(self) -> Path:
        """Packed weights of large models, which processes share; they can be deleted at any time."""
        return self.cache / "packed"

    @property
    def prompts(self) -> Path:
        """Prompts that were read, for the next process; they can be deleted at any time."""
        return self.cache / "prompts"

    @property
    def downloads(self) -> Path:
        """Downloaded archives with verified checksums."""
        return self.cache / "downloads"

    @property
    def builds(self) -> Path:
        """Sources and object files of engine builds; they can be deleted at any time."""
        return self.cache / "builds"

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] | None = None) -> Settings:
        """Read `EDGELLM_HOME`, `EDGELLM_CONFIG`, `EDGELLM_KEEP_PACKED`, `EDGELLM_OFFLINE` and `HF_HUB_OFFLINE`."""
        env = os.environ if environ is None else environ
        offline = any(is_true(env.get(name)) for name in OFFLINE)
        keep_packed = not is_false(env.get("EDGELLM_KEEP_PACKED"))
        named = env.get("EDGELLM_CONFIG")
        file = Path(os.path.expanduser(named)).absolute() if named else Path()  # noqa: PTH111, as in `anchored`
        if home := env.get("EDGELLM_HOME"):
            root = anchored(home)
            return cls(root / "data", root / "cache", root / "config", offline, file, keep_packed)
        from platformdirs import PlatformDirs

        dirs = PlatformDirs("edgellm", appauthor=False)
        data, cache, config = map(anchored, (dirs.user_data_dir, dirs.user_cache_dir, dirs.user_config_dir))
        return cls(data, cache, config, offline, file, keep_packed)


def anchored(place: str) -> Path:
    """The directory that a variable names, the same from everywhere: `~` and `$VAR` are expanded, and a relative path
    begins in the home directory. From the working directory each directory would have models of its own.
    """
    path = os.path.expandvars(os.path.expanduser(place))  # noqa: PTH111, Path's own raises for unknown users
    return Path(os.path.expanduser("~"), path).absolute()  # noqa: PTH111


def is_true(value: str | None) -> bool:
    """Whether the value of an environment variable means true."""
    return value is not None and value.strip().lower() in TRUE_WORDS


def is_false(value: str | None) -> bool:
    """Whether the value of an environment variable means false."""
    return value is not None and value.strip().lower() in FALSE_WORDS


def resource_directory(name: str) -> Path:
    """Return the directory `recipes` or `patches`: in the installed wheel, or beside the package in a checkout."""
    packaged = PACKAGE / "_data" / name
    return packaged if packaged.is_dir() else PACKAGE.parent / name
