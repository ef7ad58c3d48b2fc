"""The files of a repository, and which of them make up a model: a GGUF file, the parts of one, or a checkpoint.

choose_gguf({"x-Q4_K_M.gguf": 4_370_000_000, "x-Q8_0.gguf": 7_700_000_000}, "q8_0", repo="a/x").quant  ->  "Q8_0"
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

from edgellm.errors import ModelNotFound, UnsupportedModel
from edgellm.suggest import did_you_mean

# The choice when no quantization is named, the best first: ternary models as they are, then 4 bits, then near it.
PREFERRED = (
    "I2_S", "TQ2_0", "TQ1_0", "Q2_0_G64", "Q2_0", "Q1_0",
    "Q4_K_M", "Q4_K_S", "Q4_0", "Q4_1", "IQ4_NL", "IQ4_XS", "Q4", "Q5_K_M", "Q5_K_S", "Q6_K",
    "Q8_0", "Q3_K_L", "Q3_K_M", "F16", "BF16", "F32",
)  # fmt: skip
_QUANT = re.compile(
    r"(?:^|[-_.])((?:UD-)?(?:IQ[1-4]_(?:XXS|XS|S|M|NL)|Q[1-8]_K(?:_(?:XXS|XS|S|M|L|XL))?|Q2_0_G(?:64|128)|Q[1-8]_[01]|TQ[12]_0|I2_S"
    r"|MXFP4(?:_MOE)?|NVFP4|BF16|FP?16|FP?32|Q[2-8]))(?=[-_.]|$)",
    re.IGNORECASE,
)
_PART = re.compile(r"-(\d{5})-of-(\d{5})$")
_WEIGHTS = re.compile(r"model(-\d+-of-\d+)?\.safetensors")
_CHECKPOINT = frozenset(
    {
        "config.json", "generation_config.json", "quantize_config.json", "model.safetensors.index.json",
        "tokenizer.json", "tokenizer.model", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
        "vocab.json", "merges.txt", "vocab.txt", "qwen.tiktoken", "chat_template.jinja", "chat_template.json",
        "modules.json", "sentence_bert_config.json", "1_Pooling/config.json",
    }
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file at a commit. `etag` is its sha256 if it is large (LFS), else git's sha1 of it."""

    repo: str
    name: str
    commit: str
    size: int
    etag: str

    @property
    def sha256(self) -> str | None:
        """Hex sha256; None for small files, of which the Hub only has git's sha1."""
        return self.etag if re.fullmatch(r"[0-9a-f]{64}", self.etag) else None


@dataclass(frozen=True, slots=True)
class Repository:
    """A model repository at a commit; `files` are sizes in bytes by name, None where the Hub does not say."""

    repo: str
    commit: str
    files: Mapping[str, int | None]
    licence: str | None = None


@dataclass(frozen=True, slots=True)
class GGUFChoice:
    """A GGUF model in a repository: its quantization according to its name, and its files in order."""

    quant: str
    files: tuple[str, ...]
    size: int | None


def gguf_choices(files: Mapping[str, int | None]) -> list[GGUFChoice]:
    """All GGUF models in a repository, parts put together; projectors of vision models and the like are no models."""
    parts: dict[str, list[str]] = {}
    for name in sorted(files):
        path = PurePosixPath(name)
        if path.suffix == ".gguf" and not re.search(r"mmproj|imatrix", path.name, re.IGNORECASE):
            parts.setdefault(_PART.sub("", name.removesuffix(".gguf")), []).append(name)
    return [GGUFChoice(_quant(stem), tuple(names), _total(files, names)) for stem, names in parts.items()]


def choose_gguf(
    files: Mapping[str, int | None], wanted: str | None, *, repo: str, file: str | None = None
) -> GGUFChoice | None:
    """The GGUF model of a quantization, or the one that most people want; None when there is no GGUF file at all.

    `file` names one of its files instead. Raises ModelNotFound if there is no such model, or parts of it are missing.
    """
    choices = gguf_choices(files)
    if not choices and file is None:
        return None
    if file is not None:
        fitting = [choice for choice in choices if file in choice.files]
    elif wanted is None:
        order = {quant: i for i, quant in enumerate(PREFERRED)}
        fitting = sorted(choices, key=lambda choice: (order.get(choice.quant, len(order)), choice.size or 0))
    else:
        fitting = [choice for choice in choices if wanted.upper() == choice.quant]
        # The name that a file got when it was pulled by its address.
        fitting = fitting or [choice for choice in choices if wanted == file_label(choice.files[0])]
    if not fitting:
        _refuse(repo, file or wanted or "", choices)
    _require_all_parts(fitting[0], repo)
    return fitting[0]


def checkpoint_files(files: Mapping[str, int | None], *, repo: str) -> list[str]:
    """The files of a checkpoint that a conversion reads: configuration, tokenizer, safetensors.

    Raises:
        UnsupportedModel: there are none, or its weights are pickled.
    """
    weights = sorted(name for name in files if _WEIGHTS.fullmatch(name))
    if "config.json" not in files or not weights:
        pickled = any(name.endswith((".bin", ".pt", ".pth")) for name in files)
        why = (
            "its weights are pickled, and opening them can run code"
            if pickled
            else "it has neither GGUF nor safetensors"
        )
        raise UnsupportedModel(
            f"{repo} holds no model for edgellm", why=why, hint=f"edgellm search {repo.split('/')[-1]}"
        )
    return sorted(_CHECKPOINT & files.keys()) + weights


def file_label(name: str) -> str:
    """What stands for a file of a repository after its name, as in user/repo:LABEL."""
    return re.sub(r"[:?#]", "_", PurePosixPath(name).stem)


def _quant(stem: str) -> str:
    """The quantization that a file's name ends with, or that its directory is called; else the name itself."""
    path = PurePosixPath(stem)
    for name in (path.name, path.parent.name):
        if found := _QUANT.findall(name):
            return str(found[-1]).upper().replace("FP", "F")
    return path.name.upper()


def _total(files: Mapping[str, int | None], names: list[str]) -> int | None:
    sizes = [size for name in names if (size := files[name]) is not None]
    return sum(sizes) if len(sizes) == len(names) else None


def _require_all_parts(choice: GGUFChoice, repo: str) -> None:
    found = [_PART.search(name.removesuffix(".gguf")) for name in choice.files]
    numbers = [int(match[1]) for match in found if match]
    expected = int(found[0][2]) if found[0] else 1
    if len(choice.files) != expected or (found[0] and numbers != list(range(1, expected + 1))):
        why = f"it should have {expected} parts, and has {len(choice.files)}"
        raise ModelNotFound(f"{choice.quant} of {repo} is not complete there", why=why, repo=repo)


def _refuse(repo: str, wanted: str, choices: list[GGUFChoice]) -> None:
    known = sorted({choice.quant for choice in choices})
    guess = did_you_mean(wanted.upper(), known)
    shown = ", ".join(known[:30]) or "no GGUF files"
    raise ModelNotFound(
        f"{repo} has no {wanted[:60]}",
        why=f"did you mean {guess}?" if guess else f"there are {shown}",
        hint=f"edgellm pull {repo}:{guess or known[0]}" if known else f"edgellm pull {repo}",
        repo=repo,
        suggestion=guess,
    )
