"""Chains of hashes over prompts, the slots that hold them, and how requests of every protocol become such chains."""

import json
import tracemalloc

from edgellm.serve.upstreams.asked import MOST_NAME, RequestedModel
from edgellm.serve.upstreams.prefixes import MOST_PIECES, PIECE, CachedPrefixes, Chain

SYSTEM, HELLO, MORE = b"You help.", b"Hello", b"And then?"


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def asked(**body: object) -> RequestedModel:
    return RequestedModel.of(json.dumps(body).encode())


def test_a_longer_conversation_shares_what_came_before() -> None:
    first, longer = Chain.of([SYSTEM, HELLO], 1), Chain.of([SYSTEM, HELLO, b"Hi.", MORE], 1)
    assert longer.shared(first) == first.shared(longer) == len(SYSTEM + HELLO)
    assert first.identity == longer.identity
    assert Chain.of([b"Other.", HELLO]).shared(first) == 0
    assert Chain.of([SYSTEM, MORE]).shared(first) == len(SYSTEM)
    assert Chain.of([]).shared(first) == 0


def test_where_parts_end_is_part_of_them() -> None:
    assert Chain.of([b"ab", b"c"]).shared(Chain.of([b"a", b"bc"])) == 0


def test_a_long_prompt_is_compared_in_pieces() -> None:
    text = bytes(range(256)) * 64
    changed = text[: 3 * PIECE + 5] + b"!" + text[3 * PIECE + 6 :]
    assert Chain.of([text]).shared(Chain.of([changed])) == 3 * PIECE
    assert len(Chain.of([text * 1000]).hashes) == MOST_PIECES


def test_slots_hold_what_was_read_last() -> None:
    cached = CachedPrefixes(2)
    chains = [Chain.of([SYSTEM * 9, f"question {n}".encode() * 99]) for n in range(3)]
    for chain in chains[:2]:
        cached.release(cached.take(chain))
    assert [cached.n_bytes(chain) for chain in chains] == [chains[0].n_bytes, chains[1].n_bytes, len(SYSTEM) * 9]
    cached.release(cached.take(chains[0]))
    cached.release(cached.take(chains[2]))  # takes the slot that was used least recently
    assert cached.n_bytes(chains[0]) == chains[0].n_bytes and cached.n_bytes(chains[1]) == len(SYSTEM) * 9


def test_a_slot_at_work_is_no_use_to_others() -> None:
    cached, chain = CachedPrefixes(1), Chain.of([HELLO])
    slot = cached.take(chain)
    assert cached.n_bytes(chain) == 0 and cached.take(chain) is None
    cached.release(slot)
    assert cached.n_bytes(chain) == len(HELLO)
    cached.release(None, Chain.of([MORE]))  # it had waited for the slot
    assert cached.n_bytes(chain) == 0


def test_memory_is_bounded_by_slots() -> None:
    cached = CachedPrefixes(4)
    tracemalloc.start()
    for n in range(12):
        cached.release(cached.take(Chain.of([f"{n} ".encode() * 400_000])))
    used, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert used < 4 * MOST_PIECES * 200


def test_every_protocol_has_a_chain() -> None:
    messages = [{"role": "system", "content": "Help."}, user("Hello")]
    answer = [{"role": "assistant", "content": "Hi."}, user("More")]
    openai = asked(model="smollm2:latest", messages=messages)
    assert openai.model == "smollm2"
    assert asked(messages=[*messages, *answer]).chain.shared(openai.chain) == openai.chain.n_bytes
    anthropic = asked(system="Help.", messages=[user("Hello")])
    longer = asked(system="Help.", messages=[user("Hello"), *answer])
    assert longer.chain.shared(anthropic.chain) == anthropic.chain.n_bytes
    assert longer.chain.identity == anthropic.chain.identity
    for body in (
        {"instructions": "Help.", "input": "Hello"},
        {"prompt": "Once"},
        {"prompt": [[1, 2], [3]]},
        {"name": "x"},
    ):
        assert asked(**body).chain.n_bytes or body == {"name": "x"}
    assert asked(name="x").model == "x"


def test_marks_that_move_change_nothing() -> None:
    marked = {"role": "user", "content": [{"type": "text", "text": "Hi", "cache_control": {"type": "ephemeral"}}]}
    plain = {"content": [{"text": "Hi", "type": "text"}], "role": "user"}
    assert asked(messages=[marked]).chain == asked(messages=[plain]).chain


def test_anything_may_be_sent() -> None:
    for body in (
        b"",
        b"{bad",
        b"[1]",
        b"null",
        b'{"messages": 7}',
        b'{"model": 7, "messages": [null, 3]}',
        b"[" * 100_000,
    ):
        assert RequestedModel.of(body).model is None
    assert RequestedModel.of(b'{"model": "%b"}' % (b"x" * 300)).model == "x" * (MOST_NAME + 1)  # no model has it
    assert RequestedModel.of(b'{"messages": ["\\ud800"]}').chain.n_bytes == 0  # half of a character is no JSON
    assert RequestedModel.of(b"", "of the path").model == "of the path"
