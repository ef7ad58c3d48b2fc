"""The memory estimate against what the engine really takes, and what is refused by it."""

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import pytest

from edgellm.engine.llama import LlamaEngine
from edgellm.engine.quantize import Quantizer
from edgellm.engine.residence import Kernels, copied_nbytes
from edgellm.errors import ContextTooLarge, CorruptFile, DoesNotFit, UsageError
from edgellm.formats.gguf_file import GGUFFile
from edgellm.formats.quant_types import named_type
from edgellm.machine.cpu import Cpu
from edgellm.machine.memory import Room
from edgellm.models.fit.memory import MemoryNeed, RunPlan, choose_context, estimate, require_fit
from edgellm.models.fit.outline import Outline, cache_type
from edgellm.models.fit.verdict import read_outline
from edgellm.settings import Settings
from edgellm.weights.random_model import write_random_model
from tests.engine import bitnet_file
from tests.measure.shapes import tiny
from tests.models.shapes import PHI3_MINI, SMALL_LLAMA, SMALL_PHI3, write_shape

GB = 10**9
# What the acceptance of an estimate is: a tenth of what was measured.
NEAR = 0.10
ALL = [(n_ctx, kv_type) for n_ctx in (1024, 4096) for kv_type in ("F16", "Q8_0")]


def run_peak(model: str, *, n_ctx: int, kv_type: str, n_words: int) -> int:
    """The peak of resident memory of a whole `edgellm run`, in bytes."""
    command = [sys.executable, "-m", "edgellm", "run", "--raw", model, "word " * n_words, "--json", "-n", "2"]
    command += ["-c", str(n_ctx), "--kv", kv_type.lower(), "-t", "2"]
    result = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return int(json.loads(result.stdout)["data"]["stats"]["peak_resident_bytes"])


def check_accuracy(path: Path, plans: Iterable[tuple[int, str]], *, n_words: int, model: str = "") -> None:
    """Compare at each context and type of cache; what was measured shows with `pytest -s`."""
    for n_ctx, kv_type in plans:
        need = estimate(read_outline(path), RunPlan(n_ctx=n_ctx, kv_type=kv_type))
        peak = run_peak(model or str(path), n_ctx=n_ctx, kv_type=kv_type, n_words=n_words)
        measured = f"{path.name} {n_ctx} {kv_type}: peak {peak / 1e6:.0f} MB, estimate {need.total / peak - 1:+.1%}"
        sys.stdout.write(measured + "\n")
        assert abs(need.total - peak) <= NEAR * peak, (measured, need)


@pytest.mark.engine
@pytest.mark.model
def test_smollm2_is_estimated_within_a_tenth(with_engine: Settings, smollm2: Path) -> None:
    check_accuracy(smollm2, [(1024, "F16"), (8192, "Q8_0")], n_words=260, model="smollm2")


@pytest.mark.engine
@pytest.mark.parametrize("kind", ["Q4_K", "Q5_1"])
def test_a_small_phi3_is_estimated_within_a_tenth(
    kind: str, with_engine: Settings, vocabularies: Path, tmp_path: Path
) -> None:
    """Q4_K is copied on every CPU with AVX2, Q5_1 on none."""
    path = write_shape(tmp_path / f"{kind}.gguf", SMALL_PHI3, kind, vocabularies / "ggml-vocab-phi-3.gguf")
    check_accuracy(path, [(1024, "Q8_0"), (4096, "F16")], n_words=100)


@pytest.mark.engine
def test_a_small_ternary_model_is_estimated_within_a_tenth(
    with_engine: Settings, vocabularies: Path, tmp_path: Path
) -> None:
    shape = bitnet_file.Shape(n_layers=4, width=1280, ffn=3456, n_heads=10, n_kv_heads=5, vocab=128256)
    vocabulary = vocabularies / "ggml-vocab-llama-bpe.gguf"
    path = bitnet_file.write(
        tmp_path / "ternary.gguf", bitnet_file.metadata(shape), bitnet_file.tensors(shape), vocabulary
    )
    check_accuracy(path, [(1024, "F16"), (4096, "Q8_0")], n_words=40)


@pytest.mark.engine
def test_experts_are_estimated_within_a_tenth(with_engine: Settings, llama: LlamaEngine, tmp_path: Path) -> None:
    """100 MB of experts: twice as much would show if the file's pages stayed."""
    check_accuracy(write_experts(tmp_path / "experts.gguf", llama), [(512, "F16")], n_words=40)


