"""The tokens that end an answer, as the engine learns of them.

    end_keys([263, 265], eos=265, texts=vocabulary)  ->  {"tokenizer.ggml.eot_token_id": 263}

The engine has no list of them: it knows some by their text, and ends an answer at the token of any of a few keys.
"""

from __future__ import annotations

import mmap
from collections.abc import Sequence
from pathlib import Path

from edgellm.errors import EdgellmError, UnsupportedModel
from edgellm.formats.gguf_file import GGUFFile
from edgellm.formats.gguf_metadata import GGUFArray

EOS = "tokenizer.ggml.eos_token_id"
# A list of them, as Ollama writes it; the engine does not read it.
EOS_LIST = "tokenizer.ggml.eos_token_ids"
END_KEYS = ("tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id")
# These also say how to fill in the middle, so a vocabulary that has such tokens keeps them.
INFILL_KEYS = tuple(f"tokenizer.ggml.fim_{part}_token_id" for part in ("pad", "rep", "sep"))
_INFILL_TEXTS = frozenset(
    {"<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>", "[PAD]", "<|fim_repo|>", "<|repo_name|>", "<fim-repo>", "<REPO>",
     "<reponame>", "<|file_sep|>"}
)  # fmt: skip
_KNOWN_TEXTS = frozenset(
    {"<|eot_id|>", "<|im_end|>", "<|end|>", "<|return|>", "<|call|>", "<|flush|>", "<|calls|>", "<end_of_turn>",
     "<|endoftext|>", "</s>", "<|eom_id|>", "<EOT>", "_<EOT>", "[EOT]", "[EOS]", "<|end_of_text|>",
     "<end_of_utterance>", "<eos>", "<turn|>", "<|tool_response>", "<\uff5cend\u2581of\u2581sentence\uff5c>", "[e~["}
)  # fmt: skip
# Far beyond where a list of a few numbers stands in a header.
_SEARCHED_BYTES = 64 << 20


def end_keys(wanted: Sequence[int], *, eos: int | None, texts: Sequence[str]) -> dict[str, int]:
    """Spread the end tokens that the engine would miss over the keys that it reads.

    Raises:
        UnsupportedModel: there are more of them than keys.
    """
    missed = [token for token in dict.fromkeys(wanted) if token != eos and texts[token] not in _KNOWN_TEXTS]
    keys = END_KEYS if _INFILL_TEXTS.intersection(texts) else (*END_KEYS, *INFILL_KEYS)
    if len(missed) > len(keys):
        why = f"it has {len(missed)} that the engine does not know by their text, and the engine takes {len(keys)}"
        raise UnsupportedModel("the model has too many end tokens", why=why)
    return dict(zip(keys, missed, strict=False))


def overrides(path: Path) -> dict[str, int]:
    """The keys to add to a file that lists its end tokens; empty for nearly all files.

    Raises:
        UnsupportedModel: it lists more than the engine can take.
    """
    try:
        if not _mentions(path, EOS_LIST.encode()):
            return {}
        with GGUFFile.open(path) as file:
            listed, texts = file.metadata.get(EOS_LIST), file.metadata.get("tokenizer.ggml.tokens")
            if not isinstance(listed, GGUFArray) or not isinstance(texts, GGUFArray):
                return {}
            ids = [token for token in listed if isinstance(token, int) and 0 <= token < len(texts)]
            has = {key: value for key in (EOS, *END_KEYS) if isinstance(value := file.metadata.get(key), int)}
            words = [str(text) for text in texts]
    except (OSError, ValueError):
        return {}
    except EdgellmError:  # the engine says what is wrong with the file
        return {}
    eos = has.get(EOS, ids[0] if ids else None)
    wanted = [*(has[key] for key in END_KEYS if key in has), *ids]
    found = end_keys(wanted, eos=eos, texts=words)
    return found if EOS in has or eos is None else {EOS: eos, **found}


def _mentions(path: Path, name: bytes) -> bool:
    """Whether a name stands in the header, without reading the header."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return data.find(name, 0, _SEARCHED_BYTES) >= 0
