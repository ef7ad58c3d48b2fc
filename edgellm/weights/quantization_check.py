"""What a quantization must not do, found before the first byte is written, and what has to be told of the rest.

notes = check(gguf, plan, codec, imatrix, force=False)      # UsageError where it would do harm
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from edgellm.engine.quantize import Quantizer
from edgellm.errors import UsageError
from edgellm.formats.gguf_file import GGUFFile
from edgellm.weights.imatrix import HEADS, Imatrix, needs_importance
from edgellm.weights.mixes import Mix
from edgellm.weights.quantization_plan import Action, Plan, PlannedTensor
from edgellm.weights.tensor_codec import require_ternary, require_transcodable


def check(gguf: GGUFFile, plan: Plan, codec: Quantizer, imatrix: Imatrix | None, *, force: bool) -> list[str]:
    """Return notes for the user.

    Raises UsageError when a type needs an importance matrix that is not there, and, without `force`, when quantized
    weights would be quantized again or weights that are not ternary would become so.
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


def _check_importance(tensor: PlannedTensor, mix: Mix, imatrix: Imatrix | None) -> None:
    found = None if imatrix is None else imatrix.importance.get(tensor.name)
    if found is None:
        if not needs_importance(tensor.name, tensor.target, mix.name):
            return
        missing = f"{imatrix.path.name} has none for it" if imatrix else "without one it would be noise"
        raise UsageError(
            f"{mix} needs an importance matrix",
            why=f"{tensor.name} would become {tensor.target}; {missing}",
            hint="--imatrix FILE, made by llama-imatrix -m MODEL -f TEXT -o FILE (edgellm engine build --tools)",
            tensor=tensor.name,
            type=tensor.target.name,
        )
    if imatrix is not None and found.shape != (tensor.n_experts, tensor.shape[0]):
        why = f"{tensor.name} is {list(tensor.shape)}, and its importance {list(found.shape)}"
        raise UsageError(f"{imatrix.path.name} belongs to another model", why=why, tensor=tensor.name)


def _head_notes(plan: Plan) -> Iterator[str]:
    if plan.mix.base.ternary and plan.head is None:
        for tensor in plan.doing(Action.QUANTIZE):
            if tensor.name in HEADS:
                old, new = tensor.source, tensor.target
                yield f"{tensor.name} becomes {new}, for it is read for every token; --head {old} keeps it"


def _again(gguf: GGUFFile, plan: Plan, *, force: bool) -> Iterator[str]:
    again = plan.doing(Action.REQUANTIZE)
    if again:
        types = ", ".join(f"{n} are {name}" for name, n in Counter(t.source.name for t in again).most_common())
        why = f"of its tensors {types}; a second quantization adds its errors to those of the first"
        if not force:
            hint = "start from the F16 or BF16 file, or --force"
            raise UsageError(f"{gguf.path.name} is already quantized", why=why, hint=hint, tensors=len(again))
        yield f"already quantized: {why}"
    restored = [tensor for tensor in plan.doing(Action.DEQUANTIZE) if not tensor.source.ternary]
    if restored:
        yield f"{len(restored)} tensors were quantized; what that lost does not come back"


def _ternary(gguf: GGUFFile, plan: Plan, codec: Quantizer, *, force: bool) -> Iterator[str]:
    try:
        for tensor in plan.doing(Action.TRANSCODE):
            require_transcodable(gguf, tensor, codec)
        for tensor in plan.doing(Action.TERNARISE):
            require_ternary(gguf, tensor, codec)
    except UsageError as error:
        if not force:
            error.hint = error.hint or "--force, which rounds a scale by 0.05 % at most"
            raise
        yield f"forced: {error.what}"


def _importance_notes(plan: Plan, imatrix: Imatrix | None) -> Iterator[str]:
    if imatrix is not None:
        made = [tensor for tensor in plan.doing(Action.QUANTIZE, Action.REQUANTIZE) if tensor.name not in HEADS]
        without = sum(tensor.name not in imatrix.importance for tensor in made)
        if without:
            yield f"{without} of {len(made)} matrices have no entry in {imatrix.path.name}"
