"""What a fine-tuning will take: its rows, steps and memory, and what would fit if it does not.

micro, checkpointing, memory = Fitter(base, shape, options, available).choose(Method.LORA, length=512)
memory.total
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from edgellm.errors import DoesNotFit
from edgellm.training.base_model import MATRIX, BaseModel, WeightForm
from edgellm.training.decoder_shape import DecoderShape
from edgellm.training.estimate import ParameterCounts, TrainingMemory, estimate
from edgellm.training.options import FineTuneOptions, Method
from edgellm.units import size

# Positions whose logits are in memory at once; as in batch_tensors.
_CHUNK = 128


@dataclass(frozen=True, slots=True)
class FineTunePlan:
    """A run before it starts. `micro` rows are computed at once; `checkpointing` computes blocks twice to save memory.

    `n_params` counts the weights, `n_trained` those that training changes, `n_learnt` the tokens that an epoch teaches.
    """

    method: Method
    length: int
    batch: int
    micro: int
    checkpointing: bool
    n_steps: int
    n_rows: int
    n_examples: int
    n_held_out: int
    n_tokens: int
    n_learnt: int
    n_params: int
    n_trained: int
    memory: TrainingMemory
    available: int


def count_parameters(base: BaseModel, method: Method, rank: int) -> ParameterCounts:
    """How the weights of a model are held, and how many a method trains."""
    floats = codes = trained = largest = 0
    tied = "output.weight" not in base.weights
    for name, each in base.weights.items():
        n = each.values.size
        ternary = each.form is not WeightForm.PLAIN
        latent = ternary and method is Method.TERNARY
        n_scales = 0 if each.scales is None else each.scales.size
        codes += n if ternary and not latent else 0
        floats += (n if not ternary or latent else 0) + n_scales
        largest += n if ternary else 0
        if method in (Method.TERNARY, Method.FULL):
            trained += n + (n_scales if each.form is WeightForm.SCALED else 0)
        elif method is Method.SCALES:
            is_head = name == ("token_embd.weight" if tied else "output.weight")
            trained += n_scales + (n if is_head or (each.values.ndim == 1 and "norm" in name) else 0)
        elif MATRIX.fullmatch(name):
            trained += rank * sum(each.values.shape)
    n_layer = max(1, sum(name.endswith("ffn_down.weight") for name in base.weights))
    return ParameterCounts(floats + (trained if method is Method.LORA else 0), codes, trained, largest // n_layer)


class Fitter:
    """Finds what fits into `available` bytes: how many rows at once, and whether to compute blocks twice."""

    def __init__(self, base: BaseModel, shape: DecoderShape, options: FineTuneOptions, available: int) -> None:
        self._base, self._shape, self._options = base, shape, options
        self._available = available

    def choose(self, method: Method, length: int) -> tuple[int, bool, TrainingMemory]:
        """Return the fastest choice that fits, and its memory.

        Raises:
            DoesNotFit: nothing does (unless `options.force`); the hint names what would.
        """
        choices = list(_choices(self._options.batch))
        found = [(*choice, self.memory(method, length, *choice)) for choice in choices]
        fitting = next((each for each in found if each[2].total <= self._available), None)
        if fitting or self._options.force:
            return fitting or found[-1]
        least = found[-1][2]
        raise DoesNotFit(
            f"training {self._base.name} by --method {method.value} needs {size(least.total)}, "
            f"{size(self._available)} is available",
            why=f"weights {size(least.weights)}, gradients and optimizer {size(least.optimizer)}, activations "
            f"{size(least.activations)} for one row of {length} tokens",
            hint=self._what_would_fit(method, length), needed=least.total, available=self._available,
        )  # fmt: skip

    def memory(self, method: Method, length: int, micro: int, checkpointing: bool) -> TrainingMemory:
        """The memory of one choice."""
        counts = count_parameters(self._base, method, self._options.rank)
        n_vocab = len(self._base.weights["token_embd.weight"].values)
        return estimate(
            counts, self._shape, n_vocab, n_ctx=length, batch=micro, chunk=_CHUNK, checkpointing=checkpointing
        )

    def _what_would_fit(self, method: Method, length: int) -> str:
        methods = [method, *((Method.SCALES,) if self._base.is_ternary else ()), Method.LORA]
        for other in dict.fromkeys(methods):
            for shorter in (length, length // 2, length // 4):
                if shorter >= 16 and self.memory(other, shorter, 1, True).total <= self._available:
                    chosen = "" if other is method else f"--method {other.value}"
                    short = "" if shorter == length else f"--length {shorter}"
                    return f"{chosen} {short}".strip() + " would fit"
        return "a smaller model, or a machine with more memory"


def _choices(batch: int) -> Iterator[tuple[int, bool]]:
    """Rows at once and checkpointing, the fastest first: fewer rows cost little, computing twice a third."""
    sizes = [n for n in range(batch, 0, -1) if batch % n == 0]
    yield from ((n, False) for n in sizes)
    yield from ((n, True) for n in sizes)
