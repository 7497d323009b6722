"""jqlight's worker of vs_trl: GRPO under Lightning's Trainer, one step per command from the parent."""

import argparse

from lightning.pytorch import Callback, LightningModule, Trainer

from jqlight.estimators import Estimator
from jqlight.estimators.step_metrics import StepRecord
from perf.workers import WorkerLoop
from perf.workload import Shape, Words, Work, estimator, never_stop, quiet_trainer


class Pause(Callback):
    """Waits before every batch and checks that the rollouts of the last one had the length asked for."""

    def __init__(self, loop: WorkerLoop, work: Work) -> None:
        self.loop, self.work = loop, work

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        never_stop(pl_module.sampler)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: list, batch_idx: int) -> None:
        if batch_idx:
            tokens = self.loop.facts["tokens"]
            if tokens != self.work.sampled:
                raise RuntimeError(f"{tokens} tokens were sampled in a step, {self.work.sampled} belong to it")
            self.loop.facts["logprob_gap"] = float(trainer.callback_metrics["train/logprob_gap"])
        self.loop.pause()


def watch(loop: WorkerLoop, module: Estimator) -> None:
    """Set the clocks of the split; the engine exists once fit has begun, so the calls around it are timed."""
    sample = module.sample

    def counted(*args: object, **kwargs: object) -> list:
        groups = sample(*args, **kwargs)
        loop.facts["tokens"] = sum(len(r.rationale_ids) + len(r.answer_ids) for group in groups for r in group)
        return groups

    module.sample = counted
    loop.watch(module, "sample", "generate")
    loop.watch(module, "sync_engine", "sync")
    loop.watch(module.all_or_nothing, "step", "optimizer")
    loop.watch(StepRecord, "compare_engine", "score")
    group = module.policy.group

    def clocked(*args: object) -> object:
        made = group(*args)
        loop.watch(made, "backward", "forward_backward")
        return made

    module.policy.group = clocked


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("work", nargs=4, type=int)
    parser.add_argument("--steps", type=int, required=True)
    options = parser.parse_args()
    loop, work = WorkerLoop(), Work(*options.work)
    module = estimator("GRPO", work, options.model)
    watch(loop, module)
    data = Words(work, options.steps + 1, Shape().vocab)
    quiet_trainer(options.steps + 1, Pause(loop, work)).fit(module, datamodule=data)


if __name__ == "__main__":
    main()
