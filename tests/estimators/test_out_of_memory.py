"""A step whose memory runs out begins again with smaller micro-batches, and its gradient is the undisturbed one."""

import pytest
import torch
from enumeration import World, fit
from lightning import Callback, Trainer

from jqlight.estimators import GARL
from jqlight.policy.forward import Network

CPU = RuntimeError("[enforce fail at alloc_cpu.cpp:1] DefaultCPUAllocator: can't allocate memory")


class Metrics(Callback):
    def on_train_batch_end(self, trainer: Trainer, *_: object) -> None:
        self.values = {name: float(value) for name, value in trainer.callback_metrics.items()}


def gradient(world: World, failure: Exception | None, at: int) -> tuple[torch.Tensor, dict[str, float], int]:
    """Gradient of one step on two prompts in which the forward pass numbered ``at`` raises ``failure`` once."""
    estimator = GARL(**world.settings(), q=0.75, rollouts=5, scale="running")
    passes, metrics = [], Metrics()
    run = Network._run

    def failing(self: Network, *args: object) -> torch.Tensor:
        passes.append(len(args))
        if failure is not None and len(passes) == at:
            raise failure
        return run(self, *args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Network, "_run", failing)
        found = fit(
            estimator, [[world.example] * 2], [[world.rationales, [world.rationales[1]] * 5]], callbacks=[metrics]
        )
    return found[0], metrics.values, len(passes)


@pytest.mark.parametrize("failure", [CPU, torch.OutOfMemoryError("CUDA out of memory"), MemoryError()])
def test_the_gradient_is_the_undisturbed_one(
    world: World, failure: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    expected, quiet, passes = gradient(world, None, 0)
    assert "train/out_of_memory" not in quiet
    for at in (passes - 1, passes):  # after a group has left its gradient
        found, metrics, _ = gradient(world, failure, at)
        assert (found - expected).norm() < 1e-12 * expected.norm()
        assert metrics.pop("train/out_of_memory") == 1
        for name in ("train/success", "train/logprob_gap", "train/grad_norm", "train/log_scale"):
            assert metrics[name] == pytest.approx(quiet[name])
    assert "the step begins again" in caplog.text


def test_another_error_stays_what_it_is(world: World) -> None:
    with pytest.raises(RuntimeError, match="shapes do not match"):
        gradient(world, RuntimeError("shapes do not match"), 2)
