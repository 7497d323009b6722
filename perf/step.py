"""A step of each of the five estimators on the same work, taken in turn in one run: `make bench-step`.

All five share one policy and one engine, so that a slow minute of the machine slows all of them. A step is everything
from one start of the trainer's loop to the next; ``other`` is what no phase of the estimator's own clock covers.

``utilisation`` is the work that the mathematics asks for, over the time and over the rate of a 2048³ float32 product
measured in the same run: each prompt once, a rollout once forward and, where it has a coefficient, once backward.
Sampling is counted in the whole step only.

``--scaled`` compares GARL at q = 0 with the paper's step and with the batch's scale, on answers of one word and many:
with the scale a long one behind a short one, its weight being far below, is not run backward.
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
from jqlight.estimators.scale import StepScale
from jqlight.objective import Tsallis
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

    def configure_callbacks(self) -> list[Callback]:
        self.first.trainer = self.trainer
        return list(self.first.configure_callbacks())  # binds the data

    def setup(self, stage: str) -> None:
        self.first.setup(stage)
        assert self.first.sampler is not None, "setup builds it"
        never_stop(self.first.sampler)
        for member in self.members.values():
            member.trainer, member.sampler, member.log_dict = self.trainer, self.first.sampler, self.log_dict
            member.all_or_nothing = self.first.all_or_nothing  # one optimizer, one copy of its last good step

    def configure_model(self) -> None:
        self.first.configure_model()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.first.policy.parameters(), lr=1e-4)

    def on_fit_start(self) -> None:
        self.first.sync_engine()

    def on_train_start(self) -> None:
        self.first.on_train_start()

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
            self.steps.setdefault(name, []).append(self._measured(trainer, name))
        wait_quiet()
        reset_peak()
        self._meter = Meter()

    def _measured(self, trainer: Trainer, name: str) -> dict[str, Any]:
        assert self._meter is not None, "a step has begun"
        timing = self._meter.stop()
        seconds = {phase: float(trainer.callback_metrics[f"time/{phase}"]) for phase in PHASES}
        live = trainer.callback_metrics.get("train/distinct_rationales")
        return {
            "timing": timing,
            **seconds,
            "other": timing.seconds - sum(seconds.values()),
            "peak_mib": resident_mib(peak=True),
            "live": None if live is None or name != "PAFT" else float(live),
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


def scaled_pair(work: Work) -> dict[str, Estimator]:
    """GARL at q = 0 with the paper's step and with the batch's scale."""
    pair = {f"GARL q=0 {kind}": estimator("GARL", work, make_model()) for kind in ("raw", "batch")}
    for member, kind in zip(pair.values(), ("raw", "batch"), strict=True):
        member.q, member.step_scale = Tsallis(0.0), StepScale(kind)
    return pair


def main() -> None:
    parser = argparse.ArgumentParser(description="a step of each estimator")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--work", nargs=4, type=int, default=[512, 64, 16, 2], metavar=("P", "C", "M", "PROMPTS"))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--scaled", action="store_true", help="q = 0, raw and scaled, on answers of two lengths")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    work, clock = Work(*options.work), Clock()
    names = ("GRPO", "GARL", "PAFT", "RLOO", "MaxRL")
    assert set(names) == set(ESTIMATORS)
    members = scaled_pair(work) if options.scaled else {name: estimator(name, work, make_model()) for name in names}
    first = next(iter(members))
    steps = (options.rounds + 1) * len(members) + 1
    rates = [matmul_rate()]
    quiet_trainer(steps, clock).fit(
        RoundRobin(members), datamodule=Words(work, steps, Shape().vocab, mixed=options.scaled)
    )
    rates.append(matmul_rate())
    found = {name: summary(taken[1:], work, max(rates)) for name, taken in clock.steps.items()}
    record(
        "step scaled" if options.scaled else "step",
        work=describe(work),
        estimators=found,
        **{f"over_{first.lower()}": {name: one["seconds"] / found[first]["seconds"] for name, one in found.items()}},
        matmul_gflops=[rate / 1e9 for rate in rates],
        threads=options.threads,
    )


if __name__ == "__main__":
    main()
