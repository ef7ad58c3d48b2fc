"""Tiny shapes of every architecture, for tests that make random models."""

from edgellm.models.shape import ARCHITECTURES, Shape


def tiny(architecture: str = "bitnet", **changes: object) -> Shape:
    """Two layers of 256 channels; the rows are whole blocks of every type."""
    sizes: dict[str, object] = {
        "architecture": architecture, "n_layer": 2, "n_embd": 256, "n_ff": 512, "n_head": 4, "n_head_kv": 4,
        "head_dim": 64, "n_vocab": 400, "n_ctx": 512, "tied": architecture == "bitnet", "quant": "Q4_0",
        "activation": "relu2" if architecture == "bitnet" else "silu",
    }  # fmt: skip
    return Shape(**{**sizes, **changes})  # type: ignore[arg-type]


EVERY = {architecture: tiny(architecture) for architecture in ARCHITECTURES.values()}
