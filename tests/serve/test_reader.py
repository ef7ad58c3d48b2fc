"""llama-server's chunks as events: recorded streams, each field of a delta, faults in the middle, missing ends."""

import asyncio
import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgellm.errors import EngineError, NotFinite
from edgellm.run.events import Begin, Call, End, Event, Prefill, Text, Thought, TokenCounts
from edgellm.serve.answer.reader import Reader, read
from edgellm.serve.workers.upstream import Chunk, UpstreamRefused
from tests.serve.recordings import NAMES, chunks, events, read_all, sent

ANSWERED = [name for name in NAMES if name != "completion_refused"]
ENTRY = {"id": 1, "token": "a", "bytes": [97], "logprob": -0.5, "top_logprobs": []}


def chunk(*choices: dict[str, Any], **more: Any) -> Chunk:
    """A chunk as it comes over the socket."""
    data = {"id": "x", "created": 7, "model": "m", "choices": list(choices), **more}
    return Chunk(data, b"data: " + json.dumps(data).encode())


def delta(index: int = 0, reason: str | None = None, logprobs: Any = None, **fields: Any) -> dict[str, Any]:
    """A choice of a chat's chunk."""
    return {"index": index, "delta": fields, "finish_reason": reason, "logprobs": logprobs}


BEGUN = chunk(delta(role="assistant", content=None))


def read_after_begin(*items: Chunk) -> list[Event]:
    return read_all([BEGUN, *items])[1:]


def of_kind(found: list[Event], kind: Any, index: int = 0) -> list[Any]:
    return [event for event in found if isinstance(event, kind) and getattr(event, "index", index) == index]


@pytest.mark.parametrize("name", ANSWERED)
def test_a_recording_begins_once_and_each_answer_ends_once_with_its_counts(name: str) -> None:
    found = events(name)
    assert [type(event) for event in found].count(Begin) == 1
    assert {type(event) for event in found[:2]} & {Begin}, "only the progress of the prompt comes before"
    ends = of_kind(found, End) + of_kind(found, End, 1)
    assert len(ends) == len({end.index for end in ends}) == (2 if name.endswith(("n2", "prompts")) else 1)
    for end in ends:
        assert end.tokens is not None and end.tokens.completion > 0 and end.tokens.prompt > 0
        assert end.timings["predicted_n"] == end.tokens.completion


@pytest.mark.parametrize("name", ANSWERED)
def test_each_line_of_a_recording_is_in_one_event_at_most(name: str) -> None:
    lines = [event.raw for event in events(name) if getattr(event, "raw", b"")]
    # The ends are written anew.
    others = [each.data["choices"] and not each.data["choices"][0]["finish_reason"] for each in chunks(name)]
    assert lines == [chunk.raw for chunk, is_other in zip(chunks(name), others, strict=True) if is_other]


def test_what_the_recordings_say() -> None:
    progress = events("chat_progress")
    assert progress[:2] == [Prefill(0, 215, 0), Begin(about("chat_progress"), chunks("chat_progress")[0].raw)]
    assert Prefill(215, 215, 0) in progress
    thought = events("chat_thought")
    assert "".join(event.text for event in of_kind(thought, Thought)) == "Paris is a city.\n"
    assert "".join(event.text for event in of_kind(thought, Text)) == "It is Paris."
    assert of_kind(thought, End)[0].tokens == TokenCounts(14, 28, 3)
    calls = of_kind(events("chat_calls"), Call)
    assert {call.position for call in calls} == {0, 1}
    assert [call.name for call in calls if call.id] == ["weather", "weather"] and len(calls[0].id) == 32
    arguments = "".join(call.arguments for call in calls if call.position == 1)
    assert json.loads(arguments) == {"city": "Rome"}
    assert of_kind(events("chat_stop"), End)[0].stop_text == " size"
    assert of_kind(events("chat_stop"), End)[0].reason == "stop"
    first, second = (of_kind(events("chat_n2"), Text, index) for index in (0, 1))
    assert "".join(text.text for text in first) != "".join(text.text for text in second)
    logprobs = [event.logprobs for event in of_kind(events("chat_logprobs"), Text) if event.text]
    assert all(len(entries) == 1 and len(entries[0]["top_logprobs"]) == 2 for entries in logprobs)


def about(name: str) -> dict[str, Any]:
    return {key: chunks(name)[0].data[key] for key in ("id", "created", "model", "system_fingerprint")}


