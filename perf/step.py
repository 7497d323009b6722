"""A step of each of the five estimators on the same work, taken in turn in one run: `make bench-step`.

All five share one policy and one engine, so that a slow minute of the machine slows all of them. A step is everything
from one start of the trainer's loop to the next; ``other`` is what no phase of the estimator's own clock covers.

``utilisation`` is the work that the mathematics asks for, over the time and over the rate of a 2048³ float32 product
measured in the same run: each prompt once, a rollout once forward and, where it has a coefficient, once backward.
Sampling is counted in the whole step only.
"""

import argparse
import statistics
import time
from typing import Any

import torch
from lightning import LightningModule
from lightning.pytorch import Callback, Trainer

from jqlight.benchmarks import Example
from jqlight.estimators import Estimator
from perf.common import QUIET_CORES, Meter, Timing, quiet, record, reset_peak, resident_mib, wait_quiet
from perf.workload import (
    ESTIMATORS,
    Shape,
    Words,
    Work,
    describe,
    estimator,
    make_model,
    never_stop,
    quiet_trainer,
    sampling_flops,
    training_flops,
)

PHASES = ("sample", "score", "update", "sync")


class RoundRobin(LightningModule):
    """Estimators that take a step each in turn, on one policy and one engine."""

    def __init__(self, members: dict[str, Estimator]) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.names, self.members = list(members), torch.nn.ModuleDict(members)
        self.first = next(iter(members.values()))
        for member in members.values():
            member.policy = self.first.policy
        self.token_format = self.first.token_format  # asked for by the data

    def setup(self, stage: str) -> None:
        self.first.trainer = self.trainer
        self.first.setup(stage)
        assert self.first.sampler is not None, "setup builds it"
        never_stop(self.first.sampler)
        for member in self.members.values():
            member.trainer, member.sampler, member.log_dict = self.trainer, self.first.sampler, self.log_dict

    def configure_model(self) -> None:
        self.first.configure_model()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.first.policy.parameters(), lr=1e-4)

    def on_fit_start(self) -> None:
        self.first.sync_engine()

    def training_step(self, batch: list[Example], batch_idx: int) -> None:
        self.members[self.name_at(batch_idx)].training_step(batch, batch_idx)

    def name_at(self, batch_idx: int) -> str:
        """Whose step it is."""
        return self.names[batch_idx % len(self.names)]


class Clock(Callback):
    """Time, phases and peak memory of every step, from one start of the trainer's loop to the next."""

    def __init__(self) -> None:
        self.steps: dict[str, list[dict[str, Any]]] = {}
        self._meter: Meter | None = None

    def on_train_batch_start(self, trainer: Trainer, pl_module: RoundRobin, batch: list, batch_idx: int) -> None:
        if self._meter is not None:
            name = pl_module.name_at(batch_idx - 1)
            self.steps.setdefault(name, []).append(self._measured(trainer, pl_module.members[name]))
        wait_quiet()
        reset_peak()
        self._meter = Meter()

    def _measured(self, trainer: Trainer, member: Estimator) -> dict[str, Any]:
        assert self._meter is not None, "a step has begun"
        timing, seconds = self._meter.stop(), member._seconds
        live = trainer.callback_metrics.get("train/distinct_rationales")
        return {
            "timing": timing,
            **{phase: seconds[phase] for phase in PHASES},
            "other": timing.seconds - sum(seconds[phase] for phase in PHASES),
            "peak_mib": resident_mib(peak=True),
            "live": None if live is None or type(member).__name__ != "PAFT" else float(live),
        }


def matmul_rate(repetitions: int = 9, size: int = 2048) -> float:
    """FLOPs per second of a float32 product of two ``size`` × ``size`` matrices, median."""
    a, b = torch.randn(2, size, size)
    wait_quiet()
    torch.mm(a, b)
    seconds = []
    for _ in range(repetitions):
        start = time.perf_counter()
        torch.mm(a, b)
        seconds.append(time.perf_counter() - start)
    return 2 * size**3 / statistics.median(seconds)


def summary(steps: list[dict[str, Any]], work: Work, rate: float) -> dict[str, Any]:
    """Medians of one estimator over its quiet steps."""
    timings: list[Timing] = [step["timing"] for step in steps]
    kept = [steps[i] for i in quiet(timings)]
    seconds = statistics.median(step["timing"].seconds for step in kept)
    split = {phase: statistics.median(step[phase] for step in kept) for phase in (*PHASES, "other")}
    live = kept[0]["live"] and statistics.mean(step["live"] for step in kept)
    flops = training_flops(Shape(), work, live)
    return {
        "seconds": seconds,
        "split": split,
        "sync_share": split["sync"] / seconds,
        "tokens_per_second": work.sampled / seconds,
        "peak_mib": max(step["peak_mib"] for step in steps),
        "utilisation_training": flops / (split["score"] + split["update"]) / rate,
        "utilisation_step": (flops + sampling_flops(Shape(), work)) / seconds / rate,
        "rollouts_with_gradient": live or work.rollouts,
        "quiet": f"{sum(t.foreign < QUIET_CORES for t in timings)}/{len(timings)}",
        "all": [t.seconds for t in timings],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="a step of each estimator")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--work", nargs=4, type=int, default=[512, 64, 16, 2], metavar=("P", "C", "M", "PROMPTS"))
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    work, clock = Work(*options.work), Clock()
    members = {name: estimator(name, work, make_model()) for name in ("GRPO", "GARL", "PAFT", "RLOO", "MaxRL")}
    assert set(members) == set(ESTIMATORS)
    steps = (options.rounds + 1) * len(members) + 1
    rates = [matmul_rate()]
    quiet_trainer(steps, clock).fit(RoundRobin(members), datamodule=Words(work, steps, Shape().vocab))
    rates.append(matmul_rate())
    found = {name: summary(taken[1:], work, max(rates)) for name, taken in clock.steps.items()}
    record(
        "step",
        work=describe(work),
        estimators=found,
        over_grpo={name: one["seconds"] / found["GRPO"]["seconds"] for name, one in found.items()},
        matmul_gflops=[rate / 1e9 for rate in rates],
        threads=options.threads,
    )


if __name__ == "__main__":
    main()
