"""Checks a quantization plan before the first byte is written: refuses what does harm, and notes what loses.

notes = check(gguf, plan, codec, imatrix, force=False)      # UsageError for a harmful plan
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from edgellm.engine.quantize import Quantizer
from edgellm.errors import UsageError
from edgellm.formats.gguf_file import GGUFFile
from edgellm.formats.ternary import BLOCK_CODECS
from edgellm.weights.quantize.imatrix import HEADS, Imatrix, needs_importance
from edgellm.weights.quantize.mixes import Mix
from edgellm.weights.quantize.plan import Action, PlannedTensor, QuantizationPlan
from edgellm.weights.tensor_codec import require_ternary, require_transcodable


def check(
    gguf: GGUFFile, plan: QuantizationPlan, codec: Quantizer, imatrix: Imatrix | None, *, force: bool
) -> list[str]:
    """Return notes for the user about a plan.

    Raises UsageError when a type needs an importance matrix and none is given. Unless `force` is set, also raises
    it when quantized weights would be quantized again, or when weights that are not ternary (binary) would become so.
    """
    for tensor in plan.tensors:
        if tensor.action is not Action.COPY:
            _check_importance(tensor, plan.mix, imatrix)
    return [
        *_head_notes(plan),
        *_again(gguf, plan, force=force),
        *_ternary(gguf, plan, codec, force=force),
        *_importance_notes(plan, imatrix),
    ]


def trained_heads(gguf: GGUFFile, mix: Mix, codec: Quantizer) -> frozenset[str]:
    """Return the heads that the type of a mix holds without loss, as those of Ternary-Bonsai and Bonsai."""
    if mix.base.name not in (*BLOCK_CODECS, "Q4_0"):
        return frozenset()
    heads = (gguf.tensors[name] for name in HEADS if name in gguf.tensors)
    wanted = (PlannedTensor(info.name, info.shape, info.type, mix.base, mix.base) for info in heads)
    return frozenset(tensor.name for tensor in wanted if _is_trained(gguf, tensor, codec))


def _is_trained(gguf: GGUFFile, tensor: PlannedTensor, codec: Quantizer) -> bool:
    require = {Action.TRANSCODE: require_transcodable, Action.TERNARISE: require_ternary}.get(tensor.action)
    if require is None or not tensor.target.fits(tensor.shape):
        return False
    try:
        require(gguf, tensor, codec)
    except UsageError:
        return False
    return True


def _check_importance(tensor: PlannedTensor, mix: Mix, imatrix: Imatrix | None) -> None:
    found = None if imatrix is None else imatrix.importance.get(tensor.name)
    if found is None:
        if not needs_importance(tensor.name, tensor.target, mix.name):
            return
        missing = f"{imatrix.path.name} has no entry for it" if imatrix else "without one it would be noise"
        raise UsageError(
            f"{mix} needs an importance matrix",
            why=f"{tensor.name} would become {tensor.target}; {missing}",
            hint="--imatrix FILE, made by llama-imatrix -m MODEL -f TEXT -o FILE (edgellm engine build --tools)",
            tensor=tensor.name,
            type=tensor.target.name,
        )
    if imatrix is not None and found.shape != (tensor.n_experts, tensor.shape[0]):
        why = f"{tensor.name} is {list(tensor.shape)}, but its importance is {list(found.shape)}"
        raise UsageError(f"{imatrix.path.name} belongs to another model", why=why, tensor=tensor.name)


def _head_notes(plan: QuantizationPlan) -> Iterator[str]:
    if plan.mix.base.one_magnitude and plan.head is None:
        for tensor in plan.doing(Action.QUANTIZE):
            if tensor.name in HEADS:
                old, new = tensor.source, tensor.target
                yield f"{tensor.name} becomes {new}, because every token reads it; --head {old} keeps it"


def _again(gguf: GGUFFile, plan: QuantizationPlan, *, force: bool) -> Iterator[str]:
    again = plan.doing(Action.REQUANTIZE)
    if again:
        types = ", ".join(f"{n} are {name}" for name, n in Counter(t.source.name for t in again).most_common())
        why = f"of its tensors, {types}; a second quantization adds its errors to those of the first"
        if not force:
            hint = "start from the F16 or BF16 file, or --force"
            raise UsageError(f"{gguf.path.name} is already quantized", why=why, hint=hint, tensors=len(again))
        yield f"already quantized: {why}"
    restored = [tensor for tensor in plan.doing(Action.DEQUANTIZE) if not tensor.source.one_magnitude]
    if restored:
        yield f"{len(restored)} tensors were already quantized; this does not restore the lost precision"


def _ternary(gguf: GGUFFile, plan: QuantizationPlan, codec: Quantizer, *, force: bool) -> Iterator[str]:
    try:
        for tensor in plan.doing(Action.TRANSCODE):
            require_transcodable(gguf, tensor, codec)
        for tensor in plan.doing(Action.TERNARISE):
            require_ternary(gguf, tensor, codec)
    except UsageError as error:
        if not force:
            error.hint = error.hint or "--force rounds each scale by 0.05 % at most"
            raise
        yield f"forced: {error.what}"


def _importance_notes(plan: QuantizationPlan, imatrix: Imatrix | None) -> Iterator[str]:
    if imatrix is not None:
        made = [tensor for tensor in plan.doing(Action.QUANTIZE, Action.REQUANTIZE) if tensor.name not in HEADS]
        without = sum(tensor.name not in imatrix.importance for tensor in made)
        if without:
            yield f"{without} of {len(made)} matrices have no entry in {imatrix.path.name}"
