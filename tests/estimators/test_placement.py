"""Which strategies and devices a run is refused on, before a model is loaded."""

import pytest
import torch
from lightning.pytorch.strategies import (
    DDPStrategy,
    FSDPStrategy,
    ModelParallelStrategy,
    SingleDeviceStrategy,
    SingleDeviceXLAStrategy,
)

from jqlight.errors import ConfigError, EngineError
from jqlight.estimators.placement import check_placement
from jqlight.estimators.step_metrics import StepRecord
from jqlight.sampling import SamplerConfig, build


def check(strategy, **sampler):
    trainer = type("Trainer", (), {"strategy": strategy})
    check_placement(trainer, SamplerConfig("transformers", **sampler))


def ddp(device, **settings):
    strategy = DDPStrategy(parallel_devices=[torch.device(device)], **settings)
    strategy.cluster_environment = type("Environment", (), {"local_rank": lambda self: 0})()
    return strategy


@pytest.mark.parametrize("kind", [FSDPStrategy, ModelParallelStrategy, SingleDeviceXLAStrategy])
def test_a_strategy_whose_ranks_lack_whole_gradients_is_refused(kind):
    with pytest.raises(ConfigError, match=f"trainer.strategy: given {kind.__name__}, allowed are auto and ddp"):
        check(object.__new__(kind))


@pytest.mark.parametrize("method", ["spawn", "fork"])
def test_other_starts_of_processes_are_refused(method):
    with pytest.raises(ConfigError, match=f"processes are started by {method}, allowed is ddp"):
        check(ddp("cpu", start_method=method))


@pytest.mark.parametrize("device", ["cpu", "cuda:1"])
def test_one_device_and_ddp_are_allowed(device):
    check(SingleDeviceStrategy(device))
    check(ddp(device))


def test_a_device_without_float64_is_refused():
    with pytest.raises(
        ConfigError, match=r"trainer.accelerator: given one whose device is mps, allowed are cpu and gpu"
    ):
        check(SingleDeviceStrategy(torch.device("mps")))


def test_lookahead_is_refused_on_a_gpu_and_allowed_on_a_cpu():
    check(SingleDeviceStrategy("cpu"), lookahead=1)
    with pytest.raises(ConfigError, match=r"sampler.lookahead: given 1, allowed is 0 on a GPU"):
        check(SingleDeviceStrategy(torch.device("cuda", 0)), lookahead=1)


def test_the_installed_vllm_must_be_for_the_trainers_device(monkeypatch):
    monkeypatch.setattr(build, "installed", {"vllm": "0.33.0"}.get)
    trainer = type("Trainer", (), {"strategy": SingleDeviceStrategy("cpu")})
    with pytest.raises(ConfigError, match="cannot sample on the trainer's device, cpu"):
        check_placement(trainer, SamplerConfig())


@pytest.mark.parametrize(("device", "tf32"), [("cpu", False), ("cuda", True)])
def test_an_engine_that_disagrees_ends_the_step_with_what_may_be_the_cause(device, tf32):
    record = StepRecord()
    record.gap = 9e-4
    record.check_engine(3, torch.device(device))
    record.gap = 3e-3
    with pytest.raises(EngineError, match=r"step 3: .*gap is 0.003 .*may not hold the trainer's weights") as told:
        record.check_engine(3, torch.device(device))
    assert ("TRITON_F32_DEFAULT" in str(told.value)) == tf32
