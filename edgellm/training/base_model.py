"""The model that training starts from: a GGUF file or a checkpoint directory, as float32 weights under GGUF names.

    base = read_gguf(Path("bitnet-I2_S.gguf"), codec)
    base = read_directory(Path("Bonsai"), work)
    base.weights["blk.0.attn_q.weight"].form     # WeightForm.ABSMEAN

Master weights are taken as they are. A file that only has codes gets latent weights that give the same codes and
scales. Names, shapes and the order of rows are those of GGUF, so whatever is trained can be written as it is.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgellm.engine.quantize import Quantizer
from edgellm.errors import CorruptFile, UnsupportedModel
from edgellm.formats.gguf_file import GGUFFile, TensorInfo
from edgellm.formats.gguf_split import part_paths
from edgellm.formats.gguf_writer import GGUFWriter
from edgellm.formats.quant_types import QuantType
from edgellm.formats.ternary import BLOCK_CODECS, Codes, i2_s_scale, unpack_i2_s
from edgellm.progress import Progress, Report, silent
from edgellm.weights.convert.checkpoints import read_checkpoint
from edgellm.weights.convert.checkpoints.plan import ConvertedTensor
from edgellm.weights.convert.converter import lay_out
from edgellm.weights.slabs import Floats, Latent, Slab, Ternary

Values = npt.NDArray[np.float32]
# The linear layers of the blocks; the tables of tokens and the head are no part of them.
MATRIX = re.compile(r"blk\.\d+\.(attn_(q|k|v|output)|ffn_(gate|up|down))\.weight")
EXACT_TYPES = ("F32", "F16", "BF16")


class WeightForm(Enum):
    """What a model computes with: `W` are the weights that training changes.

    PLAIN: W itself. ABSMEAN: codes of W / mean |W|, times that mean, with 8-bit activations (BitNet). SCALED: codes of
    W, times scales that are trained beside it, one for each group of a row (Bonsai).
    """

    PLAIN = "plain"
    ABSMEAN = "absmean"
    SCALED = "scaled"


@dataclass(frozen=True, slots=True)
class Weights:
    """One tensor before training.

    `values` are float32 [rows, columns] or [n]. `scales` are those of SCALED weights, [rows, groups], and of ABSMEAN
    weights as the file has it, [1, 1]. `exact` says that the values are the file's own, not those of a lossy type.
    """

    name: str
    type: QuantType
    values: Values
    form: WeightForm = WeightForm.PLAIN
    scales: Values | None = None
    exact: bool = True

    @property
    def codes(self) -> Codes:
        """What ternary weights are computed as, int8 [rows, columns]."""
        inverse = np.float32(1) / _mean(self.values) if self.form is WeightForm.ABSMEAN else np.float32(1)
        codes: Codes = np.clip(np.rint(self.values * inverse), -1, 1).astype(np.int8)
        return codes


@dataclass(frozen=True, slots=True)
class BaseModel:
    """A model with all its weights in memory.

    `header` is a GGUF file with the metadata of the file to write: the model itself, or one without tensors. `file` is
    the model itself if it is a GGUF file: a tensor that is not trained is copied from it.
    """

    name: str
    header: Path
    file: Path | None
    weights: Mapping[str, Weights]

    @property
    def n_params(self) -> int:
        """The number of weights."""
        return sum(tensor.values.size for tensor in self.weights.values())

    @property
    def is_ternary(self) -> bool:
        """Whether it has ternary linear layers."""
        return any(tensor.form is not WeightForm.PLAIN for tensor in self.weights.values())


def read_gguf(path: Path, codec: Quantizer, *, report: Report = silent) -> BaseModel:
    """Read a GGUF file; `codec` decodes the types that are neither floats nor ternary.

    Raises:
        CorruptFile, UnsupportedModel: it cannot be read, or its weights are not finite.
    """
    if len(part_paths(path)) > 1:
        raise UnsupportedModel(f"{path.name} is one part of several", why="only models in one file can be trained")
    weights: dict[str, Weights] = {}
    with GGUFFile.open(path) as gguf:
        for done, info in enumerate(gguf.tensors.values()):
            report(Progress("reading the model", done, len(gguf.tensors)))
            weights[info.name] = _decoded(gguf, info, codec)
            gguf.release(info)
            if not np.isfinite(weights[info.name].values).all():
                raise CorruptFile(f"{path.name} is corrupt", why=f"tensor {info.name} is not finite", tensor=info.name)
        name = str(gguf.metadata.get("general.name") or path.stem)
    return BaseModel(name, path, path, weights)


def read_directory(
    directory: Path, work: Path, *, outtype: str | None = None, head: str | None = None, report: Report = silent
) -> BaseModel:
    """Read a checkpoint directory; its metadata is written to `work`/header.gguf. The types are those of `convert`.

    Raises:
        ModelNotFound, CorruptFile, UnsupportedModel, UsageError: as `convert`.
    """
    source, plan = read_checkpoint(directory)
    layout = lay_out(source, plan, outtype=outtype, head=head)
    has_int8 = "I2_S" in plan.types
    weights: dict[str, Weights] = {}
    for done, tensor in enumerate(plan.tensors):
        report(Progress("reading the checkpoint", done, len(plan.tensors)))
        weights[tensor.name] = _collected(tensor, layout.types[tensor.name], has_int8=has_int8)
    header = work / "header.gguf"
    with GGUFWriter(header) as writer:
        for key, value in layout.keys.items():
            writer.add(key, value)
    return BaseModel(source.name, header, None, weights)


def _decoded(gguf: GGUFFile, info: TensorInfo, codec: Quantizer) -> Weights:
    columns, shape = info.shape[0], info.shape[::-1]
    data = gguf.tensor_bytes(info)
    if info.type.name == "I2_S":
        scale = i2_s_scale(data, name=info.name)
        codes = unpack_i2_s(data[: -info.type.tail_bytes].reshape(-1, columns // 4), name=info.name)
        return _absmean_of_codes(info.name, info.type, codes, np.float32(scale))
    rows = data.reshape(-1, columns // info.type.block_size * info.type.block_bytes)
    if info.type.name in BLOCK_CODECS:
        codes, d = BLOCK_CODECS[info.type.name].unpack(rows, name=info.name)
        scales = d.astype(np.float32)
        if MATRIX.fullmatch(info.name) and info.type.ternary and codes.max(initial=0) <= 1:
            return _ternary(info.name, info.type, codes, scales, one_scale=gguf.architecture.startswith("bitnet"))
        groups = codes.astype(np.float32).reshape(*scales.shape, -1) * scales[..., None]
        return Weights(info.name, info.type, groups.reshape(shape), exact=False)
    if info.type.name == "BF16":
        values: Values = np.left_shift(rows.view("<u2"), 16, dtype=np.uint32).view(np.float32)
    elif info.type.name == "F16":
        values = rows.view("<f2").astype(np.float32)
    else:
        values = np.array(codec.decode(rows, info.type))
    return Weights(info.name, info.type, values.reshape(shape), exact=info.type.name in EXACT_TYPES)


def _ternary(name: str, kind: QuantType, codes: Codes, scales: Values, *, one_scale: bool) -> Weights:
    """Weights from codes and block scales [rows, blocks]."""
    if one_scale and (scales == scales.flat[0]).all():
        return _absmean_of_codes(name, kind, codes, scales.flat[0])
    if (scales == scales[:, :1]).all():
        scales = scales[:, :1]
    return Weights(name, kind, codes.astype(np.float32), WeightForm.SCALED, np.ascontiguousarray(scales))


def _absmean_of_codes(name: str, kind: QuantType, codes: Codes, scale: np.float32) -> Weights:
    """Latent weights with these codes whose mean magnitude is the scale: those that are not 0 are scale / their share.

    Raises:
        CorruptFile: all codes are 0, or the scale is not positive, so no mean gives the scale.
    """
    share = np.count_nonzero(codes) / codes.size
    if not share or scale <= 0:
        raise CorruptFile(f"tensor {name} cannot be trained", why="all its weights are 0", tensor=name)
    values = codes * np.float32(scale / share)
    return Weights(name, kind, values, WeightForm.ABSMEAN, np.full((1, 1), scale, np.float32))


def _collected(tensor: ConvertedTensor, kind: QuantType, *, has_int8: bool) -> Weights:
    """The weights of a checkpoint's tensor, from its slabs."""
    slabs = list(tensor.read())
    if all(isinstance(slab, Latent) for slab in slabs):
        latent = [slab for slab in slabs if isinstance(slab, Latent)]
        values, scales = (np.concatenate([getattr(slab, part) for slab in latent]) for part in ("values", "scales"))
        if not has_int8:
            return Weights(tensor.name, kind, values, WeightForm.SCALED, scales[:, None])
        if np.isclose(scales[0], _mean(values), rtol=1e-4):
            return Weights(tensor.name, kind, values, WeightForm.ABSMEAN, np.full((1, 1), scales[0], np.float32))
        codes = np.concatenate([slab.ternary.codes for slab in latent])  # masters that are ternary already
        return _absmean_of_codes(tensor.name, kind, codes, scales[0])
    if all(isinstance(slab, Ternary) for slab in slabs):
        packed = [slab for slab in slabs if isinstance(slab, Ternary)]
        return _absmean_of_codes(
            tensor.name, kind, np.concatenate([slab.codes for slab in packed]), packed[0].scales[0]
        )
    values = np.concatenate(list(_floats(slabs))).reshape(tensor.shape)
    if kind.name in BLOCK_CODECS and MATRIX.fullmatch(tensor.name):
        groups = values.reshape(len(values), -1, kind.block_size)
        scales = np.abs(groups).max(axis=-1)
        return _ternary(tensor.name, kind, np.sign(values).astype(np.int8), scales, one_scale=False)
    return Weights(tensor.name, kind, values)


def _floats(slabs: Sequence[Slab]) -> Iterator[Values]:
    for slab in slabs:
        if not isinstance(slab, Floats):
            raise UnsupportedModel(
                "a GPTQ checkpoint cannot be trained", why="its 4-bit weights have no master weights",
                hint="edgellm convert it, then finetune --method lora on the file",
            )  # fmt: skip
        yield slab.values


def _mean(values: Values) -> np.float32:
    return np.float32(max(float(np.abs(values).mean(dtype=np.float64)), 1e-5))
