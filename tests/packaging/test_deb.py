"""The Debian package: its manual page, its units and scripts, and that it is packed as dpkg wants it."""

import re
import shlex
import shutil
import subprocess
from configparser import ConfigParser
from pathlib import Path

import pytest

from edgellm.cli import VERBS
from edgellm.exit_codes import ExitCode
from edgellm.settings import VARIABLES
from edgellm.version import __version__
from tests.commands.test_hints import parse
from tests.packaging.deb import SOURCES, SUITES, pack
from tests.packaging.manual import manual

WHEEL = Path("edgellm-1.0-py3-none-manylinux_2_35_x86_64.whl")


def unit(name: str) -> ConfigParser:
    found = ConfigParser(interpolation=None)
    found.optionxform = str  # type: ignore[assignment, method-assign]
    found.read(SOURCES / name)
    return found


def test_the_manual_page_names_every_verb_exit_code_and_variable() -> None:
    page = manual("1.0")
    terms = set(re.findall(r"^\\fB(.*)\\fR$", page.replace(r"\-", "-"), re.MULTILINE))
    assert {name for name, verb in VERBS.items() if not getattr(verb, "verbs", None) and not verb.hidden} <= terms
    assert {str(code.value) for code in ExitCode} | set(VARIABLES) <= terms
    assert "](" not in page and "`" not in page


@pytest.mark.skipif(shutil.which("groff") is None, reason="there is no groff")
def test_the_manual_page_is_formatted_without_warnings() -> None:
    command = ["groff", "-man", "-Tutf8", "-ww"]
    result = subprocess.run(command, input=manual("1.0").encode(), capture_output=True, check=True)
    assert result.stderr == b"" and b"Answer one prompt." in result.stdout


def test_the_socket_is_this_machines_and_the_service_runs_as_a_user_of_its_own() -> None:
    assert unit("edgellm.socket")["Socket"]["ListenStream"] == "127.0.0.1:11435"
    service = unit("edgellm.service")
    assert service["Unit"]["Requires"] == "edgellm.socket" and service["Service"]["User"] == "edgellm"
    program, *words = shlex.split(service["Service"]["ExecStart"])
    assert program == "/usr/bin/edgellm"
    parse(shlex.join(words).replace("'$MODELS'", "smollm2"))


@pytest.mark.parametrize("name", ["postinst", "prerm", "postrm"])
def test_scripts_are_sound(name: str) -> None:
    subprocess.run(["sh", "-n", SOURCES / name], check=True)


@pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="there is no dpkg-deb")
def test_a_package_is_packed(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "etc/default").mkdir(parents=True)
    (tree / "etc/default/edgellm").write_text("MODELS=smollm2\n")
    (tree / "usr/bin").mkdir(parents=True)
    (tree / "usr/bin/edgellm").symlink_to("/opt/edgellm/bin/edgellm")
    deb = pack(tree, WHEEL, "bookworm", tmp_path)
    assert deb.name == f"edgellm_{__version__}+bookworm_amd64.deb"

    def dpkg(*arguments: str) -> str:
        return subprocess.check_output(["dpkg-deb", *arguments], text=True)

    fields = dict(re.findall(r"^(\S+): (.*)$", dpkg("--field", str(deb)), re.MULTILINE))
    assert fields["Architecture"] == "amd64"
    assert "python3 (>= 3.11), python3 (<< 3.12), libc6 (>= 2.35)" in fields["Depends"]
    listed = dpkg("--contents", str(deb))
    assert all("root/root" in line for line in listed.splitlines())
    assert "./usr/bin/edgellm -> /opt/edgellm/bin/edgellm" in listed
    dpkg("--control", str(deb), str(tmp_path / "control"))
    assert (tmp_path / "control/conffiles").read_text() == "/etc/default/edgellm\n"
    assert "etc/default/edgellm" in (tmp_path / "control/md5sums").read_text()
    assert all((tmp_path / "control" / name).stat().st_mode & 0o111 for name in ("postinst", "prerm", "postrm"))


def test_a_pure_wheel_makes_no_package(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="make wheel"):
        pack(tmp_path, Path("edgellm-1.0-py3-none-any.whl"), "bookworm", tmp_path)
    assert set(SUITES) == {"bookworm", "trixie", "jammy", "noble"}
