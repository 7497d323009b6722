"""Strategies and devices of a trainer on which a step is right, checked before a model is loaded."""

from lightning.pytorch import Trainer
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy

from jqlight.errors import ConfigError
from jqlight.sampling.build import check_engine
from jqlight.sampling.engine import SamplerConfig


def check_placement(trainer: Trainer, sampler: SamplerConfig) -> None:
    """Refuse what would train something else than the objective, or sample from other weights.

    Raises:
        ConfigError: a strategy that shards the model or starts processes in other ways than Lightning's own command, a
            device that is neither a CPU nor an NVIDIA GPU, an engine that cannot run there, or lookahead on a GPU.
    """
    strategy = trainer.strategy
    if type(strategy) not in (SingleDeviceStrategy, DDPStrategy):
        raise ConfigError(
            f"trainer.strategy: given {type(strategy).__name__}, allowed are auto and ddp: every rank computes whole "
            "gradients and gives its engine whole weights, which a sharded model has not"
        )
    if isinstance(strategy, DDPStrategy) and strategy._start_method != "popen":
        raise ConfigError(
            f"trainer.strategy: given ddp whose processes are started by {strategy._start_method}, allowed is ddp: an "
            "engine needs a process that begins from nothing"
        )
    device = strategy.root_device
    if device.type not in ("cpu", "cuda"):
        raise ConfigError(
            f"trainer.accelerator: given one whose device is {device.type}, allowed are cpu and gpu (NVIDIA's), where "
            "the engines run and sums can be float64"
        )
    check_engine(sampler, device)
    if sampler.lookahead and device.type == "cuda":
        raise ConfigError(
            "sampler.lookahead: given 1, allowed is 0 on a GPU: sampling in a second thread and the step would use the "
            "engine's weights without waiting for each other's streams"
        )
