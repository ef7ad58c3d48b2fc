"""What a server says of itself in /status.json, read without trust: bounded, and of the right types.

snapshot = Snapshot.read(data)
snapshot.models["smollm2"].n_slots
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from types import MappingProxyType
from typing import Any

from edgellm.errors import EdgellmError
from edgellm.serve.watch.status import ModelStatus

MOST_MODELS, MOST_FRONTS, MOST_TEXT = 1024, 64, 200
LARGEST = 1 << 53


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A server at one time: its models by name, and the names by which they answer from documents.

    `started` is in seconds since 1970 and changes when the server is started again. `fronts` are the ids of the fronts
    that its answers may come through. Sizes are bytes.
    """

    version: str = ""
    pid: int = 0
    started: float = 0.0
    requests: int = 0
    worker_restarts: int = 0
    resident_bytes: int = 0
    available_bytes: int = 0
    total_bytes: int = 0
    models: Mapping[str, ModelStatus] = field(default_factory=lambda: MappingProxyType({}))
    documents: tuple[str, ...] = ()
    fronts: frozenset[str] = frozenset()

    @classmethod
    def read(cls, data: Any) -> Snapshot:
        """Read a status.

        Raises:
            EdgellmError: it is none.
        """
        if not isinstance(data, dict) or not isinstance(data.get("models"), list):
            raise EdgellmError("it is no server of edgellm")
        models = [_model(each) for each in data["models"][:MOST_MODELS] if isinstance(each, dict)]
        plain = {each.name: _value(data.get(each.name), str(each.type)) for each in fields(cls)[:8]}
        return cls(
            **plain,
            models=MappingProxyType({model.name: model for model in models if model.name}),
            documents=tuple(_texts(data.get("documents"))),
            fronts=frozenset(_texts(data.get("fronts"))),
        )

    def has(self, name: str) -> bool:
        """Whether it has a model of that name, MODEL@COLLECTION among them."""
        base, at, collection = name.rpartition("@")
        return name in self.models or bool(at and base in self.models and collection in self.documents)

    def model(self, name: str) -> ModelStatus | None:
        """The model that answers under a name."""
        return self.models.get(name) or self.models.get(name.rpartition("@")[0])


def _model(data: Mapping[str, Any]) -> ModelStatus:
    return ModelStatus(**{each.name: _value(data.get(each.name), str(each.type)) for each in fields(ModelStatus)})


def _value(value: Any, annotation: str) -> Any:
    """A value of a field's type; nothing, or zero, where it is of another."""
    kind, _, rest = annotation.partition(" | ")
    if kind == "str":
        return value if isinstance(value, str) and len(value) <= MOST_TEXT else ""
    if kind == "bool":
        return value is True
    is_number = isinstance(value, int) or (isinstance(value, float) and math.isfinite(value))
    if not is_number or isinstance(value, bool):
        return None if rest else 0
    bounded = min(max(value, 0), LARGEST)
    return int(bounded) if kind == "int" else float(bounded)


def _texts(values: Any) -> list[str]:
    found = values[:MOST_FRONTS] if isinstance(values, list) else []
    return [each for each in found if isinstance(each, str) and 0 < len(each) <= MOST_TEXT]
