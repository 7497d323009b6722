"""One rank or two: the same gradient on both, and the same metrics."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import ranks_worker as worker
import torch

WORKER = Path(worker.__file__)


def run(path: str, devices: int, folder: Path) -> list[dict]:
    # The package of this checkout, even where another one is installed.
    places = os.pathsep.join(str(WORKER.parents[n]) for n in (1, 2))
    environment = {**os.environ, "PYTHONPATH": places, "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, str(WORKER), path, str(devices), str(folder)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return [torch.load(folder / f"{devices}-{rank}.pt") for rank in range(devices)]


def test_two_ranks_compute_what_one_does(three_token_gpt2: str, tmp_path: Path) -> None:
    worker.main(three_token_gpt2, 1, str(tmp_path))
    alone = torch.load(tmp_path / "1-0.pt")
    assert alone["metrics"]["train/dead_groups"] == 2 and alone["skipped"] == 1
    assert alone["validation"]["val/necessity_swapped"] != 0
    for rank in run(three_token_gpt2, 2, tmp_path):
        assert rank["skipped"] == 1, "where one rank cannot take a step, none does"
        for step in range(2):
            gap = (rank["gradients"][step] - alone["gradients"][step]).norm() / alone["gradients"][step].norm()
            assert gap.item() < 1e-10
        assert rank["validation"] == alone["validation"]
        assert rank["metrics"] == pytest.approx(alone["metrics"], rel=1e-5, abs=1e-12, nan_ok=True)
