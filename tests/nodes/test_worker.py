"""A node's worker with the real engine: it finds or takes the model, answers rows, and refuses what it cannot do."""

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edgellm.batch.slots import LocalSlots, RowJob
from edgellm.engine.sampling import Sampling
from edgellm.errors import PromptTooLong
from edgellm.machine.child import Message
from edgellm.models.hub.client import Hub
from edgellm.nodes import pool as pool_module
from edgellm.nodes.messages import job_message, packed, result_from, unpacked
from edgellm.nodes.model_spec import ModelSpec
from edgellm.nodes.pool import NodePool
from edgellm.nodes.worker import NodeWorker
from edgellm.run.loader import LoadOptions
from edgellm.settings import Settings
from edgellm.workspace import LocalModel, Workspace, workspace
from tests.engine.tiny_models import write_bitnet
from tests.models.hub_server import HubServer
from tests.nodes.threads import ThreadCluster, run

pytestmark = [pytest.mark.engine]
GREEDY = Sampling(temperature=0)


@pytest.fixture
def tiny(with_engine: Settings, tmp_path: Path, vocabularies: Path) -> LocalModel:
    path = write_bitnet(tmp_path / "tiny.gguf", vocabularies)
    return LocalModel(str(path), path)


@pytest.fixture
def spec(tiny: LocalModel) -> ModelSpec:
    return ModelSpec.of(workspace(), tiny, LoadOptions(n_ctx=256, n_slots=2, n_threads=1))


def jobs(n: int) -> list[RowJob]:
    return [RowJob(key, prompt=f"Row {key} begins", sampling=GREEDY, max_tokens=8) for key in range(n)]


def opened(spec: ModelSpec) -> tuple[NodeWorker, Message]:
    worker = NodeWorker(1.0)
    return worker, unpacked(worker.open(packed(spec.as_message())))


def test_the_answers_are_those_of_slots_here(tiny: LocalModel, spec: ModelSpec) -> None:
    from edgellm.api import OpenModel

    with OpenModel(workspace(), tiny, spec.options) as model, LocalSlots(model) as slots:
        expected = {}
        waiting = jobs(5)
        while waiting or slots.busy:
            while waiting and slots.has_room:
                slots.admit(waiting.pop(0))
            expected |= {result.key: result.text for result in slots.step()}
    worker, message = opened(spec)
    assert (message["slots"], message["n_ctx"]) == (2, 256)
    with ThreadPoolExecutor(5) as threads:
        answers = [unpacked(each) for each in threads.map(worker.answer, [packed(job_message(j)) for j in jobs(5)])]
    assert {each["result"]["key"]: each["result"]["text"] for each in answers} == expected
    too_long = result_from(unpacked(worker.answer(packed(job_message(RowJob(9, prompt="x " * 999)))))["result"])
    assert isinstance(too_long.error, PromptTooLong)
    worker.close()
    assert "error" in unpacked(worker.answer(packed(job_message(jobs(1)[0]))))


def test_a_spec_survives_the_way_and_knows_the_recipe(spec: ModelSpec) -> None:
    recipe = workspace().choice("smollm2").recipe
    with_recipe = replace(spec, recipe=recipe)
    assert ModelSpec.from_message(json.loads(packed(with_recipe.as_message()))) == with_recipe


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"version": "0.0.1"}, "is not the driver's 0.0.1"),
        ({"stamp": "other"}, "other"),
        ({"load": {"n_ctx": 200_000, "n_slots": 1}}, "200,000 tokens"),
    ],
)
def test_a_node_that_would_answer_otherwise_takes_no_part(spec: ModelSpec, changes: Any, words: str) -> None:
    _, message = opened(replace(spec, **changes))
    assert words in json.dumps(message["error"])