def test_a_refusal_in_a_stream_is_a_refusal() -> None:
    with pytest.raises(UpstreamRefused) as refused:
        events("completion_refused")
    assert refused.value.status == 400 and refused.value.code == "context_length_exceeded"
    assert refused.value.facts == {"n_prompt_tokens": 1001, "n_ctx": 512}


@pytest.mark.parametrize("error", [{"code": 500, "message": "Compute error."}, "broken", None, {"message": "x" * 900}])
def test_a_fault_in_the_middle_is_the_engine_s(error: Any) -> None:
    reader = Reader()
    list(reader.read(BEGUN.data, BEGUN.raw))
    with pytest.raises(EngineError) as failed:
        list(reader.read({"error": error}, b""))
    assert failed.value.what == "the worker failed while it answered" and len(failed.value.why) <= 200


def test_every_field_of_a_delta_is_an_event() -> None:
    call = {"index": 2, "id": "c", "type": "function", "function": {"name": "f", "arguments": "{"}}
    whole = chunk(delta(1, reasoning_content="hm", content="so", tool_calls=[call]))
    assert read_after_begin(whole) == [
        Thought("hm", 1, raw=whole.raw),
        Text("so", index=1),
        Call(2, "c", "f", "{", 1),
    ]
    assert read_after_begin(chunk(delta(reasoning="hm")))[0] == Thought("hm", raw=chunk(delta(reasoning="hm")).raw)
    more = chunk(delta(tool_calls=[{"index": 0, "function": {"arguments": "1"}}, {"index": 1}]))
    assert read_after_begin(more) == [Call(0, "", "", "1", raw=more.raw), Call(1, "", "", "")]
    text = chunk({"index": 0, "text": "a", "logprobs": {"content": [ENTRY]}, "finish_reason": None})
    assert read_after_begin(text) == [Text("a", logprobs=(ENTRY,), raw=text.raw)]


def test_log_probabilities_belong_to_one_event() -> None:
    both = chunk(delta(logprobs={"content": [ENTRY]}, reasoning_content="hm", content="so"))
    found = [event.logprobs for event in read_after_begin(both) if isinstance(event, (Text, Thought))]
    assert sorted(found) == [(), (ENTRY,)]
    (with_entries,) = [event for event in read_after_begin(both) if getattr(event, "logprobs", ())]
    assert with_entries.raw == both.raw, "the line has them"


@pytest.mark.parametrize("is_first", [True, False])
def test_log_probabilities_of_a_token_without_text_are_kept(is_first: bool) -> None:
    held = chunk({"index": 0, "text": "", "logprobs": {"content": [ENTRY]}, "finish_reason": None})
    found = read_all([held] if is_first else [BEGUN, held])
    assert found[1:] == [Text("", logprobs=(ENTRY,), raw=held.raw)]
    assert found[0] == Begin(found[0].about, b"" if is_first else BEGUN.raw)  # type: ignore[union-attr]


def test_several_choices_in_one_chunk_share_a_line() -> None:
    both = chunk(delta(0, content="a"), delta(1, content="b"))
    assert read_after_begin(both) == [Text("a", index=0, raw=both.raw), Text("b", index=1)]


def test_an_end_without_counts_is_an_end() -> None:
    cut = chunk(delta(content="a"))
    ended = chunk(delta(reason="stop"))
    assert read_after_begin(cut, ended)[-1] == End("stop")
    assert read_after_begin(cut) == [Text("a", raw=cut.raw)], "a stream that stops has no end"
    other = chunk(delta(1, reason="length"))
    assert read_after_begin(ended, other) == [End("stop"), End("length", 1)]
    assert read_after_begin(chunk(usage={"prompt_tokens": 1, "completion_tokens": 1})) == [], "counts of nothing"


def test_counts_with_the_end_or_after_it() -> None:
    usage = {"prompt_tokens": 3, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 1}}
    timings = {"predicted_n": 2}
    with_end = read_after_begin(chunk(delta(reason="stop"), usage=usage, timings=timings))
    after = read_after_begin(chunk(delta(reason="stop")), chunk(usage=usage, timings=timings))
    assert with_end == after == [End("stop", tokens=TokenCounts(3, 2, 1), timings=timings)]
    bare = read_after_begin(chunk(delta(reason="stop"), usage={"prompt_tokens": 3, "completion_tokens": 2}))
    assert bare == [End("stop", tokens=TokenCounts(3, 2, 0))]


