"""The kinds `all`, `any` and `not`: checks made of other checks.

AllChecker(of=(LengthChecker(words=5), ContainsChecker(all=("red",))))

`checker` has made those in `of` already.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, InstanceOf

from edgellm.evaluation.checkers.base import CheckerModel, right, wrong
from edgellm.evaluation.verdict import GivenAnswer, Verdict

Parts = Annotated[tuple[InstanceOf[CheckerModel], ...], Field(min_length=1, max_length=50)]


class AllChecker(CheckerModel):
    """Whether all of the checks find the answer right."""

    of: Parts

    def check(self, answer: GivenAnswer) -> Verdict:
        """Grade until one finds it wrong."""
        seen = []
        for part in self.of:
            found = part.check(answer)
            if found.score < 1:
                return found
            seen.append(found.seen)
        return right("; ".join(seen))


class AnyChecker(CheckerModel):
    """Whether at least one of the checks finds the answer right."""

    of: Parts

    def check(self, answer: GivenAnswer) -> Verdict:
        """Grade until one finds it right."""
        faults = []
        for part in self.of:
            found = part.check(answer)
            if found.score == 1:
                return found
            faults.append(found)
        return wrong("; ".join(fault.why for fault in faults), faults[-1].seen)


class NotChecker(CheckerModel):
    """Whether none of the checks finds the answer right."""

    of: Parts

    def check(self, answer: GivenAnswer) -> Verdict:
        """Grade until one finds it right."""
        for part in self.of:
            found = part.check(answer)
            if found.score == 1:
                return wrong("this must not be so", found.seen)
        return right(answer.text[:100])