def write_experts(path: Path, llama: LlamaEngine) -> Path:
    shape = tiny("maple", n_layer=4, n_embd=1024, n_ff=512, n_expert=64, n_expert_used=8)
    codec = Quantizer(llama.installed.libraries, 1)
    write_random_model(path, shape, weights=named_type("TQ2_0"), head=named_type("Q6_K"), codec=codec)
    return path


@pytest.mark.soak
@pytest.mark.engine
def test_a_2b_ternary_model_is_estimated_within_a_tenth(
    with_engine: Settings, vocabularies: Path, tmp_path: Path
) -> None:
    shape, vocabulary = bitnet_file.BITNET_2B_4T, vocabularies / "ggml-vocab-llama-bpe.gguf"
    path = bitnet_file.write(
        tmp_path / "bitnet-2b.gguf", bitnet_file.metadata(shape), bitnet_file.tensors(shape), vocabulary
    )
    check_accuracy(path, ALL, n_words=300)


@pytest.mark.soak
@pytest.mark.engine
def test_phi3_mini_is_estimated_within_a_tenth(with_engine: Settings, vocabularies: Path, tmp_path: Path) -> None:
    path = write_shape(tmp_path / "phi3-mini.gguf", PHI3_MINI, "Q4_K", vocabularies / "ggml-vocab-phi-3.gguf")
    check_accuracy(path, ALL, n_words=300)


@pytest.fixture
def said(llama: LlamaEngine) -> Callable[[Path], str]:
    """What the engine says while it loads a model and opens a context with an 8-bit cache."""

    def listen(path: Path) -> str:
        with llama.transcript() as pieces:
            model = llama.load(path)
            model.open_context(n_ctx=512, n_batch=64, n_threads=1, type_k="Q8_0", type_v="Q8_0").close()
            model.close()
        return "".join(pieces)

    return listen


@pytest.mark.engine
@pytest.mark.parametrize("kind", ["Q4_0", "Q4_K", "Q5_K", "Q6_K", "Q4_1", "Q8_0", "Q5_1", "I2_S", "TQ1_0", "TQ2_0"])
def test_the_engine_copies_what_we_say_it_copies(
    kind: str, said: Callable[[Path], str], vocabularies: Path, tmp_path: Path
) -> None:
    path = write_shape(tmp_path / "m.gguf", SMALL_LLAMA, kind, vocabularies / "ggml-vocab-phi-3.gguf")
    text = said(path)
    need = estimate(read_outline(path), RunPlan(n_ctx=512, kv_type="Q8_0"))
    buffers = re.findall(r"(\S+) model buffer size = +([\d.]+) MiB", text)
    copies = sum(float(size) for name, size in buffers if name != "CPU_Mapped")
    assert copies == pytest.approx(need.copied / 2**20, abs=0.02), text
    cache = re.search(r"KV buffer size = +([\d.]+) MiB", text)
    assert cache is not None and float(cache[1]) == pytest.approx(need.kv_cache / 2**20, abs=0.01)


@pytest.mark.engine
def test_what_is_copied_leaves_the_file_s_pages(llama: LlamaEngine, vocabularies: Path, tmp_path: Path) -> None:
    """The engine itself keeps both; a model that needs 1 GB would show 2."""
    path = write_shape(tmp_path / "m.gguf", SMALL_PHI3, "Q4_0", vocabularies / "ggml-vocab-phi-3.gguf")
    if not estimate(read_outline(path), RunPlan()).copied:
        pytest.skip("this CPU has no kernels that copy Q4_0")
    check_pages(llama, path)


@pytest.mark.engine
def test_experts_are_copied_and_leave_the_file_s_pages(
    llama: LlamaEngine, said: Callable[[Path], str], tmp_path: Path
) -> None:
    path = write_experts(tmp_path / "experts.gguf", llama)
    copied = re.search(r"CPU_TERNARY model buffer size = +([\d.]+) MiB", said(path))
    assert copied is not None
    assert float(copied[1]) == pytest.approx(estimate(read_outline(path), RunPlan()).copied / 2**20, abs=0.02)
    check_pages(llama, path)


def check_pages(llama: LlamaEngine, path: Path) -> None:
    need = estimate(read_outline(path), RunPlan())
    before = resident_pages_of(path)
    model = llama.load(path)
    mapped = resident_pages_of(path)
    model.close()
    assert before == 0 and abs(mapped - need.mapped) < 0.1 * need.mapped + (1 << 20)


def resident_pages_of(path: Path) -> int:
    total = 0
    for block in re.split(r"(?m)^(?=[0-9a-f]+-[0-9a-f]+ )", Path("/proc/self/smaps").read_text()):
        if str(path) in block.partition("\n")[0]:
            total += sum(int(kb) * 1024 for kb in re.findall(r"^Rss: +(\d+) kB", block, re.MULTILINE))
    return total


