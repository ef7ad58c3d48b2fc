"""Makes the outline of a model whose file is absent or does not exist yet, from its dimensions and a quantization.

    outline = planned(Dimensions.of_config(config_json, name="Qwen/Qwen2.5-7B"), "Q4_K_M")

The dimensions come from a recipe or from a checkpoint's config.json. The types approximate the engine's mixes closely
enough for a memory estimate; only the engine knows which layers get the better type.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from edgellm.engine.limits import MAX_LAYERS
from edgellm.errors import CorruptFile
from edgellm.formats.gguf_file import TensorInfo
from edgellm.formats.json_object import parse_object
from edgellm.formats.quant_types import QuantType, find_named, named_type, tensor_nbytes
from edgellm.models.fit.outline import Outline, feed_forward_width, is_encoder

MAX_CONFIG_BYTES = 1 << 20
_MAX_SIZE = 1 << 24
# The two names of each size in config.json: that of Llama and its descendants, and that of the first Qwen.
_NAMES = {
    "layers": ("num_hidden_layers",),
    "embedding": ("hidden_size",),
    "feed_forward": ("intermediate_size",),
    "heads": ("num_attention_heads",),
    "vocabulary": ("vocab_size",),
    "context": ("max_position_embeddings", "seq_length"),
}
_EXPERTS = ("num_experts", "num_local_experts")
# The types in a mix: of most matrices, of half of the most sensitive ones, and of the head.
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
_TERNARY = frozenset({"I2_S", "TQ1_0", "TQ2_0"})


@dataclass(frozen=True, slots=True)
class Dimensions:
    """The dimensions of a decoder: its numbers of layers, channels, heads and tokens.

    With experts, `feed_forward` is the width of one of them.
    """

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
    original: int | None = None
    experts: int = 0
    experts_used: int = 0

    @classmethod
    def of_config(cls, data: bytes, *, name: str) -> Dimensions:
        """Read an untrusted config.json.

        Raises:
            CorruptFile: it is not a JSON object, or a size is missing or invalid.
        """
        config = parse_object(data, name=f"config.json of {name}")
        counted = any(config.get(key) not in (None, 0, 1) for key in _EXPERTS)
        experts = _size(config, _EXPERTS, name) if counted else 0
        widths = {"feed_forward": ("moe_intermediate_size", "intermediate_size")} if experts else {}
        found = {field: _size(config, keys, name) for field, keys in (_NAMES | widths).items()}
        heads = found["heads"]
        if found["layers"] > MAX_LAYERS:
            raise CorruptFile(f"config.json of {name} is not valid", why=f"it claims {found['layers']} layers")
        if config.get("model_type") == "qwen":  # its size counts both halves of the gated layer
            found["feed_forward"] //= 2
        return cls(
            name=name,
            architecture=str(config.get("model_type", "llama")),
            kv_heads=_size(config, ("num_key_value_heads",), name, heads),
            head_size=_size(config, ("head_dim", "kv_channels"), name, max(1, found["embedding"] // heads)),
            tied=config.get("tie_word_embeddings") is True,
            original=_size(config, ("original_max_position_embeddings",), name, found["context"]),
            **found,
            experts=experts,
            experts_used=_size(config, ("num_experts_per_tok",), name, 1) if experts else 0,
        )


def planned(sizes: Dimensions, quant: str, head: str | None = None, output: str | None = None) -> Outline:
    """Return the outline of a GGUF file with these dimensions in a quantization, as pull or convert makes it.

    `head` is the type of embedding and output head, `output` that of the output head alone; None leaves it to the mix.
    """
    tensors = tuple(_tensors(sizes, quant, head, output))
    keeps = 0 if is_encoder(sizes.architecture) else sizes.kv_heads * sizes.head_size
    return Outline(
        name=sizes.name,
        architecture=sizes.architecture,
        quant=quant,
        n_bytes=sum(info.nbytes for info in tensors),
        n_params=sum(info.n_params for info in tensors),
        n_ctx_train=sizes.context,
        n_embd=sizes.embedding,
        n_ff=feed_forward_width(sizes.embedding, sizes.feed_forward, sizes.experts_used),
        n_vocab=sizes.vocabulary,
        n_words=2 * sizes.vocabulary,
        head_size=sizes.head_size,
        keys=(keeps,) * sizes.layers,
        values=(keeps,) * sizes.layers,
        tensors=tensors,
        pooled=keeps == 0,
        n_ctx_original=sizes.original,
    )


def _tensors(sizes: Dimensions, quant: str, chosen_head: str | None, output: str | None) -> Iterator[TensorInfo]:
    most, sensitive, head = (named_type(name) for name in _mix(quant))
    if chosen_head is not None:
        head = named_type(chosen_head)
    # Only a mix of its own gives an embedding that is not the head the type of the other matrices.
    shared = sizes.tied or chosen_head is not None or most.name in _TERNARY
    encoder = is_encoder(sizes.architecture)
    width, ffn = sizes.embedding, sizes.feed_forward
    q, kv = sizes.heads * sizes.head_size, sizes.kv_heads * sizes.head_size
    yield _tensor("token_embd.weight", (width, sizes.vocabulary), head if shared else most)
    for layer in range(sizes.layers):
        better = sensitive if layer % 2 else most
        yield _tensor(f"blk.{layer}.attn_q.weight", (width, q), most)
        yield _tensor(f"blk.{layer}.attn_k.weight", (width, kv), most)
        yield _tensor(f"blk.{layer}.attn_v.weight", (width, kv), better)
        yield _tensor(f"blk.{layer}.attn_output.weight", (q, width), most)
        if sizes.experts:
            yield _tensor(f"blk.{layer}.ffn_gate_inp.weight", (width, sizes.experts), named_type("F32"))
        suffix, experts = ("_exps", (sizes.experts,)) if sizes.experts else ("", ())
        if not encoder:
            yield _tensor(f"blk.{layer}.ffn_gate{suffix}.weight", (width, ffn, *experts), most)
        yield _tensor(f"blk.{layer}.ffn_up{suffix}.weight", (width, ffn, *experts), most)
        yield _tensor(f"blk.{layer}.ffn_down{suffix}.weight", (ffn, width, *experts), better)
    if not sizes.tied and not encoder:
        yield _tensor("output.weight", (width, sizes.vocabulary), named_type(output) if output else head)


def _mix(quant: str) -> tuple[str, str, str]:
    known = _MIXES.get(quant.upper())
    if known is not None:
        return known
    plain = find_named(quant)
    return (plain.name,) * 3 if plain is not None else _MIXES[_DEFAULT_MIX]


def _tensor(name: str, shape: tuple[int, ...], quant_type: QuantType) -> TensorInfo:
    """Return a tensor of this type, or of Q8_0 or F16 if its rows are not whole blocks, like the quantizer."""
    fitting = next(kind for kind in (quant_type, named_type("Q8_0"), named_type("F16")) if kind.fits(shape))
    return TensorInfo(name, shape, fitting, 0, tensor_nbytes(fitting, shape))


def _size(config: Mapping[str, object], keys: tuple[str, ...], name: str, default: int | None = None) -> int:
    value = next((config[key] for key in keys if config.get(key) is not None), default)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value <= _MAX_SIZE:
        raise CorruptFile(f"config.json of {name} is not valid", why=f"{keys[0]} is {value!r:.60}")
    return value


def read_checkpoint_outline(directory: Path, quant: str | None = None) -> Outline:
    """Return the outline of the file that `edgellm convert` makes from a checkpoint directory, by default in F16."""
    path = directory / "config.json"
    with path.open("rb") as file:
        data = file.read(MAX_CONFIG_BYTES + 1)
    if len(data) > MAX_CONFIG_BYTES:
        raise CorruptFile(f"{path} is not valid", why=f"it has more than {MAX_CONFIG_BYTES:,} bytes")
    return planned(Dimensions.of_config(data, name=directory.resolve().name), quant or "F16")
