"""What a run will hold in memory, from the model's shape and the settings, before anything is loaded."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from transformers import PretrainedConfig

from jqlight.machine import GIB, free_memory
from jqlight.model_folder import read_config
from jqlight.policy import Policy
from jqlight.policy.adapters import adapter_numbers
from jqlight.policy.memory import AUTOCAST_BYTES, state_bytes, token_numbers
from jqlight.sampling import SamplerConfig
from jqlight.sampling.memory import cache_token_bytes, kv_cache_bytes

if TYPE_CHECKING:
    from jqlight.estimators.base import Estimator


@dataclass(frozen=True)
class MemoryPlan:
    """Bytes by purpose; those of one rank, since every rank has a whole model."""

    weights: float
    gradients: float
    optimizer: float
    undo: float
    """Copy of trained weights and optimizer state that undoes a step; always in host memory."""
    group: float
    """Held during the pass over one prompt and all its rollouts at their longest; activations above all."""
    checkpointed: float
    """The same with gradient checkpointing."""
    engine: float
    """The engine's copy of the weights."""
    cache: float
    """The engine's key-value cache."""

    def text(self, free: int | None = None) -> str:
        """Three lines of at most 80 columns, in GiB; ``free`` is what the device has."""
        held = [("weights", self.weights), ("gradients", self.gradients), ("optimizer", self.optimizer)]
        shown = ", ".join(f"{name} {size / GIB:.2g}" for name, size in held)
        total = "" if free is None else f"; free {free / GIB:.3g}"
        engine = f"engine {self.engine / GIB:.2g}, its cache {self.cache / GIB:.2g}"
        group = f"a whole group {self.group / GIB:.2g} ({self.checkpointed / GIB:.2g} with checkpointing)"
        return (
            f"memory in GiB: {shown}{total}\n  {engine}; to undo a step {self.undo / GIB:.2g} of host memory\n  {group}"
        )


def plan_memory(
    model: PretrainedConfig,
    *,
    numbers: int,
    trained: int,
    dtype: str = "float32",
    engine_dtype: str = "bfloat16",
    state: float = 8.0,
    prompt: int,
    rollouts: int,
    rollout_tokens: int,
    cache: float,
    mixed: bool = True,
) -> MemoryPlan:
    """The plan of one rank.

    Args:
        model: the model's config.
        numbers: the model's parameters.
        trained: those that are trained; fewer with adapters.
        dtype: of the trainer's weights.
        engine_dtype: of the engine's.
        state: bytes of optimizer state per trained number, see :func:`jqlight.policy.memory.state_bytes`.
        prompt: tokens of the longest prompt.
        rollouts: M.
        rollout_tokens: tokens of the longest rollout.
        cache: bytes of the engine's key-value cache.
        mixed: whether training is bf16-mixed.
    """
    size, engine_size = (getattr(torch, name).itemsize for name in (dtype, engine_dtype))
    tokens = prompt + rollouts * rollout_tokens
    each = AUTOCAST_BYTES if mixed else size
    text = model.get_text_config(decoder=True)
    # A pass holds the output head's gradient before it is added to what is there, and under autocast the weights in
    # two bytes, with gradients of their own until prompt and rollouts are both back, and the head's once more.
    head = text.vocab_size * text.hidden_size * (size if trained == numbers else 0)
    cast = 2.0 * (numbers + trained) + 4.0 * text.vocab_size * text.hidden_size if mixed and size > 2 else 0.0
    passes = head + cast
    return MemoryPlan(
        weights=size * numbers,
        gradients=size * trained,
        optimizer=state * trained,
        undo=(size + state) * trained,
        group=passes + tokens * token_numbers(model, checkpointed=False) * each,
        checkpointed=passes + tokens * token_numbers(model, checkpointed=True) * each,
        engine=engine_size * numbers,
        cache=cache,
    )


def plan_of(
    policy: Policy,
    sampler: SamplerConfig,
    optimizer: Callable[..., torch.optim.Optimizer],
    *,
    numbers: int,
    prompt: int,
    rollouts: int,
    mixed: bool,
    device: torch.device,
) -> MemoryPlan:
    """The plan of a run with these settings; nothing but the model's config is read. Arguments as in plan_memory."""
    config, settings = read_config(policy.path), policy.config
    rollout = sampler.max_thinking_tokens + len(policy.format.end_ids) + sampler.max_answer_tokens
    engine_dtype, length = sampler.dtype or settings.dtype, prompt + rollout
    if sampler.engine == "vllm":
        cache = kv_cache_bytes(config, engine_dtype, length, sampler, device)
    else:
        cache = sampler.max_num_seqs * length * cache_token_bytes(config, engine_dtype)
    number = torch.nn.Parameter(torch.zeros(1, dtype=getattr(torch, settings.dtype)))
    return plan_memory(
        config,
        numbers=numbers,
        trained=numbers if settings.lora is None else adapter_numbers(config, settings.lora),
        dtype=settings.dtype,
        engine_dtype=engine_dtype,
        state=state_bytes(optimizer([number]), number.dtype),
        prompt=prompt,
        rollouts=rollouts,
        rollout_tokens=rollout,
        cache=cache,
        mixed=mixed,
    )


def memory_line(module: "Estimator", numbers: int) -> str:
    """What ``module``, whose model has so many parameters, says of its run before any of it is loaded."""
    plan = plan_of(
        module.policy,
        module.sampler_config,
        module.optimizer,
        numbers=numbers,
        prompt=module.benchmark.max_prompt_tokens,
        rollouts=module.rollouts,
        mixed=module.trainer.precision == "bf16-mixed",
        device=module.device,
    )
    return plan.text(free_memory(module.device))
