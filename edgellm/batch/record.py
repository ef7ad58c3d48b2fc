"""What a batch was begun with: the model's content and every option that shapes an answer.

    content = file_content(path, digest(path, store))
    asked = begun_with(content, recipe, options, load, shard=Shard(), jsonl=True, raw=False)
    differences({"temperature": 0.8}, {"temperature": 0.5})  ->  ["temperature was 0.8, and now is 0.5"]

It lies in the journal while the batch runs and in `OUT.job` beside the finished output, so that the same command goes
on or has nothing left to do, and another command never gets these answers.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from edgellm.engine.sampling import OPTIONS
from edgellm.errors import CorruptFile, FileAccessError, UsageError
from edgellm.files import sha256_of, write_atomically
from edgellm.formats.gguf_split import part_paths
from edgellm.progress import Progress, Report, silent
from edgellm.run.answer_options import AnswerOptions
from edgellm.run.loader import LoadOptions, choose_system

if TYPE_CHECKING:
    from edgellm.batch.lines import Shard
    from edgellm.models.local.store import InstalledModel, Store
    from edgellm.models.recipe import Recipe

VERSION = 1
# The same content is the same model, whatever its file is called; older journals have only the name and the size.
CONTENT = "sha256"
# The context that edgellm chose where `ctx-size` is not set. It is held for a resume, and not compared.
CONTEXT = "context"
_NAME_AND_SIZE = ("model", "bytes")
# The documents that rows ask, and their content; a record without them is of a batch that asked none.
DOCS, COLLECTIONS = "docs", "collections"
TOOLS = "tools"
_WITHOUT_DOCUMENTS: Mapping[str, Any] = {DOCS: None, COLLECTIONS: {}, TOOLS: []}
_MOST_SHOWN = 60


def file_content(path: Path, sha256: str) -> dict[str, Any]:
    """A model's content by name, of a file that is here."""
    return {"model": path.name, "bytes": path.stat().st_size, CONTENT: sha256}


def served_content(server: str, name: str, about: str) -> dict[str, Any]:
    """A model's content by name, as far as a server that has it says so."""
    return {"model": name, "bytes": None, CONTENT: f"{about} of {server}"}


def begun_with(
    content: Mapping[str, Any],
    recipe: Recipe | None,
    options: AnswerOptions,
    load: LoadOptions,
    *,
    shard: Shard,
    jsonl: bool,
    raw: bool,
    docs: str | None = None,
    collections: Mapping[str, str] = MappingProxyType({}),
    tools: Sequence[str] = (),
) -> dict[str, Any]:
    """What the answers depend on, by name; None stands for an option that is not set.

    `content` is that of the model.
    `docs` names the documents of rows that name none; `collections` has the content of all that are asked.
    `tools` are those that rows may call which name none.

    Slots, threads, memory limits and retries are left out: they may change from one run to the next.
    """
    sampling, structure = options.sampling(recipe), options.structure
    template = recipe.chat_template if recipe else None
    form: dict[str, Any] = {"format": structure and structure.schema}
    if structure is None or structure.schema is None:  # the grammar of a schema is made from it
        form["grammar"] = structure and structure.grammar
    return {
        **content,
        "input": "JSON lines" if jsonl else "plain text",
        "shard": f"{shard.index}/{shard.count}",
        "seed": options.asked.get("seed"),
        "ctx-size": load.n_ctx,
        CONTEXT: load.n_ctx,
        "kv": load.kv_type and load.kv_type.upper(),
        "system": choose_system(load, recipe),
        **({"lora": _adapters(load)} if load.adapters else {}),
        "chat-template": template and hashlib.sha256(template.encode()).hexdigest(),
        "raw": raw,
        "max-tokens": options.limits.max_tokens,
        "loop-guard": options.limits.loop_guard,
        DOCS: docs,
        COLLECTIONS: dict(collections),
        TOOLS: list(tools),
        **form,
        **{name: getattr(sampling, name) for name in OPTIONS},
    }


def _adapters(load: LoadOptions) -> list[list[str | float]]:
    """The content of each adapter, and its scale."""
    found: list[list[str | float]] = []
    for adapter in load.adapters:
        files = sorted(adapter.path.iterdir()) if adapter.path.is_dir() else [adapter.path]
        hashes = [sha256_of(file) for file in files if file.is_file()]
        found.append([joined(hashes), adapter.scale])
    return found


def digest(path: Path, store: Store, *, report: Report = silent) -> str:
    """The sha256 of a model: as it was installed if no file has changed since, otherwise computed."""
    return joined(part_digests(path, store, report=report))


def part_digests(path: Path, store: Store, *, report: Report = silent) -> list[str]:
    """The sha256 of each file of a model: as it was installed if none has changed since, otherwise computed."""
    for model in store.all():
        if model.path == path and is_unchanged(model):
            return [part.sha256 for part in model.files]
    return [_computed(part, report) for part in part_paths(path)]


def is_unchanged(model: InstalledModel) -> bool:
    """Whether no file of a model was written since it was installed; cheap, unlike its sha256."""
    if not model.is_whole:
        return False
    installed = datetime.fromisoformat(model.installed).timestamp()
    return all(part.path.stat().st_mtime <= installed for part in model.files)


