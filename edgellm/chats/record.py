"""The messages of one chat, in memory and, if it is saved, in the store: both change in the same call.

    record = ChatRecord(store, model="smollm2", system=None)
    record.add("user", "What is a ternary weight?")
    record.add("assistant", "A weight that is only -1, 0 or +1.", "stop")
    record.messages

Without a store the messages are only in memory. A chat is created with its first message, so no saved chat is empty.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgellm.chats.transcript import CitedMessage, cited, messages_of
from edgellm.documents.answers.citation import Citation
from edgellm.run.message import Message
from edgellm.tools.record import CallRecord

if TYPE_CHECKING:
    from edgellm.chats.store import ChatStore, SavedChat


@dataclass(frozen=True, slots=True)
class Entry:
    """One message that the model sees; `row` is its id in the store, None when it is not saved.

    `citations` are the places in documents that bear it, `calls` the tools that were called for it; the model sees
    neither again.
    """

    role: str
    content: str
    row: int | None = None
    citations: Sequence[Citation] = ()
    calls: Sequence[CallRecord] = ()

    @property
    def message(self) -> Message:
        """It as chat templates take it."""
        return Message(role=self.role, content=self.content)


class ChatRecord:
    """One chat: `system` is its system message or None, `entries` what was said since, `chat` its id once saved.

    `docs` names the documents that its questions are put to, None for none.
    """

    def __init__(self, store: ChatStore | None, model: str, system: str | None) -> None:
        self.store = store
        self.model = model
        self.system = system
        self.docs: str | None = None
        self.chat: str | None = None
        self.entries: list[Entry] = []

    @classmethod
    def resume(cls, store: ChatStore, saved: SavedChat) -> ChatRecord:
        """A saved chat, without the messages that a summary covers."""
        record = cls(store, saved.model, saved.system)
        record.chat, record.docs = saved.id, saved.docs
        visible = [message for message in store.messages(saved.id) if not message.hidden]
        record.entries = [Entry(each.role, each.content, each.id, each.citations, each.calls) for each in visible]
        return record

    @classmethod
    def of_messages(cls, store: ChatStore | None, model: str, messages: Sequence[Message]) -> ChatRecord:
        """A new chat that begins with messages from elsewhere."""
        head = messages[0]["content"] if messages and messages[0]["role"] == "system" else None
        record = cls(store, model, head)
        for message in messages[head is not None :]:
            record.add(message["role"], message["content"])
        return record

    @property
    def messages(self) -> list[Message]:
        """What the model sees, the system message first."""
        head = [] if self.system is None else [Message(role="system", content=self.system)]
        return [*head, *(entry.message for entry in self.entries)]

    @property
    def whole(self) -> list[CitedMessage]:
        """All messages with their citations, those that a summary covers too if the chat is saved."""
        if self.store is None or self.chat is None:
            head = [] if self.system is None else [CitedMessage(role="system", content=self.system)]
            return [*head, *(cited(each.role, each.content, each.citations, each.calls) for each in self.entries)]
        return messages_of(self.store, self.store.get(self.chat))

    def last_is(self, role: str) -> bool:
        """Whether the last message is of that role."""
        return bool(self.entries) and self.entries[-1].role == role

    def add(
        self,
        role: str,
        text: str,
        reason: str = "",
        citations: Sequence[Citation] = (),
        calls: Sequence[CallRecord] = (),
    ) -> None:
        """Append a message; `reason` says how an answer ended.

        Raises:
            ChatNotFound: another process removed the chat.
        """
        row = None
        if self.store is not None:
            if self.chat is None:
                self.chat = self.store.create(self.model, self.system, self.docs)
            row = self.store.add(self.chat, role, text, reason, citations=citations, calls=calls)
        self.entries.append(Entry(role, text, row, citations, calls))

    def replace_answer(
        self, text: str, reason: str, citations: Sequence[Citation] = (), calls: Sequence[CallRecord] = ()
    ) -> None:
        """Put another answer in the place of the last one; append it if another process removed that one."""
        last = self.entries[-1]
        if self.store is None or last.row is None or self.store.replace(last.row, text, reason, citations, calls):
            self.entries[-1] = Entry(last.role, text, last.row, citations, calls)
            return
        del self.entries[-1]
        self.add(last.role, text, reason, citations, calls)

    def take_back(self, first: int) -> list[Message]:
        """Remove the entries from number `first` on, and return them."""
        taken = self.entries[first:]
        rows = [entry.row for entry in taken if entry.row is not None]
        if self.store is not None and rows:
            self.store.remove_messages(rows)
        del self.entries[first:]
        return [entry.message for entry in taken]

    def summarise(self, n_covered: int, request: str, summary: str) -> None:
        """Let a summary stand for the first entries; in the store they stay, hidden from the model."""
        rows: tuple[int | None, int | None] = (None, None)
        covered = [entry.row for entry in self.entries[:n_covered] if entry.row is not None]
        if self.store is not None and self.chat is not None:
            rows = self.store.summarise(self.chat, covered, request, summary)
        head = [Entry("user", request, rows[0]), Entry("assistant", summary, rows[1])]
        self.entries[:n_covered] = head

    def use_model(self, model: str, system: str | None) -> None:
        """Note that another model answers from now on, with this system message."""
        self.model, self.system = model, system
        if self.store is not None and self.chat is not None:
            self.store.set_model(self.chat, model, system)

    def use_docs(self, docs: str | None) -> None:
        """Note that questions are put to these documents from now on."""
        if docs == self.docs:
            return
        self.docs = docs
        if self.store is not None and self.chat is not None:
            self.store.set_docs(self.chat, docs)
