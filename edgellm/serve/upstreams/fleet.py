"""All upstreams of a front: watched, and chosen from.

fleet = Fleet(urls, key=None)
member = fleet.choose(asked, tried)
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import secrets
from collections.abc import Collection, Sequence

from edgellm.serve.http.problems import RETRY_SECONDS, Problem
from edgellm.serve.upstreams.asked import RequestedModel
from edgellm.serve.upstreams.link import Link
from edgellm.serve.upstreams.member import Member
from edgellm.suggest import did_you_mean

LOOK_SECONDS = 1.0
# Servers whose times differ by less are equally good; the conversation's own hash decides between them, so that it
# comes to the same one again, from another front too.
EVEN_SECONDS = 0.25

log = logging.getLogger("edgellm.serve")


class Fleet:
    """The upstreams; `front` is this front's id, by which it recognises requests that come back to it."""

    def __init__(self, urls: Sequence[str], *, key: str | None) -> None:
        self.front = f"edgellm-{secrets.token_hex(8)}"
        self.members = [Member(Link(url, key=key, via=self.front), self.front) for url in urls]
        self.n_retries = 0

    @property
    def up(self) -> list[Member]:
        """Those that answer."""
        return [member for member in self.members if member.is_up]

    async def look(self) -> None:
        """Ask all of them once."""
        await asyncio.gather(*(member.look() for member in self.members))

    async def run(self) -> None:
        """Watch them, until cancelled."""
        await asyncio.gather(*(self._watch(member) for member in self.members))

    async def _watch(self, member: Member) -> None:
        while True:
            before = member.problem
            await member.look()
            if bool(before) != bool(member.problem):
                log.info("upstream %s: %s", member.url, member.problem or "it answers")
            await asyncio.sleep(LOOK_SECONDS)

    async def close(self) -> None:
        """End all connections."""
        await asyncio.gather(*(member.link.close() for member in self.members))

    def choose(self, asked: RequestedModel, tried: Collection[Member] = ()) -> Member | None:
        """The upstream where a request gets its first token first, of those that were not tried yet."""
        able = [
            member
            for member in self.members
            if member.is_up and member not in tried and (asked.model is None or member.snapshot.has(asked.model))
        ]
        if not able:
            return None
        seconds = {member: member.seconds_until_first_token(asked) for member in able}
        least = min(seconds.values())
        even = [member for member in able if seconds[member] <= least + EVEN_SECONDS]
        # What is cached decides first: times are rough, and another server's idle slot will be wanted by somebody else.
        return max(even, key=lambda member: (member.cached_bytes(asked), _rank(asked, member)))

    def nobody(self, asked: RequestedModel) -> Problem:
        """Why no upstream can be chosen: no such model, or nobody who has it answers."""
        name = asked.model or ""
        away = [member for member in self.members if not member.is_up]
        if name and not any(member.may_have(name) for member in away):
            known = sorted({model for member in self.up for model in member.snapshot.models})
            guess = did_you_mean(name, known)
            why = f"did you mean {guess}?" if guess else f"they have {', '.join(known[:20]) or 'none'}"
            what = f"no server here has the model {name!r:.60}: {why}"
            return Problem(404, what, code="model_not_found", field="model")
        before = f"no server that answers has the model {name!r:.60}, and " if name and self.up else ""
        return self.nobody_answers(before)

    def nobody_answers(self, before: str = "") -> Problem:
        """That upstreams are away, after what is said `before`."""
        n_away = sum(not member.is_up for member in self.members)
        what = f"{before}{n_away} of {len(self.members)} servers do not answer"
        return Problem(503, what, code="no-upstream", retry_after=RETRY_SECONDS)


def _rank(asked: RequestedModel, member: Member) -> bytes:
    """Rendezvous hashing: an upstream that comes or goes moves only the conversations that are its own."""
    text = asked.chain.identity or secrets.token_bytes(8)
    return hashlib.blake2b(text + member.url.encode(), digest_size=8).digest()
