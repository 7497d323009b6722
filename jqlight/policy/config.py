"""Settings of the trained language model."""

from dataclasses import dataclass, field
from typing import Literal

from jqlight.errors import ConfigError
from jqlight.token_format import Thinking


@dataclass(frozen=True)
class LoRA:
    """Low-rank adapters instead of full training (needs the extra ``jqlight[lora]``)."""

    r: int = 16
    """Rank of each adapter."""
    alpha: int = 32
    """Scale: an adapter adds alpha / r times its product."""
    target_modules: str | list[str] = "all-linear"
    """Names of the modules that get an adapter; "all-linear" for every linear layer but the output head."""

    def __post_init__(self) -> None:
        if self.r < 1:
            raise ConfigError(f"policy.lora.r: given {self.r}, allowed is 1 or more")


@dataclass(frozen=True)
class PolicyConfig:
    """Which causal language model is trained, and how its passes are cut to fit in memory."""

    name_or_path: str
    """Local folder in Hugging Face format, a hub id, or a small model of the package: "twohop", "khop"."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Number format of the weights; log-softmax is float32 in any case and sums are float64."""
    lora: LoRA | None = None
    """Train low-rank adapters instead of all weights."""
    thinking: Thinking = field(default_factory=Thinking)
    """Strings around a rationale."""
    micro_batch_tokens: int | Literal["auto"] = "auto"
    """Tokens whose activations are held at once; auto computes it from the free memory at the first group."""
    gradient_checkpointing: bool | Literal["auto"] = "auto"
    """Keep each layer's input only and recompute the rest in backward; auto: once a group fits in memory only so."""

    def __post_init__(self) -> None:
        tokens = self.micro_batch_tokens
        if tokens != "auto" and (not isinstance(tokens, int) or tokens < 1):
            raise ConfigError(f"policy.micro_batch_tokens: given {tokens!r}, allowed is auto or a number from 1")
        if self.dtype not in ("float32", "bfloat16", "float16"):
            raise ConfigError(f"policy.dtype: given {self.dtype!r}, allowed are float32, bfloat16, float16")
