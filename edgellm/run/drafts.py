"""Drafts the next tokens of an answer from what stands already in its own prompt and answer.

    drafter = Drafter(prompt)
    drafter.feed(token)                     # each token of the answer, as it is drawn
    drafter.draft(most=4)                   # what followed where the last tokens came before
    drafter.gains(most=4)                   # how many of those will be right: [0.9, 1.7, 2.4, 3.1]

A draft only decides which rows a pass computes; each token is still drawn from its own row by the sampler. So a wrong
draft costs time and changes nothing. A drafter knows one conversation and no other.
`patches/native/server/drafts.h` is the same for llama-server; a test compares the two.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

# A pass of more rows may give a row other bits than it gets alone (`patches/native/alone.h`).
MOST_ROWS = 16
MOST_DRAFT = MOST_ROWS - 1
# Earlier places of the last two tokens that are compared, the latest first, and how far back each is compared.
MOST_PLACES, MOST_LENGTH = 8, 32
# The shortest matches of each bucket, and how often the next token was right after a match of that length when nothing
# is known yet: medians over real answers. An expectation counts like PRIOR_WEIGHT tokens, and old tokens fade.
LENGTHS = (2, 3, 4, 5, 6, 8, 12, 16, 24)
EXPECTED = (0.25, 0.40, 0.50, 0.58, 0.64, 0.72, 0.80, 0.86, 0.92)
PRIOR_WEIGHT, FADING = 6.0, 0.93
# What is less likely to be reached than that is not worth planning.
LEAST_REACH = 0.02
_BUCKETS = [sum(length >= each for each in LENGTHS) - 1 for length in range(MOST_LENGTH + MOST_ROWS)]


class Drafter:
    """Finds the longest earlier match of the last tokens, and counts how often such matches went on being right.

    Every token after a match counts, drafted or not, so it knows whether a draft would have paid before it makes one.
    """

    def __init__(self, tokens: Iterable[int] = ()) -> None:
        """`tokens` are the prompt: they are searched, but say nothing about how well drafts do."""
        self.tokens: list[int] = []
        # The last place of each pair of tokens, and the place before that; a place is that of the pair's second token,
        # and 0 stands for none.
        self._latest: dict[int, int] = {}
        self._earlier: list[int] = []
        # The token after the match, and how long the match is.
        self._next = self._length = 0
        self._tried = [0.0] * len(LENGTHS)
        self._right = [0.0] * len(LENGTHS)
        self._add(tokens)
        self._search()

    def _add(self, tokens: Iterable[int]) -> None:
        ours, earlier, latest = self.tokens, self._earlier, self._latest
        last = ours[-1] if ours else -1
        for token in tokens:
            pair = (last << 32) | token
            earlier.append(latest.get(pair, 0) if last >= 0 else 0)
            if last >= 0:
                latest[pair] = len(ours)
            ours.append(token)
            last = token

    def feed(self, token: int) -> None:
        """Append the next token of the answer."""
        if not self._length:
            self._add((token,))
            self._search()
            return
        bucket, is_right = _BUCKETS[self._length], token == self.tokens[self._next]
        self._tried[bucket] = FADING * self._tried[bucket] + 1.0
        self._right[bucket] = FADING * self._right[bucket] + is_right
        self._add((token,))
        if is_right:
            self._next += 1
            self._length = min(self._length + 1, MOST_LENGTH)
        else:
            self._search()

    def _search(self) -> None:
        """Find the longest match that ends in an earlier place, the latest of several."""
        tokens, end, self._length = self.tokens, len(self.tokens) - 1, 0
        place = self._earlier[end] if end > 0 else 0
        for _ in range(MOST_PLACES):
            if not place:
                break
            length = 2
            while length < MOST_LENGTH and length <= place and tokens[place - length] == tokens[end - length]:
                length += 1
            if length > self._length:
                self._length, self._next = length, place + 1
            place = self._earlier[place]

    def gains(self, most: int) -> Sequence[float]:
        """How many tokens of a draft of 1, 2 ... up to `most` tokens will be right, as far as can be expected."""
        if not self._length:
            return ()
        found, total, reach = [], 0.0, 1.0
        tried, right = self._tried, self._right
        for length in range(self._length, self._length + min(most, MOST_DRAFT)):
            bucket = _BUCKETS[length]
            reach *= (right[bucket] + PRIOR_WEIGHT * EXPECTED[bucket]) / (tried[bucket] + PRIOR_WEIGHT)
            if reach < LEAST_REACH:
                break
            total += reach
            found.append(total)
        return found

    def draft(self, most: int) -> list[int]:
        """The tokens that followed the match; where it runs into the end of the text, the draft goes on from itself."""
        if not self._length:
            return []
        found = self.tokens[self._next : self._next + most]
        for place in range(most - len(found)):
            found.append(found[place])
        return found
