"""Reads the tokenizer of a checkpoint from its files, without a tokenizer library, and returns GGUF metadata.

vocabulary = read_vocabulary(directory, n_vocab=32064, name="Phi-3-mini-4k-instruct")
keys = tokenizer_metadata(directory, vocabulary)
keys["tokenizer.ggml.model"], keys["tokenizer.chat_template"]
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from edgellm.errors import CorruptFile, UnsupportedModel
from edgellm.weights.convert.json_file import JsonFile
from edgellm.weights.convert.tokenizers import byte_level, pre_tokenizer, sentencepiece, tiktoken, wordpiece
from edgellm.weights.convert.tokenizers.special import ID_KEYS, read_special
from edgellm.weights.convert.tokenizers.vocabulary import TokenType, Vocabulary

MetadataValue = str | int | float | bool | Sequence[str] | Sequence[int] | Sequence[float]

_PHI3_NAME = re.compile("phi-?3", re.IGNORECASE)
_PHI3_TOKENS = {"<unk>", "<s>", "</s>", "<|endoftext|>"}
# Tokenizer classes that ship vocab.json and merges.txt, but no tokenizer.json to name the pre-tokenizer.
_PRE_OF_CLASS = {"Qwen2Tokenizer": "qwen2", "Qwen2TokenizerFast": "qwen2", "GPT2Tokenizer": "gpt-2"}


def tokenizer_metadata(directory: Path, vocabulary: Vocabulary) -> dict[str, MetadataValue]:
    """Return the `tokenizer.*` keys: the vocabulary, special tokens, and chat templates."""
    special = read_special(directory, vocabulary)
    keys: dict[str, MetadataValue] = {
        "tokenizer.ggml.model": vocabulary.model,
        "tokenizer.ggml.pre": vocabulary.pre,
        "tokenizer.ggml.tokens": vocabulary.tokens.texts,
        "tokenizer.ggml.token_type": _types(vocabulary, set(special.ends.values())),
    }
    if vocabulary.model == "llama":
        keys["tokenizer.ggml.scores"] = vocabulary.tokens.scores
    if vocabulary.model == "bert":
        types = JsonFile.read_if_there(directory / "config.json").integer("type_vocab_size", 1, low=1)
        keys["tokenizer.ggml.token_type_count"] = types
    if vocabulary.merges:
        keys["tokenizer.ggml.merges"] = vocabulary.merges
    keys |= {ID_KEYS[role]: token_id for role, token_id in special.ids.items()}
    keys |= special.ends
    keys |= {"tokenizer.ggml.add_bos_token": special.add_bos, "tokenizer.ggml.add_eos_token": special.add_eos}
    optional = {
        "tokenizer.ggml.add_space_prefix": vocabulary.add_space_prefix,
        "tokenizer.ggml.normalizer.lowercase": vocabulary.lowercase,
        "tokenizer.ggml.normalizer.strip_accents": vocabulary.strip_accents,
    }
    keys |= {key: value for key, value in optional.items() if value is not None}
    others = [template for template in special.chat_templates if template != "default"]
    if "default" in special.chat_templates:
        keys["tokenizer.chat_template"] = special.chat_templates["default"]
    if others:
        keys["tokenizer.chat_templates"] = others
        keys |= {f"tokenizer.chat_template.{other}": special.chat_templates[other] for other in others}
    return keys


def _types(vocabulary: Vocabulary, ends: set[int]) -> tuple[int, ...]:
    """Return the types of all tokens; those in `ends` are control tokens, so that no front end shows their text."""
    hidden = {i for i in ends if vocabulary.tokens.types[i] in (TokenType.NORMAL, TokenType.USER_DEFINED)}
    return tuple(TokenType.CONTROL if i in hidden else kind for i, kind in enumerate(vocabulary.tokens.types))


def read_vocabulary(directory: Path, n_vocab: int, *, name: str, pre: str | None = None) -> Vocabulary:
    """Read the vocabulary for an embedding of `n_vocab` rows from the tokenizer files of the checkpoint.

    `name` is the model's name; `pre` overrides the pre-tokenizer that the files declare. Raises UnsupportedModel
    for a tokenizer that the engine does not implement, CorruptFile for missing or invalid files.
    """
    tokenizer = JsonFile.read_if_there(directory / "tokenizer.json")
    if (directory / "qwen.tiktoken").is_file():
        return tiktoken.from_tiktoken(directory / "qwen.tiktoken", n_vocab)
    if tokenizer.child("model").text("type", "") == "WordPiece":
        return wordpiece.from_tokenizer_json(tokenizer, n_vocab)
    if _is_byte_level(tokenizer):
        pre = pre or pre_tokenizer.recognise(tokenizer) or pre_tokenizer.known_by_name(name)
        return byte_level.from_tokenizer_json(tokenizer, n_vocab, pre or _refuse_pre(pre_tokenizer.describe(tokenizer)))
    if (directory / "tokenizer.model").is_file():
        return sentencepiece.from_model_file(directory, n_vocab)
    if tokenizer.child("model").text("type", "") == "BPE":
        return sentencepiece.from_tokenizer_json(tokenizer, n_vocab)
    if tokenizer.values:
        why = f"its model is {tokenizer.child('model').text('type', 'not named')}; only BPE and WordPiece are supported"
        raise UnsupportedModel("tokenizer.json cannot be converted", why=why)
    if (directory / "merges.txt").is_file():
        class_name = JsonFile.read_if_there(directory / "tokenizer_config.json").text("tokenizer_class", "none")
        pre = pre or _PRE_OF_CLASS.get(class_name) or pre_tokenizer.known_by_name(name)
        return byte_level.from_vocab_and_merges(directory, n_vocab, pre or _refuse_pre(f"that of class {class_name}"))
    if (directory / "vocab.txt").is_file():
        return wordpiece.from_vocab_txt(directory, n_vocab)
    why = "it has no tokenizer.json, tokenizer.model, qwen.tiktoken, merges.txt or vocab.txt"
    raise CorruptFile(f"{directory} has no tokenizer", why=why, path=str(directory))


def name_for_engine(name: str, vocabulary: Vocabulary) -> str:
    """Return the model's name, changed if necessary to make the engine split text as the tokenizer does.

    The engine strips white space after special tokens if and only if the name contains "phi-3" or "phi3". It
    then fails unless the vocabulary has four tokens of Phi-3.
    """
    strips = vocabulary.right_stripped and set(vocabulary.tokens.texts) >= _PHI3_TOKENS
    if strips == bool(_PHI3_NAME.search(name)):
        return name
    return f"Phi-3 {name}" if strips else _PHI3_NAME.sub("Phi 3", name)


def _is_byte_level(tokenizer: JsonFile) -> bool:
    """Whether tokens are sequences of bytes: SentencePiece's BPE has the same model type, but no ByteLevel step."""
    steps = tokenizer.child("pre_tokenizer")
    kinds = {step.text("type", "") for step in [*steps.children("pretokenizers"), steps, tokenizer.child("decoder")]}
    return "ByteLevel" in kinds


def _refuse_pre(declared: str) -> str:
    raise UnsupportedModel(
        "the pre-tokenizer is not recognised",
        why=f"it is {declared}; with a wrong guess the model would run, but on wrong tokens",
        hint="--pre NAME, where NAME is llama.cpp's name for it (llama-bpe, qwen2, gpt-2, ...)",
    )
