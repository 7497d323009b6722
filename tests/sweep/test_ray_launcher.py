"""The Ray launcher on a cluster of this machine; without Ray only what it says then."""

import importlib.util
import json
import signal
import sys
import time
from pathlib import Path

import pytest

from jqlight.cli.sweep import main
from jqlight.errors import ConfigError
from jqlight.sweep.launchers import Command
from jqlight.sweep.ray_launcher import RayLauncher

HAS_RAY = importlib.util.find_spec("ray") is not None
with_ray = pytest.mark.skipif(not HAS_RAY, reason="Ray is not installed (the extra [ray])")


def test_without_ray_the_way_to_get_it_is_named(fake_fit, write_sweep, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)  # what an environment without the extra answers to an import
    with pytest.raises(ConfigError, match=r'Ray is not installed; run pip install "jqlight\[ray\]"'):
        main([str(write_sweep("grid: {seed: [0]}\n")), "--launcher", "ray"])
    assert not (fake_fit / "runs/s/seed0").exists()


@with_ray
def test_points_run_on_a_local_cluster(fake_fit, write_sweep):
    path = write_sweep("grid: {seed: [0]}\ninclude: [{fake.crash: 1}, {fake.fail_at: 3, seed: 1}]\n")
    assert main([str(path), "--launcher", "ray", "--jobs", "3"]) == 1
    assert (fake_fit / "runs/s/seed0/finished.json").exists()
    assert main([str(path), "--launcher", "ray", "--resume"]) == 1
    calls = (fake_fit / "runs/s/fail_at=3-seed1/calls.jsonl").read_text().splitlines()
    assert [json.loads(call)["first"] for call in calls] == [0, 2]
    assert len((fake_fit / "runs/s/seed0/calls.jsonl").read_text().splitlines()) == 1


@with_ray
@pytest.mark.parametrize("handler", [signal.default_int_handler, signal.SIG_IGN], ids=["terminal", "background"])
def test_stopped_job_ends_its_process(tmp_path, handler):
    before = signal.signal(signal.SIGINT, handler)  # a shell's background process and its children ignore it
    launcher = RayLauncher(None, cpus=1, gpus=0)
    try:
        script = "import os, pathlib, time; pathlib.Path('pid').write_text(str(os.getpid())); time.sleep(600)"
        log = tmp_path / "log"
        job = launcher.start(Command(("sh", "-c", f'cd {tmp_path} && exec python3 -c "{script}"'), {}, log))
        end = time.monotonic() + 60
        while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
            assert time.monotonic() < end
            assert job.poll() is None
            time.sleep(0.1)
        job.stop()
        while job.poll() is None:
            assert time.monotonic() < end
            time.sleep(0.1)
        assert job.poll() != 0
        pid = int((tmp_path / "pid").read_text())
        while _alive(pid):
            assert time.monotonic() < end
            time.sleep(0.1)
    finally:
        signal.signal(signal.SIGINT, before)
        launcher.close()


@with_ray
def test_point_that_fits_no_node_is_refused_before_anything_starts():
    with pytest.raises(ConfigError, match="--cpus 1 --gpus 99: no node has that much"):
        RayLauncher(None, cpus=1, gpus=99)


@with_ray
@pytest.mark.parametrize("address", ["127.0.0.1:9", "ray://127.0.0.1:9"])
def test_cluster_that_does_not_answer_is_named_at_once(address):
    with pytest.raises(ConfigError, match=rf"no cluster answers at {address} \(.*refused"):
        RayLauncher(address, cpus=1, gpus=0)


def _alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False
