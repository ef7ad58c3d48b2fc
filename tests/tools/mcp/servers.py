"""MCP servers for tests, each a program of a few lines that speaks the protocol by hand, well or badly.

config = server(tmp_path, "dies_at_call")
"""

import sys
from pathlib import Path

from edgellm.tools.mcp.config import ServerConfig

# What all of them can do; a server replaces `listed`, `called` or both.
SKELETON = r"""
import json, os, sys, time

ECHO = {"name": "echo", "description": "Say it again.",
        "inputSchema": {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]}}

def send(message):
    sys.stdout.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
    sys.stdout.flush()

def listed(params):
    return {"tools": [ECHO]}

def called(params):
    return {"content": [{"type": "text", "text": params["arguments"]["text"]}]}

%s

for line in sys.stdin:
    request = json.loads(line)
    method, params = request["method"], request.get("params") or {}
    if "id" not in request:
        continue
    if method == "initialize":
        result = {"protocolVersion": "2025-06-18", "capabilities": {"tools": {}},
                  "serverInfo": {"name": "test", "version": "1"}}
    elif method == "tools/list":
        result = listed(params)
    elif method == "tools/call":
        result = called(params)
    else:
        send({"id": request["id"], "error": {"code": -32601, "message": "no such method"}})
        continue
    if result is not None:
        send({"id": request["id"], "result": result})
"""

SERVERS = {
    "good": "",
    "greets": 'print("Welcome to my server!"); print("not json {"); sys.stdout.flush()',
    "dies_at_start": 'sys.stderr.write("no licence key\\n"); sys.exit(3)',
    "dies_at_call": 'def called(params):\n    sys.stderr.write("out of cheese\\n"); sys.stderr.flush(); os._exit(7)',
    "dies_once": (
        "def called(params):\n"
        "    if not os.path.exists(sys.argv[1]):\n"
        "        open(sys.argv[1], 'w').close(); os._exit(7)\n"
        '    return {"content": [{"type": "text", "text": "second life"}]}'
    ),
    "hangs_at_start": "time.sleep(600)",
    "hangs_at_list": "def listed(params):\n    time.sleep(600)",
    "hangs_at_call": "def called(params):\n    time.sleep(600)",
    "is_slow": "def called(params):\n    return None",
    "floods": "def called(params):\n    while True:\n        sys.stdout.write('x' * 65536)",
    "floods_lines": "def called(params):\n    while True:\n        print('{}')",
    "floods_errors": "def called(params):\n    for _ in range(200):\n        sys.stderr.write('e' * 65536 + '\\n')\n"
    '    return {"content": [{"type": "text", "text": "done"}]}',
    "lists_without_end": (
        "def listed(params):\n"
        "    n = int(params.get('cursor') or 0)\n"
        '    return {"tools": [{**ECHO, "name": f"t{n}_{i}"} for i in range(50)], "nextCursor": str(n + 1)}'
    ),
    "lists_nonsense": 'def listed(params):\n    return {"tools": "none"}',
    "lies": r"""
def deep(n):
    return {"type": "object", "properties": {"a": deep(n - 1)}} if n else {"type": "string"}

def listed(params):
    bad = {
        "huge": {"type": "object", "properties": {f"p{n}": {"description": "x" * 1000} for n in range(1100)}},
        "deep": deep(60),
        "remote": {"type": "object", "properties": {"a": {"$ref": "http://127.0.0.1:9/schema.json"}}},
        "dangling": {"type": "object", "properties": {"a": {"$ref": "#/$defs/nothing"}}},
        "wrong": {"type": "object", "properties": {"a": {"type": "sting"}}},
        "pattern": {"type": "object", "properties": {"a": {"type": "string", "pattern": "("}}},
        "bad\u001b[31mname": {"type": "object"},
    }
    return {"tools": [ECHO, *({"name": name, "inputSchema": schema} for name, schema in bad.items()),
                      {"name": "liar", "description": "\u001b[2Jred\u0007 " + "y" * 5000,
                       "annotations": {"readOnlyHint": True}, "inputSchema": {"type": "object"},
                       "outputSchema": {"type": "object", "properties": {"n": {"pattern": "(a+)+$"}}}}]}

def called(params):
    return {"content": [], "structuredContent": {"n": "a" * 40 + "!"}}
""",
    "lists_an_array": 'def listed(params):\n    return {"tools": [{"name": "a", "inputSchema": {"type": "array"}}]}',
    "refuses": (
        "def called(params):\n"
        '    return {"isError": True, "content": [{"type": "text", "text": "there is no such file"}]}'
    ),
    "returns_all_kinds": r"""
def called(params):
    return {"content": [
        {"type": "text", "text": "first"},
        {"type": "image", "data": "aGVsbG8=", "mimeType": "image/png"},
        {"type": "resource_link", "uri": "https://example.org/page", "name": "A page"},
        {"type": "resource", "resource": {"uri": "file:///notes.txt", "text": "inside"}},
    ]}
""",
    "returns_nonsense": 'def called(params):\n    return {"content": 3}',
    "returns_much": 'def called(params):\n    return {"content": [{"type": "text", "text": "z" * 3000000}]}',
    "returns_too_much": 'def called(params):\n    return {"content": [{"type": "text", "text": "z" * 9000000}]}',
    "asks_back": (
        "def called(params):\n"
        '    send({"id": 99, "method": "sampling/createMessage", "params": {"messages": [], "maxTokens": 5}})\n'
        "    answer = json.loads(sys.stdin.readline())\n"
        '    return {"content": [{"type": "text", "text": "refused" if "error" in answer else "obeyed"}]}'
    ),
    "shows_environment": (
        'def called(params):\n    return {"content": [{"type": "text", "text": json.dumps(dict(os.environ))}]}'
    ),
    "leaves_a_child": (
        "import subprocess\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'], stdin=subprocess.DEVNULL)\n"
        'def called(params):\n    return {"content": [{"type": "text", "text": str(child.pid)}]}'
    ),
}


def server(directory: Path, kind: str, *arguments: str, name: str = "test", **settings: object) -> ServerConfig:
    """A server of that kind; `settings` are fields of `ServerConfig`."""
    path = directory / f"{kind}.py"
    path.write_text(SKELETON % SERVERS[kind])
    return ServerConfig(name, sys.executable, (str(path), *arguments), **settings)  # type: ignore[arg-type]
