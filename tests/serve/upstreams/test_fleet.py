"""Which upstream gets a request."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

from edgellm.serve.upstreams.asked import RequestedModel
from edgellm.serve.upstreams.fleet import Fleet
from edgellm.serve.upstreams.link import Lost
from edgellm.serve.upstreams.member import Member
from edgellm.serve.upstreams.snapshot import Snapshot
from tests.serve.upstreams.scripted import MODEL, status

URLS = ["http://a:1", "http://b:1", "http://c:1"]


def fleet(**changes: Any) -> Fleet:
    found = Fleet(URLS, key=None)
    for member in found.members:
        say(member, **changes)
    return found


def say(member: Member, model: dict[str, Any] | None = None, **changes: Any) -> None:
    """Let a member report a status."""
    member._note(Snapshot.read(status(models=[{**MODEL, **(model or {})}], **changes)))


def asked(*texts: str, model: str | None = "smollm2") -> RequestedModel:
    roles = ("user", "assistant")
    messages = [{"role": roles[n % 2], "content": text} for n, text in enumerate(texts)]
    return RequestedModel.of(json.dumps({"model": model, "messages": messages}).encode())


def test_new_conversations_are_spread_and_come_to_the_same_server_from_any_front() -> None:
    one, other = fleet(), fleet()
    places: Counter[str] = Counter()
    for n in range(90):
        chosen, again = one.choose(asked(f"question {n}")), other.choose(asked(f"question {n}"))
        assert chosen is not None and again is not None and chosen.url == again.url
        places[chosen.url] += 1
    assert set(places) == set(URLS) and min(places.values()) > 10


def test_a_conversation_goes_on_where_it_began() -> None:
    found = fleet()
    for n in range(12):
        first = asked(f"question {n} " * 50)
        begun = found.choose(first)
        assert begun is not None
        with begun.answering(first):
            pass
        longer = asked(f"question {n} " * 50, "an answer", "and more")
        assert found.choose(longer) is begun and begun.cached_bytes(longer) > 500


def test_a_full_server_is_left_when_waiting_takes_longer_than_reading() -> None:
    found = fleet()
    short, long = asked("short " * 20), asked("long " * 4000)
    for request in (short, long):
        begun = found.choose(request)
        assert begun is not None
        with begun.answering(request):
            pass
        others = [asked(f"other {n}") for n in range(2)]
        with begun.answering(others[0]), begun.answering(others[1]):
            pass
        with begun.answering(request):  # it has the slot again, and is over
            pass
        say(begun, {"in_flight": 3})  # of other clients: two are answered, one waits
        assert (found.choose(request) is begun) == (request is long)
        say(begun)


def test_a_server_that_was_started_again_has_forgotten() -> None:
    found, request = fleet(), asked("question " * 300)
    begun = found.choose(request)
    assert begun is not None
    with begun.answering(request):
        pass
    say(begun, pid=2)
    assert begun.cached_bytes(request) == 0


def test_loaded_models_come_first() -> None:
    found = fleet(model={"state": "not loaded"})
    say(found.members[1])
    assert all(found.choose(asked(f"q{n}")) is found.members[1] for n in range(9))


def test_only_servers_that_have_the_model_are_asked() -> None:
    found = fleet()
    say(found.members[2], {"name": "other"})
    assert found.choose(asked("hi", model="other")) is found.members[2]
    assert found.choose(asked("hi", model="other"), [found.members[2]]) is None
    assert found.choose(asked("hi", model=None)) is not None


def test_nobody_is_404_or_503() -> None:
    found = fleet()
    problem = found.nobody(asked("hi", model="smollm"))
    assert problem.status == 404 and "did you mean smollm2?" in problem.message
    found.members[0].failed(Lost("refused"))  # it had smollm2 alone
    assert found.nobody(asked("hi", model="smollm")).status == 404
    for member in found.members:
        member.failed(Lost("refused"))
    problem = found.nobody(asked("hi"))
    assert problem.status == 503 and problem.retry_after and "3 of 3" in problem.message
    fresh = Fleet(URLS, key=None)  # nobody knows yet what they have
    assert fresh.choose(asked("hi")) is None and fresh.nobody(asked("hi")).status == 503


def test_a_server_that_is_late_gets_more_chances() -> None:
    member = fleet().members[0]
    for _ in range(2):
        member.failed(Lost("no answer within 5 s", is_late=True))
        assert not member.problem
    member.failed(Lost("no answer within 5 s", is_late=True))
    assert member.problem
    say(member)
    assert (member.problem, member.n_failures) == ("", 0)


def test_a_front_behind_itself_gets_no_requests() -> None:
    found = fleet()
    say(found.members[0], fronts=[found.front])
    assert found.members[0].problem == "it leads back to this front" and found.members[0] not in found.up
