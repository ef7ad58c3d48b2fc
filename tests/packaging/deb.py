"""Makes a Debian package of a wheel: its environment under /opt/edgellm, a service behind a socket, a manual page.

    python -m tests.packaging.deb dist/edgellm-*_x86_64.whl --suite bookworm [--directory dist]

The environment has every dependency in it, for the one Python of that release of Debian or Ubuntu, which runs it. pip
fetches them as wheels for that Python, so any machine can make the package; nothing of them is compiled.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from typer._completion_shared import get_completion_script

from edgellm.version import __version__
from tests.packaging.clean_system import ARCHITECTURES
from tests.packaging.manual import manual

ROOT = Path(__file__).parent.parent.parent
SOURCES = Path(__file__).parent / "debian"
HOME = "opt/edgellm"
COMPLETIONS = {
    "bash": "usr/share/bash-completion/completions/edgellm",
    "fish": "usr/share/fish/vendor_completions.d/edgellm.fish",
    "zsh": "usr/share/zsh/vendor-completions/_edgellm",
}
PROGRAM = """\
#!/opt/edgellm/bin/python
import sys
from edgellm.__main__ import main

sys.exit(main())
"""


@dataclass(frozen=True, slots=True)
class Suite:
    """A release of Debian or Ubuntu: the minor version of its Python 3 and of its glibc 2."""

    python: int
    glibc: int


SUITES = {"bookworm": Suite(11, 36), "trixie": Suite(13, 41), "jammy": Suite(10, 35), "noble": Suite(12, 39)}


def main() -> None:
    """Write the package, and print its name and size."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("wheel", type=Path)
    parser.add_argument("--suite", default="bookworm", choices=SUITES)
    parser.add_argument("--directory", type=Path, default=ROOT / "dist")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        tree = Path(scratch, "edgellm")
        fill(tree, asked.wheel, SUITES[asked.suite])
        deb = pack(tree, asked.wheel, asked.suite, asked.directory)
    sys.stdout.write(f"{deb}: {deb.stat().st_size / 1e6:.1f} MB\n")


def fill(tree: Path, wheel: Path, suite: Suite) -> None:
    """Write everything that the package installs."""
    environment(tree / HOME, wheel, suite)
    (tree / "usr/bin").mkdir(parents=True)
    (tree / "usr/bin/edgellm").symlink_to(f"/{HOME}/bin/edgellm")
    for name in ("edgellm.service", "edgellm.socket"):
        _write(tree / "usr/lib/systemd/system" / name, (SOURCES / name).read_bytes())
    _write(tree / "etc/default/edgellm", (SOURCES / "edgellm.default").read_bytes(), mode=0o640)
    for shell, path in COMPLETIONS.items():
        script = get_completion_script(prog_name="edgellm", complete_var="_EDGELLM_COMPLETE", shell=shell)
        _write(tree / path, f"{script}\n".encode())
    _write(tree / "usr/share/man/man1/edgellm.1.gz", gzip.compress(manual(__version__).encode(), mtime=0))
    shutil.copytree(ROOT / "docs", tree / "usr/share/doc/edgellm/docs")
    _write(tree / "usr/share/doc/edgellm/copyright", (ROOT / "LICENSE").read_bytes())
    _write(tree / "usr/share/doc/edgellm/changelog.gz", gzip.compress((ROOT / "CHANGELOG.md").read_bytes(), mtime=0))


def environment(home: Path, wheel: Path, suite: Suite) -> None:
    """Write a virtual environment over the Python of the suite, which need not be here."""
    site = home / f"lib/python3.{suite.python}/site-packages"
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "--no-compile",
        "--no-warn-conflicts",
    ]
    command += ["--only-binary=:all:", "--python-version", f"3.{suite.python}", "--implementation", "cp"]
    for abi in (f"cp3{suite.python}", "abi3", "none"):
        command += ["--abi", abi]
    machine = machine_of(wheel)
    for minor in range(suite.glibc, 4, -1):
        command += ["--platform", f"manylinux_2_{minor}_{machine}"]
    for old in ("manylinux2014", "manylinux2010", "manylinux1"):
        command += ["--platform", f"{old}_{machine}"]
    # pip itself is there too: with it, edgellm fetches models and sources that are packages.
    subprocess.run([*command, "--target", str(site), str(wheel), "pip"], check=True)
    shutil.rmtree(site / "bin", ignore_errors=True)
    python = f"/usr/bin/python3.{suite.python}"
    settings = f"home = /usr/bin\ninclude-system-site-packages = false\nversion = 3.{suite.python}\n"
    _write(home / "pyvenv.cfg", settings.encode())
    _write(home / "bin/edgellm", PROGRAM.encode(), mode=0o755)
    for name in ("python", "python3"):
        (home / "bin" / name).symlink_to(python)


def machine_of(wheel: Path) -> str:
    """Return the architecture in a wheel's name."""
    found = next((machine for machine in ARCHITECTURES if wheel.stem.endswith(machine)), None)
    if found is None:
        sys.exit(f"{wheel.name} has no engine for one of {', '.join(ARCHITECTURES)}: make wheel")
    return found


def pack(tree: Path, wheel: Path, suite_name: str, directory: Path) -> Path:
    """Add the package's own files, and pack it; everything in it belongs to root."""
    suite, files = (
        SUITES[suite_name],
        sorted(path for path in tree.rglob("*") if path.is_file() and not path.is_symlink()),
    )
    architecture = ARCHITECTURES[machine_of(wheel)]
    version = f"{__version__}+{suite_name}"
    control = (SOURCES / "control").read_text(encoding="utf-8").format(
        version=version,
        architecture=architecture,
        kilobytes=sum(path.lstat().st_size for path in files) // 1024,
        python=f"3.{suite.python}",
        next_python=f"3.{suite.python + 1}",
        glibc=f"2.{wheel.name.partition('manylinux_2_')[2].partition('_')[0]}",
    )  # fmt: skip
    sums = (f"{hashlib.md5(path.read_bytes()).hexdigest()}  {path.relative_to(tree)}\n" for path in files)
    _write(tree / "DEBIAN/control", control.encode())
    _write(tree / "DEBIAN/md5sums", "".join(sums).encode())
    _write(tree / "DEBIAN/conffiles", b"/etc/default/edgellm\n")
    for name in ("postinst", "prerm", "postrm"):
        _write(tree / "DEBIAN" / name, (SOURCES / name).read_bytes(), mode=0o755)
    for path in tree.rglob("*"):
        if path.is_dir():
            path.chmod(0o755)
    directory.mkdir(parents=True, exist_ok=True)
    deb = directory / f"edgellm_{version}_{architecture}.deb"
    subprocess.run(["dpkg-deb", "--root-owner-group", "-Zxz", "--build", str(tree), str(deb)], check=True,
                   stdout=subprocess.DEVNULL)  # fmt: skip
    return deb


def _write(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    path.chmod(mode)


if __name__ == "__main__":
    main()
