"""Low-rank adapters inside a model, and the plain weights that model and adapters amount to."""

from collections.abc import Iterator

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, PretrainedConfig, PreTrainedModel
from transformers.core_model_loading import revert_weight_conversion
from transformers.pytorch_utils import Conv1D

from jqlight.errors import ConfigError
from jqlight.policy.config import LoRA


def inject(model: PreTrainedModel, lora: LoRA) -> None:
    """Put adapters into ``model`` in place and freeze everything else. Before training they add exactly zero.

    Raises:
        ConfigError: peft is not installed, or no module is called as ``lora.target_modules`` says.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise ConfigError("policy.lora needs the package peft; install it with: pip install 'jqlight[lora]'") from error
    config = LoraConfig(r=lora.r, lora_alpha=lora.alpha, target_modules=lora.target_modules, lora_dropout=0.0)
    config.fan_in_fan_out = any(isinstance(module, Conv1D) for module in model.modules())  # holds weights transposed
    try:
        inject_adapter_in_model(config, model)
    except ValueError as error:
        raise ConfigError(f"policy.lora.target_modules: given {lora.target_modules!r}: {error}") from error


def adapter_numbers(config: PretrainedConfig, lora: LoRA) -> int:
    """How many numbers the adapters of a model have; nothing of it is loaded. Raises what :func:`inject` does."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
        inject(model, lora)
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def checkpoint_tensors(model: PreTrainedModel) -> Iterator[tuple[str, Tensor]]:
    """The model's tensors with their names in a checkpoint without adapters, detached, one after the other.

    A tensor that two names share comes once. Where a layer has an adapter, a new tensor weight + delta is made when its
    turn comes and the trained ones stay as they are; everything else is the model's own memory. Where transformers has
    changed names or joined weights while loading (mixtures of experts), that is undone, of all tensors at once.
    """
    if getattr(model, "_weight_conversions", None):
        yield from revert_weight_conversion(model, dict(_merged(model))).items()
    else:
        yield from _merged(model)


def _merged(model: PreTrainedModel) -> Iterator[tuple[str, Tensor]]:
    layers = {name: module for name, module in model.named_modules() if hasattr(module, "get_delta_weight")}
    seen: set[int] = set()
    for name, tensor in model.state_dict(keep_vars=True).items():
        if ".lora_" in name or id(tensor) in seen:
            continue
        seen.add(id(tensor))
        layer = layers.get(name.removesuffix(".base_layer.weight"))
        with torch.no_grad():
            delta = None if layer is None else layer.get_delta_weight("default")
            merged = tensor.detach() if delta is None else tensor.detach() + delta
        yield name.replace(".base_layer.", "."), merged
