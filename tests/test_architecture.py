"""The rules of the house that a machine can check: imports go one way, each foreign library has one owner, names."""

import ast
import re
import subprocess
import sys
from collections import defaultdict
from functools import cache
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "edgellm"
MODULES = sorted(PACKAGE.rglob("*.py"))

# A layer may import from its own and from lower ones.
LAYERS = {
    "cli": 9, "failures": 8, "__main__": 10,
    "commands": 8,
    "ui": 7, "api": 6, "batches": 6, "library": 6, "mcp_server": 6, "answers": 6, "evaluations": 6, "benchmarks": 6,
    "mcp_http": 6, "toolset": 6, "nodes": 6,
    "workspace": 5, "adapters": 5, "diagnosis": 5, "bug_report": 5, "report": 5,
    "serve": 4, "batch": 4, "tools": 4, "chats": 4, "measure": 4, "documents": 4, "evaluation": 4,
    "training": 4,
    "run": 3, "wire": 3, "weights": 3, "cache": 3,
    "models": 2, "engine": 2,
    "formats": 1, "machine": 1, "sandbox": 1, "package_index": 1,
    "errors": 0, "version": 0, "exit_codes": 0, "settings": 0, "progress": 0, "files": 0, "suggest": 0,
    "config_file": 0, "database": 0, "text": 0, "units": 0, "early": 0, "extras": 0, "__init__": 0,
}  # fmt: skip
OWNERS = {
    "llama_cpp": {"engine/llama.py"},
    "rich": {"ui/"},
    "typer": {"cli.py", "failures.py", "commands/", "ui/options.py"},
    "prompt_toolkit": {"ui/prompt.py"},
    "psutil": {"machine/"},
    "jinja2": {"run/chat_template.py"},
    "jsonschema": {"engine/grammar/validation.py"},
    "referencing": {"engine/grammar/validation.py"},
    "regex": {"engine/grammar/validation.py"},
    "pydantic": {
        "models/recipe.py",
        "tools/mcp/connection.py",
        "models/sampling_fields.py",
        "wire/",
        "serve/",
        "evaluation/",
    },
    "starlette": {"serve/", "mcp_http.py"},
    "uvicorn": {"serve/http/listener.py"},
    "python_multipart": {"serve/http/multipart.py"},
    "aiohttp": {"serve/workers/upstream.py", "serve/upstreams/link.py"},
    "huggingface_hub": {"models/hub/client.py"},
    "httpx2": {"models/hub/client.py", "models/hub/transport.py", "tools/mcp/"},
    "mcp": {"tools/mcp/", "mcp_server.py", "mcp_http.py"},
    "anyio": {"tools/mcp/", "mcp_server.py"},
    "tomlkit": {"config_file.py"},
    "platformdirs": {"settings.py"},
    "sqlite3": {"database.py", "batch/journal.py", "chats/store.py", "documents/collection.py", "cache/store.py"},
    "pypdfium2": {"documents/readers/pdf.py"},
    "lxml": {"documents/readers/html.py"},
    "docx": {"documents/readers/office.py"},
    "pptx": {"documents/readers/office.py"},
    "openpyxl": {"documents/readers/sheets.py"},
    "sympy": {"evaluation/checkers/equation.py"},
    "resvg_py": {"report/picture.py"},
    "torch": {"training/"},
    "safetensors": {"training/state.py"},
    "lm_eval": {"evaluation/harness/"},
    "datasets": {"evaluation/harness/"},
    "trafilatura": {"tools/web/readable.py"},
    "libzim": {"tools/builtin/wikipedia.py"},
    "ddgs": {"tools/web/search.py"},
    "ray": {"nodes/cluster.py"},
    "charset_normalizer": {"documents/readers/choose.py"},
}


# Nouns of the field that end in -ing.
NOUNS = {"sampling", "batching", "accounting", "encoding", "embedding"}


@cache
def parsed(path: Path) -> ast.Module:
    """The syntax tree of a file; not to be changed."""
    return ast.parse(path.read_text())


@cache
def imported(path: Path) -> set[str]:
    """Every module that a file imports, at the top or inside a function, but not for type checking alone."""
    names: set[str] = set()
    tree = ast.parse(path.read_text())
    for block in ast.walk(tree):
        if isinstance(block, ast.If) and ast.unparse(block.test) == "TYPE_CHECKING":
            block.body = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module)
            names |= {f"{node.module}.{alias.name}" for alias in node.names if node.module == "edgellm"}
    return names


