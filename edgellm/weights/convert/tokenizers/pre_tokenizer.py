r"""Finds the engine's name for the pre-tokenizer of a tokenizer.json.

Byte-level BPE first splits text into words with a regular expression. The engine has these expressions built
in, and a GGUF file names one (`tokenizer.ggml.pre`). A wrong name silently produces wrong tokens, so only an
exact match of the declared steps counts.

    recognise(JsonFile.read(directory / "tokenizer.json"))  # "llama-bpe", or None
"""

from __future__ import annotations

from edgellm.weights.convert.json_file import JsonFile

_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_SPACES = r"\s*[\r\n]+|\s+(?!\S)|\s+"
LLAMA3_REGEX = _CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|" + _SPACES
QWEN2_REGEX = _CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|" + _SPACES
_UPPER, _LOWER = r"\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}", r"\p{Ll}\p{Lm}\p{Lo}\p{M}"
GPT4O_REGEX = (
    rf"[^\r\n\p{{L}}\p{{N}}]?[{_UPPER}]*[{_LOWER}]+{_CONTRACTIONS}?"
    rf"|[^\r\n\p{{L}}\p{{N}}]?[{_UPPER}]+[{_LOWER}]*{_CONTRACTIONS}?"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|" + _SPACES
)

# (steps, whether a word that is itself a token is kept whole: `ignore_merges`) -> the engine's name.
_KNOWN = {
    ((LLAMA3_REGEX, "bytes"), True): "llama-bpe",
    ((LLAMA3_REGEX, "bytes"), False): "dbrx",
    ((QWEN2_REGEX, "bytes"), False): "qwen2",
    ((GPT4O_REGEX, "bytes"), False): "gpt-4o",
    (("digits one by one", "gpt-2 words, bytes"), False): "smollm",
    (("gpt-2 words, bytes",), False): "gpt-2",
}

# Model families whose pre-tokenizer llama.cpp identifies by the family's name.
_BY_NAME = {"falcon3": "falcon3"}


def recognise(tokenizer: JsonFile) -> str | None:
    """Return the engine's name for the pre-tokenizer, or None when it is not recognised."""
    steps = tokenizer.child("pre_tokenizer")
    sequence = steps.children("pretokenizers") or [steps]
    ignore_merges = tokenizer.child("model").flag("ignore_merges", False)
    return _KNOWN.get((tuple(_describe(step) for step in sequence), ignore_merges))


def known_by_name(model_name: str) -> str | None:
    """Return the engine's name for the pre-tokenizer of a model family, or None."""
    return next((pre for family, pre in _BY_NAME.items() if family in model_name.lower()), None)


def describe(tokenizer: JsonFile) -> str:
    """Return the declared steps as text for an error message."""
    steps = tokenizer.child("pre_tokenizer")
    return " + ".join(_describe(step) for step in steps.children("pretokenizers") or [steps])


def _describe(step: JsonFile) -> str:
    kind = step.text("type", "none")
    if kind == "Split" and step.text("behavior", "") == "Isolated" and not step.flag("invert", False):
        return step.child("pattern").text("Regex", "a literal string")
    if kind == "ByteLevel" and not step.flag("add_prefix_space", True):
        return "gpt-2 words, bytes" if step.flag("use_regex", True) else "bytes"
    if kind == "Digits" and step.flag("individual_digits", False):
        return "digits one by one"
    return kind
