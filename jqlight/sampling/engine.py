"""The small protocol that every sampling engine keeps, and the records that cross it."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from torch import Tensor

from jqlight.errors import ConfigError, EngineError


@dataclass(frozen=True)
class Decoding:
    """How tokens are sampled from the model's distribution."""

    temperature: float = 1.0
    """Softmax temperature; 0 takes the most probable token."""
    top_p: float = 1.0
    """Nucleus: keep the smallest set of tokens with this much probability; 1 keeps all."""
    top_k: int = 0
    """Keep the k most probable tokens; 0 keeps all."""

    def check(self, key: str) -> None:
        """Raise ConfigError, with ``key`` in front, unless this is a way to draw tokens."""
        if not 0 <= self.temperature < math.inf:
            raise ConfigError(f"{key}.temperature: given {self.temperature}, allowed is a number from 0 (greedy)")
        if not 0 < self.top_p <= 1:
            raise ConfigError(f"{key}.top_p: given {self.top_p}, allowed is a number above 0 and up to 1 (keeps all)")
        if self.top_k < 0:
            raise ConfigError(f"{key}.top_k: given {self.top_k}, allowed is a whole number from 1, or 0 (keeps all)")


@dataclass(frozen=True)
class SamplerConfig:
    """The engine that samples rollouts, and its limits. Lengths are in tokens."""

    engine: Literal["vllm", "transformers"] = "vllm"
    """Sampling engine: vllm (embedded in the process), or transformers where vLLM does not install."""
    max_thinking_tokens: int = 1920
    """Thinking budget; when it runs out the end-of-thinking tokens are forced."""
    max_answer_tokens: int = 128
    """Longest answer, separator and end of sequence included."""
    evaluation: Decoding = field(default_factory=Decoding)
    """Decoding of validation, test and predict."""
    memory_gib: float | None = None
    """vllm: GiB of key-value cache; None computes it from the model, the budgets and max_num_seqs."""
    max_num_seqs: int = 128
    """vllm: sequences decoded at once."""
    dtype: Literal["float32", "bfloat16", "float16"] | None = None
    """Number format of the engine's copy of the weights; None: policy.dtype. bfloat16 goes with bf16-mixed training."""
    sleep: bool = False
    """vllm on a GPU: give back the engine's weights and cache while a step is computed, until its end."""
    lookahead: int = 0
    """1: draw the next batch while a step is computed, from the weights before it, and correct by importance ratios."""

    def __post_init__(self) -> None:
        self.evaluation.check("sampler.evaluation")
        if self.dtype not in (None, "float32", "bfloat16", "float16"):
            raise ConfigError(f"sampler.dtype: given {self.dtype!r}, allowed are float32, bfloat16, float16")
        if self.lookahead not in (0, 1):
            raise ConfigError(f"sampler.lookahead: given {self.lookahead}, allowed are 0 (off) and 1")
        if self.sleep and (self.lookahead or self.engine != "vllm"):
            other = (
                "lookahead: 1, which samples while a step is computed" if self.lookahead else f"engine: {self.engine}"
            )
            raise ConfigError(f"sampler.sleep: given true, allowed is false with sampler.{other}")
        for name in ("max_thinking_tokens", "max_answer_tokens", "max_num_seqs"):
            value = getattr(self, name)
            if value < 1:
                raise ConfigError(f"sampler.{name}: given {value}, allowed is 1 or more")


@dataclass(frozen=True)
class Completion:
    """One continuation: its sampled token ids and the engine's log-probability (nats) of each."""

    token_ids: list[int]
    logprobs: list[float]


@dataclass(frozen=True)
class Request:
    """One continuation to draw."""

    prompt_ids: Sequence[int]
    seed: int
    max_tokens: int


@dataclass(frozen=True)
class Stop:
    """When a continuation ends: at any of ``token_ids`` (kept in it), or when its text contains ``string``."""

    token_ids: tuple[int, ...]
    string: str | None = None


@dataclass(frozen=True)
class Rollout:
    """One sampled rationale z_m and, where asked for, one sampled output ŷ_m.

    ``forced`` holds the tokens that were inserted behind the rationale (the end-of-thinking tokens when the budget ran
    out): they are in the context of the answer and never in log p(z|x).
    """

    rationale_ids: list[int]
    rationale_logprobs: list[float]
    forced_ids: list[int] = field(default_factory=list)
    answer_ids: list[int] = field(default_factory=list)
    answer_logprobs: list[float] = field(default_factory=list)

    @property
    def truncated(self) -> bool:
        """Whether the model did not end its thinking itself."""
        return bool(self.forced_ids)


class Engine(Protocol):
    """What an engine must do; everything else (budget, phases, seeds) is composed on top of it."""

    def generate(self, requests: Sequence[Request], stop: Stop, decoding: Decoding) -> list[Completion]:
        """One completion per request, in order; its tokens depend on its own seed, not on the rest of the batch."""
        ...

    def sync(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        """Make the engine's weights equal to ``weights`` (checkpoint names) and forget all cached prefixes."""
        ...

    def sleep(self) -> None:
        """Give back what memory can be given back until the next :meth:`sync`; nothing is sampled before it."""
        ...

    def close(self) -> None:
        """Free the memory, end the processes that the engine started; no call may follow."""
        ...


def check_lengths(requests: Sequence[Request], max_model_len: int) -> None:
    """Raise EngineError for a request whose prompt and completion do not fit in ``max_model_len`` tokens."""
    longest = max(requests, key=lambda request: len(request.prompt_ids) + request.max_tokens)
    total = len(longest.prompt_ids) + longest.max_tokens
    if total > max_model_len:
        raise EngineError(
            f"a prompt of {len(longest.prompt_ids)} tokens and {longest.max_tokens} new ones do not fit in the "
            f"engine's {max_model_len}; lower data.max_prompt_tokens or the sampler's token budgets"
        )