def layer(module: str) -> str:
    """The part of edgellm that `edgellm.PART...` belongs to."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and parts[1] in LAYERS else "__init__"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_imports_go_down(path: Path) -> None:
    own = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    assert own in LAYERS, f"{own} has no layer"
    for module in imported(path):
        if module.startswith("edgellm"):
            assert LAYERS[layer(module)] <= LAYERS[own], f"{path.name} imports {module}"


@pytest.mark.parametrize("library", OWNERS)
def test_each_foreign_library_has_one_owner(library: str) -> None:
    users = {
        path.relative_to(PACKAGE).as_posix()
        for path in MODULES
        if any(name == library or name.startswith(f"{library}.") for name in imported(path))
    }
    strangers = {user for user in users if not any(user.startswith(owner) for owner in OWNERS[library])}
    assert not strangers


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_every_module_says_what_it_is(path: Path) -> None:
    assert ast.get_docstring(parsed(path))


def module_name(path: Path) -> str:
    """The dotted name of a file of the package."""
    return ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")


def imported_at_once(path: Path, names: set[str]) -> set[str]:
    """The modules of edgellm that a file imports when it is itself imported, not later inside a function."""
    found = set()
    for node in parsed(path).body:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return (found & names) - {module_name(path)}


def test_no_imports_go_in_a_circle() -> None:
    names = {module_name(path) for path in MODULES}
    waiting = {module_name(path): imported_at_once(path, names) for path in MODULES}
    while ready := {name for name, needed in waiting.items() if not needed & waiting.keys()}:
        waiting = {name: needed for name, needed in waiting.items() if name not in ready}
    assert not waiting, "these import each other, or modules that do"


def test_every_folder_is_explained() -> None:
    folders = {path.parent for path in MODULES}
    for folder in folders:
        assert ast.get_docstring(parsed(folder / "__init__.py")), folder


def is_text_without_encoding(call: ast.Call) -> bool:
    """Whether a call reads or writes text, of a file or of a child process, in the locale's encoding."""
    words = {word.arg for word in call.keywords}
    name = call.func.attr if isinstance(call.func, ast.Attribute) else ""
    is_text = name in ("read_text", "write_text") or (name in ("run", "Popen") and "text" in words)
    return is_text and "encoding" not in words


def test_text_is_read_and_written_in_a_named_encoding() -> None:
    """Without one, the same file means something else on a machine with another locale."""
    calls = ((path, node) for path in MODULES for node in ast.walk(parsed(path)) if isinstance(node, ast.Call))
    nameless = [f"{path.relative_to(PACKAGE)}:{call.lineno}" for path, call in calls if is_text_without_encoding(call)]
    assert not nameless


def test_modules_are_named_by_nouns() -> None:
    found = {module_name(path) for path in MODULES if path.stem.endswith("ing") and path.stem not in NOUNS}
    assert not found, "a module is a thing or a verb, not a doing"


def test_no_class_name_stands_twice() -> None:
    places: dict[str, list[str]] = defaultdict(list)
    for path in MODULES:
        for node in parsed(path).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places[node.name].append(module_name(path))
    assert not {name: modules for name, modules in places.items() if len(modules) > 1}


def test_nobody_is_told() -> None:
    found = [
        f"{path.relative_to(PACKAGE)}:{number}"
        for path in MODULES
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if re.search(r"(?<![a-z])told(?![a-z])", line, re.IGNORECASE)
    ]
    assert not found, "report, return, say or name"


def test_nothing_prints_below_the_user_interface() -> None:
    for path in MODULES:
        if path.relative_to(PACKAGE).parts[0] in ("ui", "commands", "cli.py"):
            continue
        calls = [node for node in ast.walk(parsed(path)) if isinstance(node, ast.Call)]
        assert not [call for call in calls if isinstance(call.func, ast.Name) and call.func.id == "print"], path


# The rooms of serve/, from the ground up: a room may import from its own floor and from lower ones.
SERVE_FLOORS = {
    "server": 7,
    "app": 6, "upstreams": 6,
    "protocols": 5, "watch": 5, "page": 5,
    "service": 4, "remote": 4,
    "answer": 3, "scoring": 3, "metrics": 3,
    "documents": 2, "workers": 2, "target": 2, "tools": 2,
    "http": 1, "records": 1, "clients": 1,
    "options": 0, "logs": 0, "__init__": 0,
}  # fmt: skip


@pytest.mark.parametrize(
    "path", sorted((PACKAGE / "serve").rglob("*.py")), ids=lambda path: path.relative_to(PACKAGE).as_posix()
)
def test_the_rooms_of_serve_import_downwards(path: Path) -> None:
    own = path.relative_to(PACKAGE / "serve").parts[0].removesuffix(".py")
    for module in imported(path):
        parts = module.split(".")
        if parts[:2] == ["edgellm", "serve"] and len(parts) > 2:
            assert SERVE_FLOORS[parts[2]] <= SERVE_FLOORS[own], f"{path.name} imports {module}"


def test_only_the_protocol_itself_knows_its_paths() -> None:
    """The core of the server asks the protocol that owns a path; it never compares paths with names of protocols."""
    core = [*(PACKAGE / "serve" / "http").glob("*.py"), *(PACKAGE / "serve" / "answer").glob("*.py")]
    core += [PACKAGE / "serve" / "service.py", PACKAGE / "serve" / "app.py"]
    for path in core:
        strings = [node.value for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Constant)]
        named = {
            text for text in strings if isinstance(text, str) and re.match(r"/(api|v1/(messages|responses))", text)
        }
        assert not named, f"{path.name} names {named}"


def test_only_training_needs_torch() -> None:
    """What the verb and its options need can be imported without it, so help and refusals work everywhere."""
    code = (
        "import sys; sys.modules['torch'] = None; sys.modules['safetensors'] = None\n"
        "import edgellm, edgellm.api, edgellm.commands.finetune, edgellm.commands.run, edgellm.commands.serve"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
