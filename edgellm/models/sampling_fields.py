"""The sampling options as fields of pydantic models, for recipes and requests; each may be absent.

class Request(SamplingFields): ...
Request(top_k=20).model_dump(exclude_none=True)  ->  {"top_k": 20}
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, create_model

from edgellm.engine.sampling import OPTIONS, SamplingOption


class StrictModel(BaseModel):
    """Unknown fields are errors, and so are numbers that are not finite."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def _refuse_bool(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("a number is needed")
    return value


# Python counts true as 1, and pydantic follows it.
no_bool = BeforeValidator(_refuse_bool)


def _field(option: SamplingOption) -> Any:
    kind: Any = Annotated[option.kind, no_bool, Field(ge=option.least, le=option.most)]
    return (kind | None, Field(default=None, description=option.help))


if TYPE_CHECKING:
    SamplingFields = StrictModel
else:
    SamplingFields = create_model(
        "SamplingFields",
        __base__=StrictModel,
        __doc__="Sampling options; an absent one is left to the recipe, and then to edgellm's defaults.",
        **{option.name: _field(option) for option in OPTIONS.values()},
    )
