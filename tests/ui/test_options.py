"""The option groups: what they add to a verb, and that the sampling options are those of the table."""

import inspect
from typing import Annotated, Optional

import pytest
import typer
from typer.testing import CliRunner

from edgellm.engine.sampling import OPTIONS, Sampling
from edgellm.ui.options import JsonOutput, LengthFlags, LimitFlags, LoopAction, QuietOutput, SamplingFlags, expand
from tests.shapes import lazy

SEEN: list[object] = []


def verb(
    name: Annotated[str, typer.Argument(help="A name.")] = "x",
    *,
    limit: LimitFlags,
    sampling: SamplingFlags,
    output: QuietOutput,
) -> None:
    """A verb."""
    SEEN[:] = [name, limit, sampling, output]


def called(*arguments: str, **environment: str) -> tuple[LimitFlags, SamplingFlags, QuietOutput]:
    """What the verb was given."""
    app = typer.Typer()
    app.command()(expand(verb, command="chats ls"))
    result = CliRunner().invoke(app, list(arguments), env=environment, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return tuple(SEEN[1:])  # type: ignore[return-value]


def test_a_group_is_filled_from_its_options() -> None:
    limit, sampling, output = called("y", "-n", "5", "--on-loop", "retry", "--seed", "3", "--typical-p", "0.5", "-q")
    assert SEEN[0] == "y" and limit == LimitFlags(5, True, None, LoopAction.RETRY)
    assert sampling == SamplingFlags({"typical_p": 0.5}, 3)
    assert output == QuietOutput("chats ls", as_json=False, quiet=True) and output.silent
    assert called() == (LimitFlags(), SamplingFlags({}, None), QuietOutput("chats ls"))


def test_the_environment_fills_it_too() -> None:
    _, sampling, output = called(EDGELLM_TEMP="0", EDGELLM_XTC_PROBABILITY="0.1", EDGELLM_JSON="1")
    assert sampling.asked == {"temperature": 0.0, "xtc_probability": 0.1} and output.as_json


def test_groups_are_ordinary_dataclasses() -> None:
    assert issubclass(LimitFlags, LengthFlags) and issubclass(QuietOutput, JsonOutput)
    parameters = inspect.signature(expand(verb, command="x")).parameters
    assert "sampling" not in parameters and list(parameters)[:2] == ["name", "max_tokens"]


@pytest.mark.parametrize("command", ["run", "chat", "batch"])
def test_every_sampling_option_is_one_of_every_verb_that_generates(command: str) -> None:
    flags = {flag for parameter in lazy(command).load().params for flag in parameter.opts}
    table = [option for option in OPTIONS.values() if option.flag]
    assert {option.flag for option in table} <= flags and len(table) >= 8
    assert {option.name for option in OPTIONS.values()} <= set(Sampling.__dataclass_fields__)


def test_a_setting_is_parsed_by_the_table() -> None:
    assert OPTIONS["temperature"].word == "temp" and OPTIONS["temperature"].parse("0.5") == 0.5
    assert OPTIONS["top_k"].parse("7") == 7
    for text in ("5.1", "-1", "nan", "hot"):
        with pytest.raises(ValueError, match=r"from 0 to 5|could not convert"):
            OPTIONS["temperature"].parse(text)


def test_an_argument_with_none_as_its_default_stays_one() -> None:
    """Python 3.10 reads the annotation of such a parameter as the Optional of it."""

    def asks(words: Optional[Annotated[list[str] | None, typer.Argument(help="The question.")]] = None) -> None:  # noqa: UP045
        SEEN[:] = [words]

    app = typer.Typer()
    app.command()(expand(asks, command="chats ls"))
    assert CliRunner().invoke(app, ["a", "b"], catch_exceptions=False).exit_code == 0
    assert SEEN == [["a", "b"]]
