"""The names of quantizations, and what each stands for.

A name is one tensor type ("Q8_0") or a mix of several ("Q4_K_M"). The engine decides which tensor gets which type
(`engine.mix`). Types that the engine can make but has no mix for borrow the mix of a similar type.

    named_mix("q4_k_m").file_type      # 15
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass

from edgellm.errors import UsageError
from edgellm.formats.quant_types import QuantType, named_type


@dataclass(frozen=True, slots=True)
class Mix:
    """A quantization by name.

    `file_type` goes into the file (`general.file_type`, enum llama_ftype). `base` is the type of most tensors.
    `plan` is the file type whose mix the engine computes; if that mix is borrowed, `stand_in` is the type in it
    that `base` replaces.
    """

    name: str
    file_type: int
    base: QuantType
    plan: int
    stand_in: QuantType | None = None

    def __str__(self) -> str:
        return self.name


def _mix(name: str, file_type: int, base: str | None = None) -> Mix:
    return Mix(name, file_type, named_type(base or name), file_type)


def _borrowed(name: str, file_type: int, stand_in: Mix) -> Mix:
    return Mix(name, file_type, named_type(name), stand_in.plan, stand_in.base)


_TQ2_0, _Q4_0, _Q2_0 = _mix("TQ2_0", 37), _mix("Q4_0", 2), _mix("Q2_0", 41)

# Ordered by bits per weight, largest first. bitnet.cpp writes 40 for I2_S; upstream uses that number for Q1_0.
MIXES = (
    _mix("F32", 0),
    _mix("F16", 1),
    _mix("BF16", 32),
    _mix("Q8_0", 7),
    _mix("Q6_K", 18),
    _mix("Q5_1", 9),
    _mix("Q5_K_M", 17, "Q5_K"),
    _mix("Q5_K_S", 16, "Q5_K"),
    _mix("Q5_0", 8),
    _mix("Q4_1", 3),
    _mix("Q4_K_M", 15, "Q4_K"),
    _mix("Q4_K_S", 14, "Q4_K"),
    _mix("IQ4_NL", 25),
    _Q4_0,
    _borrowed("NVFP4", 39, _Q4_0),
    _borrowed("MXFP4", 38, _Q4_0),
    _mix("MXFP4_MOE", 38, "MXFP4"),
    _mix("IQ4_XS", 30),
    _mix("Q3_K_L", 13, "Q3_K"),
    _mix("Q3_K_M", 12, "Q3_K"),
    _mix("IQ3_M", 27, "IQ3_S"),
    _mix("Q3_K_S", 11, "Q3_K"),
    _mix("IQ3_S", 26),
    _mix("IQ3_XS", 22, "IQ3_S"),
    _mix("IQ3_XXS", 23),
    _mix("Q2_K", 10),
    _mix("Q2_K_S", 21, "Q2_K"),
    _mix("IQ2_M", 29, "IQ2_S"),
    _mix("IQ2_S", 28, "IQ2_XS"),
    _mix("IQ2_XS", 20),
    _mix("IQ2_XXS", 19),
    _Q2_0,
    _borrowed("Q2_0_G128", 41, _Q2_0),
    _TQ2_0,
    _borrowed("I2_S", 40, _TQ2_0),
    _mix("IQ1_M", 31),
    _mix("TQ1_0", 36),
    _mix("IQ1_S", 24),
    _mix("Q1_0", 40),
)
_ALIASES = {"Q3_K": "Q3_K_M", "Q4_K": "Q4_K_M", "Q5_K": "Q5_K_M", "Q2_0_G64": "Q2_0"}
_BY_NAME = {mix.name: mix for mix in MIXES}
_BY_NAME |= {alias: _BY_NAME[name] for alias, name in _ALIASES.items()}

# What `--target-size` tries, best quality first. The first list leaves out types that need an importance matrix
# and types that are slower than another of about the same size.
LADDER = tuple(
    _BY_NAME[name]
    for name in ("F16", "Q8_0", "Q6_K", "Q5_K_M", "Q5_K_S", "Q4_K_M", "Q4_K_S", "IQ4_XS",
                 "Q3_K_L", "Q3_K_M", "Q3_K_S", "Q2_K")
)  # fmt: skip
LADDER_BELOW = tuple(_BY_NAME[name] for name in ("IQ2_M", "IQ2_S", "IQ2_XS", "IQ2_XXS", "IQ1_M", "IQ1_S"))


def named_mix(name: str) -> Mix:
    """Return the mix of this name, ignoring case; UsageError, with the closest name, when there is none."""
    found = _BY_NAME.get(name.upper().replace("-", "_"))
    if found is None:
        close = difflib.get_close_matches(name.upper(), _BY_NAME, n=1)
        why = f"did you mean {close[0]}?" if close else f"types are {', '.join(_BY_NAME)}"
        raise UsageError(f"there is no quantization {name!r}", why=why, type=name)
    return found
