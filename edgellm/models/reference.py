"""Models by where they lie on the Hub: `user/repo[:QUANT]`, `hf://...`, or the address in a browser.

parse_reference("Qwen/Qwen2.5-7B-Instruct-GGUF:Q8_0").quant  ->  "Q8_0"
parse_reference("hf://user/repo@v1/model.gguf").file.name    ->  "model.gguf"
"""

from __future__ import annotations

import re
from pathlib import PurePosixPath

from edgellm.errors import UsageError
from edgellm.models.recipe import Choice, HubSource, ModelFile

_REPO = r"(?P<repo>[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9_][A-Za-z0-9._-]*)"
_LABEL = r"(?::(?P<label>[A-Za-z0-9][A-Za-z0-9._-]*))?"
_SHORT = re.compile(rf"{_REPO}{_LABEL}")
_URL = re.compile(rf"hf://(?:models/)?{_REPO}(?:@(?P<revision>[^/:]+))?(?:/(?P<file>[^:?#]+))?{_LABEL}")
_PAGE = re.compile(
    rf"https?://(?:www\.)?(?:huggingface\.co|hf\.co)/{_REPO}"
    r"(?:/(?:resolve|blob|tree|raw)/(?P<revision>[^/?#]+)(?:/(?P<file>[^?#]+))?)?/?(?:\?[^#]*)?(?:#.*)?"
)


def parse_reference(text: str) -> Choice | None:
    """What a text names on the Hub; None when it is nothing of the kind.

    Raises:
        UsageError: it begins like an address and is none.
    """
    match = _SHORT.fullmatch(text) or _URL.fullmatch(text) or _PAGE.fullmatch(text)
    if match is None:
        if text.startswith(("hf://", "http://", "https://")):
            hint = "hf://user/repo, hf://user/repo@revision/file.gguf or user/repo:Q4_K_M"
            raise UsageError(f"{text[:200]} names no model on the Hub", hint=hint)
        return None
    parts = match.groupdict()
    repo, label, name = parts["repo"], parts.get("label"), (parts.get("file") or "").strip("/")
    try:
        source = HubSource(kind="hub", repo=repo, revision=parts.get("revision") or "main")
        file = ModelFile(name=name) if name else None
    except ValueError as error:
        hint = "hf://user/repo, hf://user/repo@revision/file.gguf or user/repo:Q4_K_M"
        raise UsageError(f"{text[:200]} names no model on the Hub", hint=hint) from error
    label = label or (PurePosixPath(name).stem if name else None)
    return Choice(f"{repo}:{label}" if label else repo, source, None if name else label, file)
