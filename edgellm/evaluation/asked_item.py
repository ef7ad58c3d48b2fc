"""The items of an evaluation as rows of a batch, and the answers of a batch as judged items.

asked = AskedItem(suite, item, "")
asked.row(raw=False), asked.judged(answer_line)
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from edgellm.errors import UsageError
from edgellm.evaluation.checkers import checker
from edgellm.evaluation.item import Item
from edgellm.evaluation.log import LoggedItem
from edgellm.evaluation.suite import GUARDED, Suite
from edgellm.evaluation.verdict import Checker, GivenAnswer, Verdict

# For items and suites that do not say it.
MAX_TOKENS = 512
# A model that only continues texts goes on with a question of its own, or with another paragraph.
RAW_STOPS = ("\n\n", "\nQuestion:")


@dataclass(frozen=True)
class AskedItem:
    """An item as it is asked in one pass of its suite; `pass_name` is empty where there is only one."""

    suite: Suite
    item: Item
    pass_name: str

    @property
    def messages(self) -> list[dict[str, str]]:
        """The system message, if there is one, and the user's."""
        system = self.suite.system if self.item.system is None else self.item.system
        head = [{"role": "system", "content": system}] if system else []
        return [*head, {"role": "user", "content": self.item.prompt}]

    @cached_property
    def checker(self) -> Checker:
        """What judges the answer.

        Raises:
            UsageError: the check of the item is wrong.
        """
        try:
            return checker(self.item.check)
        except UsageError as error:
            what = f"the check of {self.suite.name}/{self.item.id} is wrong: {error.what}"
            raise UsageError(what, why=error.why, hint=error.hint) from error

    def row(self, *, raw: bool, most_tokens: int = -1) -> dict[str, Any]:
        """The line of a batch that asks it; with `raw` as a text to continue, for models without a chat template."""
        own = self.item.max_tokens or self.suite.max_tokens or MAX_TOKENS
        body: dict[str, Any] = {"max_tokens": own if most_tokens < 0 else min(own, most_tokens)}
        if self.item.schema is not None:
            form = {"name": "answer", "schema": self.item.schema}
            body["response_format"] = {"type": "json_schema", "json_schema": form}
        if raw:
            body |= {"prompt": self._text(), "stop": RAW_STOPS}
        else:
            body["messages"] = self.messages
        url = "/v1/completions" if raw else "/v1/chat/completions"
        custom_id = "/".join(filter(None, (self.suite.name, self.item.id, self.pass_name)))
        row = {"custom_id": custom_id, "method": "POST", "url": url, "body": body}
        return row | ({"loop_guard": self.pass_name == GUARDED} if self.pass_name else {})

    def _text(self) -> str:
        *head, question = (message["content"] for message in self.messages)
        return "".join(f"{text}\n\n" for text in head) + f"Question: {question}\nAnswer:"

    def judged(self, line: Mapping[str, Any]) -> LoggedItem:
        """The item with its answer and verdict, from a line of the batch's output."""
        response, error = line["response"], line["error"]
        # An answer that was cut off before its form was whole is an answer all the same.
        body = response["body"] if response else error.get("completion")
        if body is None:
            return self._logged(GivenAnswer("", "error"), Verdict(0.0, why=error["message"]))
        (choice,), usage, timings = body["choices"], body["usage"], body["timings"]
        answer = GivenAnswer(
            choice["message"]["content"] if "message" in choice else choice["text"].strip(),
            choice["finish_reason"],
            usage["prompt_tokens"],
            usage["completion_tokens"],
            timings["prompt_ms"] / 1000,
            timings["predicted_ms"] / 1000,
        )
        return self._logged(answer, self.checker.check(answer))

    def _logged(self, answer: GivenAnswer, verdict: Verdict) -> LoggedItem:
        item = self.item
        return LoggedItem(
            self.suite.name, item.id, item.category, item.language, self.pass_name, tuple(self.messages), answer.text,
            answer.finish_reason, item.check, verdict.seen, verdict.score, verdict.why, answer.prompt_tokens,
            answer.completion_tokens, answer.prefill_seconds, answer.decode_seconds,
        )  # fmt: skip


def asked_items(suites: Iterable[Suite]) -> list[AskedItem]:
    """Everything that some suites ask, in order.

    Raises:
        UsageError: the check of an item is wrong, or two suites have the same name.
    """
    suites = list(suites)
    if len(names := {suite.name for suite in suites}) < len(suites):
        raise UsageError(f"a suite is asked for twice: {', '.join(sorted(names))}", hint="each suite once")
    found = [
        AskedItem(suite, item, pass_name)
        for suite in suites
        for pass_name in suite.passes or ("",)
        for item in suite.items
    ]
    for asked in found:
        _ = asked.checker
    return found
