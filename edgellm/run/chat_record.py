"""What of a conversation is saved, as it goes: the question before it is answered, the answer when it ends.

    record = ChatRecord(store, model="smollm2", system=None)
    record.ask("What is a ternary weight?")
    record.answer("A weight that is only -1, 0 or +1.", "stop")

Without a store (`--private`) nothing is. A chat is made with its first question, so there are no empty ones.
"""

from __future__ import annotations

from edgellm.run.chat_template import Message
from edgellm.run.chats import ChatStore, SavedChat


class ChatRecord:
    """One chat in the store; `rows` are the messages that the model sees, in order."""

    def __init__(self, store: ChatStore | None, model: str, system: str | None) -> None:
        self.store = store
        self.chat: str | None = None
        self.rows: list[int] = []
        self._model = model
        self._system = system

    @classmethod
    def resume(cls, store: ChatStore, chat: SavedChat) -> tuple[ChatRecord, list[Message]]:
        """Go on with a saved chat; also its messages as the model sees them, the system message first."""
        record = cls(store, chat.model, chat.system)
        record.chat = chat.id
        saved = [message for message in store.messages(chat.id) if not message.hidden]
        record.rows = [message.id for message in saved]
        messages: list[Message] = [] if chat.system is None else [{"role": "system", "content": chat.system}]
        return record, [*messages, *(Message(role=message.role, content=message.content) for message in saved)]

    def ask(self, question: str) -> None:
        """A question; it stays saved even if the answer never ends."""
        if self.store is not None:
            if self.chat is None:
                self.chat = self.store.create(self._model, self._system)
            self.rows.append(self.store.add(self.chat, "user", question))

    def answer(self, text: str, reason: str) -> None:
        """The answer to the last question."""
        if self.store is not None and self.chat is not None:
            self.rows.append(self.store.add(self.chat, "assistant", text, reason))

    def replace(self, text: str, reason: str) -> None:
        """Another answer to the last question."""
        if self.store is not None and self.rows:
            self.store.replace(self.rows[-1], text, reason)

    def take_back(self, n_messages: int) -> None:
        """The last messages are removed."""
        if self.store is not None and n_messages:
            self.store.remove_messages(self.rows[-n_messages:])
            del self.rows[-n_messages:]

    def summarise(self, n_covered: int, request: str, summary: str) -> None:
        """A summary stands for the first messages."""
        if self.store is not None and self.chat is not None:
            added = self.store.summarise(self.chat, self.rows[:n_covered], request, summary)
            self.rows = [*added, *self.rows[n_covered:]]

    def use_model(self, model: str, system: str | None) -> None:
        """Another model answers from now on, with this system message."""
        self._model, self._system = model, system
        if self.store is not None and self.chat is not None:
            self.store.set_model(self.chat, model, system)
