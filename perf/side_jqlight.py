"""jqlight's side of vs_trl: GRPO under Lightning's Trainer, one step per word from the parent."""

import argparse

from lightning.pytorch import Callback, LightningModule, Trainer

from jqlight.estimators import Estimator
from perf.sides import Gate
from perf.workload import Shape, Words, Work, estimator, never_stop, quiet_trainer


class Pause(Callback):
    """Waits at the head of every batch and checks that the rollouts of the last one had the length asked for."""

    def __init__(self, gate: Gate, work: Work) -> None:
        self.gate, self.work = gate, work

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        never_stop(pl_module.sampler)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: list, batch_idx: int) -> None:
        if batch_idx:
            tokens = self.gate.facts["tokens"]
            if tokens != self.work.sampled:
                raise RuntimeError(f"{tokens} tokens were sampled in a step, {self.work.sampled} belong to it")
            self.gate.facts["logprob_gap"] = float(trainer.callback_metrics["train/logprob_gap"])
        self.gate.pause()


def watch(gate: Gate, module: Estimator) -> None:
    """Set the clocks of the split; the engine is there once fit has begun, so the sampler is watched from outside."""
    sample = module.sample

    def counted(*args: object, **kwargs: object) -> list:
        drawn = sample(*args, **kwargs)
        gate.facts["tokens"] = sum(len(r.rationale_ids) + len(r.answer_ids) for group in drawn for r in group)
        return drawn

    module.sample = counted
    gate.watch(module, "sample", "generate")
    gate.watch(module, "sync_engine", "sync")
    gate.watch(module, "_optimizer_step", "optimizer")
    gate.watch(module, "_gap", "score")
    group = module.policy.group

    def clocked(*args: object) -> object:
        made = group(*args)
        gate.watch(made, "backward", "forward_backward")
        return made

    module.policy.group = clocked


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("work", nargs=4, type=int)
    parser.add_argument("--steps", type=int, required=True)
    options = parser.parse_args()
    gate, work = Gate(), Work(*options.work)
    module = estimator("GRPO", work, options.model)
    watch(gate, module)
    data = Words(work, options.steps + 1, Shape().vocab)
    quiet_trainer(options.steps + 1, Pause(gate, work)).fit(module, datamodule=data)


if __name__ == "__main__":
    main()
