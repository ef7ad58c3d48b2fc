"""How much memory training takes, before it starts: weights, gradients, optimizer, activations.

    need = estimate(counts, shape, n_vocab, n_ctx=512, batch=4, chunk=128, checkpointing=False)
    need.total, need.activations

Weights, gradients and Adam's two moments are float32. Activations are those that the backward pass keeps, as this
decoder computes them; with checkpointing only the inputs of all blocks and the inside of one.
"""

from __future__ import annotations

from dataclasses import dataclass

from edgellm.training.decoder_shape import DecoderShape

_FLOAT = 4
# torch with its libraries, the engine's vocabulary and Python.
_BASE = 350 << 20
# What is kept for one token of a block, in float32: multiples of the width (norms, residuals, queries, values,
# projections) and of the feed-forward width (gate, up, products, norm). Counted on the graph of `decoder.DecoderBlock`.
_WIDTHS, _FF_WIDTHS = 12, 6
_TERNARY_COPIES = 3


@dataclass(frozen=True, slots=True)
class ParameterCounts:
    """The weights that are held as float32, as codes of one byte, and those that are trained."""

    floats: int
    codes: int
    trained: int
    ternary_layer: int = 0


@dataclass(frozen=True, slots=True)
class TrainingMemory:
    """Bytes. `optimizer` includes the gradients, `weights` whatever the model holds."""

    weights: int
    optimizer: int
    activations: int
    base: int

    @property
    def total(self) -> int:
        """All together, at most."""
        return self.weights + self.optimizer + self.activations + self.base


def estimate(
    counts: ParameterCounts, shape: DecoderShape, n_vocab: int, *, n_ctx: int, batch: int, chunk: int,
    checkpointing: bool,
) -> TrainingMemory:  # fmt: skip
    """The memory of training steps over `batch` rows of `n_ctx` tokens; logits are computed `chunk` places at once."""
    tokens = batch * n_ctx
    block = tokens * (_WIDTHS * shape.n_embd + _FF_WIDTHS * shape.n_ff) * _FLOAT
    block += batch * n_ctx * n_ctx * _FLOAT  # the mask; scores are computed again
    inside = block if checkpointing else block * shape.n_layer
    inside += 2 * batch * shape.n_head * n_ctx * n_ctx * _FLOAT  # the scores of one block and their gradient
    inputs = tokens * shape.n_embd * _FLOAT * (shape.n_layer + 2)
    logits = 3 * min(chunk, tokens) * n_vocab * _FLOAT
    # Codes times scales exist beside latent weights while a layer is computed, and until its backward pass.
    ternary = counts.ternary_layer * _FLOAT * (_TERNARY_COPIES if checkpointing else _TERNARY_COPIES * shape.n_layer)
    return TrainingMemory(
        weights=counts.floats * _FLOAT + counts.codes,
        optimizer=3 * counts.trained * _FLOAT,
        activations=inside + inputs + logits + ternary,
        base=_BASE,
    )
