"""Finds the examples in docstrings and checks them against the code: names, arguments and values.

    for example in examples(Path("edgellm/suggest.py")):
        problems(example)  ->  []

An example is a block of a docstring that parses as Python. `call  ->  value` and `call  # value` state a value. Types
are inferred from annotations, so that `store.list()` is checked when the module says what a `store` is; a name of
unknown type is not checked further.
"""

from __future__ import annotations

import ast
import builtins
import importlib
import inspect
import pkgutil
import re
import types
import typing
from collections import abc
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import edgellm

PACKAGE = Path(edgellm.__file__).parent
VALUE = re.compile(r"^(?P<code>.*?\S)\s+(?:->|#)\s+(?P<value>.*)$")
COLUMNS = re.compile(r"(?<=\S)\s{3,}(?=[a-z])")
UNKNOWN = object()


@dataclass(frozen=True)
class Instance:
    """Some value of a type."""

    type: Any


@dataclass
class Example:
    """One block: its lines in the file, the module it stands in, and the values it states by line."""

    path: Path
    module: types.ModuleType
    tree: ast.Module
    values: dict[int, str] = field(default_factory=dict)


def examples(path: Path) -> Iterator[Example]:
    """Yield the examples in the docstrings of a file; their trees carry the line numbers of the file."""
    name = ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(node):
            doc = node.body[0]
            assert isinstance(doc, ast.Expr) and isinstance(doc.value, ast.Constant)
            lines = inspect.cleandoc(doc.value.value).split("\n")
            for start, block in _blocks(lines):
                indented = block[0].startswith("    ")
                if not indented and not isinstance(node, ast.Module):
                    continue
                for tree, values in _parsed(block, doc.lineno + start, whole=not indented):
                    yield Example(path, importlib.import_module(name), tree, values)


def _blocks(lines: list[str]) -> Iterator[tuple[int, list[str]]]:
    start = 0
    for i, line in enumerate([*lines, ""]):
        if not line.strip():
            if lines[start:i]:
                yield start, lines[start:i]
            start = i + 1


def _parsed(block: list[str], first: int, *, whole: bool) -> Iterator[tuple[ast.Module, dict[int, str]]]:
    """Parse a block as a whole, or else (if indented) those of its lines that are Python."""
    values = {}
    code = [line[len(block[0]) - len(block[0].lstrip()) :] for line in block]
    for i, line in enumerate(code):
        stated = VALUE.match(line)
        if stated and _tree(stated["code"]) is not None:
            code[i], values[first + i] = stated["code"], stated["value"]
        elif _tree(line) is None and (columns := COLUMNS.search(line)) and _tree(line[: columns.start()]) is not None:
            code[i] = line[: columns.start()]
    tree = _tree("\n".join(code))
    if tree is not None:
        if not whole or any(isinstance(node, (ast.Call, ast.Assign)) for node in ast.walk(tree)):
            yield ast.increment_lineno(tree, first - 1), values
    elif not whole:
        for i, line in enumerate(code):
            if (tree := _tree(line.strip())) is not None:
                yield ast.increment_lineno(tree, first + i - 1), values


def _tree(code: str) -> ast.Module | None:
    """Parse code; an open `, ...)` becomes the keyword `_=...`, which stands for further arguments."""
    try:
        return ast.parse(re.sub(r", \.\.\.\)", ", _=...)", code))
    except SyntaxError:
        return None


def problems(example: Example) -> list[str]:
    """Return what is wrong with an example, each with file and line."""
    checker = _Checker(example.module)
    checker.visit(example.tree)
    for statement in example.tree.body:
        stated = example.values.get(statement.lineno)
        if stated is not None and isinstance(statement, ast.Expr):
            checker.compare(statement.value, stated)
    where = example.path.relative_to(PACKAGE.parent)
    return [f"{where}:{line}: {message}" for line, message in checker.found]


