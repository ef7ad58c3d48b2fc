"""JSON as the server writes it, to clients and to its workers.

encoded({"object": "list"})  ->  b'{"object":"list"}'
"""

from __future__ import annotations

import json
from typing import Any


def encoded(data: Any) -> bytes:
    """JSON, compact, in UTF-8; half of a surrogate pair becomes a question mark. ValueError for NaN and infinity."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.encode("utf-8", "replace")
