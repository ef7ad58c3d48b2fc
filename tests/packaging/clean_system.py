"""Tries a wheel where there is nothing but Python: in a tree of Debian without a compiler.

    sudo .venv/bin/python -m tests.packaging.clean_system dist/edgellm-*.whl --suite bookworm --tree /var/tmp/bookworm

The tree is made with debootstrap, unless it is there. The wheel is installed with pip, and must answer, chat and serve.
Certificates and name servers are those of this machine. A tree of another architecture needs qemu-user-static.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

# What Debian calls an architecture.
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
PACKAGES = "python3,python3-pip,python3-venv,ca-certificates"
QUESTION = "What is the capital of France?"
PLACE = "/opt/edgellm"
# The first answer comes within this time after the installation, the download of the model included.
SECONDS = 60
SERVE = f"""
{PLACE}/bin/edgellm serve --port 8033 > /tmp/serve.log 2>&1 &
server=$!
{PLACE}/bin/python - << 'END'
import json, time, urllib.request
body = {{"model": "smollm2", "messages": [{{"role": "user", "content": "{QUESTION}"}}], "temperature": 0}}
for attempt in range(240):
    try:
        urllib.request.urlopen("http://127.0.0.1:8033/v1/models", timeout=120)
        break
    except OSError:
        time.sleep(0.5)
request = urllib.request.Request("http://127.0.0.1:8033/v1/chat/completions", json.dumps(body).encode(),
                                 {{"Content-Type": "application/json"}})
print(json.load(urllib.request.urlopen(request, timeout=300))["choices"][0]["message"]["content"])
END
status=$?
kill $server; wait $server
exit $status
"""


def main() -> int:
    """Run every step, and return 0 if all of them succeed in time."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("wheel", type=Path)
    parser.add_argument("--suite", default="bookworm")
    parser.add_argument("--tree", type=Path, required=True)
    parser.add_argument("--mirror", help="default: debootstrap's own")
    asked = parser.parse_args()
    machine = next((name for name in ARCHITECTURES if name in asked.wheel.name), os.uname().machine)
    run = Tree.made(asked.tree, asked.suite, asked.mirror, ARCHITECTURES[machine])
    for name in (PLACE[1:], "root/.local"):
        shutil.rmtree(asked.tree / name, ignore_errors=True)
    shutil.copy(asked.wheel, asked.tree / "tmp")
    run("there is no compiler", "! command -v cc gcc c++ g++ clang make cmake git")
    run("install", f"python3 -m venv {PLACE} && {PLACE}/bin/pip install --quiet /tmp/{asked.wheel.name}")
    took = run("answer", f"{PLACE}/bin/edgellm run smollm2 --temp 0 '{QUESTION}'", expect="Paris")
    run("chat", f"echo '{QUESTION}' | {PLACE}/bin/edgellm chat smollm2 --temp 0", expect="Paris")
    run("serve", SERVE, expect="Paris")
    run("status", f"{PLACE}/bin/edgellm engine status", expect="out of the wheel")
    run("doctor", f"{PLACE}/bin/edgellm doctor")
    is_late = took > SECONDS and machine == os.uname().machine
    if is_late:
        sys.stderr.write(f"the first answer took {took:.0f} s, more than {SECONDS}\n")
    return int(is_late)


class Tree:
    """Runs shell commands in the tree, with nothing of this machine's environment."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @classmethod
    def made(cls, root: Path, suite: str, mirror: str | None, architecture: str) -> Tree:
        """Make the tree unless it is there, with this machine's name servers and certificates."""
        if not (root / "usr/bin/python3").exists():
            command = ["debootstrap", "--variant=minbase", f"--include={PACKAGES}", f"--arch={architecture}"]
            subprocess.run([*command, suite, root, *([mirror] if mirror else [])], check=True)
        for name in ("resolv.conf", "ssl/certs/ca-certificates.crt"):
            shutil.copy(Path("/etc", name), root / "etc" / name)
        return cls(root)

    def __call__(self, name: str, script: str, *, expect: str = "") -> float:
        """Run a script, print its output, and return the seconds it took; ends the program when it fails."""
        started = time.monotonic()
        path = "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"
        environment = {"PATH": path, "HOME": "/root", "LANG": "C.UTF-8"}
        command = ["unshare", "--mount", "--pid", "--fork", "chroot", str(self.root), "/bin/sh", "-c"]
        whole = f"mount -t proc proc /proc\n{script}"
        result = subprocess.run([*command, whole], env=environment, capture_output=True, text=True, check=False)
        took = time.monotonic() - started
        sys.stdout.write(f"== {name}: {took:.1f} s\n{result.stdout}{result.stderr}\n")
        sys.stdout.flush()
        if result.returncode or expect not in result.stdout:
            sys.exit(f"{name} failed with exit status {result.returncode}")
        return took


if __name__ == "__main__":
    sys.exit(main())
