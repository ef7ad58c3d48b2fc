"""Will it fit, and what would: verdicts, alternatives, choices under a cap, and headers read from afar."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from edgellm.errors import ContextTooLarge, CorruptFile, DoesNotFit, UnsupportedModel
from edgellm.formats.gguf_split import part_names
from edgellm.machine.memory import Room
from edgellm.models.fit.memory import RunPlan, estimate
from edgellm.models.fit.outline import Outline
from edgellm.models.fit.planned_outline import Dimensions, planned, read_checkpoint_outline
from edgellm.models.fit.remote_outline import offers, outline_of_plan, outline_of_recipe
from edgellm.models.fit.verdict import (
    choose_plan,
    default_context,
    judge,
    largest_context,
    read_header,
    read_outline,
    read_remote_outline,
    refuse_unless_fitting,
)
from edgellm.models.hub.client import Hub
from edgellm.models.pull import make_plan
from edgellm.models.recipe import Choice, HubSource, ModelShape, Recipe, load_recipes
from edgellm.settings import resource_directory
from tests.models.hub_server import HubServer
from tests.models.shapes import LLAMA_7B, SMALL_LLAMA, header_of, write_shape

GB = 10**9
PHI3 = Dimensions("phi3", "phi3", 32, 3072, 8192, 32, 32, 96, 32064, False, 131072)
SMALL = Dimensions("small", "llama", 16, 1024, 4096, 16, 8, 64, 32000, True, 8192)
CONFIG = b"""{"architectures": ["LlamaForCausalLM"], "model_type": "llama", "num_hidden_layers": 16,
 "hidden_size": 1024, "intermediate_size": 4096, "num_attention_heads": 16, "num_key_value_heads": 8,
 "vocab_size": 32000, "max_position_embeddings": 8192, "tie_word_embeddings": true}"""


@pytest.fixture
def phi3() -> Outline:
    return planned(PHI3, "Q4_K_M")


class Counted:
    """A header in front of so many bytes that are never there."""

    def __init__(self, header: bytes, size: int) -> None:
        self.header, self.size, self.n_read, self.n_requests = header, size, 0, 0

    def read(self, offset: int, length: int) -> bytes:
        self.n_requests += 1
        length = min(length, self.size - offset)
        data = self.header[offset : offset + length]
        data += bytes(length - len(data))
        self.n_read += len(data)
        return data


def test_phi3_at_128k_says_48_gib_and_offers_what_fits(phi3: Outline) -> None:
    fit = judge(phi3, RunPlan(131_072), Room(16 * GB), [planned(SMALL, "Q4_K_M")])
    assert not fit.fits and fit.need.kv_cache == 48 << 30 and fit.kv_bytes_per_token == 393_216
    quantized, shorter, other = fit.alternatives
    assert quantized.options == "--kv q8_0 -c 49152" and shorter.options == "-c 32768" and other.model == "small"
    for alternative in fit.alternatives:
        assert alternative.total <= 16 * GB
    with pytest.raises(DoesNotFit, match=r"phi3 needs 5\d\.\d\d GB at 131,072 tokens, but only 16\.00 GB") as caught:
        refuse_unless_fitting(fit)
    assert caught.value.hint.startswith("the same with --kv q8_0 -c 49152")
    assert "KV cache 51.54" in caught.value.why and caught.value.why.count("fits instead:") == 3


def test_what_is_offered_really_fits(phi3: Outline) -> None:
    for available in (3 * GB, 5 * GB, 9 * GB, 30 * GB):
        for plan in (RunPlan(131_072), RunPlan(4096, n_slots=8), RunPlan(65_536, kv_type="Q8_0")):
            for alternative in judge(phi3, plan, Room(available)).alternatives:
                words = alternative.options.split()
                options = dict(zip(words[::2], words[1::2], strict=True))
                changed = replace(
                    plan,
                    n_ctx=int(options.get("-c", plan.n_ctx)),
                    kv_type=options.get("--kv", plan.kv_type).upper(),
                    n_slots=int(options.get("--slots", plan.n_slots)),
                )
                assert estimate(phi3, changed).total == alternative.total <= available


def test_the_largest_context_is_the_largest(phi3: Outline) -> None:
    plan = RunPlan(4096)
    longest = largest_context(phi3, plan, Room(8 * GB))
    assert 8192 < longest < 16384
    assert estimate(phi3, replace(plan, n_ctx=longest)).total <= 8 * GB
    assert estimate(phi3, replace(plan, n_ctx=longest + 256)).total > 8 * GB
    assert largest_context(phi3, plan, Room(1000 * GB)) == 131_072
    assert largest_context(phi3, plan, Room(GB)) == 0


def test_nothing_fits_into_nothing(phi3: Outline) -> None:
    fit = judge(phi3, RunPlan(), Room(10**6), [planned(SMALL, "Q4_0")])
    assert fit.alternatives == () and fit.largest_context == 0
    with pytest.raises(DoesNotFit) as caught:
        refuse_unless_fitting(fit)
    assert caught.value.hint == "use a smaller model, or --force"


def test_under_a_cap_context_and_cache_are_chosen(phi3: Outline) -> None:
    def chosen(cap: int, n_ctx: int | None = None, kv_type: str | None = None) -> tuple[int, str]:
        plan = choose_plan(phi3, Room(100 * GB), n_ctx=n_ctx, kv_type=kv_type, n_threads=1, max_memory=cap)
        assert estimate(phi3, plan).total <= cap
        return plan.n_ctx, plan.kv_type

    assert chosen(8 * GB) == (4096, "F16")
    assert chosen(int(3.7 * GB)) == (4096, "Q8_0")
    assert chosen(int(2.75 * GB)) == (1024, "Q8_0")
    assert chosen(int(3.7 * GB), kv_type="f16") == (2048, "F16")
    assert chosen(int(3.7 * GB), n_ctx=4096) == (4096, "Q8_0")
    for impossible in ({"n_ctx": 131_072}, {"n_ctx": 4096, "kv_type": "f16"}):
        with pytest.raises(DoesNotFit):
            chosen(int(3.7 * GB), **impossible)  # type: ignore[arg-type]
    with pytest.raises(DoesNotFit):
        chosen(GB)


def test_a_default_context_is_the_largest_round_one_in_a_quarter_of_the_memory() -> None:
    small = planned(replace(SMALL, context=131_072), "Q4_K_M")  # 32 KiB of cache a token

    def chosen(available: int, n_slots: int = 1, **changes: object) -> int:
        return default_context(replace(small, **changes), RunPlan(n_slots=n_slots), Room(available))  # type: ignore[arg-type]

    assert chosen(16 * GB, n_ctx_train=32_768) == 32_768, "what it was trained with"
    assert chosen(16 * GB, n_ctx_train=2_048) == 2_048
    assert chosen(2 * GB) == chosen(2 * GB - 50_000_000) == 12_288, "the same from run to run"
    assert chosen(500_000_000) == 4_096 == chosen(1), "never less; whether that fits is another question"
    assert chosen(16 * GB, 4) == 24_576 and chosen(4 * GB, 4) == 6_144, "slots share the quarter"
    assert chosen(1000 * GB) == 49_152, "clearing more would take too long"
    assert chosen(16 * GB, n_ctx_original=8_192) == 8_192, "beyond, other rope factors change the answers"
    assert chosen(16 * GB, pooled=True) == 4_096
    for available in (GB // 2, GB, 3 * GB, 7 * GB):
        for n_slots in (1, 3, 8):
            n_ctx = chosen(available, n_slots)
            need = estimate(small, RunPlan(n_ctx, n_slots))
            assert n_ctx == 4096 or ((need.kv_cache + need.compute) * 4 <= available and need.fits(Room(available)))
            assert n_ctx % 256 == 0


def test_a_plan_without_a_context_is_by_default_of_that_size(phi3: Outline) -> None:
    plan = choose_plan(phi3, Room(32 * GB), n_ctx=None, kv_type="q8_0", n_threads=1)
    assert plan.n_ctx == default_context(phi3, plan, Room(32 * GB)) == 8_192
    with pytest.raises(DoesNotFit, match="at 4,096 tokens"):
        choose_plan(phi3, Room(2 * GB), n_ctx=None, kv_type=None, n_threads=1)


def test_without_a_cap_what_was_asked_for_is_kept_or_refused(phi3: Outline) -> None:
    plan = choose_plan(phi3, Room(10**9), n_ctx=8192, kv_type="q4_0", n_threads=3, force=True)
    assert plan == RunPlan(8192, kv_type="Q4_0", n_threads=3)
    with pytest.raises(DoesNotFit, match="with a q4_0 cache"):
        choose_plan(phi3, Room(10**9), n_ctx=8192, kv_type="q4_0", n_threads=3)
    with pytest.raises(ContextTooLarge):
        choose_plan(phi3, Room(10**12), n_ctx=131_073, kv_type=None, n_threads=1)


def test_force_does_not_help_against_the_address_space(phi3: Outline) -> None:
    with pytest.raises(DoesNotFit, match="address space"):
        choose_plan(phi3, Room(100 * GB, address_space=GB), n_ctx=None, kv_type=None, n_threads=1, force=True)


def test_heads_that_are_no_whole_blocks(phi3: Outline) -> None:
    odd = replace(phi3, head_size=80)
    assert judge(odd, RunPlan(), Room(100 * GB)).fits
    with pytest.raises(UnsupportedModel, match="q8_0"):
        judge(odd, RunPlan(kv_type="Q8_0"), Room(100 * GB))
    # and it is never offered, nor chosen
    assert all("q8_0" not in each.options for each in judge(odd, RunPlan(131_072), Room(16 * GB)).alternatives)


def test_the_header_of_a_large_file_costs_a_few_megabytes(vocabularies: Path) -> None:
    for vocabulary, least in (("ggml-vocab-phi-3.gguf", 1), ("ggml-vocab-llama-bpe.gguf", 7)):
        header, size = header_of(LLAMA_7B, "Q8_0", vocabularies / vocabulary)
        ranges = Counted(header, size)
        outline = read_remote_outline([("llama.gguf", ranges)])
        assert size > 7 * GB and outline.n_bytes == size and outline.quant == "Q8_0"
        assert ranges.n_read <= len(header) + (1 << 20) and ranges.n_read < (least + 2) * 10**6
        assert ranges.n_requests <= least + 2


def test_a_header_that_ends_too_soon(vocabularies: Path) -> None:
    header, size = header_of(SMALL_LLAMA, "Q8_0", vocabularies / "ggml-vocab-phi-3.gguf")

    class Short(Counted):
        def read(self, offset: int, length: int) -> bytes:
            return self.header[offset : min(offset + length, 1000)]

    with pytest.raises(CorruptFile, match=r"short\.gguf"):
        read_header(Short(header, size), "short.gguf")
    with pytest.raises(CorruptFile, match=r"cut\.gguf") as caught:
        read_header(Counted(header, len(header) // 2), "cut.gguf")
    assert "truncated" in caught.value.why
    with pytest.raises(CorruptFile, match="not a GGUF"):
        read_header(Counted(b"<html>", 6), "page.gguf")


def test_a_split_model_is_the_sum_of_its_parts(vocabularies: Path, tmp_path: Path) -> None:
    names = part_names("m-00001-of-00002.gguf")
    assert names == ["m-00001-of-00002.gguf", "m-00002-of-00002.gguf"]
    paths = [
        write_shape(tmp_path / name, SMALL_LLAMA, "Q4_0", vocabularies / "ggml-vocab-phi-3.gguf") for name in names
    ]
    one, both = read_outline(write_shape(tmp_path / "one.gguf", SMALL_LLAMA, "Q4_0", paths[0])), read_outline(paths[0])
    assert both.n_bytes == sum(path.stat().st_size for path in paths) and len(both.tensors) == 2 * len(one.tensors)
    with pytest.raises(CorruptFile, match="is a part"):
        read_outline(paths[1])


@pytest.mark.parametrize("name", ["m-00000-of-00002.gguf", "m-00001-of-00000.gguf", "m-00003-of-00002.gguf"])
def test_parts_that_cannot_be(name: str) -> None:
    with pytest.raises(CorruptFile):
        part_names(name)


def test_planned_files_are_as_large_as_published_ones() -> None:
    bitnet = Dimensions("bitnet", "bitnet", 30, 2560, 6912, 20, 5, 128, 128256, True, 4096)
    qwen = Dimensions("qwen", "qwen2", 28, 3584, 18944, 28, 4, 128, 152064, False, 32768)
    published = [(bitnet, "I2_S", 1.188), (PHI3, "Q4_K_M", 2.32), (qwen, "Q4_K_M", 4.68), (qwen, "Q8_0", 8.1)]
    for sizes, quant, gigabytes in published:
        assert planned(sizes, quant).n_bytes / GB == pytest.approx(gigabytes, rel=0.02), (sizes.name, quant)


def test_rows_that_are_no_whole_blocks_fall_back() -> None:
    narrow = replace(SMALL, embedding=896, heads=14)
    types = {info.name: info.type.name for info in planned(narrow, "Q4_K_M").tensors}
    assert types["blk.0.attn_q.weight"] == "Q8_0" and types["blk.0.ffn_down.weight"] == "Q4_K"


def test_a_checkpoint_is_estimated_from_its_configuration(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes(CONFIG)
    outline = read_checkpoint_outline(tmp_path)
    assert outline.quant == "F16" and outline.cache_row("F16") == 16 * 8 * 64 * 2 * 2
    assert outline.n_ctx_train == 8192
    qwen = b'{"model_type": "qwen", "num_hidden_layers": 32, "hidden_size": 4096, "intermediate_size": 22016,'
    qwen += b'"num_attention_heads": 32, "kv_channels": 128, "vocab_size": 151936, "seq_length": 8192}'
    sizes = Dimensions.of_config(qwen, name="qwen")
    assert (sizes.feed_forward, sizes.kv_heads, sizes.context, sizes.tied) == (11008, 32, 8192, False)


@pytest.mark.parametrize(
    "broken",
    [
        b"",
        b"[]",
        b"{}",
        CONFIG.replace(b"1024", b"-1"),
        CONFIG.replace(b"1024", b"1e9"),
        CONFIG.replace(b": 16,", b": 0,"),
        CONFIG.replace(b"8192", b"true"),
        CONFIG.replace(b'"num_hidden_layers": 16', b'"num_hidden_layers": 5000'),
    ],
)
def test_a_broken_configuration_is_one_error(broken: bytes) -> None:
    with pytest.raises(CorruptFile, match="broken"):
        Dimensions.of_config(broken, name="broken")


def recipe(name: str, *, chat: bool = True, quant: str = "Q4_K_M", shape: bool = True) -> Recipe:
    return Recipe(
        name=name, summary="", homepage="", licence="MIT", architecture="llama", quant=quant,
        languages=("en",), chat=chat,
        source=HubSource(kind="hub", repo=f"test/{name}"),
        shape=ModelShape(
            architecture="llama", layers=16, embedding=1024, feed_forward=4096, heads=16, kv_heads=8, head_size=64,
            vocabulary=32000, tied=True, context=8192,
        ) if shape else None,
    )  # fmt: skip


def test_all_experts_are_in_memory() -> None:
    """Maple: 20 billion parameters at two bits, of which a token uses one; not seen as a dense model of 1.8 billion."""
    outline = outline_of_recipe(load_recipes([resource_directory("recipes")])["maple"].choose())
    assert outline is not None
    need = estimate(outline, RunPlan(4096))
    assert 20.2e9 < outline.n_params < 20.3e9 and 5.89e9 < need.weights < 5.91e9
    dense = planned(Dimensions("dense", "llama", 24, 2048, 512, 16, 4, 128, 151_936, False, 32_768), "TQ2_0", "Q4_K")
    assert outline.n_params - dense.n_params == 24 * (255 * 3 * 2048 * 512 + 2048 * 256)


@pytest.mark.parametrize(
    "names", [("num_experts", "moe_intermediate_size"), ("num_local_experts", "intermediate_size")]
)
def test_a_checkpoint_with_experts_is_estimated_with_all_of_them(names: tuple[str, str]) -> None:
    config = {
        "num_hidden_layers": 4, "hidden_size": 1024, "intermediate_size": 768, "num_attention_heads": 8,
        "vocab_size": 32_000, "max_position_embeddings": 4096, "num_experts_per_tok": 8, names[0]: 128, names[1]: 512,
    }  # fmt: skip
    sizes = Dimensions.of_config(json.dumps(config).encode(), name="moe")
    assert (sizes.experts, sizes.experts_used, sizes.feed_forward) == (128, 8, 512)
    assert planned(sizes, "F16").n_params > 4 * 128 * 3 * 1024 * 512
    assert Dimensions.of_config(json.dumps(config | {names[0]: 1}).encode(), name="dense").experts == 0
    with pytest.raises(CorruptFile) as caught:
        Dimensions.of_config(json.dumps(config | {"num_experts": -3}).encode(), name="moe")
    assert caught.value.why == "num_experts is -3"


def test_recipes_are_offered_by_their_shapes() -> None:
    recipes = [recipe("a"), recipe("b", quant="Q8_0"), recipe("c", chat=False), recipe("d", shape=False), recipe("e")]
    assert [outline.name for outline in offers(recipes, instead_of="e")] == ["b", "a"]  # the larger one first
    fit = judge(planned(PHI3, "F16"), RunPlan(), Room(2 * GB), offers(recipes, instead_of="e"))
    assert [each.model for each in fit.alternatives] == ["b", "a"]
    with pytest.raises(DoesNotFit) as caught:
        refuse_unless_fitting(fit)
    assert caught.value.hint == "edgellm pull b, or --force"
    assert outline_of_recipe(recipe("d", shape=False).choose()) is None


def test_other_quantizations_come_before_other_models() -> None:
    many = recipe("many", quant="F16").model_copy(update={"quants": ("Q8_0", "Q6_K", "Q5_K_M", "Q4_0")})
    others = offers([recipe("a"), many], instead_of="many")
    assert [outline.name for outline in others] == ["many:Q8_0", "many:Q6_K", "many:Q5_K_M", "many:Q4_0", "a"]
    assert "many" in [outline.name for outline in offers([many], instead_of="many:Q8_0")]
    fit = judge(planned(PHI3, "F16"), RunPlan(), Room(2 * GB), others)
    assert [each.model for each in fit.alternatives] == ["many:Q8_0", "many:Q6_K", "a"]


def test_recipes_of_ours_can_be_estimated_offline() -> None:
    for name, ours in load_recipes([resource_directory("recipes")]).items():
        for label in ours.choices:
            outline = outline_of_recipe(ours.choose(label))
            assert outline is None or estimate(outline, RunPlan(256)).total > outline.n_bytes / 2, (name, label)
        if name in ("smollm2", "bitnet-2b", "phi-3-mini", "phi-3-mini-128k", "qwen2.5-7b", "qwen-7b-chat"):
            assert outline_of_recipe(ours.choose()) is not None, name


@pytest.fixture
def server() -> Iterator[HubServer]:
    with HubServer() as running:
        yield running


@pytest.fixture
def hub(server: HubServer, tmp_path: Path) -> Hub:
    return Hub(server.endpoint, tmp_path / "hub")


def test_the_hub_tells_by_ranges(hub: Hub, server: HubServer, vocabularies: Path, tmp_path: Path) -> None:
    path = write_shape(tmp_path / "m.gguf", LLAMA_SMALLER, "Q8_0", vocabularies / "ggml-vocab-phi-3.gguf")
    server.add("test/m-GGUF", {"m-Q8_0.gguf": path.read_bytes()})
    choice = Choice("m", HubSource(kind="hub", repo="test/m-GGUF"))
    outline = outline_of_plan(make_plan(choice, hub), hub)
    assert outline is not None and outline.tensors == read_outline(path).tensors
    assert outline.n_bytes == path.stat().st_size > 20 * 10**6
    assert not any((tmp_path / "hub").rglob("*.gguf"))


def test_a_checkpoint_on_the_hub_is_told_by_its_configuration(hub: Hub, server: HubServer) -> None:
    server.add("test/ckpt", {"config.json": CONFIG, "model.safetensors": b"0" * 100})
    choice = Choice("ckpt", HubSource(kind="hub", repo="test/ckpt"), "Q4_0")
    outline = outline_of_plan(make_plan(choice, hub), hub)
    assert outline is not None and outline.quant == "Q4_0" and outline.cache_row("F16") == 32768


LLAMA_SMALLER = replace(SMALL_LLAMA, n_layers=2)
