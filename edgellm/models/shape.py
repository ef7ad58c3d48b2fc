"""The shape of a model: every number that decides how fast it is, and no weights.

    find_shape("bitnet-2b", here.recipe_directories).n_layer  ->  30

Recipes carry them as their table `[shape]`; `edgellm bench --shape NAME` makes a random model of one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgellm.errors import ModelNotFound
from edgellm.formats.quant_types import named_type
from edgellm.models.recipe import Recipe, load_recipes
from edgellm.suggest import did_you_mean

# As the engine calls them; encoders generate nothing.
ARCHITECTURES = {"bitnet-b1.58": "bitnet", "llama": "llama", "phi3": "phi3", "qwen": "qwen", "qwen2": "qwen2"}


@dataclass(frozen=True, slots=True)
class Shape:
    """Sizes in the field's names; `quant` and `head` are what the model is published or best used in.

    `n_ff` is the width of one of the gated projections; `tied`: the embedding is the output head as well.
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

    @property
    def n_q(self) -> int:
        """Rows of the query projection."""
        return self.n_head * self.head_dim

    @property
    def n_kv(self) -> int:
        """Rows of the key and of the value projection."""
        return self.n_head_kv * self.head_dim


def shape_of(recipe: Recipe) -> Shape | None:
    """The shape that a recipe carries, or None where it has none or generates no tokens."""
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
        head="Q6_K" if named_type("Q6_K").fits((sizes.embedding,)) else "Q8_0",
        rope_base=sizes.rope_base or 10000.0,
        activation="relu2" if architecture == "bitnet" else "silu",
    )


def find_shape(name: str, directories: Sequence[Path]) -> Shape:
    """The shape of the recipe of that name.

    Raises:
        ModelNotFound: there is none; the nearest name is suggested.
        CorruptFile: a recipe is not valid.
    """
    known = {recipe.name: shape for recipe in load_recipes(directories).values() if (shape := shape_of(recipe))}
    if name in known:
        return known[name]
    guess = did_you_mean(name, known)
    raise ModelNotFound(
        f"there is no shape {name[:60]!r}",
        why=f"did you mean {guess}?" if guess else f"there are {', '.join(known)}",
        hint=f"edgellm bench --shape {guess or next(iter(known), 'smollm2')}",
        name=name[:60],
        suggestion=guess,
    )
