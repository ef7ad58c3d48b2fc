"""The simulation behind docs/explanation/many-machines.md, in small."""

from statistics import mean

from tests.serve.upstreams.affinity import ANSWER, PICTURE, QUESTION, SYSTEM, at_random, figures, front, least_busy


def test_the_front_keeps_conversations_where_they_are_cached() -> None:
    ours, random, busy = (figures(4, 0.5, choose, n_turns=2_500) for choose in (front, at_random, least_busy))
    assert len(ours.cached) > 500
    assert mean(ours.hits) > 2 * max(mean(random.hits), mean(busy.hits))
    assert mean(ours.seconds) < min(mean(random.seconds), mean(busy.seconds))


def test_one_server_hits_as_often_whoever_chooses() -> None:
    ours, random = (figures(1, 0.5, choose, n_turns=2_500) for choose in (front, at_random))
    assert abs(mean(ours.cached) - mean(random.cached)) < 0.1


def test_the_picture_is_there() -> None:
    assert PICTURE.read_text().startswith("<svg") and SYSTEM + QUESTION + ANSWER
