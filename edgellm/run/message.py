"""A message of a chat, as chat templates and requests have it.

Message(role="user", content="What is a ternary weight?")
"""

from __future__ import annotations

from typing import TypedDict


class Message(TypedDict):
    """One turn; `role` is system, user or assistant."""

    role: str
    content: str
