"""The outline of a model whose file is not here, or does not exist yet: from its sizes and a quantization.

    outline = planned(Sizes.of_config(config_json, name="Qwen/Qwen2.5-7B"), "Q4_K_M")

The sizes are those of a recipe or of a checkpoint's config.json; the types are what the engine's mixes give, near
enough for an estimate of memory: which layers get the better type is the engine's own affair.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from edgellm.errors import CorruptFile
from edgellm.formats.gguf_file import TensorInfo
from edgellm.formats.json_object import parse_object
from edgellm.formats.quant_types import QuantType, find_named, named_type, tensor_nbytes
from edgellm.models.outline import MAX_LAYERS, Outline, is_encoder

MAX_CONFIG_BYTES = 1 << 20
_MAX_SIZE = 1 << 24
# Both spellings of a size in config.json: Llama's and its descendants', and the first Qwen's.
_NAMES = {
    "layers": ("num_hidden_layers",),
    "embedding": ("hidden_size",),
    "feed_forward": ("intermediate_size",),
    "heads": ("num_attention_heads",),
    "vocabulary": ("vocab_size",),
    "context": ("max_position_embeddings", "seq_length"),
}
# What a mix is made of: the type of most matrices, of half of the most sensitive ones, and of the head.
_MIXES = {
    "Q2_K": ("Q2_K", "Q3_K", "Q6_K"),
    "Q3_K_S": ("Q3_K", "Q3_K", "Q6_K"),
    "Q3_K_M": ("Q3_K", "Q5_K", "Q6_K"),
    "Q4_K_S": ("Q4_K", "Q5_K", "Q6_K"),
    "Q4_K_M": ("Q4_K", "Q6_K", "Q6_K"),
    "Q5_K_S": ("Q5_K", "Q5_K", "Q6_K"),
    "Q5_K_M": ("Q5_K", "Q6_K", "Q6_K"),
    "Q4_0": ("Q4_0", "Q4_0", "Q6_K"),
    "Q4_1": ("Q4_1", "Q4_1", "Q6_K"),
    "I2_S": ("I2_S", "I2_S", "F16"),
    "TQ1_0": ("TQ1_0", "TQ1_0", "F16"),
    "TQ2_0": ("TQ2_0", "TQ2_0", "F16"),
}
_DEFAULT_MIX = "Q4_K_M"


@dataclass(frozen=True, slots=True)
class Sizes:
    """The numbers that a decoder is made of."""

    name: str
    architecture: str
    layers: int
    embedding: int
    feed_forward: int
    heads: int
    kv_heads: int
    head_size: int
    vocabulary: int
    tied: bool
    context: int

    @classmethod
    def of_config(cls, data: bytes, *, name: str) -> Sizes:
        """Read a config.json, which anybody may have written.

        Raises:
            CorruptFile: it is no JSON object, or a size is missing or cannot be.
        """
        config = parse_object(data, name=f"config.json of {name}")
        found = {field: _size(config, keys, name) for field, keys in _NAMES.items()}
        heads = found["heads"]
        if found["layers"] > MAX_LAYERS:
            raise CorruptFile(f"config.json of {name} is not valid", why=f"it claims {found['layers']} layers")
        if config.get("model_type") == "qwen":  # counts both halves of the gated layer
            found["feed_forward"] //= 2
        return cls(
            name=name,
            architecture=str(config.get("model_type", "llama")),
            kv_heads=_size(config, ("num_key_value_heads",), name, heads),
            head_size=_size(config, ("head_dim", "kv_channels"), name, max(1, found["embedding"] // heads)),
            tied=config.get("tie_word_embeddings") is True,
            **found,
        )


def planned(sizes: Sizes, quant: str) -> Outline:
    """The outline of a GGUF file of these sizes in a quantization, as pull or convert would make it."""
    tensors = tuple(_tensors(sizes, quant))
    keeps = 0 if is_encoder(sizes.architecture) else sizes.kv_heads * sizes.head_size
    return Outline(
        name=sizes.name,
        architecture=sizes.architecture,
        quant=quant,
        n_bytes=sum(info.nbytes for info in tensors),
        n_params=sum(info.n_params for info in tensors),
        n_ctx_train=sizes.context,
        n_embd=sizes.embedding,
        n_ff=sizes.feed_forward,
        n_vocab=sizes.vocabulary,
        n_words=2 * sizes.vocabulary,
        head_size=sizes.head_size,
        keys=(keeps,) * sizes.layers,
        values=(keeps,) * sizes.layers,
        tensors=tensors,
    )


def _tensors(sizes: Sizes, quant: str) -> Iterator[TensorInfo]:
    most, sensitive, head = (named_type(name) for name in _mix(quant))
    width, ffn = sizes.embedding, sizes.feed_forward
    q, kv = sizes.heads * sizes.head_size, sizes.kv_heads * sizes.head_size
    yield _tensor("token_embd.weight", (width, sizes.vocabulary), head if sizes.tied else most)
    for layer in range(sizes.layers):
        better = sensitive if layer % 2 else most
        yield _tensor(f"blk.{layer}.attn_q.weight", (width, q), most)
        yield _tensor(f"blk.{layer}.attn_k.weight", (width, kv), most)
        yield _tensor(f"blk.{layer}.attn_v.weight", (width, kv), better)
        yield _tensor(f"blk.{layer}.attn_output.weight", (q, width), most)
        yield _tensor(f"blk.{layer}.ffn_gate.weight", (width, ffn), most)
        yield _tensor(f"blk.{layer}.ffn_up.weight", (width, ffn), most)
        yield _tensor(f"blk.{layer}.ffn_down.weight", (ffn, width), better)
    if not sizes.tied and not is_encoder(sizes.architecture):
        yield _tensor("output.weight", (width, sizes.vocabulary), head)


def _mix(quant: str) -> tuple[str, str, str]:
    known = _MIXES.get(quant.upper())
    if known is not None:
        return known
    plain = find_named(quant)
    return (plain.name,) * 3 if plain is not None else _MIXES[_DEFAULT_MIX]


def _tensor(name: str, shape: tuple[int, ...], quant_type: QuantType) -> TensorInfo:
    """A tensor of that type, or of Q8_0 or F16 where its rows are no whole blocks, as the quantizer falls back."""
    fitting = next(kind for kind in (quant_type, named_type("Q8_0"), named_type("F16")) if kind.fits(shape))
    return TensorInfo(name, shape, fitting, 0, tensor_nbytes(fitting, shape))


def _size(config: Mapping[str, object], keys: tuple[str, ...], name: str, default: int | None = None) -> int:
    value = next((config[key] for key in keys if config.get(key) is not None), default)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value <= _MAX_SIZE:
        raise CorruptFile(f"config.json of {name} is not valid", why=f"{keys[0]} is {value!r:.60}")
    return value


def read_checkpoint_outline(directory: Path, quant: str | None = None) -> Outline:
    """The outline of what `edgellm convert` makes of a checkpoint directory: F16 unless told otherwise."""
    path = directory / "config.json"
    with path.open("rb") as file:
        data = file.read(MAX_CONFIG_BYTES + 1)
    if len(data) > MAX_CONFIG_BYTES:
        raise CorruptFile(f"{path} is not valid", why=f"it has more than {MAX_CONFIG_BYTES:,} bytes")
    return planned(Sizes.of_config(data, name=directory.resolve().name), quant or "F16")
