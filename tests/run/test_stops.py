"""Stop texts: where an answer ends, and that nothing of such a text is ever given out."""

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgellm.engine.fake import FakeModel
from edgellm.engine.sampling import Sampling
from edgellm.errors import UsageError
from edgellm.models.fit.memory import RunPlan
from edgellm.run.answer_options import check_stops
from edgellm.run.events import NO_TOKEN, End, Event, Looped, Text
from edgellm.run.generation import Limits
from edgellm.run.loader import LoadedModel
from edgellm.run.loops import Loop
from edgellm.run.session import Session
from edgellm.run.stops import until_stop


def events(*pieces: str) -> Iterator[Event]:
    yield from (Text(piece, number) for number, piece in enumerate(pieces))
    yield End("length")


def answer(pieces: list[str], *stops: str) -> tuple[str, str]:
    """The text that is given out, and why it ended."""
    found = list(until_stop(events(*pieces), stops))
    assert isinstance(found[-1], End)
    return "".join(each.text for each in found if isinstance(each, Text)), found[-1].reason


@pytest.mark.parametrize(
    ("pieces", "stops", "text", "reason"),
    [
        (["one ", "two ", "three"], ("two",), "one ", "stop"),
        (["on", "e t", "wo"], ("two",), "one ", "stop"),
        (["a\n", "\nb"], ("\n\n",), "a", "stop"),
        (["a\n", "b"], ("\n\n",), "a\nb", "length"),
        (["a\n"], ("\n\n",), "a\n", "length"),
        (["abcabd"], ("abd", "bca"), "a", "stop"),
        (["x", "STOP"], ("STOP",), "x", "stop"),
        (["STOP"], ("STOP",), "", "stop"),
    ],
)
def test_an_answer_ends_before_a_stop_text(pieces: list[str], stops: tuple[str, ...], text: str, reason: str) -> None:
    assert answer(pieces, *stops) == (text, reason)


WORD = st.text("ab", min_size=1, max_size=4)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.text("ab", max_size=3), max_size=12), st.lists(WORD, min_size=1, max_size=3))
def test_the_pieces_make_no_difference(pieces: list[str], stops: list[str]) -> None:
    whole = "".join(pieces)
    text, reason = answer(pieces, *stops)
    ends = [whole.find(stop) + len(stop) for stop in stops if stop in whole]
    if not ends:
        assert (text, reason) == (whole, "length")
    else:
        assert reason == "stop" and whole.startswith(text) and not any(stop in text for stop in stops)


def test_what_was_held_back_before_a_loop_is_not_lost() -> None:
    def looping() -> Iterator[Event]:
        yield from (Text("a", 0), Text("\n", 1), Text("b", 2), Text("b", 3))
        yield Looped(Loop("b", 2, 2), 2, True)
        yield from (Text("c", 4), End("stop"))

    pieces: list[str] = []
    for event in until_stop(looping(), ("\n\n",)):
        if isinstance(event, Text):
            pieces.append(event.text)
        elif isinstance(event, Looped):
            del pieces[event.kept_tokens :]
    assert "".join(pieces) == "a\nc"


def test_the_session_ends_there_and_forgets_the_tokens_that_were_cut() -> None:
    model = LoadedModel("fake", FakeModel(["one two three"]), RunPlan(n_ctx=500, n_batch=16))
    session = Session(model)
    turn = session.turn([{"role": "user", "content": "Count"}])
    found = list(session.answer(turn, Sampling(temperature=0), Limits(stop=(" two",))))
    assert turn.text == "one" and found[-1] == End("stop") and session.last is None
    assert all(each.token != NO_TOKEN for each in found if isinstance(each, Text))


def test_what_is_no_stop_text() -> None:
    assert check_stops("a") == ("a",) and check_stops(["a", "b", "a"]) == ("a", "b")
    for wrong in ("", [""], ["x" * 1001], [str(n) for n in range(65)]):
        with pytest.raises(UsageError):
            check_stops(wrong)
