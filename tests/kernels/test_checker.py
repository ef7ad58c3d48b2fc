"""Every level of every kernel against the C truth, and the checker against a kernel that is wrong."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.kernels.checker import ARM, PATCHES, Variant, build, command, variants

LINE = re.compile(r"^(\S+ \S+) +(\S.*?) +(ok|FAILED.*)$", re.MULTILINE)
ROWS = {f"ternary {name}" for name in ("absolute_maximum", "quantize", "activations", "rows", "experts")}
TERNARY = ROWS | {"ternary groups", "ternary bits"}
MORE_BITS = {f"ternary {name}" for name in ("nibbles", "minima", "bytes", "q4_k", "q5_k", "q6_k")}
FEW = {f"few {name}" for name in ("q4_0", "q4_1", "q8_0", "q6_k")}
ATTENTION = {
    f"attention {name}"
    for name in (
        "transpose_halfs", "transpose_floats", "multiply", "multiply_halfs", "mask_scores", "weigh"
    )
}  # fmt: skip
SCALAR = {"scalar": {*TERNARY, *MORE_BITS, *ATTENTION, "ternary pack", "i2_s dot"}}
# What each flag of /proc/cpuinfo brings.
LEVELS = {
    "avx2": {"avx2": {*TERNARY, *MORE_BITS, *ATTENTION, "i2_s dot"}},
    "avx_vnni": {"avx-vnni": TERNARY | MORE_BITS},
    "avx512bw": {"avx512": ATTENTION},
    "avx512_vnni": {"avx512-vnni": {*TERNARY, *MORE_BITS, *FEW, "i2_s dot"}},
    "asimddp": {"neon-dotprod": {*TERNARY, *ATTENTION, "i2_s dot"}},
    "i8mm": {"neon-i8mm": TERNARY},
}


def checked(printed: str) -> dict[str, set[str]]:
    """The functions that were checked at each level."""
    found: dict[str, set[str]] = {}
    for function, level, _ in LINE.findall(printed):
        found.setdefault(level, set()).add(function)
    return found


def expected(variant: Variant) -> dict[str, set[str]]:
    """What a variant has to check at the least: AMX hardware cannot be told from /proc/cpuinfo alone."""
    if variant.name == "arm":
        return SCALAR | LEVELS["asimddp"] | LEVELS["i8mm"]
    flags = set(Path("/proc/cpuinfo").read_text().split()) if Path("/proc/cpuinfo").exists() else set()
    found = dict(SCALAR)
    for flag in flags & LEVELS.keys():
        found |= LEVELS[flag]
    if variant.name == "models":
        found.pop("avx-vnni", None)
        if "avx2" in flags:
            found |= {"avx-vnni (model)": TERNARY | MORE_BITS, "amx (model)": ROWS}
        if "avx2" in flags and "avx512_vnni" not in flags:
            found |= {"avx512-vnni (model)": TERNARY | MORE_BITS}
    return found


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the patches, and beside it a build of each variant."""
    directory = tmp_path_factory.mktemp("kernels")
    shutil.copytree(PATCHES, directory / "patches")
    return directory


def run(variant: Variant, directory: Path) -> "subprocess.CompletedProcess[str]":
    program = build(variant, directory / variant.name, f"-DEDGELLM_PATCHES={directory / 'patches'}")
    return subprocess.run(command(variant, program), capture_output=True, text=True, check=False)


@pytest.mark.parametrize("variant", variants(), ids=lambda variant: variant.name)
def test_every_kernel_equals_the_truth(directory: Path, variant: Variant) -> None:
    if variant.missing:
        pytest.skip(variant.missing)
    result = run(variant, directory)
    assert result.returncode == 0, result.stdout + result.stderr
    found = checked(result.stdout)
    assert {level: names for level, names in expected(variant).items() if found.get(level) != names} == {}


@pytest.mark.skipif(ARM, reason="the kernel that is broken here is one of x86")
def test_a_wrong_kernel_is_found(directory: Path) -> None:
    """Sixteen blocks overflow the int16 lanes that eight just fit into, but only with extreme codes and activations."""
    kernel = directory / "patches" / "native" / "i2_s" / "x86" / "avx2.cpp"
    right = kernel.read_text()
    wrong = right.replace("BLOCKS_PER_LANE = 8;", "BLOCKS_PER_LANE = 16;")
    assert wrong != right
    kernel.write_text(wrong)
    try:
        result = run(variants()[0], directory)
    finally:
        kernel.write_text(right)
    assert result.returncode == 1
    failed = {(name, level): why for name, level, why in LINE.findall(result.stdout) if why != "ok"}
    assert list(failed) == [("i2_s dot", "avx2")]
    assert "columns, codes" in failed["i2_s dot", "avx2"]
