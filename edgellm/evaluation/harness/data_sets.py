"""Where the data sets of benchmarks come from: a directory, the Hub's cache, or the Hub.

    with data_sets(Path("/media/usb/data"), offline=False):
        lm_eval.simple_evaluate(...)

A directory has the repositories as they are on the Hub: `DIR/allenai/ai2_arc/ARC-Easy/test-00000-of-00001.parquet`, or
simply `DIR/allenai/ai2_arc/ARC-Easy/test.jsonl`. What `datasets.save_to_disk` wrote is read too. Code in a data set is
never run: `datasets` 4 has no way to do so.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import datasets

from edgellm.errors import CorruptFile, EdgellmError, NetworkError, UsageError

# The readers of `datasets`, by the ending of a file.
READERS = {".parquet": "parquet", ".jsonl": "json", ".json": "json", ".csv": "csv"}
# "test-00000-of-00003.parquet", "test.jsonl"
FILE = re.compile(r"(?P<split>[A-Za-z][A-Za-z0-9_.]*?)(-\d+-of-\d+)?")
# "train", "validation" and "test" as others spell them.
SPLITS = {"val": "validation", "valid": "validation", "dev": "dev"}


@contextmanager
def data_sets(directory: Path | None, *, offline: bool) -> Iterator[None]:
    """Inside the block, `datasets.load_dataset` reads from a directory, if there is one, and raises our errors.

    lm-eval has no option for the place of its data; the function is the one door through which it gets them.

    Raises:
        UsageError: there is no such directory.
    """
    if directory is not None and not directory.is_dir():
        raise UsageError(f"{directory} is no directory", why="it should hold data sets", hint="--data DIR")
    before, was_offline = datasets.load_dataset, datasets.config.HF_HUB_OFFLINE

    def load(path: str, name: str | None = None, **options: Any) -> Any:
        # A task with files of its own says so; only repositories of the Hub are looked for.
        if "data_files" in options or path in READERS.values():
            return _explained(path, lambda: before(path, name, **options))
        if directory is not None:
            return _explained(path, lambda: load_from(directory, path, name))
        return _explained(path, lambda: before(path, name, **options), name=name)

    datasets.load_dataset = load
    datasets.config.HF_HUB_OFFLINE = was_offline or offline
    shown = datasets.is_progress_bar_enabled()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        datasets.load_dataset, datasets.config.HF_HUB_OFFLINE = before, was_offline
        if shown:
            datasets.enable_progress_bars()


def load_from(directory: Path, repo: str, name: str | None) -> Any:
    """The splits of a data set, or of its part `name`, from a directory.

    Raises:
        CorruptFile: there is no such data set in it, or none of its files can be read.
    """
    root = directory / repo
    if ".." in Path(repo).parts or not root.is_dir():
        raise _missing(directory, repo, why=f"{root} is not there")
    places = [root / name, root / "data" / name] if name else [root, root / "data"]
    for place in places:
        if (place / "dataset_dict.json").is_file():
            return datasets.load_from_disk(str(place))
        reader, files = _files(place)
        if files:
            return _splits(reader, files)
    raise _missing(directory, repo, why=f"no parquet, jsonl, json or csv file in {' or '.join(map(str, places))}")


def _files(place: Path) -> tuple[str, dict[str, list[str]]]:
    """The files of each split in a folder, all of the first kind that is there, and its reader."""
    found: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for path in sorted(place.iterdir()) if place.is_dir() else ():
        if path.suffix in READERS and (match := FILE.fullmatch(path.stem)):
            split = match["split"]
            found[READERS[path.suffix]][SPLITS.get(split, split)].append(str(path))
    reader = next((reader for reader in READERS.values() if reader in found), "")
    return reader, dict(found.get(reader, {}))


def _splits(reader: str, files: dict[str, list[str]]) -> Any:
    """Each split by itself: `load_dataset` wants the same columns in all of them."""
    make = getattr(datasets.Dataset, f"from_{reader}")
    return datasets.DatasetDict({split: make(paths) for split, paths in files.items()})


def _explained(repo: str, load: Any, *, name: str | None = None) -> Any:
    """What `load` returns; its many errors become ours."""
    try:
        return load()
    except EdgellmError:
        raise
    except datasets.exceptions.DatasetBuildError as error:
        raise CorruptFile(f"the data set {repo} cannot be read", why=_reason(error.__cause__ or error)) from error
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        part = f" ({name})" if name else ""
        hint = f"hf download {repo} --repo-type dataset --local-dir DIR/{repo}, then --data DIR"
        raise NetworkError(f"the data set {repo}{part} cannot be had", why=_reason(error), hint=hint) from error


def _missing(directory: Path, repo: str, *, why: str) -> CorruptFile:
    hint = f"hf download {repo} --repo-type dataset --local-dir {directory / repo}"
    return CorruptFile(f"the data set {repo} is not in {directory}", why=why, hint=hint)


def _reason(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
