"""Makes tiny checkpoints with random weights in the Hub's formats, and the weights that they represent.

made = bitnet_packed(directory, Shape(), seed=1)
made.weights["0.q"]      # float32, what the layer multiplies with
made.logits([1, 2, 3])   # plain numpy
"""

import json
import math
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tests.weights import tokenizer_files
from tests.weights.numpy_models import Floats, Shape, decode, int8_product, relu2, silu

Array = npt.NDArray[Any]
LINEAR = ("q", "k", "v", "o", "gate", "up", "down")
NAMES = {
    **{part: f"self_attn.{part}_proj" for part in "qkvo"},
    **{part: f"mlp.{part}_proj" for part in ("gate", "up", "down")},
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "attn_sub_norm": "self_attn.attn_sub_norm",
    "ffn_sub_norm": "mlp.ffn_sub_norm",
    "q_norm": "self_attn.q_norm",
    "k_norm": "self_attn.k_norm",
}


@dataclass(frozen=True)
class Bf16:
    """An array to be stored as bfloat16; its values must already be representable."""

    values: Floats


@dataclass(frozen=True)
class Made:
    """A written checkpoint: its directory, its config.json, and its reference computation."""

    directory: Path
    config: dict[str, Any]
    weights: Mapping[str, Floats]
    logits: Callable[[list[int]], Floats]


def to_bf16(values: Floats) -> Floats:
    """Round values to bfloat16 (towards zero: any rule works for test data)."""
    return (np.ascontiguousarray(values, np.float32).view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)


def write_safetensors(path: Path, tensors: Mapping[str, Array | Bf16]) -> None:
    names = {"float32": "F32", "float16": "F16", "float64": "F64", "uint8": "U8", "int32": "I32", "int64": "I64"}
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    body = b""
    for name, tensor in tensors.items():
        array = tensor.values if isinstance(tensor, Bf16) else tensor
        dtype = "BF16" if isinstance(tensor, Bf16) else names[array.dtype.name]
        words = np.ascontiguousarray(array)
        data = words.view(np.uint32).__rshift__(16).astype("<u2").tobytes() if dtype == "BF16" else words.tobytes()
        header[name] = {"dtype": dtype, "shape": list(array.shape), "data_offsets": [len(body), len(body) + len(data)]}
        body += data
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + body)


def write(directory: Path, config: Mapping[str, Any], tensors: Mapping[str, Array | Bf16]) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "config.json").write_text(json.dumps(config))
    write_safetensors(directory / "model.safetensors", tensors)


def decoder_config(architecture: str, shape: Shape, **more: Any) -> dict[str, Any]:
    return {
        "architectures": [architecture],
        "hidden_size": shape.hidden,
        "intermediate_size": shape.ffn,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "vocab_size": shape.vocab,
        "max_position_embeddings": 512,
        "rms_norm_eps": shape.eps,
        "rope_theta": shape.theta,
        **more,
    }


def matrix_shapes(shape: Shape) -> dict[str, tuple[int, int]]:
    hidden, ffn = shape.hidden, shape.ffn
    kv, up = (shape.kv, hidden), (ffn, hidden)
    attention = {"q": (shape.q, hidden), "k": kv, "v": kv, "o": (hidden, shape.q)}
    return attention | {"gate": up, "up": up, "down": (hidden, ffn)}


def random_weights(shape: Shape, seed: int, *, sub_norms: bool = False, tied: bool = True) -> dict[str, Floats]:
    """Weights of a decoder, all of them representable in bfloat16."""
    rng = np.random.default_rng(seed)

    def normal(*size: int, std: float, mean: float = 0.0) -> Floats:
        return to_bf16(mean + std * rng.standard_normal(size, np.float32))

    w = {"embed": normal(shape.vocab, shape.hidden, std=1.0), "norm": normal(shape.hidden, std=0.1, mean=1)}
    if not tied:
        w["head"] = normal(shape.vocab, shape.hidden, std=0.06)
    for i in range(shape.layers):
        for part, size in matrix_shapes(shape).items():
            w[f"{i}.{part}"] = normal(*size, std=1 / math.sqrt(size[1]))
        for part in ("attn_norm", "ffn_norm", *(("attn_sub_norm", "ffn_sub_norm") if sub_norms else ())):
            w[f"{i}.{part}"] = normal(shape.ffn if part == "ffn_sub_norm" else shape.hidden, std=0.1, mean=1)
    return w


