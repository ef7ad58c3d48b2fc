"""The shape of a model: all the numbers that decide its speed, without its weights.

    find_shape("bitnet-2b", here.recipe_directories).n_layer  ->  30

Recipes hold it in their table `[shape]`; `edgellm bench --shape NAME` makes a random model from it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgellm.errors import ModelNotFound
from edgellm.formats.quant_types import named_type
from edgellm.models.recipe import Recipe, load_recipes
from edgellm.suggest import did_you_mean

# The engine's names of decoder architectures; encoders generate nothing.
ARCHITECTURES = {
    "bitnet-b1.58": "bitnet",
    "llama": "llama",
    "maple": "maple",
    "minicpm": "minicpm",
    "phi3": "phi3",
    "qwen": "qwen",
    "qwen2": "qwen2",
    "qwen3": "qwen3",
    "smollm3": "smollm3",
}


@dataclass(frozen=True, slots=True)
class Shape:
    """The sizes of a model; `quant` and `head` are the types in which it is published or best used.

    `n_ff` is the width of one of the gated projections, in a mixture of experts that of one expert; each token then
    uses `n_expert_used` of `n_expert`. `tied` means that the embedding is also the output head. `window` is how many
    tokens back the layers with a sliding window see.
    """

    architecture: str
    n_layer: int
    n_embd: int
    n_ff: int
    n_head: int
    n_head_kv: int
    head_dim: int
    n_vocab: int
    n_ctx: int
    tied: bool
    quant: str
    head: str = "Q6_K"
    rope_base: float = 10000.0
    rms_eps: float = 1e-5
    activation: str = "silu"
    n_expert: int = 0
    n_expert_used: int = 0
    window: int = 0

    @property
    def n_q(self) -> int:
        """The number of rows of the query projection."""
        return self.n_head * self.head_dim

    @property
    def n_kv(self) -> int:
        """The number of rows of the key projection, and of the value projection."""
        return self.n_head_kv * self.head_dim


def shape_of(recipe: Recipe) -> Shape | None:
    """Return the shape in a recipe, or None if it has none or its model generates no tokens."""
    sizes = recipe.shape
    if sizes is None or sizes.architecture not in ARCHITECTURES:
        return None
    architecture = ARCHITECTURES[sizes.architecture]
    return Shape(
        architecture=architecture,
        n_layer=sizes.layers,
        n_embd=sizes.embedding,
        n_ff=sizes.feed_forward,
        n_head=sizes.heads,
        n_head_kv=sizes.kv_heads,
        head_dim=sizes.head_size,
        n_vocab=sizes.vocabulary,
        n_ctx=sizes.context,
        tied=sizes.tied,
        quant=recipe.quant,
        head=sizes.head_type or _head(recipe.quant, sizes.embedding),
        rope_base=sizes.rope_base or 10000.0,
        activation="relu2" if architecture == "bitnet" else "silu",
        n_expert=sizes.experts,
        n_expert_used=sizes.experts_used,
        window=sizes.sliding_window or 0,
    )


def _head(quant: str, n_embd: int) -> str:
    """Return the type of embedding and head: models with a scale for each 64 or 128 weights have it there, too."""
    if quant in ("Q2_0", "Q2_0_G128", "Q1_0"):
        return quant
    return "Q6_K" if named_type("Q6_K").fits((n_embd,)) else "Q8_0"


def find_shape(name: str, directories: Sequence[Path]) -> Shape:
    """Return the shape in the recipe of this name.

    Raises:
        ModelNotFound: there is none; the error suggests the closest name.
        CorruptFile: a recipe is not valid.
    """
    known = {recipe.name: shape for recipe in load_recipes(directories).values() if (shape := shape_of(recipe))}
    if name in known:
        return known[name]
    guess = did_you_mean(name, known)
    raise ModelNotFound(
        f"there is no shape {name[:60]!r}",
        why=f"did you mean {guess}?" if guess else f"the shapes are {', '.join(known)}",
        hint=f"edgellm bench --shape {guess or next(iter(known), 'smollm2')}",
        name=name[:60],
        suggestion=guess,
    )
