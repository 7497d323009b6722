"""Memory, cores and threads where a container limits them."""

import psutil
import pytest
import torch

from jqlight import machine

GIB = 1 << 30


@pytest.fixture
def cgroups(tmp_path, monkeypatch):
    """Control groups of this process: ``cgroups("0::/a", {"a/cpu.max": "max 100000"})``."""
    monkeypatch.setattr(machine, "_CGROUPS", tmp_path / "fs")
    monkeypatch.setattr(machine, "_OWN_CGROUPS", tmp_path / "own")
    monkeypatch.setattr(machine.os, "sched_getaffinity", lambda _: set(range(8)), raising=False)

    def write(own, files):
        (tmp_path / "own").write_text(own + "\n")
        for name, text in files.items():
            path = tmp_path / "fs" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text + "\n")

    return write


V1 = "4:memory:/docker/abc\n2:cpu,cpuacct:/docker/abc\n1:cpuset:/docker/abc"


@pytest.mark.parametrize(
    ("own", "files", "cores"),
    [
        ("0::/", {"cpu.max": "200000 100000"}, 2),
        ("0::/", {"cpu.max": "max 100000"}, 8),
        ("0::/", {"cpu.max": "50000 100000"}, 1),
        ("0::/", {"cpu.max": "3200000 100000"}, 8),
        ("0::/", {"cpu.max": "350000 100000"}, 3),
        ("0::/jobs/one", {"jobs/cpu.max": "300000 100000", "jobs/one/cpu.max": "max 100000"}, 3),
        (V1, {"cpu/cpu.cfs_quota_us": "400000", "cpu/cpu.cfs_period_us": "100000"}, 4),
        (V1, {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, 8),
        (V1, {"cpu/docker/abc/cpu.cfs_quota_us": "100000", "cpu/docker/abc/cpu.cfs_period_us": "50000"}, 2),
        ("0::/", {}, 8),
    ],
)
def test_cores_are_what_the_control_group_allows(cgroups, own, files, cores):
    cgroups(own, files)
    assert machine.usable_cores() == cores


def test_cores_are_known_without_control_groups(cgroups):
    assert machine.usable_cores() == 8


@pytest.mark.parametrize(
    ("own", "files", "limit"),
    [
        ("0::/", {"memory.max": str(GIB)}, GIB),
        ("0::/", {"memory.max": "max"}, None),
        (V1, {"memory/memory.limit_in_bytes": str(GIB)}, GIB),
        (V1, {"memory/memory.limit_in_bytes": "9223372036854771712"}, None),
    ],
)
def test_free_memory_is_what_the_limit_leaves(cgroups, monkeypatch, own, files, limit):
    cgroups(own, files)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: type("Memory", (), {"available": 64 * GIB}))
    free = machine.free_memory(torch.device("cpu"))
    if limit is None:
        assert free == 64 * GIB
    else:
        used = psutil.Process().memory_info().rss
        assert abs(free - max(0, limit - used)) < GIB // 8


@pytest.fixture
def threads(monkeypatch):
    """Torch with eight threads by default and no wish of a user; the list of numbers that it was set to."""
    current = [8]
    monkeypatch.setattr(machine, "_DEFAULT_THREADS", 8)
    monkeypatch.setattr(machine.torch, "get_num_threads", lambda: current[-1])
    monkeypatch.setattr(machine.torch, "set_num_threads", current.append)
    monkeypatch.setattr(machine, "usable_cores", lambda: 4)
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    return current


@pytest.mark.parametrize(("parameters", "expected"), [(400_000, 1), (10_000_000, 2), (25_000_000, 3), (10**9, 4)])
def test_threads_follow_the_model_and_the_cores(threads, parameters, expected):
    machine.limit_threads(parameters)
    assert threads[-1] == expected


@pytest.mark.parametrize("name", ["OMP_NUM_THREADS", "MKL_NUM_THREADS"])
def test_a_users_number_of_threads_stays(threads, monkeypatch, name):
    monkeypatch.setenv(name, "8")
    machine.limit_threads(400_000)
    assert threads == [8]


def test_a_number_of_threads_set_in_the_program_stays(threads):
    threads.append(6)
    machine.limit_threads(400_000)
    assert threads == [8, 6]


def test_starting_a_sampler_limits_the_threads(tiny_qwen3, monkeypatch):
    from jqlight.policy import Policy, PolicyConfig
    from jqlight.sampling import SamplerConfig, build

    order = []
    monkeypatch.setattr(build, "limit_threads", order.append)
    monkeypatch.setattr(build, "_start_engine", lambda *_: order.append("engine"))
    policy = Policy(PolicyConfig(tiny_qwen3))
    settings = {"model_path": policy.path, "dtype": "float32", "token_format": policy.format, "max_prompt_tokens": 8}
    build.build_sampler(SamplerConfig(max_thinking_tokens=16), **settings)
    policy.load()
    assert order == [policy.model.num_parameters(), "engine"]
