"""What vLLM would be started with on a GPU. Nothing of this has been run on one."""

import os

import pytest
import torch

from jqlight.sampling import SamplerConfig, memory
from jqlight.sampling.vllm import engine as vllm_engine
from jqlight.sampling.vllm.process import hosted

GIB = 1 << 30
SECOND = torch.device("cuda", 1)


@pytest.fixture
def gpu(monkeypatch):
    """A second GPU of 80 GiB, asked for its size alone."""
    asked = []
    properties = type("Properties", (), {"total_memory": 80 * GIB})
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: asked.append(device) or properties)
    monkeypatch.setattr(memory, "free_memory", lambda device: asked.append(device) or 60 * GIB)
    monkeypatch.delenv("TRITON_F32_DEFAULT", raising=False)
    return asked


def test_options_on_a_gpu_are_of_the_trainers_own(gpu, tiny_qwen3):
    options = vllm_engine.llm_options(tiny_qwen3, "bfloat16", 512, SamplerConfig(max_num_seqs=8), SECOND)
    assert gpu == [SECOND, SECOND]
    assert options["enforce_eager"] is False
    assert 0 < options["gpu_memory_utilization"] <= 0.92
    assert options["enable_sleep_mode"] is False
    assert "block_size" not in options and "enable_chunked_prefill" not in options


def test_a_single_trainers_gpu_is_named_and_a_ranks_is_its_local_rank(gpu, monkeypatch):
    with hosted(SECOND, compiles=True, exact=False) as arguments:
        assert arguments == {"device_ids": [1]}
        assert "LOCAL_RANK" not in os.environ
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 4)
    monkeypatch.setattr(torch.distributed, "get_rank", lambda: 3)
    with hosted(SECOND, compiles=True, exact=False) as arguments:
        assert arguments == {"distributed_executor_backend": "external_launcher"}
        assert (os.environ["RANK"], os.environ["LOCAL_RANK"]) == ("3", "1")


@pytest.mark.parametrize(
    ("device", "exact", "given", "expected"),
    [
        (SECOND, True, None, "ieee"),
        (SECOND, True, "tf32", "tf32"),
        (SECOND, False, None, None),
        (torch.device("cpu"), True, None, None),
    ],
)
def test_float32_on_a_gpu_is_asked_for_without_tf32(gpu, monkeypatch, device, exact, given, expected):
    if given:
        monkeypatch.setenv("TRITON_F32_DEFAULT", given)
    with hosted(device, compiles=True, exact=exact):
        inside = os.environ.get("TRITON_F32_DEFAULT")
    assert inside == expected
    assert os.environ.pop("TRITON_F32_DEFAULT", None) == expected, "kernels are compiled at the first request too"
