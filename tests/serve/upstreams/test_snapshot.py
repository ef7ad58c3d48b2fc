"""What upstreams say of themselves, hostile ones among them."""

import json

import pytest

from edgellm.errors import EdgellmError
from edgellm.serve.upstreams.snapshot import LARGEST, MOST_MODELS, Snapshot
from tests.serve.upstreams.scripted import MODEL, status


@pytest.mark.parametrize("data", [None, [], 7, "x", {}, {"models": 7}])
def test_what_is_no_status_is_refused(data: object) -> None:
    with pytest.raises(EdgellmError, match="no server"):
        Snapshot.read(data)


def test_names_with_documents_are_found() -> None:
    snapshot = Snapshot.read(status(documents=["manuals"]))
    assert snapshot.has("smollm2") and snapshot.has("smollm2@manuals") and not snapshot.has("smollm2@other")
    model = snapshot.model("smollm2@manuals")
    assert model is not None and model.n_slots == 2


def test_values_of_wrong_types_and_sizes_become_harmless() -> None:
    wrong = {
        **MODEL, "n_slots": "many", "n_ctx": 10**400, "in_flight": -5, "prefill_rate": float("nan"), "pid": [1],
        "quant": "x" * 10_000, "answers_plainly": "yes", "decode_rate": float("inf"), "n_threads": True,
    }  # fmt: skip
    snapshot = Snapshot.read(status(models=[wrong, None, 7, {"name": 3}, {"name": "y" * 999}], started="then", pid=-1))
    assert list(snapshot.models) == ["smollm2"] and snapshot.started == 0 and snapshot.pid == 0
    model = snapshot.models["smollm2"]
    assert (model.n_slots, model.n_ctx, model.in_flight, model.prefill_rate) == (0, LARGEST, 0, None)
    assert (model.pid, model.quant, model.answers_plainly, model.n_threads) == (None, "", False, 0)


def test_lists_are_cut() -> None:
    models = [{**MODEL, "name": f"m{n}"} for n in range(5000)]
    snapshot = Snapshot.read(json.loads(json.dumps(status(models=models, fronts=["a", 7, "b" * 999]))))
    assert len(snapshot.models) == MOST_MODELS and snapshot.fronts == {"a"}
