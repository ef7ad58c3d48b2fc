"""Directories from the environment are the same places from every working directory."""

from pathlib import Path

import pytest

from edgellm.settings import Settings


@pytest.mark.parametrize(
    ("value", "place"),
    [("/srv/edge", "/srv/edge"), ("edge", "{home}/edge"), ("./a/../edge", "{home}/a/../edge"),
     ("~/edge", "{home}/edge"), ("$PLACE/edge", "/mnt/edge"), ("${PLACE}", "/mnt")],
)  # fmt: skip
def test_places(value: str, place: str, isolated_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = Path(place.format(home=isolated_home))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PLACE", "/mnt")
    monkeypatch.setenv("EDGELLM_HOME", value)
    assert Settings.from_environment().data == expected / "data"
    monkeypatch.delenv("EDGELLM_HOME")
    monkeypatch.setenv("XDG_DATA_HOME", value)
    assert not Settings.from_environment().data.is_relative_to(tmp_path)  # relative ones do not count there
