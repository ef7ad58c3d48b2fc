"""Energy, read from files in the kernel's layout: packages, their zones, and everything that may go wrong."""

from pathlib import Path

import pytest

from edgellm.machine.energy import EnergyMeter

RANGE = 262_143_328_850


def zone(root: Path, place: str, name: str, energy: object, most: object = RANGE) -> Path:
    """Write a zone; in the real tree all zones are links in one directory."""
    path = root / place
    path.mkdir(parents=True, exist_ok=True)
    for file, text in (("name", name), ("energy_uj", energy), ("max_energy_range_uj", most)):
        (path / file).write_text(f"{text}\n")
    return path / "energy_uj"


def test_packages_count_once_and_together(tmp_path: Path) -> None:
    first = zone(tmp_path, "intel-rapl:0", "package-0", 5_000_000)
    second = zone(tmp_path, "intel-rapl:1", "package-1-die-0", 7_000_000)
    others = [
        zone(tmp_path, "intel-rapl:0:0", "core", 1),
        zone(tmp_path, "intel-rapl:0:1", "dram", 1),
        zone(tmp_path, "intel-rapl:2", "psys", 1),  # the whole platform, which includes the packages
        zone(tmp_path, "intel-rapl-mmio:0", "package-0", 1),  # the first package again
    ]
    (tmp_path / "intel-rapl").mkdir()
    (tmp_path / "dtpm").mkdir()
    meter = EnergyMeter(tmp_path)
    assert meter.joules() == 0
    first.write_text("6500000\n")
    for other in others:
        other.write_text("999000000\n")
    assert meter.joules() == pytest.approx(1.5)
    second.write_text("7250000\n")
    assert meter.joules() == meter.joules() == pytest.approx(1.75)


def test_a_counter_begins_anew(tmp_path: Path) -> None:
    now = 0.0
    counter = zone(tmp_path, "intel-rapl:0", "package-0", RANGE - 1_000_000)
    meter = EnergyMeter(tmp_path, clock=lambda: now)
    counter.write_text("2000000")
    assert meter.joules() == pytest.approx(3.0)
    # It wraps around twice before `joules`: a tick in between notices, but one too soon after a read does nothing.
    counter.write_text(str(RANGE - 1_000_000))
    meter.tick()
    now = 5.0
    meter.tick()
    counter.write_text("1000000")
    now = 5.5
    meter.tick()
    counter.write_text("2000000")
    assert meter.joules() == pytest.approx(3.0 + (RANGE - 3_000_000 + 3_000_000) / 1e6)


@pytest.mark.parametrize("text", ["", "nonsense", "-5", "1e9", "٣", "9" * 25, "1\n2"])
def test_what_is_no_number_is_not_known(tmp_path: Path, text: str) -> None:
    counter = zone(tmp_path, "intel-rapl:0", "package-0", text)
    assert EnergyMeter(tmp_path).joules() is None
    counter.write_text("1000")
    meter = EnergyMeter(tmp_path)
    assert meter.joules() == 0
    counter.write_text(text)
    assert meter.joules() is None
    counter.write_text("2000")
    assert meter.joules() is None  # the energy used in between is lost


@pytest.mark.parametrize("most", ["", "nonsense", "0", "500"])
def test_a_counter_that_falls_without_a_range_is_not_known(tmp_path: Path, most: str) -> None:
    counter = zone(tmp_path, "intel-rapl:0", "package-0", 1000, most)
    meter = EnergyMeter(tmp_path)
    counter.write_text("900")
    assert meter.joules() is None


def test_files_that_vanish_or_cannot_be_read(tmp_path: Path) -> None:
    assert EnergyMeter(tmp_path / "nosuch").joules() is None
    assert EnergyMeter(tmp_path).joules() is None
    first = zone(tmp_path, "intel-rapl:0", "package-0", 1000)
    second = zone(tmp_path, "intel-rapl:1", "package-1", 1000)
    meter = EnergyMeter(tmp_path)
    first.write_text("3000")
    assert meter.joules() == pytest.approx(0.002)
    second.unlink()
    meter.tick()
    assert meter.joules() is None  # half of the energy is not an answer
    assert EnergyMeter(tmp_path).joules() is None
    second.mkdir()
    assert EnergyMeter(tmp_path).joules() is None
    (tmp_path / "intel-rapl:1" / "name").unlink()
    assert EnergyMeter(tmp_path).joules() is None


def test_this_machine_says_something_or_nothing() -> None:
    joules = EnergyMeter().joules()
    assert joules is None or joules >= 0
