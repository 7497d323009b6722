"""`jqlight fit` on two processes: what one computes, and how all end when one fails."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from jqlight.cli.ranks import RankWatch
from jqlight.errors import ConfigError, DataError, EngineError

ROOT = Path(__file__).parents[2]
# One step of plain SGD, so large that the weights behind it are its gradient to float32's last digits.
TWOHOP = """
seed_everything: 0
model:
  class_path: jqlight.estimators.GARL
  init_args:
    {q: 1.0, rollouts: 4, samples: 4, policy: {name_or_path: twohop, thinking: {start: "", separator: ""}},
     sampler: {engine: transformers, max_thinking_tokens: 6, max_answer_tokens: 8}}
data:
  class_path: jqlight.benchmarks.TwoHop
  init_args: {train_size: 16, validation_size: 5, test_size: 4, prompts_per_step: 4, max_prompt_tokens: 32}
optimizer: {class_path: torch.optim.SGD, init_args: {lr: 1.0e+6}}
trainer: {accelerator: cpu, max_steps: 1, val_check_interval: 1, logger: true}
"""
FAILING = """
import torch
from cli_standins import Climber
from jqlight.errors import DataError

class OneFails(Climber):
    def training_step(self, batch, batch_idx):
        if self.global_step == 2:
            if self.global_rank == 1:
                raise DataError("record 7 of train.json: no answer")
            torch.distributed.barrier()
        super().training_step(batch, batch_idx)
"""


def run(*command):
    places = os.pathsep.join(str(folder) for folder in (ROOT, ROOT / "tests"))
    environment = {**os.environ, "PYTHONPATH": places, "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.run(
        [sys.executable, "-m", *map(str, command)], env=environment, capture_output=True, text=True, timeout=400
    )


def rows(folder):
    return [json.loads(line) for line in Path(folder, "metrics.jsonl").read_text().splitlines()]


def test_torchrun_on_two_processes_computes_what_one_does(shell, workplace):
    Path("twohop.yaml").write_text(TWOHOP)
    assert shell("fit", "--config", "twohop.yaml", "--run_dir", "one") == 0, shell.err
    torchrun = ("torch.distributed.run", "--standalone", "--nproc-per-node", 2, "-m")
    done = run(*torchrun, "jqlight", "fit", "--config", "twohop.yaml", "--run_dir", "two", "--trainer.devices", 2)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("best checkpoint") == 1, "rank 0 alone tells"
    one, two = (torch.load(f"{run}/checkpoints/last.ckpt", weights_only=True)["state_dict"] for run in ("one", "two"))
    assert all(weight.norm() > 100 for weight in one.values())
    for name, weight in one.items():
        assert (two[name] - weight).norm() < 1e-6 * weight.norm(), name
    first = [next(row for row in rows(folder) if "val/maj_at_4" in row) for folder in ("one", "two")]
    scores = [{name: value for name, value in row.items() if name.startswith("val/")} for row in first]
    assert scores[0] == scores[1]


def test_a_rank_that_fails_ends_all_with_its_own_sentence(climber, workplace):
    Path("failing.py").write_text(FAILING)
    done = run(
        *("jqlight", "fit", "--config", climber, "--model", "failing.OneFails", "--run_dir", "run"),
        *("--trainer.devices", 2, "--trainer.limit_val_batches", 0, "--optimizer.lr", 0.1),
    )
    told = [line for line in done.stderr.splitlines() if not line.startswith("jqlight: ")]  # MLflow may be slow
    assert (done.returncode, told) == (2, ["jqlight fit: rank 1: record 7 of train.json: no answer"])


# -- who failed first ------------------------------------------------------------------------------------------------


@pytest.fixture
def watch():
    """That of rank 0 of two, in whose store nothing lies."""
    watch = RankWatch("fit")
    strategy = type("Strategy", (), {"launcher": None})
    watch._trainer = type("Trainer", (), {"global_rank": 0, "strategy": strategy})
    watch._store = torch.distributed.HashStore()
    return watch


BROKEN = RuntimeError("[gloo/transport/tcp/pair.cc:553] Connection closed by peer")


def test_an_own_failure_stays_what_it_is(watch):
    error = DataError("mine")
    assert watch.first_failure(error) is error
    assert json.loads(watch._store.get("jqlight/failed")) == [0, 2, "mine"]


@pytest.mark.parametrize("own", [BROKEN, DataError("a second one")])
@pytest.mark.parametrize(("code", "kind"), [(2, ConfigError), (1, EngineError)])
def test_the_first_failure_is_told_with_its_rank_and_exit_code(watch, own, code, kind):
    watch._store.set("jqlight/failed", json.dumps([3, code, "what happened"]))
    told = watch.first_failure(own)
    assert type(told) is kind and str(told) == "rank 3: what happened"


def test_a_rank_that_was_killed_leaves_no_word(watch, monkeypatch):
    monkeypatch.setattr("jqlight.cli.ranks._WORD_S", 0.0)
    assert str(watch.first_failure(BROKEN)).startswith("another process of the run has ended without a word")


def test_a_run_on_one_device_has_no_others():
    error = DataError("mine")
    assert RankWatch("fit").first_failure(error) is error
