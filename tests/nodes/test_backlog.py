"""Which waiting row a node gets: rows with a common beginning go together, nobody waits for ever."""

from edgellm.batch.slots import RowJob
from edgellm.nodes.backlog import LENGTHS, MOST_OVERTAKEN, Backlog, beginnings
from edgellm.run.message import Message

GROUPS = {name: name * 2000 for name in "abc"}


def job(key: int, prompt: str) -> RowJob:
    return RowJob(key, (Message(role="user", content=prompt),))


def test_rows_with_a_common_beginning_go_to_the_same_node() -> None:
    backlog = Backlog()
    prompts = {key: GROUPS["abc"[key % 3]] + str(key) for key in range(30)}
    for key, prompt in prompts.items():
        backlog.add(job(key, prompt))
    given: dict[str, list[str]] = {"n1": [], "n2": [], "n3": []}
    while len(backlog):
        for node in given:
            if (row := backlog.take(node, 2)) is not None:
                given[node].append(prompts[row.key][0])
    assert {node: set(groups) for node, groups in given.items()} == {"n1": {"a"}, "n2": {"b"}, "n3": {"c"}}


def test_without_common_beginnings_rows_go_in_their_order() -> None:
    backlog = Backlog()
    for key in range(5):
        backlog.add(job(key, f"row {key}"))
    taken = [backlog.take(f"n{key % 2}") for key in range(6)]
    assert [row and row.key for row in taken] == [0, 1, 2, 3, 4, None]


def test_a_free_node_takes_the_group_of_another_one_before_it_idles() -> None:
    backlog = Backlog()
    for key in range(3):
        backlog.add(job(key, GROUPS["a"] + str(key)))
    assert [(row := backlog.take(node)) and row.key for node in ("n1", "n2", "n1")] == [0, 1, 2]


def test_what_a_node_read_counts_until_it_is_gone_or_its_slots_hold_other_rows() -> None:
    backlog = Backlog()
    backlog.add(job(0, GROUPS["a"]))
    backlog.take("n1")
    for key, group in enumerate("ba", 1):
        backlog.add(job(key, GROUPS[group]))
    backlog.forget("n1")
    assert (row := backlog.take("n1")) and row.key == 1  # nothing is known of it: the first one
    backlog.forget("n1")
    backlog.forget("never seen")
    assert not backlog._holders and not backlog._read


def test_a_row_that_was_overtaken_too_often_is_next() -> None:
    backlog = Backlog()
    backlog.add(job(0, GROUPS["a"] + "first"))
    backlog.take("n1")
    backlog.add(job(1, GROUPS["b"]))
    for key in range(2, 2 + 2 * MOST_OVERTAKEN):
        backlog.add(job(key, GROUPS["a"] + str(key)))
    order = [row.key for _ in range(2 * MOST_OVERTAKEN) if (row := backlog.take("n1"))]
    assert order.index(1) == MOST_OVERTAKEN


def test_rows_that_come_back_are_first() -> None:
    backlog = Backlog()
    for key in range(3):
        backlog.add(job(key, "x"))
    lost = backlog.take("n1")
    assert lost is not None
    backlog.add(lost, first=True)
    assert (row := backlog.take("n2")) and row.key == 0


def test_beginnings_are_compared_at_the_lengths_that_a_row_has() -> None:
    long, short = job(0, "x" * 5000), job(1, "x" * 10)
    assert len(beginnings(long)) == 3 and beginnings(short) == ()
    assert beginnings(job(2, "x" * 4999 + "y"))[:2] == beginnings(long)[:2]
    assert len(beginnings(RowJob(3, prompt=tuple(range(1000))))) == sum(length <= 3889 for length in LENGTHS)
    assert beginnings(RowJob(4, prompt="\ud800" * 300))
