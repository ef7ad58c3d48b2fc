"""The live line of a batch: what it says of slots here, at a server, and on a cluster."""

from edgellm.batch.tally import Tally
from edgellm.progress import Progress
from edgellm.ui.batch_line import watch_batch


def line(tally: Tally) -> str:
    shown: list[Progress] = []
    watch_batch([(tally, "")], shown.append, quiet=True)
    return str(shown[0])


def test_a_cluster_is_shown_by_its_nodes_and_all_their_slots() -> None:
    tally = Tally(100, 12, done=10, busy=40, completion_tokens=500, seconds=10.0, n_nodes=3)
    assert "3 nodes, 12 slots" in line(tally) and "50.0 tok/s" in line(tally) and "40/12" not in line(tally)
    assert "1 node, 4 slots" in line(Tally(100, 4, seconds=1.0, n_nodes=1))


def test_slots_of_a_model_here_are_shown_with_those_that_are_busy() -> None:
    assert "3/4 slots" in line(Tally(100, 4, busy=3, seconds=1.0))
