"""The tokenizer keys of a converted file, from every kind of tokenizer file."""

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from edgellm.errors import CorruptFile, UnsupportedModel
from edgellm.formats.gguf_file import GGUFFile
from edgellm.weights.convert.tokenizers import name_for_engine, read_vocabulary, tokenizer_metadata
from edgellm.weights.convert.tokenizers.special import CHATML
from edgellm.weights.convert.tokenizers.tiktoken import derive_merges, read_ranks
from tests.weights import tokenizer_files as files

N_VOCAB = 480
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)


def keys(directory: Path, *, name: str = "model", pre: str | None = None) -> dict[str, Any]:
    vocabulary = read_vocabulary(directory, N_VOCAB, name=name, pre=pre)
    return {
        key.removeprefix("tokenizer.ggml."): value for key, value in tokenizer_metadata(directory, vocabulary).items()
    }


def edit(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_byte_level_bpe(tmp_path: Path) -> None:
    files.write_llama3(tmp_path)
    got = keys(tmp_path)
    assert (got["model"], got["pre"]) == ("gpt2", "llama-bpe")
    assert got["tokens"][:266] == (*files.byte_level_tokens(), *files.SPECIAL)
    assert got["tokens"][266] == "[PAD266]"
    assert got["token_type"][:266] == (NORMAL,) * 264 + (CONTROL, CONTROL)
    assert got["token_type"][266] == UNUSED
    assert got["merges"] == tuple(f"{a} {b}" for a, b in files.MERGES)
    assert (got["bos_token_id"], got["eos_token_id"]) == (264, 265)
    assert (got["add_bos_token"], got["add_eos_token"]) == (True, False)
    assert got["tokenizer.chat_template"] == files.TEMPLATE
    assert "scores" not in got


@pytest.mark.parametrize(
    ("steps", "ignore_merges", "pre"),
    [
        ([files.SPLIT_LLAMA3, files.BYTES], True, "llama-bpe"),
        ([files.SPLIT_LLAMA3, files.BYTES], False, "dbrx"),
        ([files.SPLIT_QWEN2, files.BYTES], False, "qwen2"),
        ([files.DIGITS, files.GPT2_WORDS], False, "smollm"),
        ([files.GPT2_WORDS], False, "gpt-2"),
    ],
)
def test_pre_tokenizers(tmp_path: Path, steps: list[dict[str, object]], ignore_merges: bool, pre: str) -> None:
    files.write_byte_level(tmp_path, *steps, ignore_merges=ignore_merges)
    assert keys(tmp_path)["pre"] == pre


@pytest.mark.parametrize(
    "steps",
    [
        [files.SPLIT_QWEN2 | {"invert": True}, files.BYTES],
        [files.SPLIT_QWEN2 | {"pattern": {"String": files.QWEN2}}, files.BYTES],
        [files.SPLIT_QWEN2 | {"pattern": {"Regex": files.QWEN2 + "|x"}}, files.BYTES],
        [files.SPLIT_QWEN2, files.BYTES, files.DIGITS],
        [files.GPT2_WORDS | {"add_prefix_space": True}],
    ],
)
def test_an_unknown_pre_tokenizer_is_refused_not_guessed(tmp_path: Path, steps: list[dict[str, object]]) -> None:
    files.write_byte_level(tmp_path, *steps)
    with pytest.raises(UnsupportedModel, match="is not recognised"):
        keys(tmp_path)
    assert keys(tmp_path, pre="qwen2")["pre"] == "qwen2"
    assert keys(tmp_path, name="Falcon3-1B-Instruct-1.58bit")["pre"] == "falcon3"


def test_vocab_json_and_merges_txt(tmp_path: Path) -> None:
    vocab = {text: i for i, text in enumerate(files.byte_level_tokens())}
    files.write_json(tmp_path, "vocab.json", vocab)
    lines = ["#version: 0.2", *(f"{a} {b}" for a, b in files.MERGES), ""]
    (tmp_path / "merges.txt").write_text("\n".join(lines))
    files.write_json(tmp_path, "added_tokens.json", {"<tool>": 264})
    decoder = {"265": {"content": "<|im_end|>", "special": True}}
    config = {"tokenizer_class": "Qwen2Tokenizer", "eos_token": "<|im_end|>", "added_tokens_decoder": decoder}
    files.write_json(tmp_path, "tokenizer_config.json", config)
    got = keys(tmp_path)
    assert (got["pre"], got["eos_token_id"], got["add_bos_token"]) == ("qwen2", 265, False)
    assert got["merges"] == tuple(f"{a} {b}" for a, b in files.MERGES)
    assert got["token_type"][264:266] == (USER_DEFINED, CONTROL)
    edit(tmp_path / "tokenizer_config.json", tokenizer_class="Surprise")
    with pytest.raises(UnsupportedModel, match="is not recognised"):
        keys(tmp_path)


def test_sentencepiece_model(tmp_path: Path) -> None:
    files.write_spm(tmp_path)
    got = keys(tmp_path)
    pieces = files.spm_pieces()
    assert (got["model"], got["pre"], got["add_space_prefix"]) == ("llama", "default", True)
    assert got["tokens"][: len(pieces)] == tuple(text for text, _, _ in pieces)
    assert got["token_type"][: len(pieces)] == tuple(kind for _, _, kind in pieces)
    assert got["scores"][: len(pieces)] == tuple(score for _, score, _ in pieces)
    assert (got["bos_token_id"], got["eos_token_id"], got["unknown_token_id"]) == (1, 2, 0)
    assert got["add_bos_token"] is True
    (tmp_path / "tokenizer.model").write_bytes(files.spm_model(dummy_prefix=False))
    assert keys(tmp_path)["add_space_prefix"] is False
    (tmp_path / "tokenizer.model").write_bytes(files.spm_model(model_type=1))
    with pytest.raises(UnsupportedModel, match="cannot be converted"):
        keys(tmp_path)


def test_sentencepiece_as_json_scores_merges_in_their_order(tmp_path: Path) -> None:
    files.write_spm(tmp_path, as_json=True)
    got = keys(tmp_path)
    score = dict(zip(got["tokens"], got["scores"], strict=True))
    made = ["".join(merge) for merge in files.SPM_MERGES]
    assert sorted(made, key=lambda text: -score[text]) == made
    kind = dict(zip(got["tokens"], got["token_type"], strict=True))
    assert [kind[text] for text in ("<unk>", "<s>", "<0x41>", "the")] == [UNKNOWN, CONTROL, BYTE, NORMAL]


def test_only_phi3s_name_makes_the_engine_strip(tmp_path: Path) -> None:
    files.write_spm(tmp_path, as_json=True)
    plain = read_vocabulary(tmp_path, N_VOCAB, name="x")
    assert name_for_engine("my-phi3-mini", plain) == "my-Phi 3-mini"
    assert name_for_engine("Bonsai", plain) == "Bonsai"
    tokenizer = json.loads((tmp_path / "tokenizer.json").read_text())
    stripping = [files.added(275, "<|end|>", rstrip=True), files.added(276, "<|endoftext|>")]
    edit(tmp_path / "tokenizer.json", added_tokens=tokenizer["added_tokens"] + stripping)
    strips = read_vocabulary(tmp_path, N_VOCAB, name="x")
    assert name_for_engine("Phi-3-mini-4k-instruct", strips) == "Phi-3-mini-4k-instruct"
    assert name_for_engine("tune", strips) == "Phi-3 tune"


def test_tiktoken(tmp_path: Path) -> None:
    files.write_tiktoken(tmp_path)
    got = keys(tmp_path)
    assert (got["pre"], got["add_bos_token"]) == ("qwen2", False)
    assert got["merges"] == tuple(f"{a} {b}" for a, b in files.MERGES)
    assert got["tokens"][264:268] == ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|extra_0|>")
    assert got["token_type"][264 + 207] == CONTROL
    assert got["token_type"][264 + 208] == UNUSED
    assert got["eos_token_id"] == 264
    assert got["tokenizer.chat_template"] == CHATML


def test_merges_follow_the_ranks() -> None:
    """ "abcd" can be split after "ab" or after "abc"; the merges decide: "bc" comes first, then "abc"."""
    ranks = {bytes([b]): i for i, b in enumerate(b"abcd")} | {b"bc": 4, b"ab": 5, b"cd": 6, b"abc": 7, b"abcd": 8}
    assert derive_merges(ranks) == ["b c", "a b", "c d", "a bc", "abc d"]


@pytest.mark.parametrize(
    "lines",
    [b"YQ== 1", b"YQ== 0\nYQ== 1", b"YQ==", b"*** 0", b" 0", b"YQ== 0 0", base64.b64encode(bytes(2000)) + b" 0"],
)
def test_wrong_ranks(tmp_path: Path, lines: bytes) -> None:
    (tmp_path / "qwen.tiktoken").write_bytes(lines)
    with pytest.raises(CorruptFile):
        read_ranks(tmp_path / "qwen.tiktoken")


@pytest.mark.parametrize("as_json", [True, False])
def test_wordpiece(tmp_path: Path, as_json: bool) -> None:
    files.write_wordpiece(tmp_path, as_json=as_json)
    got = keys(tmp_path)
    assert got["model"] == "bert"
    words = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "▁the", "▁cat", "s", "▁sat", "▁.")
    assert got["tokens"][:10] == words
    assert got["token_type"][:10] == (CONTROL,) * 5 + (NORMAL,) * 5
    assert (got["bos_token_id"], got["cls_token_id"], got["seperator_token_id"]) == (2, 2, 3)
    assert (got["normalizer.lowercase"], got["normalizer.strip_accents"]) == (True, True)
    assert got["token_type_count"] == 1


