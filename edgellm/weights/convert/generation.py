"""What generation_config.json asks for that a converted file does not carry, as notes for the user.

generation_notes(directory)  ->  ("generation_config.json recommends temperature 0.6, which ...",)

Its end tokens are read with the tokenizer. How to sample is the choice of whoever asks, or of a recipe.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgellm.weights.convert.json_file import JsonFile

# With the values that change nothing.
_SAMPLING: dict[str, tuple[Any, ...]] = {
    "temperature": (), "top_k": (0,), "top_p": (1,), "min_p": (0,), "typical_p": (1,), "repetition_penalty": (1,),
}  # fmt: skip
_RULES: dict[str, tuple[Any, ...]] = {
    "suppress_tokens": ([],), "begin_suppress_tokens": ([],), "bad_words_ids": ([],), "sequence_bias": ([], {}),
    "forced_bos_token_id": (), "forced_eos_token_id": (), "no_repeat_ngram_size": (0,), "min_length": (0,),
    "min_new_tokens": (0,), "guidance_scale": (1,),
}  # fmt: skip


def generation_notes(directory: Path) -> tuple[str, ...]:
    """Return a note on sampling options, and one on rules that are not applied; raises CorruptFile."""
    config = JsonFile.read_if_there(directory / "generation_config.json")
    sampling, rules = (_set_in(config, names) for names in (_SAMPLING, _RULES))
    notes = []
    if sampling:
        shown = ", ".join(f"{name} {config.values[name]}" for name in sampling)
        notes.append(f"{config.name} recommends {shown}; a GGUF file has no such defaults, so pass them as options")
    if rules:
        notes.append(f"{config.name} sets {', '.join(rules)}, which edgellm does not apply")
    return tuple(notes)


def _set_in(config: JsonFile, names: dict[str, tuple[Any, ...]]) -> list[str]:
    return [name for name, neutral in names.items() if name in config and config.values[name] not in neutral]
