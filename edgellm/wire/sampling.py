"""How tokens are drawn, as requests say it: OpenAI's fields, llama.cpp's, and edgellm's own.

Sampling(temperature=0, stop="END").sampling()  ->  {"temperature": 0.0, "stop": "END"}
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import Field

from edgellm.engine.sampling import N_SEEDS, RANDOM_SEED
from edgellm.models.sampling_fields import SamplingFields, no_bool
from edgellm.wire.body import Body
from edgellm.wire.fields import MAX_INT, Count, Stop, Stops, TokenId, empty_is_none, without_nulls


class AdapterScale(Body):
    """How strongly an adapter of the model counts in this answer; those that are not named do not count."""

    id: Annotated[int, no_bool, Field(ge=0, lt=64)]
    scale: Annotated[float, Field(ge=-1000, le=1000)]


class RequestSampling(Body, SamplingFields):
    """What every request for text may say; the options of `engine/sampling.py` are inherited.

    `within` is where a request has these fields, for errors that name one.
    """

    within: ClassVar[str] = ""
    seed: Annotated[int, no_bool, Field(ge=-(2**63), lt=2**64)] | None = None
    stop: Annotated[Stop | Stops | None, empty_is_none] = None
    # llama-server's, which the in-process engine does not have.
    dry_penalty_last_n: Count | None = None
    dry_sequence_breakers: Annotated[list[str], Field(min_length=1, max_length=100)] | None = None
    mirostat: Annotated[int, Field(ge=0, le=2)] | None = None
    mirostat_tau: Annotated[float, Field(ge=0)] | None = None
    mirostat_eta: Annotated[float, Field(ge=0)] | None = None
    logit_bias: Annotated[dict[TokenId, Annotated[float, Field(ge=-100, le=100)]], without_nulls] | None = None
    ignore_eos: bool | None = None
    grammar: Annotated[Annotated[str, Field(max_length=1 << 20)] | None, empty_is_none] = None
    cache_prompt: bool | None = None
    lora: Annotated[list[AdapterScale], Field(max_length=64)] | None = None
    # Ollama's. A smaller context than the served one is harmless, a larger one is refused.
    num_ctx: Count | None = None
    num_keep: Annotated[int, Field(ge=-1, le=MAX_INT)] | None = None
    # Ours.
    loop_guard: bool | None = None
    max_time: Annotated[float, Field(gt=0, le=1e6)] | None = None
    truncate: bool | None = None
    private: bool | None = None

    @property
    def wants_truncation(self) -> bool | None:
        """Whether to shorten a prompt that is too long; None where the request does not say."""
        return self.truncate

    @property
    def stops(self) -> list[str]:
        """The stop texts, however they were sent."""
        return [self.stop] if isinstance(self.stop, str) else self.stop or []

    def sampling(self, *without: str) -> dict[str, Any]:
        """These fields for the engine: without edgellm's own, with a seed of 32 bits."""
        sent = self.given("num_ctx", "num_keep", "loop_guard", "max_time", "truncate", "private", *without)
        if sent.get("seed", RANDOM_SEED) != RANDOM_SEED:
            sent["seed"] %= N_SEEDS
        return sent


class StreamedRequest(RequestSampling):
    """A request whose answer may be a stream."""

    stream: bool | None = None