def stored_name(name: str) -> str:
    """The tensor name of transformers for a short name, without ".weight"."""
    fixed = {"embed": "model.embed_tokens", "norm": "model.norm", "head": "lm_head"}
    if name in fixed:
        return fixed[name]
    layer, _, part = name.partition(".")
    return f"model.layers.{layer}.{NAMES[part.removesuffix('_bias')]}"


def is_linear(name: str) -> bool:
    return name.partition(".")[2] in LINEAR


def plain_tensors(weights: Mapping[str, Floats], *, linear: bool = True) -> dict[str, Array | Bf16]:
    """The weights as bfloat16 tensors, with or without the linear layers."""
    tensors: dict[str, Array | Bf16] = {}
    for name, values in weights.items():
        if linear or not is_linear(name):
            suffix = "bias" if name.endswith("_bias") else "weight"
            tensors[f"{stored_name(name)}.{suffix}"] = Bf16(values)
    return tensors


def absmean(values: Floats) -> tuple[npt.NDArray[np.int8], np.float32]:
    scale = np.float32(np.abs(values).mean(dtype=np.float64))
    return np.clip(np.rint(values * (np.float32(1) / scale)), -1, 1).astype(np.int8), scale


def pack(codes: npt.NDArray[np.int8]) -> npt.NDArray[np.uint8]:
    """transformers' packing: byte r holds the rows r, r + n, r + 2 n, r + 3 n from the low bits up."""
    parts = np.split((codes + 1).astype(np.uint8), 4)
    return parts[0] | parts[1] << 2 | parts[2] << 4 | parts[3] << 6


def ternarise(
    weights: Mapping[str, Floats], *, inverted: bool = False
) -> tuple[dict[str, Floats], dict[str, Array | Bf16]]:
    """Return effective weights and the packed tensors that represent them; scales are bfloat16."""
    effective, tensors = dict(weights), plain_tensors(weights, linear=False)
    for name in filter(is_linear, weights):
        codes, scale = absmean(weights[name])
        written = to_bf16(np.array([1 / scale if inverted else scale], np.float32))
        scale = np.float32(1) / written[0] if inverted else written[0]
        effective[name] = codes * scale
        tensors[f"{stored_name(name)}.weight"] = pack(codes)
        tensors[f"{stored_name(name)}.weight_scale"] = Bf16(written)
    return effective, tensors


def bitnet(directory: Path, shape: Shape, seed: int = 0, *, packed: bool = True, act: str = "relu2") -> Made:
    """BitNetForCausalLM, packed ("offline") or with master weights ("online")."""
    weights = random_weights(shape, seed, sub_norms=True)
    effective, tensors = ternarise(weights)
    if not packed:
        tensors = plain_tensors(weights)
        for name in filter(is_linear, weights):
            codes, scale = absmean(weights[name])
            effective[name] = codes * scale
    mode = {"quant_method": "bitnet", "linear_class": "autobitlinear"}
    mode["quantization_mode"] = "offline" if packed else "online"
    more = {"hidden_act": act, "tie_word_embeddings": True, "quantization_config": mode}
    config = decoder_config("BitNetForCausalLM", shape, **more)
    write(directory, config, tensors)
    tokenizer_files.write_llama3(directory)
    f = {"relu2": relu2, "silu": silu}[act]
    return Made(directory, config, effective, lambda t: decode(shape, effective, t, activation=f, product=int8_product))


def falcon_e(directory: Path, shape: Shape, seed: int = 0) -> Made:
    """A ternary Llama with master weights, from which the codes are made while it computes."""
    weights = random_weights(shape, seed, tied=False)
    effective = dict(weights)
    for name in filter(is_linear, weights):
        codes, scale = absmean(weights[name])
        effective[name] = codes * scale
    mode = {"quant_method": "bitnet", "linear_class": "autobitlinear", "quantization_mode": "online"}
    config = decoder_config("LlamaForCausalLM", shape, quantization_config=mode, tie_word_embeddings=False)
    write(directory, config, plain_tensors(weights))
    tokenizer_files.write_llama3(directory)
    return Made(directory, config, effective, lambda t: decode(shape, effective, t, product=int8_product))