class _Checker(ast.NodeVisitor):
    """Walks an example and infers the type of each expression."""

    def __init__(self, module: types.ModuleType) -> None:
        self.module, self.local, self.found = module, {}, []  # type: ignore[var-annotated]

    def _report(self, node: ast.expr, message: str) -> None:
        if (node.lineno, message) not in self.found:
            self.found.append((node.lineno, message))

    def visit_Assign(self, node: ast.Assign) -> None:
        value = self.type_of(node.value)
        for target in node.targets:
            self._bind(target, value)

    def visit_For(self, node: ast.For | ast.AsyncFor) -> None:
        self._bind(node.target, _element(self.type_of(node.iter)))
        for statement in node.body:
            self.visit(statement)

    visit_AsyncFor = visit_For

    def visit_With(self, node: ast.With | ast.AsyncWith) -> None:
        for item in node.items:
            value = self.type_of(item.context_expr)
            if item.optional_vars is not None:
                self._bind(item.optional_vars, _entered(value))
        for statement in node.body:
            self.visit(statement)

    visit_AsyncWith = visit_With

    def visit_Expr(self, node: ast.Expr) -> None:
        self.type_of(node.value)

    def generic_visit(self, node: ast.AST) -> None:
        if isinstance(node, ast.expr):
            self.type_of(node)
        else:
            super().generic_visit(node)

    def _bind(self, target: ast.expr, value: Any) -> None:
        if isinstance(target, ast.Name):
            self.local[target.id] = _parameter(self.module, target.id) if value is UNKNOWN else value
        else:
            for part in ast.walk(target):
                if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Store):
                    self.local[part.id] = UNKNOWN

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        for base in node.bases:
            self.type_of(base)
        self.local[node.name] = UNKNOWN

    def type_of(self, node: ast.expr) -> Any:
        """Return an object, an Instance of a type, or UNKNOWN; report what cannot be."""
        match node:
            case ast.Constant(value):
                return Instance(type(value))
            case ast.Name(name):
                return self._name(name)
            case ast.Attribute(value, name):
                owner = self.type_of(value)
                result = _attribute(owner, name)
                if result is None:
                    self._report(node, f"{_shown(owner)} has no {name!r}")
                return UNKNOWN if result is None else result
            case ast.Call():
                return self._call(node)
            case ast.Subscript(value, key):
                self.type_of(key)
                return _element(self.type_of(value), of_mapping_values=True)
            case ast.Lambda() | ast.ListComp() | ast.GeneratorExp():
                return UNKNOWN
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.expr):
                self.type_of(child)
        return UNKNOWN

    def _name(self, name: str) -> Any:
        if name in self.local:
            return self.local[name]
        for space in (vars(self.module), vars(builtins), _index()):
            if name in space:
                return space[name]
        return _parameter(self.module, name)

    def _call(self, node: ast.Call) -> Any:
        function = self.type_of(node.func)
        for argument in (*node.args, *(keyword.value for keyword in node.keywords)):
            self.type_of(argument)
        if function is UNKNOWN:
            if isinstance(node.func, ast.Name) and not self._may_be(node.func.id):
                self._report(node, f"there is no {node.func.id!r}")
            return UNKNOWN
        if isinstance(function, Instance):
            return UNKNOWN
        if _is_ours(function):
            self._check_arguments(node, function)
        return _returned(function)

    def _may_be(self, name: str) -> bool:
        """Whether a name that is called may be a local one, a parameter, or one of several functions."""
        return name in self.local or name in _index() or any(name in names for names in _parameters().values())

    def _check_arguments(self, node: ast.Call, function: Any) -> None:
        keywords = {keyword.arg for keyword in node.keywords if keyword.arg}
        try:
            signature = inspect.signature(function)
            is_open = "_" in keywords or any(isinstance(arg, ast.Constant) and arg.value is ... for arg in node.args)
            bind = signature.bind_partial if is_open else signature.bind
            positional = [None] * len(node.args)
            if _needs_self(function):
                positional.append(None)
            bind(*positional, **dict.fromkeys(keywords - {"_"}))
        except TypeError as error:
            self._report(node, f"{_shown(function)}: {error}")

    def compare(self, code: ast.expr, stated: str) -> None:
        """Run a self-contained expression, and compare it with a stated literal."""
        try:
            expected = ast.literal_eval(stated)
        except (ValueError, SyntaxError):
            return
        names = {node.id for node in ast.walk(code) if isinstance(node, ast.Name)}
        calls = [node for node in ast.walk(code) if isinstance(node, ast.Call)]
        if self.found or not all(hasattr(self.module, name) for name in names) or self.local.keys() & names:
            return
        if any(not (call.args or call.keywords) for call in calls):  # depends on this machine
            return
        actual = eval(compile(ast.Expression(code), "example", "eval"), dict(vars(self.module)))
        if actual != expected:
            self._report(code, f"gives {actual!r}, not {expected!r}")


@cache
def _index() -> dict[str, Any]:
    """Every public function and class of edgellm by name, for examples that use their neighbours; and Path."""
    found: dict[str, Any] = {"Path": Path}
    for info in pkgutil.walk_packages(edgellm.__path__, "edgellm."):
        if info.name.endswith("__main__"):
            continue
        module = importlib.import_module(info.name)
        for name, value in vars(module).items():
            if getattr(value, "__module__", None) == module.__name__ and not name.startswith("_"):
                found[name] = value if found.get(name, value) is value else UNKNOWN
    return found


@cache
def _parameters() -> dict[str, dict[str, set[Any]]]:
    """The annotations of all parameters of edgellm's functions, by module and name."""
    found: dict[str, dict[str, set[Any]]] = {}
    for path in PACKAGE.rglob("*.py"):
        if path.name == "__main__.py":
            continue
        name = ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")
        for node in ast.walk(ast.parse(path.read_text())):
            for argument in (*node.args.args, *node.args.kwonlyargs) if isinstance(node, ast.FunctionDef) else ():
                if argument.annotation is not None:
                    of_module = found.setdefault(name, {})
                    of_module.setdefault(argument.arg, set()).add(ast.unparse(argument.annotation))
    return found


