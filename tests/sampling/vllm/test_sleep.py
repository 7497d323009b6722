"""An engine that gives its memory back, on a stand-in for vLLM that keeps its rules: none of this was run on a GPU."""

import pytest
import torch

from jqlight.errors import ConfigError
from jqlight.sampling import SamplerConfig
from jqlight.sampling.build import check_engine
from jqlight.sampling.vllm.engine import VLLMEngine


class StandInLLM:
    """Notes the calls; refuses what vLLM refuses or what would touch memory that is not there."""

    def __init__(self, batches):
        self.calls, self.resident, self.batches = [], {"weights", "kv_cache"}, batches
        self.llm_engine = self.engine_core = self

    @property
    def batch_queue(self):
        return self.batches

    @property
    def scheduler(self):
        return self

    def has_requests(self):
        return len(self.batches) > 1

    def step(self):
        assert "kv_cache" in self.resident
        self.calls.append("step")
        self.batches.pop()

    def sleep(self, level):
        assert not self.batches, "a batch would run on memory that is gone"
        self.calls.append(f"sleep {level}")
        self.resident.clear()

    def wake_up(self, tags):
        self.calls.append(f"wake {tags[0]}")
        self.resident.update(tags)

    def collective_rpc(self, name, kwargs):
        assert "weights" in self.resident
        self.calls.append(name)

    def reset_prefix_cache(self):
        assert "kv_cache" in self.resident
        self.calls.append("reset")
        return True


@pytest.fixture
def engine(monkeypatch):
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: engine._llm.calls.append("empty"))
    engine = object.__new__(VLLMEngine)
    engine._llm, engine._cuda, engine._asleep = StandInLLM([1, 2]), True, False
    return engine


def test_what_vllm_has_begun_is_run_to_its_end_before_it_sleeps_and_a_sync_wakes_it(engine):
    engine.sync([])
    engine.sleep()
    engine.sync([])
    engine.sync([])
    assert engine._llm.calls == [
        *("reload_weights", "reset"),
        *("step", "step", "sleep 2"),
        *("wake weights", "reload_weights", "empty", "wake kv_cache", "reset"),
        *("reload_weights", "reset"),
    ]


def test_sleep_is_refused_where_nothing_could_be_given_back():
    with pytest.raises(ConfigError, match=r"sampler.sleep: given true, allowed is false on a CPU"):
        check_engine(SamplerConfig(sleep=True), torch.device("cpu"))
    with pytest.raises(ConfigError, match=r"allowed is false with sampler.engine: transformers"):
        SamplerConfig("transformers", sleep=True)
    with pytest.raises(ConfigError, match=r"allowed is false with sampler.lookahead: 1"):
        SamplerConfig(sleep=True, lookahead=1)