def test_what_is_copied_depends_on_the_cpu() -> None:
    shape = (3072, 9216)
    plain = 3072 * 9216 // 256 * 144
    packed = 3072 * 9216 // 256 * 148
    assert copied_nbytes("Q4_K", shape, Kernels.AVX2) == copied_nbytes("Q4_K", shape, Kernels.AMX) == packed
    assert copied_nbytes("Q4_K", shape, Kernels.NEON) == plain
    assert copied_nbytes("Q4_K", (256, 17), Kernels.AVX2) == 32 * 148  # rows are padded to 32
    assert copied_nbytes("Q5_K", shape, Kernels.AMX) == 3072 * 9216 // 256 * 180
    assert copied_nbytes("Q6_K", shape, Kernels.AVX512) == 3072 * 9216 // 256 * 212
    assert copied_nbytes("Q4_K", shape, Kernels.PLAIN) is None
    assert copied_nbytes("Q4_1", shape, Kernels.AVX512) == 3072 * 9216 // 32 * 20
    assert copied_nbytes("Q8_0", shape, Kernels.AVX2) == 3072 * 9216 // 32 * 34
    assert copied_nbytes("Q8_0", shape, Kernels.AVX2, gathered=True) is None
    assert copied_nbytes("Q4_1", shape, Kernels.PLAIN) is None and copied_nbytes("Q5_1", shape, Kernels.AMX) is None
    assert copied_nbytes("Q6_K", shape, Kernels.AVX2, gathered=True) is None  # a tied head stays in the file
    assert copied_nbytes("Q6_K", shape, Kernels.PLAIN) is None and copied_nbytes("Q6_K", shape, Kernels.NEON)
    assert copied_nbytes("Q2_K", shape, Kernels.AVX512) and copied_nbytes("Q2_K", shape, Kernels.AVX2) is None
    assert copied_nbytes("Q4_0", (3072, 9217), Kernels.AVX2) == 9232 * 3072 // 32 * 18
    assert copied_nbytes("Q4_0", (96, 9217), Kernels.AVX2) is None  # neither ours nor interleaved by eight
    assert copied_nbytes("Q4_K", (3072, 520, 8), Kernels.AVX2) == 3072 * 520 * 8 // 256 * 144  # ends within a panel
    assert copied_nbytes("F32", (3072,), Kernels.AMX) is None