def test_the_first_chunk_may_be_the_whole_answer() -> None:
    usage = {"prompt_tokens": 3, "completion_tokens": 0}
    only = chunk({"index": 0, "text": "", "finish_reason": "length"}, usage=usage)
    begin, end = read_all([only])
    assert begin == Begin({"id": "x", "created": 7, "model": "m", "system_fingerprint": None})
    assert end == End("length", tokens=TokenCounts(3, 0, 0))
    assert read_all([]) == []


def test_a_first_chunk_with_counts_alone_gives_its_line_once() -> None:
    usage = {"prompt_tokens": 3, "completion_tokens": 0}
    first = chunk(delta(role="assistant"), usage=usage)
    assert [event.raw for event in read_all([first])] == [first.raw, b""]  # type: ignore[union-attr]


def test_a_stream_is_read_to_its_end() -> None:
    async def collected() -> list[Event]:
        return [event async for event in read(sent(chunks("chat")))]

    assert asyncio.run(collected()) == events("chat")


texts = st.sampled_from([None, "", "a", "é", "日本", " so"])
entries = st.one_of(st.none(), st.builds(lambda n: {"content": [ENTRY] * n}, st.integers(0, 2)))
calls = st.lists(
    st.fixed_dictionaries(
        {"index": st.integers(0, 3)},
        optional={
            "id": texts,
            "function": st.fixed_dictionaries({}, optional={"name": texts, "arguments": texts}),
        },
    ),
    max_size=2,
)
choices = st.fixed_dictionaries(
    {"index": st.integers(0, 3), "finish_reason": st.sampled_from([None, None, None, "stop", "length", "tool_calls"])},
    optional={
        "text": texts,
        "logprobs": entries,
        "delta": st.one_of(
            st.none(),
            st.fixed_dictionaries(
                {},
                optional={"role": st.just("assistant"), "content": texts, "reasoning_content": texts,
                          "tool_calls": st.one_of(st.none(), calls)},
            ),
        ),
    },
)  # fmt: skip
counts = st.fixed_dictionaries(
    {"prompt_tokens": st.integers(0, 9), "completion_tokens": st.integers(0, 9)},
    optional={"prompt_tokens_details": st.one_of(st.none(), st.just({}), st.just({"cached_tokens": 1}))},
)
progress = st.fixed_dictionaries(
    {"total": st.integers(0, 9), "cache": st.integers(0, 9)}, optional={"processed": st.integers(0, 9)}
)
shapes = st.fixed_dictionaries(
    {},
    optional={
        "id": texts, "created": st.integers(), "model": texts,
        "choices": st.one_of(st.none(), st.lists(choices, max_size=2)),
        "usage": st.one_of(st.none(), counts),
        "timings": st.one_of(st.none(), st.just({}), st.just({"predicted_n": 1})),
        "prompt_progress": st.one_of(st.none(), progress),
        "__verbose": st.one_of(st.none(), st.just({}), st.just({"stopping_word": "x"})),
    },
)  # fmt: skip


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(shapes, max_size=4))
def test_no_shape_of_a_chunk_is_a_fault_of_ours(data: list[dict[str, Any]]) -> None:
    found = read_all([Chunk(each, b"data: %d" % number) for number, each in enumerate(data)])
    said = [choice for each in data for choice in each.get("choices") or ()]
    texts = "".join((choice.get("delta") or {}).get("content") or choice.get("text") or "" for choice in said)
    assert "".join(event.text for event in found if isinstance(event, Text)) == texts
    n_entries = sum(len((choice.get("logprobs") or {}).get("content") or ()) for choice in said)
    assert sum(len(event.logprobs) for event in found if isinstance(event, (Text, Thought))) <= n_entries
    reasons = [choice["finish_reason"] for choice in said if choice["finish_reason"]]
    assert [event.reason for event in found if isinstance(event, End)] == reasons
    lines = [event.raw for event in found if getattr(event, "raw", b"")]
    assert len(lines) == len(set(lines))


def test_a_logprob_that_is_no_number_ends_the_answer() -> None:
    """JSON shows NaN as null."""
    with pytest.raises(NotFinite, match="m computes no numbers"):
        read_after_begin(chunk(delta(content="a", logprobs={"content": [{**ENTRY, "logprob": None}]})))
