"""Low-rank adapters inside a model, and the plain weights that model and adapters amount to."""

from collections.abc import Iterator

import torch
from torch import Tensor
from transformers import PreTrainedModel

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
    config.fan_in_fan_out = model.config.model_type == "gpt2"  # its Conv1D holds weights transposed
    try:
        inject_adapter_in_model(config, model)
    except ValueError as error:
        raise ConfigError(f"policy.lora.target_modules: given {lora.target_modules!r}: {error}") from error


def merged_parameters(model: PreTrainedModel) -> Iterator[tuple[str, Tensor]]:
    """Names and values of the model's tensors as a checkpoint without adapters has them.

    Detached; a tensor that two names share comes once. Where a layer has an adapter, a new tensor weight + delta is
    made and the trained ones stay as they are; everything else is the model's own memory.
    """
    deltas = _deltas(model)
    seen: set[int] = set()
    for name, tensor in model.state_dict(keep_vars=True).items():
        if ".lora_" in name or id(tensor) in seen:
            continue
        seen.add(id(tensor))
        plain = name.replace(".base_layer.", ".")
        layer = deltas.get(name)
        with torch.no_grad():
            yield plain, tensor.detach() if layer is None else tensor.detach() + layer.get_delta_weight("default")


def _deltas(model: PreTrainedModel) -> dict:
    """The adapted layers by the name of the weight that they add to."""
    layers = {name: module for name, module in model.named_modules() if hasattr(module, "get_delta_weight")}
    return {f"{name}.base_layer.weight": layer for name, layer in layers.items()}
