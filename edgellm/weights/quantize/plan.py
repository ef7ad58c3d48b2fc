"""Decides the type of every tensor of a quantization before the first byte is written.

The engine's mix applies first, then `--head`, then the rules. If the blocks of a type do not divide a tensor's
rows, a similar type with smaller blocks replaces it, as in llama-quantize, and the plan says so.

    mix = named_mix("Q4_K_M")
    plan = make_plan(gguf, mix, mix_types(engine, path, mix.plan), head="q8_0", rules=[Rule.parse("ffn_down=q6_k")])
    plan.tensors[0].n_bytes, plan.fallbacks
"""

from __future__ import annotations

import math
import re
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum

from edgellm.engine.mix import MixedTensor
from edgellm.errors import UsageError
from edgellm.formats.gguf_file import GGUFFile
from edgellm.formats.quant_types import QuantType, named_type, tensor_nbytes
from edgellm.weights.quantize.imatrix import HEADS
from edgellm.weights.quantize.mixes import Mix

_FLOATS = ("F32", "F16", "BF16")
_NOT_FOR_WEIGHTS = ("Q8_1", "Q8_K", "I8", "I16", "I32", "I64", "F64")

# The engine's substitutes for types with large blocks; rows that do not divide into blocks of 32 become F16.
_SMALLER = {
    **dict.fromkeys(("IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S", "IQ4_XS"), "IQ4_NL"),
    **dict.fromkeys(("Q1_0", "Q2_0", "Q2_0_G128", "Q2_K", "Q3_K", "TQ1_0", "TQ2_0", "I2_S", "NVFP4"), "Q4_0"),
    "Q4_K": "Q5_0",
    "Q5_K": "Q5_1",
    "Q6_K": "Q8_0",
}


class Action(str, Enum):
    """How the bytes of a tensor are produced."""

    COPY = "copy"
    TRANSCODE = "transcode"  # from one ternary or binary type to another, or to Q4_0: the same weights
    TERNARISE = "ternarise"  # to a ternary or binary type; exact if the weights are so, otherwise refused
    QUANTIZE = "quantize"  # from F32, F16 or BF16
    DEQUANTIZE = "dequantize"
    REQUANTIZE = "requantize"  # from one quantized type to another: two errors add up


@dataclass(frozen=True, slots=True)
class PlannedTensor:
    """One tensor: `shape` in ne order; `wanted` is the type it would have if its rows were whole blocks."""

    name: str
    shape: tuple[int, ...]
    source: QuantType
    target: QuantType
    wanted: QuantType

    @property
    def n_params(self) -> int:
        """The number of weights in the tensor."""
        return math.prod(self.shape)

    @property
    def n_experts(self) -> int:
        """The number of matrices [shape[1], shape[0]] in the tensor."""
        return math.prod(self.shape[2:])

    @property
    def n_bytes(self) -> int:
        """The size of the tensor in the new file, in bytes."""
        return tensor_nbytes(self.target, self.shape)

    @property
    def action(self) -> Action:
        """How the tensor gets from its source type to its target type."""
        if self.source is self.target:
            return Action.COPY
        if self.source.one_magnitude and (self.target.one_magnitude or self.target.name == "Q4_0"):
            return Action.TRANSCODE
        if self.target.one_magnitude:
            return Action.TERNARISE
        if not self.source.is_quantized:
            return Action.QUANTIZE
        return Action.REQUANTIZE if self.target.is_quantized else Action.DEQUANTIZE


@dataclass(frozen=True, slots=True)
class Rule:
    """`--rule 'REGEX=TYPE'`: tensors whose name matches get that type."""

    pattern: re.Pattern[str]
    type: QuantType

    @classmethod
    def parse(cls, text: str) -> Rule:
        """Parse "REGEX=TYPE"; UsageError for anything else."""
        pattern, equals, name = text.rpartition("=")
        if not (pattern and equals):
            raise UsageError(f"{text!r} is not a rule", hint="--rule 'ffn_down=q6_k'", rule=text)
        try:
            return cls(re.compile(pattern), weight_type(name))
        except re.error as error:
            raise UsageError(f"{pattern!r} is not a regular expression", why=str(error), rule=text) from None


