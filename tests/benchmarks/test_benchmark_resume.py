"""A benchmark under Lightning: batches arrive as they are, and a run resumes exactly, within and between epochs."""

import pytest
import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from jqlight.benchmarks import Benchmark, Example, Item, Record

QUIET = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}


class Counting(Benchmark):
    def read(self, split):
        return [Record({"id": f"{split}{i}"}, f"record {i}") for i in range(10)]

    def item(self, record):
        return Item(f"question {record['id']}", "answer")


class Recorder(LightningModule):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.trained, self.validated = [], []

    def training_step(self, batch, batch_idx):
        assert all(type(example) is Example for example in batch)
        self.trained.append([example.id for example in batch])
        return self.weight.square()

    def validation_step(self, batch, batch_idx):
        self.validated += [example.id for example in batch]

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(token_format, folder, steps, resume=None, **kwargs):
    """Ids of all training batches of a run, and its last checkpoint."""
    module = Recorder()
    keep = ModelCheckpoint(folder, save_last=True, every_n_train_steps=1, save_top_k=0)
    trainer = Trainer(max_steps=steps, max_epochs=-1, callbacks=[keep], num_sanity_val_steps=0, **QUIET, **kwargs)
    trainer.fit(module, datamodule=Counting(prompts_per_step=4).bind(token_format), ckpt_path=resume)
    return module.trained, str(folder / "last.ckpt")


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("stop", [1, 2, 3, 4, 6])
@pytest.mark.parametrize("limit", [1.0, 2, 0.67])
def test_resume_continues_as_if_never_stopped(tmp_path, token_format, stop, limit):
    expected, _ = fit(token_format, tmp_path / "whole", 8, limit_train_batches=limit)
    first, checkpoint = fit(token_format, tmp_path / "part", stop, limit_train_batches=limit)
    rest, _ = fit(token_format, tmp_path / "rest", 8, checkpoint, limit_train_batches=limit)
    assert len(expected) == 8
    assert first + rest == expected
    if limit == 1.0:  # two whole passes of 4 + 4 + 2
        for epoch in (expected[:3], expected[3:6]):
            assert sorted(i for batch in epoch for i in batch) == [f"train{i}" for i in range(10)]
        assert expected[:3] != expected[3:6]
    else:  # an epoch of two batches, then the next epoch's own order
        data = Counting(prompts_per_step=4).bind(token_format)
        order = [data.examples("train")[i].id for i in data.train_dataloader().order(1)]
        assert expected[2] + expected[3] == order[:8]


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_resume_with_other_data_settings_is_refused(tmp_path, token_format):
    _, checkpoint = fit(token_format, tmp_path, 1)
    trainer = Trainer(max_steps=4, max_epochs=-1, **QUIET)
    with pytest.raises(ValueError, match="resume with the same data settings"):
        trainer.fit(Recorder(), datamodule=Counting(prompts_per_step=5).bind(token_format), ckpt_path=checkpoint)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_validation_sees_each_example_once(token_format):
    module = Recorder()
    data = Counting().bind(token_format)
    data.evaluation_batch = 4
    Trainer(**QUIET).validate(module, datamodule=data, verbose=False)
    assert sorted(module.validated) == [f"validation{i}" for i in range(10)]
