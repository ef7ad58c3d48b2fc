"""The rules of the house that a machine can check: imports go one way, each foreign library has one owner."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "edgellm"
MODULES = sorted(PACKAGE.rglob("*.py"))

# A layer may import from its own and from lower ones.
LAYERS = {
    "cli": 6, "__main__": 7,
    "commands": 5,
    "ui": 4, "diagnosis": 4,
    "run": 3, "serve": 3, "weights": 3, "measure": 3,
    "models": 2, "engine": 2,
    "formats": 1, "machine": 1, "package_index": 1,
    "errors": 0, "settings": 0, "progress": 0, "files": 0, "suggest": 0, "__init__": 0,
}  # fmt: skip
OWNERS = {
    "llama_cpp": {"engine/llama.py"},
    "rich": {"ui/", "commands/doctor.py"},
    "typer": {"cli.py", "commands/", "ui/options.py"},
    "prompt_toolkit": {"ui/prompt.py"},
    "psutil": {"machine/"},
    "jinja2": {"run/chat_template.py"},
    "jsonschema": {"run/structure.py"},
    "referencing": {"run/structure.py"},
    "pydantic": {"models/recipe.py", "serve/"},
    "starlette": {"serve/"},
    "uvicorn": {"serve/http_server.py"},
    "aiohttp": {"serve/upstream.py"},
    "huggingface_hub": {"models/hub.py"},
    "httpx2": {"models/hub.py"},
    "platformdirs": {"settings.py"},
    "sqlite3": {"run/batch_journal.py", "run/chats.py"},
}


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
    assert ast.get_docstring(ast.parse(path.read_text()))


def test_nothing_prints_below_the_user_interface() -> None:
    for path in MODULES:
        if path.relative_to(PACKAGE).parts[0] in ("ui", "commands", "cli.py"):
            continue
        calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
        assert not [call for call in calls if isinstance(call.func, ast.Name) and call.func.id == "print"], path