def test_ternary_matrices_are_packed_or_kept_as_they_are_whichever_is_more() -> None:
    packed = 2560 * 6912 // 4 + 4 * 6912
    assert copied_nbytes("I2_S", (2560, 6912), Kernels.AVX2) == packed
    assert copied_nbytes("TQ2_0", (2560, 6912), Kernels.NEON) == 2560 * 6912 // 256 * 66
    assert copied_nbytes("TQ2_0", (2048, 512, 256), Kernels.NEON) == 512 * 256 * 2048 // 256 * 66
    assert copied_nbytes("TQ2_0", (2048, 520, 256), Kernels.AVX2) is None, "an expert ends within a panel"
    # TQ1_0 takes more when it is packed, and rows may turn out to have blocks with different scales
    assert copied_nbytes("TQ1_0", (2560, 6912), Kernels.PLAIN) == 2560 * 6912 // 256 * 66
    assert copied_nbytes("Q2_0", (2560, 6912), Kernels.AVX2) == 2560 * 6912 // 64 * 18
    assert copied_nbytes("Q1_0", (2560, 17), Kernels.AVX512) == 32 * (2560 // 128 * 18)
    assert copied_nbytes("I2_S", (128, 17), Kernels.AVX2) == 32 * (128 // 4 + 4)  # rows are padded to 32


def test_kernels_of_a_cpu() -> None:
    from edgellm.engine.residence import kernels

    def of(*features: str, machine: str = "x86_64") -> Kernels:
        return kernels(Cpu(machine, "", features))

    assert of("avx2", "avx512f", "avx512_vnni", "amx_int8") is Kernels.AMX
    assert (of("avx2", "avx512f"), of("avx2"), of("sse4_2")) == (Kernels.AVX512, Kernels.AVX2, Kernels.PLAIN)
    assert of("asimd", "asimddp", machine="aarch64") is Kernels.NEON is of("Apple M3", machine="arm64")


@pytest.mark.model
def test_the_kv_cache_of_smollm2_is_exact(smollm2: Path) -> None:
    outline = read_outline(smollm2)
    # 30 layers, 3 KV heads of 64, keys and values, 2 bytes each; in Q8_0 34 bytes for 32 numbers.
    assert estimate(outline, RunPlan(4096)).kv_cache == 30 * 3 * 64 * 2 * 4096 * 2
    assert estimate(outline, RunPlan(4096, kv_type="Q8_0")).kv_cache == 30 * 3 * 64 * 2 * 4096 * 34 // 32
    assert estimate(outline, RunPlan(4096, n_slots=3)).kv_cache == 3 * 30 * 3 * 64 * 2 * 4096 * 2
    assert estimate(outline, RunPlan(1000)).kv_cache == estimate(outline, RunPlan(1024)).kv_cache
    # On this machine, or with copies the tied head beside it.
    assert estimate(outline, RunPlan(4096), Kernels.PLAIN).weights == pytest.approx(96_576_768, rel=0.001)


def test_a_head_that_is_the_embedding_is_copied_and_mapped(vocabularies: Path, tmp_path: Path) -> None:
    path = write_shape(tmp_path / "m.gguf", SMALL_LLAMA, "Q4_0", vocabularies / "ggml-vocab-phi-3.gguf")
    untied = read_outline(path)
    tied = replace(untied, tensors=tuple(info for info in untied.tensors if info.name != "output.weight"))
    embedding = next(info.nbytes for info in tied.tensors if info.name == "token_embd.weight")
    one, two = (estimate(each, RunPlan(), Kernels.AVX2) for each in (untied, tied))
    head = next(info for info in untied.tensors if info.name == "output.weight")
    assert two.copied == one.copied - (copied_nbytes(head.type.name, head.shape, Kernels.AVX2) or 0) + embedding


def test_phi3_at_128k_needs_48_gib_of_cache(vocabularies: Path, tmp_path: Path) -> None:
    one_layer = replace(PHI3_MINI, n_layers=1)
    path = write_shape(tmp_path / "phi3.gguf", one_layer, "Q4_K", vocabularies / "ggml-vocab-phi-3.gguf")
    outline = read_outline(path)
    full = replace(outline, keys=outline.keys * 32, values=outline.values * 32)
    assert full.cache_row("F16") == 393_216
    assert estimate(full, RunPlan(131_072)).kv_cache == 48 << 30


def test_the_default_context_is_the_models_own_when_that_is_less() -> None:
    assert choose_context(2048, None) == 2048
    assert choose_context(131072, None) == 4096
    assert choose_context(131072, 100_000) == 100_000
    with pytest.raises(ContextTooLarge, match="8,192") as caught:
        choose_context(8192, 8193)
    with pytest.raises(CorruptFile, match="corrupt"):
        choose_context(0, None)
    assert caught.value.exit_code == 2 and caught.value.hint == "--ctx-size 8192"


def test_cache_types_are_known_by_any_case() -> None:
    assert cache_type("q8_0").name == "Q8_0"
    with pytest.raises(UsageError, match="q9") as caught:
        cache_type("q9")
    assert "q8_0" in caught.value.hint


def test_too_little_memory_is_refused_with_the_parts() -> None:
    need = MemoryNeed(mapped=GB, copied=0, kv_cache=2 * GB, compute=10**8, slack=10**8, address_space=4 * GB)
    plan = RunPlan(4096)
    require_fit(need, Room(need.total), name="m", plan=plan)
    with pytest.raises(DoesNotFit, match=r"m needs 3\.20 GB at 4,096 tokens, but only 3\.00 GB is available") as caught:
        require_fit(need, Room(3 * GB), name="m", plan=plan)
    assert "weights 1.00, KV cache 2.00" in caught.value.why and caught.value.exit_code == 5
    with pytest.raises(DoesNotFit, match=r"4\.00 GB of address space"):
        require_fit(need, Room(9 * GB, address_space=3 * GB), name="m", plan=plan)


@pytest.mark.parametrize(
    ("key", "value"), [("block_count", 2**31), ("embedding_length", 0), ("context_length", 0), ("block_count", 0)]
)
def test_absurd_sizes_are_corrupt(key: str, value: int, tmp_path: Path) -> None:
    from tests.formats.gguf_bytes import LLAMA, gguf, u32

    sizes = {"block_count": 1, "embedding_length": 64, "context_length": 128, key: value}
    path = tmp_path / "absurd.gguf"
    path.write_bytes(gguf([LLAMA, *(u32(f"llama.{name}", number) for name, number in sizes.items())]))
    with GGUFFile.open(path) as file, pytest.raises(CorruptFile, match="absurd"):
        Outline.of([file])
