"""Which machine holds what: every layer once, in order, each machine within its memory, and an honest refusal."""

from pathlib import Path

import pytest

from edgellm.engine.rpc.address import Address
from edgellm.engine.rpc.hello import WorkerFacts
from edgellm.engine.rpc.split import Split
from edgellm.errors import ContextTooLarge, DoesNotFit, UnsupportedModel, UsageError
from edgellm.machine.memory import Room
from edgellm.models.fit.memory import RunPlan
from edgellm.models.fit.outline import Outline
from edgellm.models.fit.split_plan import split_plan
from edgellm.models.fit.verdict import read_outline
from tests.models.shapes import SMALL_LLAMA, write_shape

pytestmark = pytest.mark.engine

GB = 10**9
N_LAYERS = SMALL_LLAMA.n_layers


@pytest.fixture(scope="module")
def outline(tmp_path_factory: pytest.TempPathFactory, vocabularies: Path) -> Outline:
    path = tmp_path_factory.mktemp("split") / "small.gguf"
    return read_outline(write_shape(path, SMALL_LLAMA, "Q4_K", vocabularies / "ggml-vocab-llama-bpe.gguf"))


def workers(*available: int) -> list[WorkerFacts]:
    return [
        WorkerFacts(Address(f"w{number}", 7531), "1", "s", 2, each) for number, each in enumerate(available, start=1)
    ]


def planned(outline: Outline, here: int, *there: int, **how: object) -> tuple[RunPlan, Split]:
    options = {"n_ctx": 512, "kv_type": None, "n_threads": 1} | how
    return split_plan(outline, Room(here), workers(*there), **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("there", [(8 * GB,), (8 * GB, 8 * GB), (GB, 8 * GB, 2 * GB)])
def test_every_layer_is_somewhere_and_every_machine_has_room(outline: Outline, there: tuple[int, ...]) -> None:
    _, split = planned(outline, 8 * GB, *there)
    assert split.n_here + split.n_away == N_LAYERS
    assert split.n_here > 0 and len(split.workers) == len(there)
    assert split.total <= split.available
    assert all(0 < share.total <= share.available for share in split.workers)


def test_equal_machines_hold_equal_parts(outline: Outline) -> None:
    _, split = planned(outline, 8 * GB, 8 * GB)
    assert abs(split.n_here - split.workers[0].n_layers) <= 1


def test_the_larger_machine_holds_more(outline: Outline) -> None:
    _, split = planned(outline, 2 * GB, 2 * GB, 16 * GB)
    assert split.workers[1].n_layers > split.workers[0].n_layers >= 1


def test_a_worker_without_room_is_left_out(outline: Outline) -> None:
    _, split = planned(outline, 8 * GB, 1_000_000, 8 * GB)
    assert [str(share.address) for share in split.workers] == ["w2:7531"]


@pytest.mark.parametrize("n_here", [0, 1, N_LAYERS])
def test_who_asks_for_layers_here_gets_them(outline: Outline, n_here: int) -> None:
    _, split = planned(outline, 8 * GB, 8 * GB, n_here=n_here)
    assert (split.n_here, split.n_away) == (n_here, N_LAYERS - n_here)


def test_portions_put_each_layer_where_the_plan_says(outline: Outline) -> None:
    """As the engine does it: a layer's number, divided by those that are away and the head, among sums of portions."""
    _, split = planned(outline, 4 * GB, 8 * GB, 2 * GB, 5 * GB)
    portions, n_offloaded = split.portions, split.n_away + 1
    sums = [sum(portions[: number + 1]) / sum(portions) for number in range(len(portions))]
    found = [next(i for i, each in enumerate(sums) if each > layer / n_offloaded) for layer in range(split.n_away)]
    assert found == [number for number, share in enumerate(split.workers) for _ in range(share.n_layers)]


def test_what_fits_nowhere_is_refused_with_the_numbers(outline: Outline) -> None:
    with pytest.raises(DoesNotFit) as refused:
        planned(outline, 200_000_000, 100_000_000)
    assert "0.20 GB here, 0.10 GB on w1:7531" in refused.value.why
    assert refused.value.facts["available"] == 300_000_000
    _, split = planned(outline, 200_000_000, 100_000_000, force=True)
    assert split.n_here + split.n_away == N_LAYERS


def test_a_cap_holds_for_this_machine(outline: Outline) -> None:
    _, wide = planned(outline, 8 * GB, 8 * GB)
    cap = wide.total - 1
    _, split = planned(outline, 8 * GB, 8 * GB, max_memory=cap)
    assert split.total <= cap and split.n_here < wide.n_here
    with pytest.raises(DoesNotFit, match="2 machines"):  # not even embedding and head
        planned(outline, 8 * GB, 8 * GB, max_memory=wide.total // 2)


def test_what_cannot_be_split_is_refused(outline: Outline, minilm: Path) -> None:
    with pytest.raises(UsageError, match="layers"):
        planned(outline, 8 * GB, 8 * GB, n_here=N_LAYERS + 1)
    with pytest.raises(ContextTooLarge):
        planned(outline, 8 * GB, 8 * GB, n_ctx=1 << 30)
    with pytest.raises(UnsupportedModel, match="not split"):
        planned(read_outline(minilm), 8 * GB, 8 * GB)