def _computed(path: Path, report: Report) -> str:
    try:
        size = path.stat().st_size
        return sha256_of(path, lambda done: report(Progress("reading the model", done, size, "B")))
    except OSError as error:
        raise FileAccessError(f"cannot read {path}", why=str(error.strerror), path=str(path)) from error


def joined(digests: Sequence[str]) -> str:
    """One digest for all parts of a split model; a whole file keeps its own."""
    return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()


def differences(stored: Mapping[str, Any], asked: Mapping[str, Any]) -> list[str]:
    """How a command differs from the stored one, a sentence for each option; a seed that is not asked for may be any.

    Options that an older edgellm did not store are not compared (see `not_stored`).
    """
    stored = {**_WITHOUT_DOCUMENTS, **stored} if stored else stored
    known, names = _as_now(stored), [name for name in asked if name in stored and name != CONTEXT]
    if CONTENT in stored and CONTENT in asked:
        names = [name for name in names if name not in _NAME_AND_SIZE]
    return [
        _difference(name, known, asked)
        for name in names
        if known[name] != asked[name] and not (name == "seed" and asked[name] is None)
    ]


def _difference(name: str, known: Mapping[str, Any], asked: Mapping[str, Any]) -> str:
    if name == CONTENT:
        was, now = known.get("model"), asked.get("model")
        return f"the model was {was}, and now is {now}" if was != now else f"the content of {now} has changed"
    if name == "chat-template":
        return "the chat template of the recipe has changed"
    if name == COLLECTIONS:
        was, now = known[name], asked[name]
        others = sorted(each for each in {*was, *now} if was.get(each) != now.get(each))
        return f"the documents in {_shown(', '.join(others))} have changed"
    return f"{name} was {_shown(known[name])}, and now is {_shown(asked[name])}"


def not_stored(stored: Mapping[str, Any], asked: Mapping[str, Any]) -> list[str]:
    """The options that cannot be compared, because an older edgellm did not store them."""
    return [name for name in asked if name not in stored and name not in (CONTEXT, *_WITHOUT_DOCUMENTS)]


def _as_now(stored: Mapping[str, Any]) -> Mapping[str, Any]:
    """Older journals have an empty text for an option that is not set."""
    return stored if CONTENT in stored else {name: None if value == "" else value for name, value in stored.items()}


def _shown(value: Any) -> str:
    if value is None:
        return "not set"
    text = value if isinstance(value, str) and value.isprintable() and value else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _MOST_SHOWN else f"{text[: _MOST_SHOWN - 1]}…"


def check_finished(output: Path, asked: Mapping[str, Any], model: str) -> tuple[str, ...]:
    """Compare a command with the record of a finished output; returns what to tell the user.

    Without a record, as with outputs of an older edgellm, only `model` is compared: the name that answers give it.

    Raises:
        UsageError: the output comes from another command.
        CorruptFile: the record or the output cannot be read.
    """
    stored = read_record(output)
    notes: tuple[str, ...] = ()
    if stored is None:
        others = _models_of(output) - {model}
        wrong = [f"the model was {_shown(', '.join(sorted(others)))}, and now is {model}"] if others else []
        notes = (f"{output} has no record of its options ({record_path(output).name}): only the model was compared",)
    else:
        wrong = differences(stored, asked)
    if wrong:
        hint = f"the same command as before, another --output, or remove {output}"
        raise UsageError(f"{output} has the answers of another batch", why="; ".join(wrong), hint=hint)
    return notes


def _models_of(output: Path) -> set[str]:
    """The names that the answers give their model; rows that failed have none."""
    with output.open("rb") as file:
        try:
            responses = (json.loads(line)["response"] for line in file)
            return {str(response["body"].get("model")) for response in responses if response}
        except (ValueError, RecursionError, KeyError, TypeError, AttributeError) as error:
            raise CorruptFile(f"{output} is no output of edgellm batch", why=str(error), path=str(output)) from error


def record_path(output: Path) -> Path:
    """Where the record of a finished output lies."""
    return output.with_name(f"{output.name}.job")


def write_record(output: Path, values: Mapping[str, Any]) -> None:
    """Write the record of an output that is about to be finished."""
    data = json.dumps({"version": VERSION, "begun_with": dict(values)}, indent=2, ensure_ascii=False)
    write_atomically(record_path(output), data.encode() + b"\n")


def read_record(output: Path) -> dict[str, Any] | None:
    """What a finished output was begun with; None for one that has no record.

    Raises:
        CorruptFile: the record cannot be read.
    """
    path = record_path(output)
    try:
        data = json.loads(path.read_bytes())
        values = data["begun_with"]
        if data["version"] != VERSION or not isinstance(values, dict):
            raise ValueError(f"it is no record of version {VERSION}")
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError, KeyError, TypeError) as error:
        hint = f"another --output, or remove {path}: then options are no longer compared"
        raise CorruptFile(f"{path} cannot be used", why=str(error), hint=hint, path=str(path)) from error
    return values
