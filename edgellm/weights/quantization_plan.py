"""What a quantization will do to each tensor, decided before the first byte is written.

The engine's mix comes first, then `--head`, then the rules; a type whose blocks do not divide a tensor's rows gives
way to a similar one with smaller blocks, as llama-quantize does it, and the plan says so.

    mix = named_mix("Q4_K_M")
    plan = make_plan(gguf, mix, mix_types(engine, path, mix.plan), head="q8_0", rules=[Rule.parse("ffn_down=q6_k")])
    plan.n_bytes, plan.fallbacks
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum

from edgellm.engine.mix import MixedTensor
from edgellm.errors import UsageError
from edgellm.formats.gguf_file import GGUFFile
from edgellm.formats.quant_types import QuantType, named_type, tensor_nbytes
from edgellm.weights.imatrix import HEADS
from edgellm.weights.mixes import Mix

_FLOATS = ("F32", "F16", "BF16")
_NOT_FOR_WEIGHTS = ("Q8_1", "Q8_K", "I8", "I16", "I32", "I64", "F64")

# What the engine puts in the place of a type with large blocks; what fits no block of 32 either becomes F16.
_SMALLER = {
    **dict.fromkeys(("IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S", "IQ4_XS"), "IQ4_NL"),
    **dict.fromkeys(("Q1_0", "Q2_0", "Q2_K", "Q3_K", "TQ1_0", "TQ2_0", "I2_S", "NVFP4"), "Q4_0"),
    "Q4_K": "Q5_0",
    "Q5_K": "Q5_1",
    "Q6_K": "Q8_0",
}


class Action(str, Enum):
    """How the bytes of a tensor come about."""

    COPY = "copy"
    TRANSCODE = "transcode"  # from one ternary type into another, or into Q4_0: the same weights
    TERNARISE = "ternarise"  # into a ternary type; exact if the weights are ternary, and refused otherwise
    QUANTIZE = "quantize"  # from F32, F16 or BF16
    DEQUANTIZE = "dequantize"
    REQUANTIZE = "requantize"  # from one quantized type into another: two errors add up


@dataclass(frozen=True, slots=True)
class PlannedTensor:
    """One tensor: `shape` in ne order; `wanted` is the type it would have if its rows were whole blocks of it."""

    name: str
    shape: tuple[int, ...]
    source: QuantType
    target: QuantType
    wanted: QuantType

    @property
    def n_params(self) -> int:
        """The number of weights."""
        return math.prod(self.shape)

    @property
    def n_experts(self) -> int:
        """How many matrices of [shape[1], shape[0]] it holds."""
        return math.prod(self.shape[2:])

    @property
    def n_bytes(self) -> int:
        """Its size in the new file."""
        return tensor_nbytes(self.target, self.shape)

    @property
    def action(self) -> Action:
        """What is done to it."""
        if self.source is self.target:
            return Action.COPY
        if self.source.ternary and (self.target.ternary or self.target.name == "Q4_0"):
            return Action.TRANSCODE
        if self.target.ternary:
            return Action.TERNARISE
        if not self.source.is_quantized:
            return Action.QUANTIZE
        return Action.REQUANTIZE if self.target.is_quantized else Action.DEQUANTIZE


@dataclass(frozen=True, slots=True)
class Rule:
    """`--rule 'REGEX=TYPE'`: tensors whose name has a match get that type."""

    pattern: re.Pattern[str]
    type: QuantType

    @classmethod
    def parse(cls, text: str) -> Rule:
        """Read "REGEX=TYPE"; UsageError when it is something else."""
        pattern, equals, name = text.rpartition("=")
        if not (pattern and equals):
            raise UsageError(f"{text!r} is no rule", hint="--rule 'ffn_down=q6_k'", rule=text)
        try:
            return cls(re.compile(pattern), weight_type(name))
        except re.error as error:
            raise UsageError(f"{pattern!r} is no regular expression", why=str(error), rule=text) from None


@dataclass(frozen=True, slots=True)
class Plan:
    """All tensors in the order of the source; `head` is the type that was asked for, if one was."""

    mix: Mix
    head: str | None
    tensors: tuple[PlannedTensor, ...]

    @property
    def fallbacks(self) -> list[PlannedTensor]:
        """Tensors that cannot have the type they should."""
        return [tensor for tensor in self.tensors if tensor.target is not tensor.wanted]

    def doing(self, *actions: Action) -> list[PlannedTensor]:
        """Tensors to which one of these things is done."""
        return [tensor for tensor in self.tensors if tensor.action in actions]


def weight_type(name: str) -> QuantType:
    """Return the tensor type of that name if weights can be stored in it; UsageError otherwise."""
    found = named_type(name)
    if found.name in _NOT_FOR_WEIGHTS:
        raise UsageError(f"weights are not stored as {found}", why="the engine uses it for other things", type=name)
    return found


def make_plan(
    gguf: GGUFFile, mix: Mix, mixed: Mapping[str, MixedTensor], *, head: str | None, rules: Sequence[Rule]
) -> Plan:
    """Decide the type of every tensor of the file; the first rule that matches wins, over `head` and mix.

    Raises UsageError when a rule matches nothing.
    """
    used: set[Rule] = set()
    tensors = []
    for info in gguf.tensors.values():
        tensor = _from_mix(PlannedTensor(info.name, info.shape, info.type, info.type, info.type), mix, mixed, head)
        rule = next((rule for rule in rules if rule.pattern.search(info.name)), None)
        if rule is not None and _is_matrix(tensor):
            used.add(rule)
            tensor = _fitting(tensor, rule.type)
        tensors.append(tensor)
    for rule in rules:
        if rule not in used:
            why = f"no weight matrix that an earlier rule leaves has a name that matches {rule.pattern.pattern!r}"
            raise UsageError("a rule does nothing", why=why, hint="edgellm show MODEL --tensors")
    return Plan(mix, head, tuple(tensors))


def _from_mix(tensor: PlannedTensor, mix: Mix, mixed: Mapping[str, MixedTensor], head: str | None) -> PlannedTensor:
    found = mixed.get(tensor.name)
    if found is None or not _is_matrix(tensor):
        return tensor
    if tensor.name in HEADS:
        if head is not None:
            return _fitting(tensor, weight_type(head))
        if mix.base.ternary and tensor.source.is_quantized:
            return tensor  # a head that is quantized already would only lose by another type
        if found.type.name == "Q8_0" and mix.base.block_size == 256 and not mix.base.fits(tensor.shape):
            return _fitting(tensor, named_type("Q6_K"))  # the engine's mixes say no more than Q8_0
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
    """Whether it is a matrix of weights, and no vector of norms, biases or integers."""
    return sum(n > 1 for n in tensor.shape) > 1 and (tensor.source.is_quantized or tensor.source.name in _FLOATS)
