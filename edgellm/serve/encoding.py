"""JSON as the server writes it, to clients and to its workers.

encoded({"object": "list"})  ->  b'{"object":"list"}'
"""

from __future__ import annotations

import json
from typing import Any


def encoded(data: Any) -> bytes:
    """JSON, compact, in UTF-8; half of a surrogate pair becomes a question mark."""
    return json.dumps(data, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")