def bitlinear(directory: Path, shape: Shape, seed: int = 0) -> Made:
    """A ternary Llama like Falcon3-1.58bit: packed, with a scale that divides."""
    effective, tensors = ternarise(random_weights(shape, seed, tied=False), inverted=True)
    config = decoder_config("LlamaForCausalLM", shape, quantization_config={"quant_method": "bitnet"})
    write(directory, config, tensors)
    tokenizer_files.write_llama3(directory)
    return Made(directory, config, effective, lambda t: decode(shape, effective, t, product=int8_product))


def bonsai(directory: Path, shape: Shape, seed: int = 0, *, smallest: float = 0.02) -> Made:
    """QLlamaForCausalLM: latent weights and one scale per row."""
    weights = random_weights(shape, seed, tied=False)
    effective, tensors = dict(weights), plain_tensors(weights, linear=False)
    rng = np.random.default_rng(seed + 1)
    for name in filter(is_linear, weights):
        latent = to_bf16(weights[name] / weights[name].std() * 0.7)
        scales = to_bf16((smallest * (1 + rng.random(len(latent)))).astype(np.float32))
        effective[name] = np.rint(np.clip(latent, -1, 1)) * scales[:, None]
        tensors[f"{stored_name(name)}.weight"] = Bf16(latent)
        tensors[f"{stored_name(name)}.scales"] = Bf16(scales)
    config = decoder_config("QLlamaForCausalLM", shape, tie_word_embeddings=False)
    write(directory, config, tensors)
    tokenizer_files.write_spm(directory)
    return Made(directory, config, effective, lambda t: decode(shape, effective, t))


def llama(directory: Path, shape: Shape, seed: int = 0, *, llama3: bool = False, biases: bool = False) -> Made:
    """A plain Llama; `llama3` stretches its rotation, `biases` adds biases to the attention."""
    weights = random_weights(shape, seed)
    if biases:
        rng = np.random.default_rng(seed + 1)
        for i in range(shape.layers):
            for part in "qkv":
                n = len(weights[f"{i}.{part}"])
                weights[f"{i}.{part}_bias"] = to_bf16(rng.standard_normal(n, np.float32))
    config = decoder_config("LlamaForCausalLM", shape, tie_word_embeddings=True)
    divisors = None
    if llama3:
        scaling = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
        config["rope_scaling"] = scaling | {"original_max_position_embeddings": 16}
        divisors = llama3_divisors(shape, context=16)
    write(directory, config, plain_tensors(weights))
    tokenizer_files.write_byte_level(directory, tokenizer_files.DIGITS, tokenizer_files.GPT2_WORDS)
    return Made(directory, config, weights, lambda t: decode(shape, weights, t, frequency_divisors=divisors))


def llama3_divisors(shape: Shape, context: int, factor: float = 8.0, low: float = 1.0, high: float = 4.0) -> Floats:
    """Return the divisors as transformers' `_compute_llama3_parameters` does, one frequency at a time."""
    divisors = []
    for i in range(0, shape.head, 2):
        wave = 2 * math.pi * shape.theta ** (i / shape.head)
        smooth = (context / wave - low) / (high - low)
        between = 1 / ((1 - smooth) / factor + smooth)
        divisors.append(1.0 if wave < context / high else factor if wave > context / low else between)
    return np.array(divisors, np.float32)


