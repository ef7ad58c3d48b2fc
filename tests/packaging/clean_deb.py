"""Tries a Debian package in a tree of Debian: installed, used, upgraded, removed and purged.

    sudo .venv/bin/python -m tests.packaging.clean_deb dist/edgellm_*.deb --suite bookworm --tree /var/tmp/bookworm

No systemd runs in the tree. Its own `systemd-socket-activate` plays its part: it listens, and starts the server when
somebody connects. `systemd-analyze verify` reads the units.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from tests.packaging.clean_system import QUESTION, Tree

# Manual pages and other documents are left out in containers; man-db finds them all the same.
TOOLS = "systemd man-db passwd util-linux procps"
INSTALL = "apt-get install -qq -y --no-install-recommends --reinstall"
HOME = "/var/lib/edgellm"
AS_USER = f"setpriv --reuid=edgellm --regid=edgellm --clear-groups env EDGELLM_HOME={HOME} HOME={HOME}"
SOCKET = f"""
eval "$(grep ^MODELS= /etc/default/edgellm)"
{AS_USER} systemd-socket-activate -l 127.0.0.1:18035 -E EDGELLM_HOME -E HOME \
    /usr/bin/edgellm serve --no-chats --no-docs $MODELS > /tmp/socket.log 2>&1 &
server=$!
sleep 3
# It becomes the server when somebody connects.
grep -x systemd-socket- /proc/$server/comm || exit 1
/opt/edgellm/bin/python - << 'END'
import json, urllib.request
body = {{"model": "smollm2", "messages": [{{"role": "user", "content": "{QUESTION}"}}], "temperature": 0}}
request = urllib.request.Request("http://127.0.0.1:18035/v1/chat/completions", json.dumps(body).encode(),
                                 {{"Content-Type": "application/json"}})
print(json.load(urllib.request.urlopen(request, timeout=300))["choices"][0]["message"]["content"])
END
status=$?
cat /tmp/socket.log
kill $server; wait $server
exit $status
"""
GONE = """
for path in /opt/edgellm /usr/bin/edgellm /usr/lib/systemd/system/edgellm.socket /usr/share/man/man1/edgellm.1.gz \
    /etc/systemd/system/sockets.target.wants/edgellm.socket; do
    if [ -e $path ] || [ -L $path ]; then echo "$path is still there"; exit 1; fi
done
"""


def main() -> None:
    """Run every step; the first that fails ends the program."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("deb", type=Path)
    parser.add_argument("--suite", default="bookworm")
    parser.add_argument("--tree", type=Path, required=True)
    parser.add_argument("--mirror", help="default: debootstrap's own")
    asked = parser.parse_args()
    run = Tree.made(asked.tree, asked.suite, asked.mirror, asked.deb.stem.rpartition("_")[2])
    shutil.copy(asked.deb, asked.tree / "tmp")
    file = f"/tmp/{asked.deb.name}"
    run("tools", f"apt-get update -qq && {INSTALL} {TOOLS}")
    run("install", f"{INSTALL} {file} && test -L /etc/systemd/system/sockets.target.wants/edgellm.socket")
    run("answer", f"edgellm run smollm2 --temp 0 '{QUESTION}'", expect="Paris")
    run("units", "cd /usr/lib/systemd/system && systemd-analyze verify ./edgellm.socket ./edgellm.service")
    run("manual", "man -w edgellm || dpkg -L edgellm", expect="edgellm.1.gz")
    complete = ". /usr/share/bash-completion/completions/edgellm; complete -p edgellm"
    run("completion", f"bash -c '{complete}'", expect="edgellm")
    run("socket", SOCKET, expect="Paris")
    run("upgrade", f"echo MODELS=minilm > /etc/default/edgellm && {INSTALL} {file} < /dev/null")
    run("kept", f"cat /etc/default/edgellm; {AS_USER} edgellm list", expect="MODELS=minilm")
    run("remove", f"apt-get remove -qq -y edgellm && {GONE} test -d /var/lib/edgellm/data/models")
    run("purge", "apt-get purge -qq -y edgellm; test ! -e /var/lib/edgellm && test ! -e /etc/default/edgellm")
    run("no user", "! getent passwd edgellm")


if __name__ == "__main__":
    main()
