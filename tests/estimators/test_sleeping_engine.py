"""When in a step the engine sleeps, on a recording engine in the engine's place."""

from pathlib import Path

from letters import make, train
from lightning import Callback

from jqlight.estimators import GARL
from jqlight.sampling import SamplerConfig


class Recording:
    """Passes every call on and notes it."""

    def __init__(self, engine) -> None:
        self.engine, self.calls = engine, []

    def generate(self, *arguments):
        assert self.calls[-1] != "sleep", "asleep"
        self.calls.append("generate")
        return self.engine.generate(*arguments)

    def sync(self, weights) -> None:
        self.calls.append("sync")
        self.engine.sync(weights)

    def sleep(self) -> None:
        self.calls.append("sleep")


class Swap(Callback):
    def on_fit_start(self, trainer, module) -> None:
        self.recording = module.sampler.engine = Recording(module.sampler.engine)
        module.sampler_config = SamplerConfig("vllm", sleep=True)


def test_the_engine_sleeps_from_the_last_rollout_of_a_step_to_its_sync(three_token_gpt2: str, tmp_path: Path) -> None:
    swap = Swap()
    train(make(GARL, three_token_gpt2), 3, tmp_path, callbacks=[swap])
    assert swap.recording.calls == ["sync", *["generate", "sleep", "sync"] * 3]