def test_chat_templates_of_several_names_and_files(tmp_path: Path) -> None:
    files.write_llama3(tmp_path)
    templates = [{"name": "default", "template": "a"}, {"name": "tool_use", "template": "b"}]
    edit(tmp_path / "tokenizer_config.json", chat_template=templates)
    got = keys(tmp_path)
    assert got["tokenizer.chat_template"] == "a"
    assert got["tokenizer.chat_templates"] == ["tool_use"]
    assert got["tokenizer.chat_template.tool_use"] == "b"
    (tmp_path / "chat_template.jinja").write_text("from a file")
    assert keys(tmp_path)["tokenizer.chat_template"] == "from a file"


def test_special_ids_from_config_json(tmp_path: Path) -> None:
    files.write_llama3(tmp_path)
    edit(tmp_path / "tokenizer_config.json", bos_token=None, eos_token=None)
    files.write_json(tmp_path, "config.json", {"bos_token_id": 264, "eos_token_id": [265, 264], "pad_token_id": -1})
    got = keys(tmp_path)
    assert (got["bos_token_id"], got["eos_token_id"]) == (264, 265)
    assert "padding_token_id" not in got


@pytest.mark.parametrize(
    ("tokenizer_class", "flag", "in_template", "added"),
    [
        ("LlamaTokenizerFast", False, True, False),  # Llama's class follows its own flag
        ("LlamaTokenizerFast", None, True, True),
        ("PreTrainedTokenizerFast", False, True, True),  # the others follow their template
        ("PreTrainedTokenizerFast", True, False, False),
    ],
)
def test_who_decides_about_bos(
    tmp_path: Path, tokenizer_class: str, flag: bool | None, in_template: bool, added: bool
) -> None:
    files.write_llama3(tmp_path)
    edit(tmp_path / "tokenizer_config.json", tokenizer_class=tokenizer_class, add_bos_token=flag)
    if not in_template:
        edit(tmp_path / "tokenizer.json", post_processor=None)
    assert keys(tmp_path)["add_bos_token"] is added


