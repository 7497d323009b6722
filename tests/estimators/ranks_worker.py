"""One process of a fit on one or two ranks: python ranks_worker.py MODEL DEVICES FOLDER.

The first step gives rank 0 three of four prompts, the second two of four; two prompts are hopeless, so that the ranks
run different numbers of backward passes. Between them is a step in which one prompt of rank 1 has a NaN for its
log-probability, which is skipped. Writes FOLDER/DEVICES-RANK.pt.
"""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from enumeration import Recorder, World, fit, quiet_trainer
from letters import Letters, make
from lightning import Callback, Trainer
from torch import Tensor

from jqlight.benchmarks import Example
from jqlight.estimators import GARL, distributed
from jqlight.policy import Group
from jqlight.sampling import Rollout

SHARES = (3, 2, 2)
BROKEN = 1, "question 2"
HOPELESS = {"question 1", "question 3"}


class Doomed(GARL):
    """GARL on a model that gives some gold answers no probability at all."""

    def signal(self, example: Example, rollouts: Sequence[Rollout], group: Group) -> Tensor:
        log_w = super().signal(example, rollouts, group)
        if (self.global_step, example.id) == BROKEN:
            return log_w * torch.nan
        return torch.full_like(log_w, -torch.inf) if example.id in HOPELESS else log_w


class Last(Callback):
    """Metrics of the last step."""

    def on_train_batch_end(self, trainer: Trainer, *_: object) -> None:
        self.metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
        assert trainer.strategy.model is trainer.lightning_module, "no wrapper with buckets of its own"


def main(path: str, devices: int, folder: str) -> None:
    # Lightning starts the second process with the same arguments and this variable.
    rank = int(os.environ.get("LOCAL_RANK", 0))
    worlds = [World(path, id=f"question {i}", prompt_ids=(2, 1, 2, 0)[: i + 1]) for i in range(4)]
    samples = [[world.rationales[(i + m) % 5] for m in range(3)] for i, world in enumerate(worlds)]
    own = [range(4) if devices == 1 else range(n) if rank == 0 else range(n, 4) for n in SHARES]
    if devices > 1:
        distributed.BUCKET_BYTES = 3000  # several buckets, and tensors above it
    last = Last()
    settings = {} if devices == 1 else {"strategy": "ddp", "use_distributed_sampler": False}
    # The scaled step has all that the raw one has, and one number more that the ranks must agree on.
    estimator = Doomed(**worlds[0].settings(), q=0.75, rollouts=3, scale="running", on_nonfinite="skip")
    estimator.policy.load()
    recorder = Recorder(estimator.policy)
    batches = [[worlds[i].example for i in indices] for indices in own]
    script = [[samples[i] for i in indices] for indices in own]
    fit(estimator, batches, script, optimizer=lambda _: recorder, devices=devices, callbacks=[last], **settings)
    kept = {name: value for name, value in last.metrics.items() if name.startswith("train/")}
    # Six questions in batches of other sizes: what questions lend each other crosses batches and ranks.
    trainer = quiet_trainer(limit_val_batches=1.0, devices=devices, **settings)
    data = Letters(max_prompt_tokens=6, necessity=True)
    data.evaluation_batch = 4 if devices == 1 else 2
    (validation,) = trainer.validate(make(GARL, path), datamodule=data, verbose=False)
    found = {"gradients": recorder.gradients, "metrics": kept, "skipped": estimator.all_or_nothing.skipped}
    torch.save({**found, "validation": validation}, Path(folder) / f"{devices}-{rank}.pt")
    if devices > 1:
        # Left to the interpreter's exit, a group whose threads still run can abort the process.
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3])
