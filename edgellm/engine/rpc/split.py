"""Which layers of a model are where: the first ones here, the others on workers, in their order.

Split(10, (WorkerShare(Address("10.0.0.2", 7531), 20),))
"""

from __future__ import annotations

from dataclasses import dataclass

from edgellm.engine.rpc.address import Address

# The tensors that stay here although all layers after them are elsewhere: the embedding, and the head, whose result is
# much larger than what goes into it.
KEPT_HERE = "^(output|token_embd|cls|dec_output)"


@dataclass(frozen=True, slots=True)
class WorkerShare:
    """What one worker holds: so many layers; bytes of their weights, of their cache, and in all."""

    address: Address
    n_layers: int
    weights: int = 0
    kv_cache: int = 0
    total: int = 0
    available: int = 0


@dataclass(frozen=True, slots=True)
class Split:
    """`n_here` layers are here, beside embedding and head; `total` bytes are needed here, `available` there are."""

    n_here: int
    workers: tuple[WorkerShare, ...]
    total: int = 0
    available: int = 0

    @property
    def n_away(self) -> int:
        """How many layers are on workers."""
        return sum(share.n_layers for share in self.workers)

    @property
    def portions(self) -> list[float]:
        """The engine's portions of the layers, the head counted as one more.

        The engine compares a layer's number with sums of these, as float32: half a layer of distance makes it exact.
        """
        portions = [float(share.n_layers) for share in self.workers]
        portions[0] -= 0.5
        portions[-1] += 1.5
        return portions

    def __str__(self) -> str:
        parts = [f"{self.n_here} layers here", *(f"{each.n_layers} on {each.address}" for each in self.workers)]
        return ", ".join(parts)
