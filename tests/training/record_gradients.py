"""Records the gradients that transformers computes on tiny checkpoints: `python -m tests.training.record_gradients`.

It needs torch and transformers 4.57, which no other test needs; the recording is `golden/gradients.json`. Whole
gradients would be megabytes: of each parameter it has the length, and the products with a few fixed vectors. BitNet's
rounding, straight through, is that of transformers' own AutoBitLinear.
"""

import json
import os
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from edgellm.weights.convert.checkpoints.rope import interleaved
from tests.training.tiny import SMALL, TOKENS
from tests.weights import checkpoint_maker as make
from tests.weights.numpy_models import Shape

GOLDEN = Path(__file__).parent / "golden" / "gradients.json"
N_PRODUCTS = 3
WIDE_HEADS = Shape(hidden=256, heads=4, kv_heads=2, head_size=128)
KINDS: dict[str, tuple[Shape, Callable[[Path], make.Made]]] = {
    "llama": (SMALL, lambda path: make.llama(path, SMALL)),
    "qwen2": (SMALL, lambda path: make.qwen2(path, SMALL)),
    "qwen3": (WIDE_HEADS, lambda path: make.qwen3(path, WIDE_HEADS)),
    "bitnet": (SMALL, lambda path: make.bitnet(path, SMALL, packed=False)),
    "falcon-e": (SMALL, lambda path: make.falcon_e(path, SMALL)),
}
_NAMES = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
}
_PARTS = {
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm",
    "self_attn.attn_sub_norm": "attn_sub_norm", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down", "mlp.ffn_sub_norm": "ffn_sub_norm", "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}  # fmt: skip


def summary(name: str, gradient: np.ndarray) -> list[float]:
    """The length of a gradient, and its products with random vectors of length 1 that follow from its name."""
    values = gradient.astype(np.float64).ravel()
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    vectors = rng.standard_normal((N_PRODUCTS, values.size))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return [float(np.linalg.norm(values)), *map(float, vectors @ values)]


def gguf_name(name: str) -> str:
    """The name that a parameter of transformers has in a GGUF file."""
    if name in _NAMES:
        return _NAMES[name]
    _, _, layer, part = name.split(".", 3)
    stem, _, kind = part.rpartition(".")
    return f"blk.{layer}.{_PARTS[stem]}.{kind}"


def in_order(kind: str, name: str, gradient: np.ndarray, shape: Shape) -> np.ndarray:
    """A gradient with its rows as a GGUF file has them: the engine's llama rotates neighbours."""
    part = name.split(".")[-2]
    if kind not in ("llama", "falcon-e") or part not in ("attn_q", "attn_k"):
        return gradient
    return gradient[interleaved(shape.heads if part == "attn_q" else shape.kv_heads, shape.head)]


def record(kind: str, directory: Path) -> dict[str, Any]:
    """The loss and the gradients of one kind, by GGUF names."""
    import torch
    import transformers
    from transformers.integrations import bitnet

    shape, maker = KINDS[kind]
    made = maker(directory)
    architecture = getattr(transformers, made.config["architectures"][0])
    values = dict(made.config)
    is_ternary = values.pop("quantization_config", None) is not None  # the layers are put in below
    config = architecture.config_class(**values, attn_implementation="eager")
    model = architecture.from_pretrained(directory, config=config, dtype=torch.float32)
    for name, module in list(model.named_modules()):
        if is_ternary and isinstance(module, torch.nn.Linear) and name != "lm_head":
            layer = bitnet.AutoBitLinear(module.in_features, module.out_features, bias=False, online_quant=True)
            layer.weight = module.weight
            model.set_submodule(name, layer)
    model.train()
    logits = model(torch.tensor([TOKENS])).logits[0]
    loss = torch.nn.functional.cross_entropy(logits[:-1], torch.tensor(TOKENS[1:]), reduction="sum")
    loss.backward()
    assert np.abs(made.logits(TOKENS) - logits.detach().numpy()).max() < 0.05
    found = {}
    for name, parameter in model.named_parameters():
        ours = gguf_name(name)
        found[ours] = summary(ours, in_order(kind, ours, parameter.grad.numpy(), shape))
    return {"loss": float(loss.detach()), "gradients": found}


def main() -> None:
    """Write the recording."""
    os.environ["TORCHDYNAMO_DISABLE"] = "1"  # compiled, AutoBitLinear computes the same
    found = {}
    for kind in KINDS:
        with tempfile.TemporaryDirectory() as directory:
            found[kind] = record(kind, Path(directory))
    GOLDEN.parent.mkdir(exist_ok=True)
    GOLDEN.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
