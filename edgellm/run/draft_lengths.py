"""How long the drafts of a pass should be: what gains most tokens for the time that the pass takes.

    draft_lengths({0: drafter.gains(15)}, costs.times(500))         # {0: 6}

A draft is made only if the pass then yields clearly more tokens per second than without; else all lengths are 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from edgellm.run.drafts import MOST_ROWS

# What a draft must promise to be made: expectations are not exact.
LEAST_GAIN = 1.02
# With more answers under way a pass is so full that drafts no longer pay.
MOST_SLOTS = 4


def draft_lengths(gains: Mapping[int, Sequence[float]], times: Sequence[float]) -> dict[int, int]:
    """The length of each sequence's draft, by the number of the sequence.

    Args:
        gains: of each answer under way, what drafts of 1, 2 ... tokens are expected to gain (`Drafter.gains`).
        times: what a pass over so many rows costs (`DraftCosts.times`).
    """
    lengths = dict.fromkeys(gains, 0)
    if len(lengths) > MOST_SLOTS or not any(gains.values()):
        return lengths
    if len(gains) == 1:  # nearly always, and quickly
        ((seq, curve),) = gains.items()
        rates = [(1.0 + gain) / time for gain, time in zip(curve, times[2:], strict=False)]
        best = max(rates)
        return {seq: rates.index(best) + 1 if best > LEAST_GAIN else 0}
    rows_left = MOST_ROWS - len(lengths)
    expected = float(len(lengths))
    rate = expected / cost(lengths, times)
    while True:
        best, choice = LEAST_GAIN * rate, None
        for seq, curve in gains.items():
            now = lengths[seq]
            for length in range(now + 1, min(len(curve), now + rows_left) + 1):
                total = expected + curve[length - 1] - (curve[now - 1] if now else 0.0)
                if (then := total / cost({**lengths, seq: length}, times)) > best:
                    best, choice = then, (seq, length, total)
        if choice is None:
            return lengths
        seq, length, expected = choice
        rows_left -= length - lengths[seq]
        lengths[seq], rate = length, best


def cost(lengths: Mapping[int, int], times: Sequence[float]) -> float:
    """What a pass with drafts of these lengths costs.

    The engine computes sequences together that have consecutive numbers and as many tokens; what is longer takes
    another turn.
    """
    left = [[seq, 1 + lengths[seq]] for seq in sorted(lengths)]
    total = 0.0
    while left:
        run = [left[0]]
        for each in left[1:]:
            if each[0] != run[-1][0] + 1:
                break
            run.append(each)
        step = min(n_tokens for _, n_tokens in run)
        total += times[step * len(run)]
        for each in run:
            each[1] -= step
        left = [each for each in left if each[1]]
    return total