def test_no_limit_is_a_number_of_31_digits(tmp_path: Path) -> None:
    files.write_llama3(tmp_path)
    edit(tmp_path / "tokenizer_config.json", model_max_length=1000000000000000019884624838656)
    assert keys(tmp_path)["pre"] == "llama-bpe"


WRONG_JSON: list[dict[str, object]] = [
    {"added_tokens": [{"id": 480, "content": "x", "special": True}]},
    {"added_tokens": [{"id": -1, "content": "x", "special": True}]},
    {"added_tokens": [{"id": 265, "content": "a", "special": True}]},
    {"added_tokens": [{"id": 265, "content": "\ud800", "special": True}]},
    {"added_tokens": [1]},
    {"added_tokens": {"id": 1}},
    {"model": {"type": "BPE", "vocab": {"a": "0"}, "merges": ["a b"]}},
    {"model": {"type": "BPE", "vocab": {"a": 1 << 80}, "merges": ["a b"]}},
    {"model": {"type": "BPE", "vocab": {"a": True}, "merges": ["a b"]}},
    {"model": {"type": "BPE", "vocab": ["a"], "merges": ["a b"]}},
    {"model": {"type": "BPE", "vocab": {"a": 0}, "merges": []}},
    {"model": {"type": "BPE", "vocab": {"a": 0}, "merges": ["a"]}},
    {"model": {"type": "BPE", "vocab": {"a": 0}, "merges": [["a b", "c"]]}},
    {"model": {"type": "BPE", "vocab": {"a": 0}, "merges": [[1, 2]]}},
    {"model": "BPE"},
    {"post_processor": {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": 3}}]}},
]


@pytest.mark.parametrize("changes", WRONG_JSON)
def test_wrong_tokenizer_json(tmp_path: Path, changes: dict[str, object]) -> None:
    files.write_byte_level(tmp_path, files.GPT2_WORDS)
    edit(tmp_path / "tokenizer.json", **changes)
    with pytest.raises(CorruptFile):
        keys(tmp_path)


def test_a_start_token_nobody_names(tmp_path: Path) -> None:
    files.write_llama3(tmp_path)
    edit(tmp_path / "tokenizer_config.json", bos_token=None)
    with pytest.raises(CorruptFile, match="incomplete"):
        keys(tmp_path)


def test_unigram_is_not_bpe(tmp_path: Path) -> None:
    files.write_json(tmp_path, "tokenizer.json", {"model": {"type": "Unigram", "vocab": []}})
    with pytest.raises(UnsupportedModel, match="cannot be converted"):
        keys(tmp_path)


def test_no_tokenizer(tmp_path: Path) -> None:
    with pytest.raises(CorruptFile, match="has no tokenizer"):
        keys(tmp_path)


def test_every_prefix_of_a_sentencepiece_model_is_refused_or_read(tmp_path: Path) -> None:
    files.write_spm(tmp_path)
    whole = files.spm_model()
    for size in [*range(200), *range(len(whole) - 60, len(whole))]:
        (tmp_path / "tokenizer.model").write_bytes(whole[:size])
        try:
            keys(tmp_path)
        except CorruptFile:
            continue


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\x7f",  # a piece of 2**63 bytes
        b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",  # a number without an end
        b"\x0b",  # a group, which no tokenizer file contains
        b"\x08\x01",  # a number where a piece should be
        b"\x0a\x03\x0a\x01\xff",  # a piece that is not UTF-8
        b"\x0a\x05\x0a\x01a\x18\x09",  # a piece of type 9
        b"\x0a\x06\x12\x04abcd",  # a score in the wrong wire type, and no text
    ],
)
def test_wrong_protobuf(tmp_path: Path, data: bytes) -> None:
    files.write_spm(tmp_path)
    (tmp_path / "tokenizer.model").write_bytes(data)
    with pytest.raises(CorruptFile):
        keys(tmp_path)


@pytest.mark.engine
def test_qwens_own_merges_come_back(tmp_path: Path, vocabularies: Path) -> None:
    """The first 151,643 tokens of Qwen 2's vocabulary are the first Qwen's ranks; its merges are the expected ones."""
    inverse = {character: b for b, character in enumerate(files.alphabet())}
    with GGUFFile.open(vocabularies / "ggml-vocab-qwen2.gguf") as real:
        tokens = [str(token) for token in real.get_array("tokenizer.ggml.tokens")]
        merges = list(real.get_array("tokenizer.ggml.merges"))
    ranks = [bytes(inverse[character] for character in token) for token in tokens[:151_643]]
    lines = (base64.b64encode(token) + b" %d" % i for i, token in enumerate(ranks))
    (tmp_path / "qwen.tiktoken").write_bytes(b"\n".join(lines))
    vocabulary = read_vocabulary(tmp_path, 151_936, name="qwen")
    assert list(vocabulary.merges) == merges
    assert list(vocabulary.tokens.texts[:151_646]) == tokens[:151_646]
