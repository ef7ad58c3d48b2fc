"""The plan of a conversion: metadata, and tensors with the functions that will read them.

A checkpoint format is a function from a Source to a ConversionPlan. It builds the plan line by line, so that
it reads like a specification:

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
from typing import NoReturn, Protocol

from edgellm.errors import CorruptFile, UnsupportedModel
from edgellm.formats.quant_types import QuantType
from edgellm.weights.convert.checkpoints.fields import check_fields
from edgellm.weights.convert.checkpoints.source import Source
from edgellm.weights.convert.tokenizers import MetadataValue
from edgellm.weights.slabs import Floats, RowOrder, Slab, Values

Slabs = Iterator[Slab]
# Reads a matrix in slabs of the given number of rows.
Reader = Callable[[int], Slabs]

# Weights in one slab: 32 MB as float32.
_SLAB_WEIGHTS = 8 << 20


class Role(Enum):
    """The rule that gives a tensor its type."""

    MATRIX = "matrix"  # the requested type
    HEAD = "head"  # token embedding and output head
    VECTOR = "vector"  # norms, biases and similar: always F32


@dataclass(frozen=True, slots=True)
class ConvertedTensor:
    """One tensor of the file to write; `shape` in numpy order ([rows, columns], or [n])."""

    name: str
    shape: tuple[int, ...]
    role: Role
    read: Callable[[], Slabs]


@dataclass(frozen=True, slots=True)
class ConversionPlan:
    """Everything to write except the tokenizer and the types; `keys` have no architecture prefix.

    `types` are the types the matrices can have, best first. `renamed` maps a type to the name that the
    architecture has in files of that type.
    """

    architecture: str
    keys: Mapping[str, MetadataValue]
    tensors: tuple[ConvertedTensor, ...]
    n_vocab: int
    types: tuple[str, ...]
    refusal: Callable[[QuantType], str]
    notes: Callable[[QuantType], tuple[str, ...]]
    renamed: Mapping[str, str] = field(default_factory=dict)


class Storage(Protocol):
    """How a checkpoint stores the weight matrices of its linear layers."""

    @property
    def types(self) -> tuple[str, ...]:
        """The types the matrices can be written as, best first; final once all matrices are claimed."""

    def matrix(self, stem: str, shape: tuple[int, int]) -> Reader:
        """Claim and check the tensors of a layer, and return the reader of its weight."""

    def refusal(self, target: QuantType) -> str:
        """Why the model cannot be written as a type that is not in `types`."""

    def notes(self, target: QuantType) -> tuple[str, ...]:
        """Sentences on what writing this type changes; UnsupportedModel when the change is not acceptable."""


class PlanBuilder:
    """Collects the plan of one checkpoint."""

    def __init__(self, source: Source, architecture: str, storage: Storage) -> None:
        self._source = source
        self._architecture = architecture
        self._storage = storage
        self._keys: dict[str, MetadataValue] = {}
        self._notes: list[str] = []
        self._tensors: list[ConvertedTensor] = []
        self._n_vocab = 0

    def key(self, suffix: str, value: MetadataValue) -> None:
        """Set the architecture's key with this suffix."""
        self._keys[suffix] = value

    def note(self, text: str) -> None:
        """Tell the user something about the conversion."""
        self._notes.append(text)

    def refuse(self, why: str) -> NoReturn:
        """Raise UnsupportedModel."""
        raise UnsupportedModel(f"{self._source.name} cannot be converted", why=why)

    def vector(self, name: str, target: str, size: int, order: RowOrder | None = None) -> None:
        """Add a one-dimensional tensor as F32."""
        self._source.claim(name, (size,))

        def read() -> Slabs:
            values = self._source.floats(name)
            yield Floats((values if order is None else values[order])[None])

        self._tensors.append(ConvertedTensor(target, (size,), Role.VECTOR, read))

    def table(self, name: str, target: str, shape: tuple[int, int], role: Role = Role.VECTOR) -> None:
        """Add a matrix that is not a linear layer: in F32, or in the type of the head."""
        self._source.claim(name, shape)
        self._tensors.append(ConvertedTensor(target, shape, role, lambda: self._source.slabs(name, slab_rows(shape))))

    def constant(self, target: str, values: Values) -> None:
        """Add a vector that comes from the configuration."""
        self._tensors.append(ConvertedTensor(target, values.shape, Role.VECTOR, lambda: iter([Floats(values[None])])))

    def embedding(self, name: str, n_embd: int) -> None:
        """Add the token embedding; it has one row per token of the vocabulary."""
        shape = self._source.shape(name)
        if not shape or not shape[0]:
            raise CorruptFile(f"{self._source.name} is corrupt", why=f"tensor {name!r} has no rows", tensor=name)
        self._n_vocab = shape[0]
        if (stated := self._source.config.integer("vocab_size", self._n_vocab)) != self._n_vocab:
            why = f"vocab_size is {stated}, and tensor {name!r} has {self._n_vocab} rows"
            raise CorruptFile(f"{self._source.name} does not match its config.json", why=why, tensor=name)
        self.key("vocab_size", self._n_vocab)
        self.table(name, "token_embd.weight", (self._n_vocab, n_embd), Role.HEAD)

    def output(self, name: str, n_embd: int, *, tied: bool) -> None:
        """Add the output head; a tied head is left out, and the engine uses the embedding for both."""
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
        """Add a linear layer: its weight, with its rows reordered if `order` is given, and its bias.

        A bias of zeros is dropped: AutoGPTQ writes one for every layer, and the engine rejects a bias where the
        architecture has none. Any other bias is an error unless `bias` is set.
        """
        read = self._storage.matrix(stem, shape)

        def read_ordered() -> Slabs:
            if order is None:
                yield from read(slab_rows(shape))
            else:  # reordering the rows needs the whole matrix as one slab
                for slab in read(shape[0]):
                    yield slab.take(order)

        self._tensors.append(ConvertedTensor(f"{target}.weight", shape, Role.MATRIX, read_ordered))
        name = f"{stem}.bias"
        if name not in self._source:
            return
        if not self._source.floats(name).any():
            self._source.ignore(name)
            return
        if not bias:
            self.refuse(
                f"{name} is not zero, and by config.json the architecture {self._architecture} has no such bias"
            )
        self.vector(name, f"{target}.bias", shape[0], order)

    def finish(self, renamed: Mapping[str, str] | None = None) -> ConversionPlan:
        """Return the plan; UnsupportedModel when the checkpoint has unclaimed tensors or unknown settings."""
        for fields in (self._source.config, *self._source.config.nested()):
            check_fields(fields, model=self._source.name)
        left = self._source.unclaimed()
        if left:
            shown = ", ".join(left[:4]) + (f" and {len(left) - 4} more" if len(left) > 4 else "")
            why = f"it has tensors that the architecture {self._architecture} does not know: {shown}"
            raise UnsupportedModel(f"{self._source.name} cannot be converted", why=why, unknown=len(left))
        return ConversionPlan(
            architecture=self._architecture,
            keys=self._keys,
            tensors=tuple(self._tensors),
            n_vocab=self._n_vocab,
            types=self._storage.types,
            refusal=self._storage.refusal,
            notes=lambda target: (*self._notes, *self._storage.notes(target)),
            renamed=renamed or {},
        )


def slab_rows(shape: tuple[int, ...]) -> int:
    """Return the number of rows per slab for a matrix of this shape."""
    return max(1, _SLAB_WEIGHTS // shape[-1])
