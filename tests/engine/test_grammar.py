"""Grammars: what they permit, how JSON schemas are converted, and what is refused before it reaches the engine."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from jsonschema import validate

from edgellm.engine.builds.installed import InstalledEngine
from edgellm.engine.grammar.gbnf import is_harmless, schema_to_gbnf
from edgellm.engine.grammar.watch import GrammarWatch
from edgellm.engine.llama import LlamaEngine, LlamaModel
from edgellm.engine.sampling import Sampling
from edgellm.errors import EngineError, UsageError
from edgellm.run.events import Text
from edgellm.run.generation import Limits, generate

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


def answer(
    model: LlamaModel,
    grammar: str,
    *,
    prompt: str = "A person as JSON:",
    temperature: float = 0,
    harmless: bool = False,
) -> str:
    context = model.open_context(n_ctx=256, n_batch=64, n_threads=2)
    try:
        sampling = Sampling(
            temperature=temperature,
            seed=5,
            grammar=grammar,
            grammar_is_harmless=harmless,
            repeat_penalty=1.1,
            dry_multiplier=0.5,
        )
        events = generate(model, context, model.tokenize(prompt), sampling, Limits(max_tokens=120))
        return "".join(event.text for event in events if isinstance(event, Text))
    finally:
        context.close()


@pytest.mark.parametrize("harmless", [True, False])
@pytest.mark.parametrize("temperature", [0.0, 0.7])
def test_a_schema_constrains_the_answer(smol: LlamaModel, temperature: float, harmless: bool) -> None:
    grammar = schema_to_gbnf(PERSON)
    found = json.loads(answer(smol, grammar, temperature=temperature, harmless=harmless))
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
        ('root ::= "' + "a" * 1_100_000 + '"', "characters"),
    ],
)
def test_an_invalid_grammar_is_an_error_and_does_not_end_the_process(smol: LlamaModel, grammar: str, why: str) -> None:
    with pytest.raises(UsageError) as caught:
        answer(smol, grammar)
    assert why in caught.value.why


def test_a_grammar_that_leaves_no_token(smol: LlamaModel) -> None:
    with pytest.raises(EngineError, match="no further token"):
        answer(smol, "root ::= <[999999999]>")


# Some start with text that any answer may have, so that only a later step is too slow.
LETTERS = " ".join(f'"{chr(97 + number % 26)}"?' for number in range(3000))
ENDLESS = {
    "optional": f"root ::= {LETTERS}",
    "later": f'root ::= "Yes " {LETTERS}',
    "alike": "root ::= " + "[a-z]? " * 300 + '"\\n"',
    "six ways": "root ::= (a | b | c | d | e | f)*" + "".join(f"\n{name} ::= [a-y]" for name in "abcdef"),
}


@pytest.fixture
def watch(engine: InstalledEngine, smollm2: Path) -> Iterator[GrammarWatch]:
    watch = GrammarWatch(engine.directory, smollm2, step_seconds=1)
    yield watch
    watch.close()


@pytest.mark.parametrize("name", ENDLESS)
def test_a_grammar_without_end_is_refused_in_time(watch: GrammarWatch, smol: LlamaModel, name: str) -> None:
    started = time.monotonic()
    with pytest.raises(UsageError, match="too complex"):
        grammar = watch.open(ENDLESS[name])
        if name == "later":
            for token in smol.tokenize("Yes ", bos=False):
                assert grammar.permits(token)
                grammar.accept(token)
        grammar.permitted()
    assert time.monotonic() - started < 60
    with pytest.raises(UsageError, match="too complex"):  # known by now
        watch.open(ENDLESS[name])


def test_other_grammars_go_on_from_where_they_were(watch: GrammarWatch, smol: LlamaModel) -> None:
    good = watch.open('root ::= "one" " two"+')
    for token in smol.tokenize("one two", bos=False):
        assert good.permits(token)
        good.accept(token)
    bad = watch.open(ENDLESS["optional"])
    with pytest.raises(UsageError, match="too complex"):
        bad.permitted()
    two, one = smol.tokenize(" two", bos=False)[0], smol.tokenize("one", bos=False)[0]
    assert good.permits(two) and not good.permits(one)
    with pytest.raises(UsageError, match="cannot parse"):
        watch.open("root ::= (")
    assert set(np.flatnonzero(good.permitted())) >= {two}
    bad.close()
    good.close()


def test_the_process_of_the_grammars_may_be_killed(watch: GrammarWatch, smol: LlamaModel) -> None:
    before = psutil.Process().children()
    grammar = watch.open('root ::= "one"')
    (process,) = {*psutil.Process().children()} - {*before}
    process.kill()
    with pytest.raises(UsageError, match="too complex"):
        grammar.permits(0)


def test_a_schemas_grammar_needs_no_other_process(smol: LlamaModel) -> None:
    assert is_harmless(PERSON)
    assert not is_harmless({"properties": {"code": {"type": "string", "pattern": "^a?b?$"}}})
    assert not is_harmless({"anyOf": [{"type": "integer"}] * 100})
    before = psutil.Process().children()
    context = smol.open_context(n_ctx=256, n_batch=64, n_threads=1)
    grammar = schema_to_gbnf(PERSON)
    context.open_sampler(Sampling(grammar=grammar, grammar_is_harmless=True)).close()
    assert psutil.Process().children() == before
    context.close()


@pytest.mark.parametrize("n_optional", [30, 300, 3000])
def test_many_optional_properties(smol: LlamaModel, n_optional: int) -> None:
    """Optional properties are either fast, or too many for the conversion."""
    schema = {"type": "object", "properties": {f"p{number}": {"type": "integer"} for number in range(n_optional)}}
    try:
        assert isinstance(json.loads(answer(smol, schema_to_gbnf(schema), harmless=True)), dict)
    except UsageError as error:
        assert n_optional == 3000, error


@pytest.mark.parametrize(
    "schema",
    [
        [],
        {"$ref": "https://example.org/schema"},
        {"$ref": "#/nowhere"},
        {"type": "nosuch"},
        {"type": 5},
        {"properties": {"a": 5}},
        {"anyOf": [False, {"enum": [1], "not": {"const": 1}}]},
        False,
        {"minimum": 2, "maximum": 1},
        {"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]},
        {"pattern": "^[[[$"},
        {"enum": "x" * 400_000},
    ],
)
def test_a_wrong_schema_is_an_error(schema: Any) -> None:
    with pytest.raises(UsageError):
        schema_to_gbnf(schema)


def test_a_schema_nested_too_deep() -> None:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(2_000):
        schema = {"type": "array", "items": schema}
    with pytest.raises(UsageError, match="grammar"):
        schema_to_gbnf(schema)


@pytest.mark.model
@pytest.mark.parametrize(
    "pattern", [r"^\d{4}-\d{2}$", r"^(yes|no)$", r"^[A-Z]{2}\.$", r'^"\w{3}"$', "^a$|^b$", "^x?y{2,3}$"]
)
def test_answers_follow_patterns(smol: LlamaModel, pattern: str) -> None:
    schema = {"type": "string", "pattern": pattern}
    validate(json.loads(answer(smol, schema_to_gbnf(schema))), schema)
