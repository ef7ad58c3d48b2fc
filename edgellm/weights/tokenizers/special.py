"""Special token ids, what is added around a prompt, and the chat template.

tokens = read_special(directory, vocabulary)
tokens.ids["eos"], tokens.add_bos, tokens.chat_templates["default"]
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from edgellm.errors import CorruptFile
from edgellm.weights.json_file import JsonFile, read_bytes
from edgellm.weights.tokenizers.vocabulary import Vocabulary

# Role in the files -> GGUF key (the engine's spelling of "separator").
ID_KEYS = {
    "bos": "tokenizer.ggml.bos_token_id",
    "eos": "tokenizer.ggml.eos_token_id",
    "unk": "tokenizer.ggml.unknown_token_id",
    "sep": "tokenizer.ggml.seperator_token_id",
    "pad": "tokenizer.ggml.padding_token_id",
    "cls": "tokenizer.ggml.cls_token_id",
    "mask": "tokenizer.ggml.mask_token_id",
}
_MAX_TEMPLATE_BYTES = 1 << 20
CHATML = (
    "{% for message in messages %}{% if loop.first and message['role'] != 'system' %}"
    "{{ '<|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n' }}{% endif %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


@dataclass(frozen=True, slots=True)
class SpecialTokens:
    """`ids` by role ("bos", "eos", ...); `chat_templates` by name, the ordinary one under "default"."""

    ids: Mapping[str, int]
    add_bos: bool
    add_eos: bool
    chat_templates: Mapping[str, str] = field(default_factory=dict)


def read_special(directory: Path, vocabulary: Vocabulary) -> SpecialTokens:
    """Read tokenizer_config.json, special_tokens_map.json, config.json and the template files."""
    config = JsonFile.read_if_there(directory / "tokenizer_config.json")
    tokenizer = JsonFile.read_if_there(directory / "tokenizer.json")
    ids = _special_ids(directory, config, vocabulary)
    first, last = _template_ends(tokenizer)
    add_bos = _is_added(config, tokenizer, "add_bos_token", bool(first), default=vocabulary.model == "llama")
    add_eos = _is_added(config, tokenizer, "add_eos_token", bool(last), default=False)
    if vocabulary.model == "bert":  # [CLS] text [SEP], always; the engine calls them bos and eos too
        ids = {"bos": ids.get("cls", 0), "eos": ids.get("sep", 0), **ids} if {"cls", "sep"} <= ids.keys() else ids
        add_bos = add_eos = True
    if add_bos and "bos" not in ids:
        raise CorruptFile("tokenizer_config.json is incomplete", why="prompts start with a token it does not name")
    return SpecialTokens(ids, add_bos, add_eos, chat_templates(directory, config))


def _special_ids(directory: Path, config: JsonFile, vocabulary: Vocabulary) -> dict[str, int]:
    by_text = {text: i for i, text in enumerate(vocabulary.tokens.texts)}
    named = JsonFile.read_if_there(directory / "special_tokens_map.json")
    model = JsonFile.read_if_there(directory / "config.json")
    generation = JsonFile.read_if_there(directory / "generation_config.json")
    ids: dict[str, int] = {}
    for role in ID_KEYS:
        text = _token_text(config, role) or _token_text(named, role)
        token_id = by_text.get(text) if text is not None else None
        if token_id is None:
            token_id = _first_id(model, role, len(by_text))
        if token_id is None:
            token_id = _first_id(generation, role, len(by_text))
        if token_id is not None:
            ids[role] = token_id
    return ids


def _token_text(source: JsonFile, role: str) -> str | None:
    """A token is written as a string, or as an object with its text under "content"."""
    value = source.values.get(f"{role}_token")
    if isinstance(value, dict):
        value = value.get("content")
    return value if isinstance(value, str) else None


def _first_id(source: JsonFile, role: str, n_vocab: int) -> int | None:
    """An id, the first of a list of ids, or None; -1 and ids past the vocabulary mean none."""
    value = source.values.get(f"{role}_token_id")
    if isinstance(value, list) and value:
        value = value[0]
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < n_vocab:
        return value
    return None


def _template_ends(tokenizer: JsonFile) -> tuple[str, str]:
    """The special tokens that the post-processor puts before and after a text ("" for none)."""
    outer = tokenizer.child("post_processor")
    for step in outer.children("processors") or [outer]:
        pieces = step.children("single") if step.text("type", "") == "TemplateProcessing" else []
        if pieces:
            first, last = pieces[0].child("SpecialToken"), pieces[-1].child("SpecialToken")
            return first.text("id", ""), last.text("id", "")
    return "", ""


def _is_added(config: JsonFile, tokenizer: JsonFile, key: str, in_template: bool, *, default: bool) -> bool:
    """Whether prompts get the token: Llama's tokenizer class obeys its own flag, the others their template."""
    own_flag = config.text("tokenizer_class", "").startswith(("Llama", "CodeLlama"))
    if tokenizer.values and not (own_flag and key in config):
        return in_template
    return config.flag(key, default)


def chat_templates(directory: Path, config: JsonFile) -> dict[str, str]:
    """The chat templates by name: chat_template.jinja, or what tokenizer_config.json holds, or none."""
    path = directory / "chat_template.jinja"
    if path.is_file():
        return {"default": read_bytes(path, _MAX_TEMPLATE_BYTES).decode("utf-8", "replace")}
    value = config.values.get("chat_template")
    if value is None:
        value = JsonFile.read_if_there(directory / "chat_template.json").values.get("chat_template")
    if value is None and _speaks_chatml(directory):
        return {"default": CHATML}
    if isinstance(value, list):
        named = JsonFile(config.name, {"chat_template": value}).children("chat_template")
        return {entry.text("name"): entry.text("template") for entry in named}
    if value is not None and not isinstance(value, str):
        raise CorruptFile(f"{config.name} is not valid", why="chat_template is neither text nor a list of templates")
    return {} if value is None else {"default": value}


def _speaks_chatml(directory: Path) -> bool:
    """The first Qwen chat models ship no template; their generation_config.json names the format."""
    generation = JsonFile.read_if_there(directory / "generation_config.json")
    return generation.text("chat_format", "") == "chatml"