@dataclass(frozen=True, slots=True)
class QuantizationPlan:
    """All tensors in the order of the source; `head` is the requested head type, or None."""

    mix: Mix
    head: str | None
    tensors: tuple[PlannedTensor, ...]

    @property
    def fallbacks(self) -> list[PlannedTensor]:
        """Return the tensors that get another type than the wanted one, because it does not fit their rows."""
        return [tensor for tensor in self.tensors if tensor.target is not tensor.wanted]

    def doing(self, *actions: Action) -> list[PlannedTensor]:
        """Return the tensors with one of these actions."""
        return [tensor for tensor in self.tensors if tensor.action in actions]


def weight_type(name: str) -> QuantType:
    """Return the tensor type of this name; UsageError when it cannot store weights."""
    found = named_type(name)
    if found.name in _NOT_FOR_WEIGHTS:
        raise UsageError(f"weights cannot be stored as {found}", why="the engine uses it for other data", type=name)
    return found


def make_plan(
    gguf: GGUFFile,
    mix: Mix,
    mixed: Mapping[str, MixedTensor],
    *,
    head: str | None,
    rules: Sequence[Rule],
    trained_heads: Container[str] = (),
) -> QuantizationPlan:
    """Decide the type of every tensor. The first matching rule wins, and rules override `head` and the mix.

    `trained_heads` names the heads that hold the type of the mix exactly, like the matrices.

    Raises UsageError when a rule matches nothing, or when the tensors cannot be in one file.
    """
    used: set[Rule] = set()
    tensors = []
    for info in gguf.tensors.values():
        tensor = PlannedTensor(info.name, info.shape, info.type, info.type, info.type)
        if info.name in trained_heads and head is None:
            tensor = _fitting(tensor, mix.base)
        else:
            tensor = _from_mix(tensor, mix, mixed, head)
        rule = next((rule for rule in rules if rule.pattern.search(info.name)), None)
        if rule is not None and _is_matrix(tensor):
            used.add(rule)
            tensor = _fitting(tensor, rule.type)
        tensors.append(tensor)
    for rule in rules:
        if rule not in used:
            why = f"no weight matrix left by earlier rules has a name that matches {rule.pattern.pattern!r}"
            raise UsageError("a rule matches no tensor", why=why, hint="edgellm show MODEL --tensors")
    if {"Q2_0", "Q2_0_G128"} <= {tensor.target.name for tensor in tensors}:
        why = "files know both by one number, and only the sizes of all tensors tell which one is meant"
        raise UsageError("one file cannot hold Q2_0 and Q2_0_G128", why=why, hint="--head or --rule with one of them")
    return QuantizationPlan(mix, head, tuple(tensors))


def _from_mix(tensor: PlannedTensor, mix: Mix, mixed: Mapping[str, MixedTensor], head: str | None) -> PlannedTensor:
    found = mixed.get(tensor.name)
    if found is None or not _is_matrix(tensor):
        return tensor
    if tensor.name in HEADS:
        if head is not None:
            return _fitting(tensor, weight_type(head))
        if mix.base.one_magnitude and tensor.source.is_quantized:
            return tensor  # another type would only make an already quantized head worse
        if found.type.name == "Q8_0" and mix.base.block_size == 256 and not mix.base.fits(tensor.shape):
            return _fitting(tensor, named_type("Q6_K"))  # the engine's mixes give no head more than Q8_0
    if mix.stand_in is not None and found.wanted is mix.stand_in:
        return _fitting(tensor, mix.base)
    return replace(tensor, target=found.type, wanted=found.wanted)


def _fitting(tensor: PlannedTensor, wanted: QuantType) -> PlannedTensor:
    target = wanted
    for smaller in (_SMALLER.get(wanted.name, "F16"), "F16"):
        if not target.fits(tensor.shape):
            target = named_type(smaller)
    return replace(tensor, target=target, wanted=wanted)


def _is_matrix(tensor: PlannedTensor) -> bool:
    """Whether it is a matrix of weights, not a vector of norms, biases or integers."""
    return sum(n > 1 for n in tensor.shape) > 1 and (tensor.source.is_quantized or tensor.source.name in _FLOATS)
