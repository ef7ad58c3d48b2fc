"""The engine of a wheel: the best variant that works on this CPU is installed, whole or not at all."""

import os
import platform
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from elftools.elf.elffile import ELFFile

from edgellm.engine.builds import prebuilt, trial
from edgellm.engine.builds.installed import InstalledEngine, find, obtain, require
from edgellm.engine.builds.patches import PatchStack
from edgellm.engine.builds.prebuilt import Packaged, packaged, unpack
from edgellm.engine.builds.variants import suitable, variants
from edgellm.errors import EngineError, EngineMissing
from edgellm.machine.cpu import detect
from edgellm.settings import Settings
from tests.packaging.sample import write_sample

pytestmark = [
    pytest.mark.engine,
    pytest.mark.skipif(not variants(platform.machine()), reason="no wheel is made for this architecture"),
]
ILLEGAL = {"x86_64": b"\x0f\x0b", "aarch64": b"\0\0\0\0"}
BASELINE = variants(platform.machine())[0] if variants(platform.machine()) else None


@pytest.fixture(scope="module")
def template(engine: InstalledEngine, stack: PatchStack, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel's directory with the engine of this machine in it, which is all variants at once."""
    directory = tmp_path_factory.mktemp("wheel") / "_engine"
    write_sample(directory, engine, stack)
    return directory


@pytest.fixture
def wheel(template: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(template, tmp_path / "_engine"))


def source(directory: Path, stack: PatchStack) -> Packaged:
    found = packaged(stack, platform.machine(), directory)
    assert found is not None
    return found


def with_illegal_instruction(library: Path) -> None:
    """Put an instruction that no CPU has at the beginning of the function that computes."""
    with library.open("r+b") as file:
        elf = ELFFile(file)
        (symbol,) = elf.get_section_by_name(".dynsym").get_symbol_by_name("ggml_graph_compute")
        (offset,) = elf.address_offsets(symbol["st_value"])
        file.seek(offset)
        file.write(ILLEGAL[platform.machine()])


def test_a_variant_that_crashes_or_does_not_load_gives_way_to_the_next(
    wheel: Path, settings: Settings, stack: PatchStack
) -> None:
    best, *lower = (each for each in suitable(detect()) if each != BASELINE)
    crashes = wheel / "lib" / prebuilt.variant_file(best.name)
    shutil.copy(wheel / "lib" / prebuilt.CPU_LIBRARY, crashes)
    with_illegal_instruction(crashes)
    if lower:
        (wheel / "lib" / prebuilt.variant_file(lower[0].name)).write_bytes(4096 * b"?")

    found = obtain(settings, stack, packages=wheel)

    assert found is not None and BASELINE is not None
    assert found.record.variant == BASELINE.name
    assert f"{best.name} failed: it was ended by SIGILL" in found.record.choice
    if lower:
        assert f"{lower[0].name} failed: " in found.record.choice and "invalid ELF" in found.record.choice
    assert found.record.cpu_model == detect().model
    assert find(settings, stack) == found
    assert [path.name for path in settings.engines.iterdir() if path.suffix in (".part", ".old")] == []


def test_the_best_variant_is_taken_and_stays_until_there_is_another_wheel(
    wheel: Path, settings: Settings, stack: PatchStack
) -> None:
    best = suitable(detect())[0]
    if best != BASELINE:
        shutil.copy(wheel / "lib" / prebuilt.CPU_LIBRARY, wheel / "lib" / prebuilt.variant_file(best.name))
    first = obtain(settings, stack, packages=wheel)
    assert first is not None
    assert first.record.variant == best.name and first.record.choice == "the best one for this CPU"
    before = (first.libraries / prebuilt.CPU_LIBRARY).stat().st_ino
    # A damaged library would fail its trial: there is none as long as the wheel is the same.
    (wheel / "lib" / prebuilt.variant_file(best.name)).write_bytes(4096 * b"?")
    again = obtain(settings, stack, packages=wheel)
    assert again == first and (first.libraries / prebuilt.CPU_LIBRARY).stat().st_ino == before
    shutil.rmtree(wheel)
    assert require(settings, stack) == first, "an engine outlives the wheel it came from"


def test_an_engine_that_computes_something_else_is_refused_and_leaves_nothing(
    wheel: Path, settings: Settings, stack: PatchStack
) -> None:
    truth = np.load(wheel / prebuilt.TRIAL_LOGITS)
    np.save(wheel / prebuilt.TRIAL_LOGITS, truth[:, ::-1])
    with pytest.raises(EngineError) as caught:
        obtain(settings, stack, packages=wheel)
    assert "the tiny model's logits are wrong" in caught.value.why
    assert caught.value.hint == "edgellm engine build"
    assert not [path for path in settings.engines.iterdir() if path.is_dir()]


def test_an_engine_that_was_built_here_is_preferred(wheel: Path, with_engine: Settings, stack: PatchStack) -> None:
    found = obtain(with_engine, stack, packages=wheel)
    assert found is not None and not found.record.variant


@pytest.mark.parametrize("record", ["", "[]", "{}", '{"stamp": 1}', "\x00"])
def test_a_damaged_record_is_no_engine(record: str, wheel: Path, settings: Settings, stack: PatchStack) -> None:
    (wheel / prebuilt.RECORD).write_text(record)
    assert packaged(stack, platform.machine(), wheel) is None
    with pytest.raises(EngineMissing):
        require(settings, stack)


def test_another_stack_or_architecture_is_no_engine(wheel: Path, stack: PatchStack, tmp_path: Path) -> None:
    other = Path(shutil.copytree(stack.directory, tmp_path / "patches"))
    (other / "native" / "stamp.cpp").write_text("// other\n")
    assert packaged(replace(stack, directory=other), platform.machine(), wheel) is None
    assert packaged(stack, "riscv64", wheel) is None
    assert packaged(stack, platform.machine(), tmp_path / "nowhere") is None


def test_two_at_once_unpack_once(wheel: Path, settings: Settings, stack: PatchStack) -> None:
    target = settings.engines / "one"
    unpack(source(wheel, stack), target)
    inode = target.stat().st_ino
    unpack(source(wheel, stack), target)
    assert target.stat().st_ino == inode


def test_a_product_is_close_only_where_every_value_is(engine: InstalledEngine) -> None:
    truth = np.random.default_rng(0).standard_normal((4, 96), np.float32)
    assert trial.close(truth + np.float32(0.01), truth)
    for wrong in (0.5, np.nan, np.inf):
        found = truth.copy()
        found[2, 50] += np.float32(wrong)
        assert not trial.close(found, truth)


def test_the_products_of_this_engine_are_right_and_every_kind_is_tried(engine: InstalledEngine) -> None:
    assert trial.wrong_product(engine.libraries) == ""
    products, codec = trial.Products(engine.libraries), trial.Quantizer(engine.libraries, 1)
    tried = {
        name
        for name, place in products.places()
        for kind in map(trial.named_type, trial.KINDS)
        if products.product(place, kind, trial.weights_of(kind, codec)[0], np.ones((1, trial.COLUMNS), np.float32))
        is not None
    }
    assert {"CPU", "CPU_TERNARY"} <= tried


def test_of_former_wheels_only_the_last_engine_stays(wheel: Path, settings: Settings, stack: PatchStack) -> None:
    key = detect().key
    names = [f"0.1-aaaaaaaaaaaa-{key}-wheel", f"0.2-bbbbbbbbbbbb-{key}-wheel", f"0.3-cccccccccccc-{key}-wheel"]
    others = [f"0.1-aaaaaaaaaaaa-{key}", "0.1-aaaaaaaaaaaa-x86_64-other0-wheel"]  # compiled here; of another CPU
    for age, name in enumerate([*names, *others]):
        (settings.engines / name / "lib").mkdir(parents=True)
        (settings.engines / f".{name}.lock").touch()
        os.utime(settings.engines / name, (1000 + age, 1000 + age))
    engine = obtain(settings, stack, packages=wheel)
    assert engine is not None
    left = {path.name for path in settings.engines.iterdir() if path.is_dir()}
    assert left == {engine.directory.name, names[-1], *others}
    assert not (settings.engines / f".{names[0]}.lock").exists()
