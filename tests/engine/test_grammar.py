"""Grammars: what they permit, what becomes of a JSON schema, and what is refused before it reaches the engine."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edgellm.engine.base import Sampling
from edgellm.engine.grammar import schema_to_gbnf
from edgellm.engine.installed import InstalledEngine
from edgellm.engine.llama import LlamaEngine, LlamaModel
from edgellm.errors import EngineError, UsageError
from edgellm.run.generation import Limits, Text, generate

pytestmark = pytest.mark.engine

PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "age": {"type": "integer"},
        "kind": {"enum": ['a "quoted" \\ one', 'a \\ quoted " one']},
        "tags": {"type": "array", "items": {"type": "string"}, "maxItems": 2},
    },
    "required": ["name", "age", "kind", "tags"],
}


@pytest.fixture(scope="module")
def smol(llama: LlamaEngine, smollm2: Path) -> Iterator[LlamaModel]:
    model = llama.load(smollm2)
    yield model
    model.close()


def answer(model: LlamaModel, grammar: str, *, prompt: str = "A person as JSON:", temperature: float = 0) -> str:
    context = model.open_context(n_ctx=256, n_batch=64, n_threads=2)
    try:
        sampling = Sampling(temperature=temperature, seed=5, grammar=grammar, repeat_penalty=1.1, dry_multiplier=0.5)
        events = generate(model, context, model.tokenize(prompt), sampling, Limits(max_tokens=120))
        return "".join(event.text for event in events if isinstance(event, Text))
    finally:
        context.close()


@pytest.mark.parametrize("temperature", [0.0, 0.7])
def test_a_schema_constrains_the_answer(smol: LlamaModel, engine: InstalledEngine, temperature: float) -> None:
    found = json.loads(answer(smol, schema_to_gbnf(PERSON, engine.bindings), temperature=temperature))
    assert list(found) == ["name", "age", "kind", "tags"]
    assert isinstance(found["age"], int) and len(found["tags"]) <= 2
    assert found["kind"] in PERSON["properties"]["kind"]["enum"]  # type: ignore[index]


def test_a_grammar_ends_the_answer(smol: LlamaModel) -> None:
    assert answer(smol, 'root ::= "yes" | "no" | "是的"', prompt="Is water wet?") in ("yes", "no", "是的")
    assert answer(smol, 'root ::= ""') == ""


@pytest.mark.parametrize(
    ("grammar", "why"),
    [
        ("root ::= (", "expecting"),
        ('foo ::= "a"', "no rule `root`"),
        ('root ::= root "a"', "begins with itself"),
        ("not a grammar", "expecting"),
        ('root ::= "a"{5000}', "repetitions"),
        ('root ::= "a\0"', "NUL"),
        ("root ::= " + "(" * 100_000, "nested"),
        ('root ::= "' + "a" * 300_000 + '"', "characters"),
    ],
)
def test_a_wrong_grammar_is_an_error_and_not_the_end_of_the_process(smol: LlamaModel, grammar: str, why: str) -> None:
    with pytest.raises(UsageError) as caught:
        answer(smol, grammar)
    assert why in caught.value.why


def test_a_grammar_that_leaves_no_token(smol: LlamaModel) -> None:
    with pytest.raises(EngineError, match="no token"):
        answer(smol, "root ::= <[999999999]>")


@pytest.mark.parametrize(
    "schema",
    [
        [],
        {"$ref": "https://example.org/schema"},
        {"$ref": "#/nowhere"},
        {"type": "nosuch"},
        {"type": 5},
        {"properties": {"a": 5}},
        {"type": "string", "maxLength": 10**9},
        {"type": "array", "items": {"type": "string"}, "minItems": 10**9},
        {"pattern": "^a{1000000}$"},
        {"pattern": "^[[[$"},
        {"enum": "x" * 400_000},
    ],
)
def test_a_wrong_schema_is_an_error(engine: InstalledEngine, schema: Any) -> None:
    with pytest.raises(UsageError):
        schema_to_gbnf(schema, engine.bindings)


def test_a_schema_nested_too_deep(engine: InstalledEngine) -> None:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(2_000):
        schema = {"type": "array", "items": schema}
    with pytest.raises(UsageError, match="grammar"):
        schema_to_gbnf(schema, engine.bindings)
