"""What a checkpoint becomes: metadata and tensors, each tensor with the way to read it, nothing read yet.

A checkpoint format is a function from a Source to a Plan, built here line by line so that it reads like a
specification:

    build = PlanBuilder(source, "llama", storage)
    build.key("block_count", 30)
    build.vector("model.norm.weight", "output_norm.weight", n_embd)
    build.matrix("model.layers.0.self_attn.q_proj", "blk.0.attn_q", (n_embd, n_embd))
    return build.finish()
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol

from edgellm.errors import CorruptFile, UnsupportedModel
from edgellm.formats.quant_types import QuantType
from edgellm.weights.checkpoints.source import Source
from edgellm.weights.slabs import Floats, RowOrder, Slab, Values
from edgellm.weights.tokenizers import MetadataValue

Slabs = Iterator[Slab]
# Reads a matrix in slabs of so many rows.
Reader = Callable[[int], Slabs]

# Weights in one slab: 32 MB as float32.
_SLAB_WEIGHTS = 8 << 20


class Role(Enum):
    """Which rule gives a tensor its type."""

    MATRIX = "matrix"  # the type that was asked for
    HEAD = "head"  # token embedding and output head
    VECTOR = "vector"  # norms, biases and the like: always F32


@dataclass(frozen=True, slots=True)
class PlannedTensor:
    """One tensor of the file to write; `shape` in numpy order ([rows, columns], or [n])."""

    name: str
    shape: tuple[int, ...]
    role: Role
    read: Callable[[], Slabs]


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything to write but the tokenizer and the types; `keys` lack the architecture in front.

    `types` are those the matrices can have, the best one first; `renamed` gives the architecture another
    name in files of one type.
    """

    architecture: str
    keys: Mapping[str, MetadataValue]
    tensors: tuple[PlannedTensor, ...]
    n_vocab: int
    types: tuple[str, ...]
    refusal: Callable[[QuantType], str]
    notes: Callable[[QuantType], tuple[str, ...]]
    renamed: Mapping[str, str] = field(default_factory=dict)


class Storage(Protocol):
    """How a checkpoint keeps the weight matrices of its linear layers."""

    @property
    def types(self) -> tuple[str, ...]:
        """What the matrices can be written as, the best first; final when all of them are claimed."""

    def matrix(self, stem: str, shape: tuple[int, int]) -> Reader:
        """Claim the tensors of a layer, check them, and return what reads the weight."""

    def refusal(self, target: QuantType) -> str:
        """Why a type outside `types` is not possible."""

    def notes(self, target: QuantType) -> tuple[str, ...]:
        """What writing this type changes, in sentences; UnsupportedModel when it must not be done."""


class PlanBuilder:
    """Collects the plan of one checkpoint."""

    def __init__(self, source: Source, architecture: str, storage: Storage) -> None:
        self._source = source
        self._architecture = architecture
        self._storage = storage
        self._keys: dict[str, MetadataValue] = {}
        self._tensors: list[PlannedTensor] = []
        self._n_vocab = 0

    def key(self, suffix: str, value: MetadataValue) -> None:
        """Set the architecture's key with this suffix."""
        self._keys[suffix] = value

    def vector(self, name: str, target: str, size: int, order: RowOrder | None = None) -> None:
        """Take a one-dimensional tensor as F32."""
        self._source.claim(name, (size,))

        def read() -> Slabs:
            values = self._source.floats(name)
            yield Floats((values if order is None else values[order])[None])

        self._tensors.append(PlannedTensor(target, (size,), Role.VECTOR, read))

    def table(self, name: str, target: str, shape: tuple[int, int], role: Role = Role.VECTOR) -> None:
        """Take a matrix that is no linear layer: in F32, or as the head."""
        self._source.claim(name, shape)
        self._tensors.append(PlannedTensor(target, shape, role, lambda: self._source.slabs(name, slab_rows(shape))))

    def constant(self, target: str, values: Values) -> None:
        """Add a vector that comes from the configuration."""
        self._tensors.append(PlannedTensor(target, values.shape, Role.VECTOR, lambda: iter([Floats(values[None])])))

    def embedding(self, name: str, n_embd: int) -> None:
        """Take the token embedding; its rows are the vocabulary."""
        shape = self._source.shape(name)
        if not shape or not shape[0]:
            raise CorruptFile(f"{self._source.name} is corrupt", why=f"tensor {name!r} has no rows", tensor=name)
        self._n_vocab = shape[0]
        self.key("vocab_size", self._n_vocab)
        self.table(name, "token_embd.weight", (self._n_vocab, n_embd), Role.HEAD)

    def output(self, name: str, n_embd: int, *, tied: bool) -> None:
        """Take the output head; a tied one repeats the embedding, which the engine then uses twice."""
        if tied:
            self._source.ignore(name)
        else:
            self.table(name, "output.weight", (self._n_vocab, n_embd), Role.HEAD)

    def matrix(
        self,
        stem: str,
        target: str,
        shape: tuple[int, int],
        *,
        order: RowOrder | None = None,
        bias: bool = False,
    ) -> None:
        """Take a linear layer: its weight, its rows in another `order` if given, and its bias.

        A bias of zeros is dropped (AutoGPTQ writes them everywhere, and the engine refuses a bias where the
        architecture has none); any other needs `bias`.
        """
        read = self._storage.matrix(stem, shape)

        def read_ordered() -> Slabs:
            if order is None:
                yield from read(slab_rows(shape))
            else:  # the rows of the matrix change places: all of it is one slab
                for slab in read(shape[0]):
                    yield slab.take(order)

        self._tensors.append(PlannedTensor(f"{target}.weight", shape, Role.MATRIX, read_ordered))
        name = f"{stem}.bias"
        if name not in self._source:
            return
        if not self._source.floats(name).any():
            self._source.ignore(name)
            return
        if not bias:
            why = f"{name} is not zero, and the architecture {self._architecture} has no such bias"
            raise UnsupportedModel(f"{self._source.name} cannot be converted", why=why, tensor=name)
        self.vector(name, f"{target}.bias", shape[0], order)

    def finish(self, renamed: Mapping[str, str] | None = None) -> Plan:
        """Return the plan; UnsupportedModel when the checkpoint has tensors that nothing claimed."""
        left = self._source.unclaimed()
        if left:
            shown = ", ".join(left[:4]) + (f" and {len(left) - 4} more" if len(left) > 4 else "")
            why = f"it has tensors that the architecture {self._architecture} does not know: {shown}"
            raise UnsupportedModel(f"{self._source.name} cannot be converted", why=why, unknown=len(left))
        return Plan(
            architecture=self._architecture,
            keys=self._keys,
            tensors=tuple(self._tensors),
            n_vocab=self._n_vocab,
            types=self._storage.types,
            refusal=self._storage.refusal,
            notes=self._storage.notes,
            renamed=renamed or {},
        )


def slab_rows(shape: tuple[int, ...]) -> int:
    """How many rows of a matrix of this shape go into one slab."""
    return max(1, _SLAB_WEIGHTS // shape[-1])
