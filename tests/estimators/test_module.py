"""What a PolicyModule asks of a trainer and its data, and what it takes from the run's seed."""

from typing import ClassVar

import pytest
import torch
from enumeration import quiet_trainer
from letters import Letters, make
from lightning import LightningDataModule
from torch.utils.data import DataLoader

from jqlight.errors import ConfigError
from jqlight.estimators import GARL, GRPO, RLOO, MaxRL
from jqlight.estimators.module import DEFAULT_OPTIMIZER


class Plain(LightningDataModule):
    def train_dataloader(self) -> DataLoader:
        return DataLoader([1, 2])


@pytest.mark.parametrize(
    ("given", "name"), [({"datamodule": Plain()}, "Plain"), ({"train_dataloaders": DataLoader([1, 2])}, "none")]
)
def test_data_that_are_no_benchmark_are_refused_before_anything_is_loaded(given, name, three_token_gpt2):
    estimator = make(GARL, three_token_gpt2)
    with pytest.raises(ConfigError, match=f"data: given {name}, allowed is a Benchmark"):
        quiet_trainer(max_steps=1).fit(estimator, **given)
    assert estimator.sampler is None


def test_training_order_follows_the_one_seed_of_a_run(three_token_gpt2, monkeypatch):
    def order(environment: str, **settings: object) -> list[str]:
        monkeypatch.setenv("PL_GLOBAL_SEED", environment)
        estimator = make(GARL, three_token_gpt2)
        estimator._run_seed = None  # as a command line leaves it
        data = Letters(prompts_per_step=2, max_prompt_tokens=6, **settings)
        quiet_trainer(max_steps=1).fit(estimator, datamodule=data)
        return [data.examples("train")[i].id for i in data.train_dataloader().order(0)]

    assert order("0") == order("0") != order("1")
    assert order("0", seed=5) == order("1", seed=5)


def test_settings_have_defaults_in_a_script(three_token_gpt2, monkeypatch):
    monkeypatch.delenv("PL_GLOBAL_SEED", raising=False)
    estimator = make(GARL, three_token_gpt2)
    assert estimator.optimizer is DEFAULT_OPTIMIZER
    quiet_trainer(max_steps=1).fit(estimator, datamodule=Letters(prompts_per_step=2, max_prompt_tokens=6))
    (group,) = estimator.optimizers().param_groups
    assert (group["lr"], group["betas"], group["weight_decay"]) == (5e-6, (0.9, 0.95), 0.0)


class Graded(Letters):
    """A benchmark that rewards with a verifier of its own."""

    verifiers: ClassVar = {**Letters.verifiers, "length_": lambda answer, references: len(answer) / 2}
    reward = "length_"


@pytest.mark.parametrize("kind", [GRPO, RLOO, MaxRL])
def test_the_benchmarks_reward_reaches_the_estimator(kind, three_token_gpt2):
    estimator = make(kind, three_token_gpt2)
    seen = {}
    original = kind.signal

    def watched(self, example, rollouts, group):
        signal = original(self, example, rollouts, group)
        seen[example.id] = [len(self.token_format.decode_answer(r.answer_ids)) / 2 for r in rollouts], signal
        return signal

    estimator.signal = watched.__get__(estimator)
    quiet_trainer(max_steps=2).fit(estimator, datamodule=Graded(prompts_per_step=2, max_prompt_tokens=6))
    assert seen and any(max(lengths) > 0 for lengths, _ in seen.values())
    for lengths, signal in seen.values():
        assert torch.equal(signal, torch.tensor(lengths, dtype=torch.float64))


def test_weights_of_another_model_are_refused_by_name(three_token_gpt2):
    estimator = make(GARL, three_token_gpt2)
    estimator.policy.load()
    state = estimator.state_dict()
    name = next(iter(state))
    for wrong in ({**state, name: state[name][:1]}, {key: value for key, value in state.items() if key != name}):
        with pytest.raises(ConfigError, match=f"weights are not those of policy.name_or_path .*{name}"):
            estimator.load_state_dict(wrong)
    estimator.load_state_dict(state)
