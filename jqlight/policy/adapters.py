"""Low-rank adapters inside a model, and the plain weights that model and adapters amount to."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PretrainedConfig, PreTrainedModel
from transformers.core_model_loading import revert_weight_conversion
from transformers.pytorch_utils import Conv1D

from jqlight.errors import ConfigError
from jqlight.policy.config import LoRA

_ADAPTER = ".lora_"


def inject(model: PreTrainedModel, lora: LoRA) -> None:
    """Put adapters into ``model`` in place and freeze everything else. Before training they add exactly zero.

    Raises:
        ConfigError: peft is not installed, or no module is called as ``lora.target_modules`` says.
    """
    try:
        from peft import inject_adapter_in_model
    except ImportError as error:
        raise ConfigError("policy.lora needs the package peft; install it with: pip install 'jqlight[lora]'") from error
    try:
        inject_adapter_in_model(_peft_config(model, lora), model)
    except ValueError as error:
        raise ConfigError(f"policy.lora.target_modules: given {lora.target_modules!r}: {error}") from error


def _peft_config(model: PreTrainedModel, lora: LoRA) -> Any:
    """The settings as peft has them."""
    from peft import LoraConfig

    config = LoraConfig(r=lora.r, lora_alpha=lora.alpha, target_modules=lora.target_modules, lora_dropout=0.0)
    config.fan_in_fan_out = any(isinstance(module, Conv1D) for module in model.modules())  # holds weights transposed
    return config


def keep_adapters_only(module: nn.Module) -> None:
    """Have the state of ``module`` hold its adapters alone: all else is the base model's and never changes.

    A state that holds the base model's weights as well can still be loaded.
    """

    def save(_: nn.Module, state: dict[str, Any], prefix: str, __: Any) -> None:
        for name in [name for name in state if name.startswith(prefix) and _ADAPTER not in name]:
            del state[name]

    def load(_: nn.Module, incompatible: Any) -> None:
        incompatible.missing_keys[:] = [name for name in incompatible.missing_keys if _ADAPTER in name]

    module.register_state_dict_post_hook(save)
    module.register_load_state_dict_post_hook(load)


def save_adapters(model: PreTrainedModel, lora: LoRA, base: str, folder: str | Path) -> None:
    """Write the adapters alone as ``PeftModel.from_pretrained`` reads them; ``base`` is their model's folder or id."""
    config = _peft_config(model, lora)
    config.base_model_name_or_path, config.task_type, config.inference_mode = base, "CAUSAL_LM", True
    config.save_pretrained(str(folder))
    tensors = {
        f"base_model.model.{name.replace('.default.', '.')}": tensor.detach().contiguous()
        for name, tensor in model.state_dict().items()
        if _ADAPTER in name
    }
    save_file(tensors, Path(folder) / "adapter_model.safetensors", metadata={"format": "pt"})


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
        if _ADAPTER in name or id(tensor) in seen:
            continue
        seen.add(id(tensor))
        layer = layers.get(name.removesuffix(".base_layer.weight"))
        with torch.no_grad():
            delta = None if layer is None else layer.get_delta_weight("default")
            merged = tensor.detach() if delta is None else tensor.detach() + delta
        yield name.replace(".base_layer.", "."), merged
