"""A run on one device is the whole run, whatever rank a cluster gives its process."""

import json

import pytest
from lightning.pytorch.utilities import rank_zero_only

from jqlight.cli.cluster import leave_group

SLURM = {"SLURM_NTASKS": "4", "SLURM_LOCALID": "2", "SLURM_NODEID": "0", "SLURM_JOB_NAME": "x", "SLURM_JOB_ID": "7"}
TASKS = [
    {**SLURM, "SLURM_PROCID": "2", "SLURM_NTASKS_PER_NODE": "4"},
    {**SLURM, "SLURM_PROCID": "2"},
    {**SLURM, "SLURM_PROCID": "0"},
    {"RANK": "3", "LOCAL_RANK": "3", "WORLD_SIZE": "4", "TORCHELASTIC_RUN_ID": "x"},
    {"LOCAL_RANK": "1"},
    {"JSM_NAMESPACE_RANK": "1", "JSM_NAMESPACE_LOCAL_RANK": "1", "JSM_NAMESPACE_SIZE": "2"},
]


@pytest.fixture
def task(monkeypatch):
    def enter(environment):
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        # What Lightning does when it is imported in such a process.
        ranks = [
            environment[n] for n in ("RANK", "LOCAL_RANK", "SLURM_PROCID", "JSM_NAMESPACE_RANK") if n in environment
        ]
        monkeypatch.setattr(rank_zero_only, "rank", int(ranks[0]) if ranks else 0)

    return enter


@pytest.mark.parametrize("environment", TASKS, ids=[" ".join(task) for task in TASKS])
def test_every_task_of_a_job_logs_and_saves(climber, shell, workplace, task, environment):
    task(environment)
    assert shell("fit", "--config", climber, "--trainer.max_steps=2", "--run_name=x") == 0, shell.err
    folder = workplace / "runs" / "x"
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert {row["step"] for row in rows} >= {1, 2}
    for name in ("run.json", "config.yaml", "checkpoints/last.ckpt", "checkpoints/best.ckpt"):
        assert (folder / name).exists()
    assert "best checkpoint" in shell.out


@pytest.mark.parametrize(
    "trainer", [{"devices": 2}, {"devices": 1, "num_nodes": 2}, {"devices": "0,1"}, {"devices": -1}]
)
def test_the_ranks_of_a_run_on_several_devices_are_kept(task, trainer):
    task(TASKS[3])
    leave_group(trainer)
    assert rank_zero_only.rank == 3


def test_slurm_asked_for_more_tasks_than_there_are_devices(climber, shell, task):
    task({**SLURM, "SLURM_PROCID": "0"})
    assert shell("fit", "--config", climber, "--trainer.devices=2", "--trainer.strategy=ddp") == 2
    assert shell.err.startswith("jqlight fit: trainer: You set `--ntasks=4`") and shell.err.count("\n") == 1