def _parameter(module: types.ModuleType, name: str) -> Any:
    """Return the type of a free variable, if all parameters of that name in the module agree on an edgellm class."""
    annotations = _parameters().get(module.__name__, {}).get(name, set())
    if len(annotations) != 1:
        return UNKNOWN
    return _instance(_resolved(next(iter(annotations)), module))


def _resolved(annotation: Any, module: Any) -> Any:
    if not isinstance(annotation, str):
        return annotation
    try:
        return eval(annotation, {**_index(), **vars(typing), **vars(abc), **vars(module)})
    except (NameError, TypeError, AttributeError, SyntaxError):
        return UNKNOWN


def _instance(annotation: Any) -> Any:
    """Return an Instance of an annotated type; `X | None` counts as X."""
    if annotation is UNKNOWN or annotation is inspect.Signature.empty:
        return UNKNOWN
    if isinstance(annotation, types.UnionType) or typing.get_origin(annotation) is typing.Union:
        parts = [part for part in typing.get_args(annotation) if part is not type(None)]
        return Instance(parts[0]) if len(parts) == 1 else UNKNOWN
    return Instance(annotation)


def _is_ours(value: Any) -> bool:
    return (getattr(value, "__module__", None) or "").startswith("edgellm") and callable(value)


def _needs_self(function: Any) -> bool:
    """Whether it is a method taken from its class, whose first argument an example leaves out."""
    return isinstance(function, types.FunctionType) and next(iter(inspect.signature(function).parameters), "") == "self"


def _shown(value: Any) -> str:
    value = value.type if isinstance(value, Instance) else value
    return getattr(value, "__qualname__", None) or getattr(value, "__name__", None) or str(value)


def _attribute(owner: Any, name: str) -> Any:
    """Return the type of an attribute; None when an edgellm class or module has no such attribute."""
    if owner is UNKNOWN:
        return UNKNOWN
    if not isinstance(owner, Instance):
        if not isinstance(owner, (type, types.ModuleType)):
            return UNKNOWN  # a variable with the name of a function
        place = owner.__module__ if isinstance(owner, type) else owner.__name__
        return getattr(owner, name, None if place.startswith("edgellm") else UNKNOWN)
    kind = typing.get_origin(owner.type) or owner.type
    if not isinstance(kind, type) or not kind.__module__.startswith("edgellm"):
        return UNKNOWN
    for base in kind.__mro__:
        if name in (annotations := inspect.get_annotations(base)):
            return _instance(_resolved(annotations[name], importlib.import_module(base.__module__)))
        value = base.__dict__.get(name, UNKNOWN)
        if isinstance(value, property) or hasattr(value, "func"):  # a cached_property has its function there
            getter = value.fget if isinstance(value, property) else value.func
            return _returned(getter)
        if value is not UNKNOWN and not isinstance(value, types.MemberDescriptorType):
            return getattr(kind, name)
    return UNKNOWN if name in _assigned(kind) or hasattr(kind, name) else None


@cache
def _assigned(kind: type) -> set[str]:
    """The attributes that the methods of a class, or of its edgellm bases, use on `self`."""
    bases = (base for base in kind.__mro__ if base.__module__.startswith("edgellm"))
    return {name for base in bases for name in re.findall(r"\bself\.(\w+)", inspect.getsource(base))}


def _returned(function: Any) -> Any:
    if isinstance(function, type):
        return Instance(function)
    function = inspect.unwrap(function)
    inner = getattr(function, "__func__", function)
    annotation = getattr(inner, "__annotations__", {}).get("return", UNKNOWN)
    if annotation is UNKNOWN or getattr(inner, "__module__", None) is None:
        return UNKNOWN
    if annotation in ("Self", typing.__dict__.get("Self")):
        return UNKNOWN
    return _instance(_resolved(annotation, importlib.import_module(inner.__module__)))


def _element(value: Any, *, of_mapping_values: bool = False) -> Any:
    """Return the type of the elements of a list, iterator or tuple, or of the values of a mapping."""
    arguments = typing.get_args(value.type) if isinstance(value, Instance) else ()
    arguments = tuple(argument for argument in arguments if argument is not ...)
    if len(arguments) == 1:
        return _instance(arguments[0])
    if len(arguments) == 2 and of_mapping_values:
        return _instance(arguments[1])
    return UNKNOWN


def _entered(value: Any) -> Any:
    """Return what `with value as name` binds."""
    if not isinstance(value, Instance):
        return UNKNOWN
    kind = typing.get_origin(value.type) or value.type
    if isinstance(kind, type) and issubclass(kind, abc.Iterator):
        return _element(value)  # a function made a context manager
    if isinstance(kind, type) and hasattr(kind, "__enter__") and kind.__module__.startswith("edgellm"):
        return _returned(kind.__enter__)
    return UNKNOWN