def phi3(directory: Path, shape: Shape, seed: int = 0, *, longrope: bool = False) -> Made:
    """Phi-3 mini, 4k or with longrope; the reference uses the short factors, valid up to 256 tokens."""
    weights = random_weights(shape, seed, tied=False)
    tensors = plain_tensors(
        {k: v for k, v in weights.items() if k.partition(".")[2] not in ("q", "k", "v", "gate", "up")}
    )
    for i in range(shape.layers):
        fused = {"self_attn.qkv_proj": "qkv", "mlp.gate_up_proj": ("gate", "up")}
        for name, parts in fused.items():
            rows = np.concatenate([weights[f"{i}.{part}"] for part in parts])
            tensors[f"model.layers.{i}.{name}.weight"] = Bf16(rows)
    config = decoder_config("Phi3ForCausalLM", shape, sliding_window=2047, tie_word_embeddings=False)
    short = np.linspace(1, 1.5, shape.head // 2, dtype=np.float32) if longrope else None
    factor = math.sqrt(1 + math.log(2) / math.log(256)) if longrope else 1.0
    if short is not None:
        factors = {"type": "longrope", "short_factor": short.tolist(), "long_factor": (short * 3).tolist()}
        config |= {"original_max_position_embeddings": 256, "rope_scaling": factors}
    write(directory, config, tensors)
    tokenizer_files.write_spm(directory)
    return Made(
        directory,
        config,
        weights,
        lambda t: decode(shape, weights, t, frequency_divisors=short, attention_factor=factor),
    )


@dataclass(frozen=True)
class Gptq:
    """How GPTQ stores a matrix."""

    group: int = 128
    symmetric: bool = True
    version: int = 1

    def settings(self) -> dict[str, Any]:
        format_name = "gptq" if self.version == 1 else "gptq_v2"
        more = {} if self.version == 1 else {"checkpoint_format": format_name}
        return {
            "quant_method": "gptq",
            "bits": 4,
            "group_size": self.group,
            "sym": self.symmetric,
            "desc_act": False,
            **more,
        }

    def quantize(self, stem: str, w: Floats) -> tuple[Floats, dict[str, Array]]:
        """Return the resulting weights and the tensors that hold them."""
        n_out, n_in = w.shape
        groups = w.reshape(n_out, n_in // self.group, self.group)
        if self.symmetric:
            scales = (np.abs(groups).max(-1) / 7.5).astype(np.float16)
            zeros = np.full(scales.shape, 8)
        else:
            low, high = np.minimum(groups.min(-1), 0), np.maximum(groups.max(-1), 0)
            scales = ((high - low) / 15).astype(np.float16)
            zeros = np.clip(np.rint(-low / scales.astype(np.float32)), 1, 15).astype(np.int64)
        codes = np.rint(groups / scales.astype(np.float32)[..., None]).astype(np.int64) + zeros[..., None]
        codes = np.clip(codes, 0, 15)
        effective = (codes - zeros[..., None]).astype(np.float32) * scales.astype(np.float32)[..., None]
        stored_zeros = zeros - 1 if self.version == 1 else zeros
        tensors = {
            f"{stem}.qweight": words(codes.reshape(n_out, n_in).T.reshape(n_in // 8, 8, n_out), axis=1),
            f"{stem}.qzeros": words(stored_zeros.T.reshape(-1, n_out // 8, 8), axis=2),
            f"{stem}.scales": np.ascontiguousarray(scales.T),
            f"{stem}.g_idx": (np.arange(n_in) // self.group).astype(np.int32),
            f"{stem}.bias": np.zeros(n_out, np.float16),
        }
        return effective.reshape(n_out, n_in), tensors


def words(values: npt.NDArray[np.int64], axis: int) -> npt.NDArray[np.int32]:
    """Eight 4-bit values along an axis as one int32, the first in the lowest bits."""
    shifts = np.expand_dims(4 * np.arange(8), tuple(i for i in range(values.ndim) if i != axis))
    return (values << shifts).sum(axis).astype(np.uint32).view(np.int32)


def qwen2(directory: Path, shape: Shape, seed: int = 0, *, gptq: Gptq | None = None) -> Made:
    """Qwen2, plain or quantized by GPTQ, with biases on queries, keys and values."""
    weights = random_weights(shape, seed)
    rng = np.random.default_rng(seed + 1)
    tensors: dict[str, Array | Bf16] = {}
    for name in list(weights):
        stem = stored_name(name)
        if gptq and is_linear(name):
            weights[name], packed = gptq.quantize(stem, weights[name])
            tensors |= packed
        else:
            tensors[f"{stem}.weight"] = weights[name].astype(np.float16)
            weights[name] = weights[name].astype(np.float16).astype(np.float32)
        if name.partition(".")[2] in ("q", "k", "v"):
            bias = rng.standard_normal(len(weights[name]), np.float32).astype(np.float16)
            weights[f"{name}_bias"] = bias.astype(np.float32)
            tensors[f"{stem}.bias"] = bias
    config = decoder_config("Qwen2ForCausalLM", shape, tie_word_embeddings=True)
    if gptq:
        config["quantization_config"] = gptq.settings()
    write(directory, config, tensors)
    tokenizer_files.write_qwen2(directory)
    return Made(directory, config, weights, lambda t: decode(shape, weights, t))


def grouped(values: Floats, group: int, *, binary: bool = False) -> Floats:
    """Return weights -d, 0 or +d (`binary`: -d or +d), one d for each group; every d is a bfloat16 number."""
    groups = values.reshape(len(values), -1, group)
    d = to_bf16(np.abs(groups).mean(axis=-1, keepdims=True))
    codes = np.where(groups < 0, -1, 1) if binary else np.clip(np.rint(groups / d), -1, 1)
    weights: Floats = (codes * d).astype(np.float32).reshape(values.shape)
    return weights


def qwen3(directory: Path, shape: Shape, seed: int = 0, *, group: int = 0, binary: bool = False) -> Made:
    """Qwen3, with norms over the heads; with `group` like Ternary-Bonsai, or `binary` like Bonsai: the head as well."""
    weights = random_weights(shape, seed, tied=False)
    rng = np.random.default_rng(seed + 1)
    for i in range(shape.layers):
        for part in ("q_norm", "k_norm"):
            weights[f"{i}.{part}"] = to_bf16((1 + 0.1 * rng.standard_normal(shape.head)).astype(np.float32))
    if group:
        weights |= {k: grouped(v, group, binary=binary) for k, v in weights.items() if v.ndim == 2}
    more = {"head_dim": shape.head, "tie_word_embeddings": False, "attention_bias": False, "use_sliding_window": False}
    config = decoder_config("Qwen3ForCausalLM", shape, sliding_window=None, max_window_layers=shape.layers, **more)
    write(directory, config, plain_tensors(weights))
    tokenizer_files.write_qwen2(directory)
    return Made(directory, config, weights, lambda t: decode(shape, weights, t))


def minicpm(directory: Path, shape: Shape, seed: int = 0, *, longrope: bool = False, group: int = 0) -> Made:
    """MiniCPM with its three scales; the reference uses longrope's short factors, valid up to 256 tokens."""
    weights = random_weights(shape, seed, tied=False)
    if group:
        weights |= {k: grouped(v, group) for k, v in weights.items() if is_linear(k)}
    scales = {"scale_emb": 12, "scale_depth": 1.4, "dim_model_base": 64}
    config = decoder_config("MiniCPMForCausalLM", shape, tie_word_embeddings=False, **scales)
    short = np.linspace(1, 1.5, shape.head // 2, dtype=np.float32) if longrope else None
    factor = math.sqrt(1 + math.log(2) / math.log(256)) if longrope else 1.0
    if short is not None:
        factors = {"rope_type": "longrope", "short_factor": short.tolist(), "long_factor": (short * 3).tolist()}
        config["rope_scaling"] = factors | {"original_max_position_embeddings": 256}
    write(directory, config, plain_tensors(weights))
    tokenizer_files.write_spm(directory)
    effect = (12.0, 1.4 / math.sqrt(shape.layers), shape.hidden / 64)
    options: dict[str, Any] = {"frequency_divisors": short, "attention_factor": factor, "scales": effect}
    return Made(directory, config, weights, lambda t: decode(shape, weights, t, **options))


def qwen(directory: Path, shape: Shape, seed: int = 0, *, gptq: Gptq | None = None) -> Made:
    """The first Qwen: fused attention, a gate called w2, an up projection called w1, and a separate head."""
    weights = random_weights(shape, seed, tied=False)
    rng = np.random.default_rng(seed + 1)
    fixed = {"transformer.wte": "embed", "transformer.ln_f": "norm", "lm_head": "head"}
    tensors: dict[str, Array | Bf16] = {f"{k}.weight": weights[v].astype(np.float16) for k, v in fixed.items()}
    for i in range(shape.layers):
        layer = f"transformer.h.{i}"
        tensors[f"{layer}.ln_1.weight"] = weights[f"{i}.attn_norm"].astype(np.float16)
        tensors[f"{layer}.ln_2.weight"] = weights[f"{i}.ffn_norm"].astype(np.float16)
        parts = {
            "attn.c_attn": "qkv",
            "attn.c_proj": "o",
            "mlp.w1": ("up",),
            "mlp.w2": ("gate",),
            "mlp.c_proj": ("down",),
        }
        for name, fused in parts.items():
            rows = np.concatenate([weights[f"{i}.{part}"] for part in fused]).astype(np.float16)
            tensors[f"{layer}.{name}.weight"] = rows
            if gptq:
                del tensors[f"{layer}.{name}.weight"]
                rows, packed = gptq.quantize(f"{layer}.{name}", rows.astype(np.float32))
                tensors |= packed
            for part, piece in zip(fused, np.split(rows.astype(np.float32), len(fused)), strict=True):
                weights[f"{i}.{part}"] = piece
        bias = rng.standard_normal(3 * shape.hidden, np.float32).astype(np.float16)
        tensors[f"{layer}.attn.c_attn.bias"] = bias
        weights |= {f"{i}.{p}_bias": b.astype(np.float32) for p, b in zip("qkv", np.split(bias, 3), strict=True)}
    rounded = {
        name: values.astype(np.float16).astype(np.float32) for name, values in weights.items() if not is_linear(name)
    }
    weights |= rounded
    config: dict[str, Any] = {
        "architectures": ["QWenLMHeadModel"],
        "hidden_size": shape.hidden,
        "intermediate_size": 2 * shape.ffn,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "kv_channels": shape.head,
        "seq_length": 512,
        "max_position_embeddings": 2048,
        "layer_norm_epsilon": shape.eps,
        "rotary_emb_base": shape.theta,
        "rotary_pct": 1.0,
        "vocab_size": shape.vocab,
        "tie_word_embeddings": False,
    }
    if gptq:
        config["quantization_config"] = gptq.settings()
    write(directory, config, tensors)
    tokenizer_files.write_tiktoken(directory)
    return Made(directory, config, weights, lambda t: decode(shape, weights, t))


def bert(
    directory: Path,
    hidden: int = 64,
    ffn: int = 128,
    layers: int = 2,
    heads: int = 4,
    seed: int = 0,
    positions: int = 32,
) -> Made:
    """A BERT encoder with mean pooling declared in sentence-transformers' files."""
    rng = np.random.default_rng(seed)
    names = [f"encoder.layer.{i}.{part}" for i in range(layers) for part in ("attention.output", "output")]
    w: dict[str, Floats] = {}
    for name in ("embeddings", *names):
        w[f"{name}.LayerNorm.weight"] = (1 + 0.1 * rng.standard_normal(hidden)).astype(np.float32)
        w[f"{name}.LayerNorm.bias"] = (0.1 * rng.standard_normal(hidden)).astype(np.float32)
    linear = {f"attention.self.{part}": (hidden, hidden) for part in ("query", "key", "value")}
    linear |= {
        "attention.output.dense": (hidden, hidden),
        "intermediate.dense": (ffn, hidden),
        "output.dense": (hidden, ffn),
    }
    for i in range(layers):
        for name, size in linear.items():
            w[f"encoder.layer.{i}.{name}.weight"] = (rng.standard_normal(size) / math.sqrt(size[1])).astype(np.float32)
            w[f"encoder.layer.{i}.{name}.bias"] = (0.1 * rng.standard_normal(size[0])).astype(np.float32)
    tables = {"word": len(tokenizer_files.WORDS), "position": positions, "token_type": 2}
    for name, rows in tables.items():
        w[f"embeddings.{name}_embeddings.weight"] = rng.standard_normal((rows, hidden)).astype(np.float32)
    config = {
        "architectures": ["BertModel"],
        "hidden_size": hidden,
        "intermediate_size": ffn,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "max_position_embeddings": positions,
        "type_vocab_size": 2,
        "layer_norm_eps": 1e-12,
        "hidden_act": "gelu",
    }
    unused = {
        "pooler.dense.weight": np.zeros((hidden, hidden), np.float32),
        "pooler.dense.bias": np.zeros(hidden, np.float32),
    }
    write(directory, config, {**w, **unused})
    tokenizer_files.write_wordpiece(directory)
    (directory / "1_Pooling").mkdir(exist_ok=True)
    (directory / "modules.json").write_text(
        json.dumps([{"path": "1_Pooling", "type": "sentence_transformers.models.Pooling"}])
    )
    (directory / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode_mean_tokens": True}))
    return Made(directory, config, w, lambda _: np.zeros((0, 0), np.float32))
