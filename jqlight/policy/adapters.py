"""Low-rank adapters inside a model, and the plain weights that model and adapters amount to."""

import torch
from torch import Tensor
from transformers import PreTrainedModel
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


def checkpoint_tensors(model: PreTrainedModel) -> dict[str, Tensor]:
    """The model's tensors under the names of a checkpoint without adapters, detached.

    A tensor that two names share comes once. Where a layer has an adapter, a new tensor weight + delta is made and the
    trained ones stay as they are; everything else is the model's own memory. Where transformers has changed names or
    joined weights while loading (mixtures of experts), that is undone.
    """
    layers = {name: module for name, module in model.named_modules() if hasattr(module, "get_delta_weight")}
    tensors: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, tensor in model.state_dict(keep_vars=True).items():
        if ".lora_" in name or id(tensor) in seen:
            continue
        seen.add(id(tensor))
        layer = layers.get(name.removesuffix(".base_layer.weight"))
        with torch.no_grad():
            delta = None if layer is None else layer.get_delta_weight("default")
            tensors[name.replace(".base_layer.", ".")] = tensor.detach() if delta is None else tensor.detach() + delta
    if getattr(model, "_weight_conversions", None):
        tensors = revert_weight_conversion(model, tensors)
    return tensors
