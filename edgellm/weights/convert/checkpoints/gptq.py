"""Linear layers quantized to 4 bits by GPTQ: codes, scales and zero points are kept, never requantized.

For `n_in` inputs and `n_out` outputs in groups of `group` inputs (int32 words; -1 means one group):

    qweight  int32 [n_in / 8, n_out]              code of input 8 i + j of an output in bits 4 j .. 4 j + 3
    qzeros   int32 [n_in / group, n_out / 8]      zero point of output 8 i + j in the same bits
    scales   fp16  [n_in / group, n_out]
    g_idx    int32 [n_in]                         the group of each input: i / group unless desc_act

    weight[out, in] = scales[group, out] (code - zero)

The first format ("gptq") stores the zero point minus one; "gptq_v2" stores the zero point itself. If every zero
point is 8, Q4_0 is exact. Otherwise Q4_1 is used, and its minimum, -scale zero, is rounded to fp16.

    storage = Gptq(source, source.config.child("quantization_config"))
    read = storage.matrix("model.layers.0.mlp.up_proj", (18944, 3584))
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from edgellm.errors import CorruptFile, UnsupportedModel
from edgellm.formats.quant_types import QuantType
from edgellm.formats.ternary import Bytes, Halves
from edgellm.weights.convert.checkpoints.plan import Reader, Slabs
from edgellm.weights.convert.checkpoints.source import Source
from edgellm.weights.convert.json_file import JsonFile
from edgellm.weights.slabs import Grouped

_BLOCK = 32  # weights that share a scale in Q4_0 and Q4_1
_CENTRE = 8  # the zero point of Q4_0
# How the codes were found, which module names were given, and how to compute with them.
_WITHOUT_EFFECT = (
    "quant_method", "sym", "damp_percent", "damp_auto_increment", "mse", "true_sequential", "static_groups", "dataset",
    "tokenizer", "batch_size", "model_name_or_path", "model_file_base_name", "block_name_to_quantize",
    "module_name_preceding_first_block", "modules_in_block_to_quantize", "cache_block_outputs", "max_input_length",
    "model_seqlen", "pad_token_id", "exllama_config", "use_exllama", "disable_exllama", "use_cuda_fp16", "backend",
    "pack_dtype", "meta",
)  # fmt: skip
_Words = npt.NDArray[np.int32]


def check_method(name: str, settings: JsonFile) -> None:
    """Raise UnsupportedModel for GPTQ settings that GGUF types cannot represent; reads no weights."""
    problem = ""
    settings.ignore("group_size", *_WITHOUT_EFFECT)
    if settings.integer("bits", 0) != 4:
        problem = f"it has {settings.integer('bits', 0)} bits; only 4 are supported"
    elif settings.flag("desc_act", False):
        problem = "desc_act is true: its groups are scattered over the row, but GGUF blocks are contiguous"
    elif settings.text("checkpoint_format", "gptq") not in ("gptq", "gptq_v2"):
        problem = f"its format is {settings.text('checkpoint_format')!r}; only gptq and gptq_v2 are supported"
    elif settings.values.get("group_size") != -1 and settings.integer("group_size", low=1) % _BLOCK:
        problem = f"groups of {settings.integer('group_size')} are not whole blocks of {_BLOCK}"
    if problem:
        hint = "convert the original model, then run `edgellm quantize`"
        raise UnsupportedModel(f"{name} cannot be converted", why=f"GPTQ: {problem}", hint=hint)


class Gptq:
    """GPTQ matrices. The zero points, read when a matrix is claimed, decide between Q4_0 and Q4_1."""

    def __init__(self, source: Source, settings: JsonFile) -> None:
        self._source = source
        self._minus_one = settings.text("checkpoint_format", "gptq") == "gptq"
        group = settings.values.get("group_size")
        self._group = group if isinstance(group, int) else -1
        self._symmetric = True

    @property
    def types(self) -> tuple[str, ...]:
        """The 4-bit type that fits, then the types of plain weights."""
        exact = ("Q4_0", "Q4_1") if self._symmetric else ("Q4_1",)
        return (*exact, "F16", "BF16", "F32", "Q8_0")

    def matrix(self, stem: str, shape: tuple[int, int]) -> Reader:
        """Claim `qweight`, `qzeros`, `scales` and `g_idx`, and return the reader of the weight."""
        n_out, n_in = shape
        group = n_in if self._group == -1 else self._group
        if n_in % group or n_out % 8:
            why = f"{stem} of {n_out} x {n_in} cannot be divided into groups of {group} and words of 8"
            raise CorruptFile(f"{self._source.name} is corrupt", why=why)
        source, groups = self._source, n_in // group
        source.claim(f"{stem}.qweight", (n_in // 8, n_out), "I32")
        source.claim(f"{stem}.qzeros", (groups, n_out // 8), "I32")
        source.claim(f"{stem}.scales", (groups, n_out))
        if source.dtype(f"{stem}.scales") != "F16":
            self._scales(stem)
        self._check_order(stem, n_in, group)
        zeros = unpack_zeros(source.array(f"{stem}.qzeros"), minus_one=self._minus_one)
        self._symmetric = self._symmetric and bool((zeros == _CENTRE).all())

        def read(n: int) -> Slabs:
            codes = unpack_codes(source.array(f"{stem}.qweight"))
            scales = self._scales(stem)
            for start in range(0, n_out, n):
                rows = slice(start, start + n)
                yield Grouped(codes[rows], scales[rows], zeros[rows])

        return read

    def refusal(self, target: QuantType) -> str:
        """Why the model cannot be written as this type."""
        if target.name == "Q4_0":
            return "its zero points are not all 8, which Q4_1 can express but Q4_0 cannot"
        return f"only {', '.join(self.types)} hold its 4-bit codes without quantizing them again"

    def notes(self, target: QuantType) -> tuple[str, ...]:
        """Report the rounding of Q4_1's minima to fp16."""
        if target.name == "Q4_1" and not self._symmetric:
            return ("minima (scale times zero point) are rounded to fp16, by at most 0.05 %",)
        return ()

    def _scales(self, stem: str) -> Halves:
        """Read the scales, [n_out, groups]; newer files may store them in more bits than the 4-bit types do."""
        scales = self._source.floats(f"{stem}.scales").T
        with np.errstate(over="ignore"):
            halves = np.ascontiguousarray(scales, np.float16)
        if (halves != scales).any():
            why = f"{stem}.scales has numbers that fp16 cannot hold; Q4_0 and Q4_1 store scales in fp16"
            raise UnsupportedModel(f"{self._source.name} cannot be converted", why=why)
        return halves

    def _check_order(self, stem: str, n_in: int, group: int) -> None:
        name = f"{stem}.g_idx"
        if name not in self._source:
            return
        self._source.claim(name, (n_in,), "I32")
        if (self._source.array(name) != np.arange(n_in) // group).any():
            why = f"{name} scatters the groups over the row (act-order), but GGUF blocks are contiguous"
            raise UnsupportedModel(f"{self._source.name} cannot be converted", why=why, tensor=name)


def unpack_codes(qweight: _Words) -> Bytes:
    """Return the codes, uint8 [n_out, n_in]."""
    return _nibbles(qweight.T)


def unpack_zeros(qzeros: _Words, *, minus_one: bool) -> Bytes:
    """Return the zero points, uint8 [n_out, groups], 0..16; `minus_one` for the first format."""
    zeros: Bytes = _nibbles(qzeros).T + np.uint8(minus_one)
    return zeros


def _nibbles(words: _Words) -> Bytes:
    """[rows, n] words -> [rows, 8 n] values of four bits, lowest first."""
    data = np.ascontiguousarray(words, "<i4").view(np.uint8)
    values = np.empty((len(data), 2 * data.shape[1]), np.uint8)
    np.bitwise_and(data, 15, out=values[:, 0::2])
    np.right_shift(data, 4, out=values[:, 1::2])
    return values
