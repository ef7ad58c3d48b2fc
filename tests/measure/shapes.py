"""Tiny shapes of every architecture, for tests that make random models."""

from edgellm.models.fit.shape import ARCHITECTURES, Shape


def tiny(architecture: str = "bitnet", **changes: object) -> Shape:
    """Return a shape of two layers with 256 channels; its rows are whole blocks of every type."""
    sizes: dict[str, object] = {
        "architecture": architecture, "n_layer": 2, "n_embd": 256, "n_ff": 512, "n_head": 4, "n_head_kv": 4,
        "head_dim": 64, "n_vocab": 400, "n_ctx": 512, "tied": architecture == "bitnet", "quant": "Q4_0",
        "activation": "relu2" if architecture == "bitnet" else "silu",
    }  # fmt: skip
    if architecture == "maple":
        sizes |= {"n_ff": 256, "n_expert": 8, "n_expert_used": 2, "window": 16, "quant": "TQ2_0"}
    return Shape(**{**sizes, **changes})  # type: ignore[arg-type]


EVERY = {architecture: tiny(architecture) for architecture in ARCHITECTURES.values()}
