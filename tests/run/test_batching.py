"""Continuous batching on a scripted engine: who is computed when, what is shared, and every way an answer ends."""

from collections.abc import Sequence

import pytest

from edgellm.engine.fake import FakeModel, FakeSequences
from edgellm.engine.sampling import Sampling
from edgellm.run.batching import Batcher, Job, Result

GREEDY = Sampling(temperature=0)


def opened(model: FakeModel, n_seq: int = 2, n_ctx: int = 400, n_batch: int = 64) -> tuple[Batcher, FakeSequences]:
    sequences = model.open_sequences(n_seq=n_seq, n_ctx=n_ctx, n_batch=n_batch, n_threads=1)
    return Batcher(model, sequences), sequences


def answer_all(batcher: Batcher, jobs: Sequence[Job]) -> dict[int, Result]:
    waiting, results = list(jobs), {}
    while waiting or batcher.busy:
        while waiting and batcher.busy < batcher.n_slots:
            batcher.admit(waiting.pop(0))
        for result in batcher.step():
            assert result.key not in results
            results[result.key] = result
    return results


def job(key: int, prompt: str, **more: object) -> Job:
    return Job(key, list(prompt.encode()), GREEDY, **more)  # type: ignore[arg-type]


def test_every_job_gets_its_own_answer_whatever_the_number_of_slots() -> None:
    model = FakeModel(["né 世界 🌍"])
    jobs = [job(key, f"question number {key:03d}") for key in range(20)]
    for n_seq in (1, 3, 8):
        results = answer_all(opened(model, n_seq)[0], jobs)
        assert all(results[key].text == model.reply(f"question number {key:03d}") for key in range(20))
        assert all(result.finish_reason == "stop" for result in results.values())


def test_prompts_and_answers_share_decode_calls_and_free_slots_are_filled_at_once() -> None:
    batcher, sequences = opened(FakeModel(["x" * 30]), n_seq=2)
    answer_all(batcher, [job(0, "a" * 10), job(1, "b" * 10, max_tokens=3), job(2, "c" * 20), job(3, "d" * 20)])
    mixed = [call for call in sequences.decoded if sorted(call.values()) == [1, 20]]
    assert len(mixed) == 2  # job 2 is read while job 0 is answered, job 3 while job 2 is
    one_by_one = opened(FakeModel(["x" * 30]), n_seq=1)[1]
    answers = [job(0, "a" * 10), job(1, "b" * 10, max_tokens=3), job(2, "c" * 20), job(3, "d" * 20)]
    answer_all(Batcher(FakeModel(["x" * 30]), one_by_one), answers)
    assert len(sequences.decoded) < 0.7 * len(one_by_one.decoded)


def test_a_long_prompt_does_not_stop_the_others() -> None:
    batcher, sequences = opened(FakeModel(["x" * 10]), n_seq=2, n_batch=32)
    batcher.admit(job(0, "a" * 4))
    batcher.step()
    batcher.admit(job(1, "b" * 200))
    for _ in range(6):
        batcher.step()
    assert [call[0] for call in sequences.decoded[1:7]] == [1] * 6
    assert [call.get(1) for call in sequences.decoded[1:7]] == [31] * 6


def test_a_common_prefix_is_computed_once_by_those_that_come_together() -> None:
    prefix = "p" * 150
    batcher, sequences = opened(FakeModel(["ok"]), n_seq=4)
    results = answer_all(batcher, [job(key, f"{prefix} question {key}", max_tokens=1) for key in range(12)])
    computed = sum(sum(call.values()) for call in sequences.decoded)
    assert computed < len(prefix) + 12 * 20
    assert results[0].reused_tokens == 0
    assert all(results[key].reused_tokens >= len(prefix) for key in range(1, 12))
    assert len({result.text for result in results.values()}) == 1 and results[3].completion_tokens == 1


def test_who_waits_for_a_prefix_goes_on_when_the_other_fails() -> None:
    batcher, sequences = opened(FakeModel(["ok"]), n_seq=2)
    prefix = "p" * 150
    batcher.admit(job(0, f"{prefix} a"))
    batcher.admit(job(1, f"{prefix} b"))
    batcher._slots.pop(0)  # as if it had gone
    sequences.keep(0, 0)
    results = {}
    while batcher.busy:
        results |= {result.key: result for result in batcher.step()}
    assert results[1].reused_tokens == 0 and results[1].text == "ok " + f"{prefix} b"[-8:]


def test_the_same_prompt_again_computes_only_its_last_token() -> None:
    batcher, sequences = opened(FakeModel(["ok"]), n_seq=1)
    answer_all(batcher, [job(0, "same prompt")])
    sequences.decoded.clear()
    results = answer_all(batcher, [job(1, "same prompt")])
    assert sequences.decoded[0] == {0: 1} and results[1].reused_tokens == len("same prompt") - 1


@pytest.mark.parametrize(("limit", "expected"), [(0, ""), (1, "a"), (3, "abc"), (6, "abcdef")])
def test_the_token_limit(limit: int, expected: str) -> None:
    (result,) = answer_all(opened(FakeModel(["abcdef"]))[0], [job(0, "x", max_tokens=limit)]).values()
    assert (result.text, result.finish_reason) == (expected, "length") and result.completion_tokens == limit


def test_the_context_ends_an_answer() -> None:
    (result,) = answer_all(opened(FakeModel(["a" * 50]), n_ctx=20)[0], [job(0, "x" * 10)]).values()
    assert (result.text, result.finish_reason) == ("a" * 10, "length")


@pytest.mark.parametrize(
    ("stops", "expected"), [(("cd",), "ab"), (("zz", "b"), "a"), (("a",), ""), (("zz",), "abcdef x")]
)
def test_stop_texts(stops: tuple[str, ...], expected: str) -> None:
    (result,) = answer_all(opened(FakeModel(["abcdef"]))[0], [job(0, "x", stop=stops)]).values()
    assert (result.text, result.finish_reason) == (expected, "stop")


def test_a_loop_ends_the_answer_before_it() -> None:
    model = FakeModel(["Well. " + "Yes, I am good. " * 60])
    (result,) = answer_all(opened(model, n_ctx=2000)[0], [job(0, "x")]).values()
    assert result.finish_reason == "repetition" and result.text.startswith("Well. Yes, I am good.")
    assert result.text.count("good") <= 2
    (free,) = answer_all(opened(model, n_ctx=2000)[0], [job(0, "x", loop_guard=False)]).values()
    assert free.finish_reason == "stop" and free.text.count("good") == 60


def test_a_loop_is_tried_again_once_from_before_it_with_penalties() -> None:
    model = FakeModel(["Yes, I am good. " * 60])
    batcher, sequences = opened(model, n_seq=1, n_ctx=3000)
    seen = []
    original = sequences.open_sampler

    def remember(seq: int, sampling: Sampling, history: Sequence[int] = ()) -> object:
        seen.append((sampling, len(history)))
        return original(seq, sampling, history)

    sequences.open_sampler = remember  # type: ignore[method-assign,assignment]
    (result,) = answer_all(batcher, [job(0, "x", retry=True)]).values()
    assert result.finish_reason == "repetition"  # the scripted model repeats itself again
    (first, _), (second, history) = seen
    assert first.dry_multiplier == 0 and second.dry_multiplier > 0 and second.repeat_penalty > 1
    assert 1 < history < 60


def test_a_character_cut_by_the_limit_is_marked_not_lost() -> None:
    (result,) = answer_all(opened(FakeModel(["世"]))[0], [job(0, "x", max_tokens=2)]).values()
    assert result.text == "\ufffd"
