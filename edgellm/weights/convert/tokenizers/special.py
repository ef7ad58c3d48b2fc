"""Reads special token ids, the tokens added around a prompt, and the chat templates.

tokens = read_special(directory, vocabulary)
tokens.ids["eos"], tokens.add_bos, tokens.chat_templates["default"]
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from edgellm.engine.end_tokens import end_keys
from edgellm.errors import CorruptFile
from edgellm.weights.convert.json_file import JsonFile, read_whole_text
from edgellm.weights.convert.tokenizers.vocabulary import Vocabulary

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
    """`ids` by role ("bos", "eos", ...); `chat_templates` by name, with the usual one under "default".

    `ends` holds the GGUF keys of tokens that end an answer besides eos, where the engine does not know them by text.
    """

    ids: Mapping[str, int]
    add_bos: bool
    add_eos: bool
    chat_templates: Mapping[str, str] = field(default_factory=dict)
    ends: Mapping[str, int] = field(default_factory=dict)


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
        raise CorruptFile("tokenizer_config.json is incomplete", why="prompts start with a token that it does not name")
    texts = vocabulary.tokens.texts
    ends = end_keys(_end_ids(directory, len(texts)), eos=ids.get("eos"), texts=texts)
    return SpecialTokens(ids, add_bos, add_eos, chat_templates(directory, config), ends)


def _end_ids(directory: Path, n_vocab: int) -> list[int]:
    """Return the tokens that end an answer, as generation_config.json and config.json list them."""
    files = [JsonFile.read_if_there(directory / name) for name in ("generation_config.json", "config.json")]
    return [token_id for file in files for token_id in _ids(file, "eos", n_vocab)]


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
    """Return a token's text; files write it as a string, or as an object with the text under "content"."""
    value = source.values.get(f"{role}_token")
    if isinstance(value, dict):
        value = value.get("content")
    return value if isinstance(value, str) else None


def _first_id(source: JsonFile, role: str, n_vocab: int) -> int | None:
    """Return an id, or the first of a list of ids; None for -1 and ids past the vocabulary."""
    return next(iter(_ids(source, role, n_vocab)), None)


def _ids(source: JsonFile, role: str, n_vocab: int) -> list[int]:
    """Return the ids that a file has for a role, without -1 and those past the vocabulary."""
    value = source.values.get(f"{role}_token_id")
    return [
        each
        for each in (value if isinstance(value, list) else [value])
        if isinstance(each, int) and not isinstance(each, bool) and 0 <= each < n_vocab
    ]


def _template_ends(tokenizer: JsonFile) -> tuple[str, str]:
    """Return the special tokens that the post-processor puts before and after a text ("" for none)."""
    outer = tokenizer.child("post_processor")
    for step in outer.children("processors") or [outer]:
        pieces = step.children("single") if step.text("type", "") == "TemplateProcessing" else []
        if pieces:
            first, last = pieces[0].child("SpecialToken"), pieces[-1].child("SpecialToken")
            return first.text("id", ""), last.text("id", "")
    return "", ""


def _is_added(config: JsonFile, tokenizer: JsonFile, key: str, in_template: bool, *, default: bool) -> bool:
    """Whether prompts get the token. Llama's tokenizer class follows its own flag, all others their template."""
    own_flag = config.text("tokenizer_class", "").startswith(("Llama", "CodeLlama"))
    if tokenizer.values and not (own_flag and key in config):
        return in_template
    return config.flag(key, default)


def chat_templates(directory: Path, config: JsonFile) -> dict[str, str]:
    """Return the chat templates by name, from chat_template.jinja or else tokenizer_config.json."""
    path = directory / "chat_template.jinja"
    if path.is_file():
        return {"default": read_whole_text(path, _MAX_TEMPLATE_BYTES)}
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
    """Whether generation_config.json names ChatML, as in the first Qwen chat models, which ship no template."""
    generation = JsonFile.read_if_there(directory / "generation_config.json")
    return generation.text("chat_format", "") == "chatml"