def test_a_node_without_an_engine_says_so(spec: ModelSpec, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("EDGELLM_HOME", str(tmp_path / "bare"))
    _, message = opened(spec)
    assert message["error"]["code"] == "engine-missing" and message["error"]["try"]


class Elsewhere(NodeWorker):
    """A worker on a machine that does not have the driver's files."""

    def open(self, message: bytes) -> bytes:
        spec = unpacked(message)
        for part in spec["parts"]:
            part["path"] = f"/nowhere/{Path(part['path']).name}"
        return super().open(packed(spec))


def rest(messages: list[Message]) -> list[int]:
    return [each["result"]["key"] for each in messages if "result" in each]


@pytest.fixture
def elsewhere(spec: ModelSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """The home of another machine, with an engine and without models; nothing comes from the network."""
    engines = Settings.from_environment().engines
    monkeypatch.setenv("EDGELLM_HOME", str(tmp_path / "elsewhere"))
    monkeypatch.setenv("EDGELLM_OFFLINE", "1")
    found = Settings.from_environment()
    found.data.mkdir(parents=True)
    found.engines.symlink_to(engines)
    monkeypatch.setattr(pool_module, "CHUNK", 100_000)
    return found


def test_a_node_without_the_model_gets_a_copy_and_keeps_it(spec: ModelSpec, elsewhere: Settings) -> None:
    for n_copies in (1, 0):
        pool = NodePool(ThreadCluster("n1", make=lambda _: Elsewhere(1.0)), spec)
        for job in jobs(3):
            pool.admit(job)
        messages = run(pool, lambda messages: len(rest(messages)) == 3)
        assert sum("gets a copy" in each.get("note", "") for each in messages) == n_copies
    (model,) = workspace().store.list()
    assert model.name == "tiny" and model.sha256 == spec.parts[0].sha256
    assert not [*elsewhere.models.glob("*.part")]


def test_a_file_that_changes_while_it_is_copied_is_refused(spec: ModelSpec, elsewhere: Settings) -> None:
    path = Path(spec.parts[0].path)
    path.write_bytes(path.read_bytes()[:-1] + b"\x5a")
    pool = NodePool(ThreadCluster("n1", make=lambda _: Elsewhere(1.0)), spec)
    with pytest.raises(Exception, match="not the expected file"):
        run(pool, lambda _: False)
    assert not workspace().store.list() and not [*elsewhere.models.glob("*.part")]


def test_an_installed_file_that_was_changed_is_not_used(spec: ModelSpec, elsewhere: Settings) -> None:
    pool = NodePool(ThreadCluster("n1", make=lambda _: Elsewhere(1.0)), spec)
    pool.admit(jobs(1)[0])
    run(pool, lambda messages: len(rest(messages)) == 1)
    (model,) = workspace().store.list()
    data = bytearray(model.path.read_bytes())
    data[-1] ^= 1
    model.path.write_bytes(data)
    assert opened_elsewhere(spec)["copy"] is True


def opened_elsewhere(spec: ModelSpec) -> Message:
    return unpacked(Elsewhere(1.0).open(packed(spec.as_message())))


def test_a_node_pulls_the_model_only_if_the_hub_has_the_same_file(
    spec: ModelSpec, elsewhere: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("EDGELLM_OFFLINE")
    content = Path(spec.parts[0].path).read_bytes()
    with HubServer() as server:
        server.add("user/other-GGUF", {"tiny.gguf": content[:-1] + b"\x5a"})
        server.add("user/tiny-GGUF", {"tiny.gguf": content})
        monkeypatch.setattr(Workspace, "hub", Hub(server.endpoint, tmp_path / "hub"))
        for name, source, n_copies in (("user/other-GGUF", "copied", 1), ("user/tiny-GGUF", "hf://", 0)):
            pool = NodePool(ThreadCluster("n1", make=lambda _: Elsewhere(1.0)), replace(spec, name=name))
            pool.admit(jobs(1)[0])
            messages = run(pool, lambda messages: len(rest(messages)) == 1)
            assert sum("gets a copy" in each.get("note", "") for each in messages) == n_copies
            (model,) = workspace().store.list()
            assert model.sha256 == spec.parts[0].sha256 and model.source.startswith(source)
            workspace().store.forget(model)
