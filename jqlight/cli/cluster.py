"""What a cluster's environment says of this process, where it does not concern the run."""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

from lightning.pytorch.utilities import rank_zero_only

_PREFIXES = ("TORCHELASTIC_", "JSM_NAMESPACE_")
_NAMES = (
    *("RANK", "LOCAL_RANK", "GROUP_RANK", "NODE_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE"),
    *("SLURM_PROCID", "SLURM_LOCALID", "SLURM_NODEID", "SLURM_NTASKS", "SLURM_NTASKS_PER_NODE"),
)


def leave_group(trainer: Mapping[str, Any]) -> None:
    """Make a run on one device the first and only process of its run, for any rank that the environment gives it.

    Several independent runs are often started as the tasks of one job. Lightning would take all but the first for
    helpers that log nothing.

    Args:
        trainer: the trainer's settings.
    """
    if not _one_device(trainer):
        return
    # A job of one task stays one, for the sake of SLURM's requeuing.
    alone = os.environ.get("SLURM_NTASKS") == "1" and os.environ.get("SLURM_PROCID", "0") == "0"
    for name in [name for name in os.environ if name in _NAMES or name.startswith(_PREFIXES)]:
        if not (alone and name.startswith("SLURM_")):
            del os.environ[name]
    rank_zero_only.rank = 0  # type: ignore[attr-defined]  # a function with an attribute


def _one_device(trainer: Mapping[str, Any]) -> bool:
    devices, nodes = trainer.get("devices", 1), trainer.get("num_nodes", 1)
    if isinstance(devices, str):
        parts = [part for part in devices.split(",") if part.strip()]
        devices = parts if "," in devices else devices.strip()
    counts_one = devices in (1, "1") or (isinstance(devices, list) and len(devices) == 1)
    return nodes in (1, "1") and (counts_one or (devices == "auto" and trainer.get("accelerator") == "cpu"))


def requeue(number: int) -> None:
    """Have SLURM start the job again, where its warning that the time is nearly up has ended the run.

    The job's command should say ``--run_dir DIR --ckpt_path last``, which begins a run or continues it.

    Args:
        number: the signal, SIGUSR1 for that warning (``sbatch --signal=USR1@120``).
    """
    job = os.environ.get("SLURM_JOB_ID")
    if number != signal.SIGUSR1 or not job:
        return
    if array := os.environ.get("SLURM_ARRAY_JOB_ID"):
        job = f"{array}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    try:
        code = subprocess.run(["scontrol", "requeue", job], check=False).returncode
    except OSError as error:
        code = error.errno or 1
    print(f"SLURM job {job}: {'requeued' if code == 0 else f'not requeued (scontrol: {code})'}", file=sys.stderr)
