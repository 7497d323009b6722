"""A run that is stopped and resumed goes on as if nothing had happened: q, rollouts, weights, escape step."""

from pathlib import Path

import pytest
import torch
from letters import STEPS, STOP, make, train
from lightning.pytorch.loggers import CSVLogger

from jqlight.estimators import GARL, PAFT, Estimator


@pytest.mark.parametrize("kind", [GARL, PAFT])
def test_resumed_equals_uninterrupted(kind: type[Estimator], three_token_gpt2: str, tmp_path: Path) -> None:
    whole = make(kind, three_token_gpt2)
    course = train(whole, STEPS, tmp_path / "whole")
    train(make(kind, three_token_gpt2), STOP, tmp_path / "first")
    (stopped,) = (tmp_path / "first").glob("*.ckpt")
    second = make(kind, three_token_gpt2)
    rest = train(second, STEPS, tmp_path / "second", resume=stopped)

    assert sorted(course.steps) == list(range(STEPS)) and sorted(rest.steps) == list(range(STOP, STEPS))
    for step, metrics in rest.steps.items():
        assert metrics == course.steps[step]
    assert [course.steps[k]["train/q"] for k in range(STEPS)] == pytest.approx([whole.q.at(k).q for k in range(STEPS)])
    assert len({m["train/log_success"] for m in course.steps.values()}) == STEPS, "the model moves"
    assert "train/escape_step" in course.steps[STEPS - 1]
    for ours, theirs in zip(whole.policy.parameters(), second.policy.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_engine_holds_the_trainers_weights_after_fit(three_token_gpt2: str, tmp_path: Path) -> None:
    estimator = make(GARL, three_token_gpt2)
    course = train(estimator, 3, tmp_path)
    engine = dict(estimator.sampler.engine.model.named_parameters())
    for name, parameter in estimator.policy.model.named_parameters():
        assert torch.equal(engine[name], parameter)
    assert all(metrics["train/logprob_gap"] < 1e-5 for metrics in course.steps.values())


def test_any_logger_takes_what_a_script_trains(three_token_gpt2: str, tmp_path: Path) -> None:
    train(make(GARL, three_token_gpt2), 2, tmp_path / "run", logger=CSVLogger(tmp_path, name="csv"))
    (file,) = tmp_path.glob("csv/*/metrics.csv")
    assert "train/success" in file.read_text().splitlines()[0].split(",")


def test_seed_decides_the_course(three_token_gpt2: str, tmp_path: Path) -> None:
    courses = []
    for seed in (3, 3, 4):
        estimator = make(GARL, three_token_gpt2)
        estimator.run_seed = seed
        courses.append(train(estimator, 2, tmp_path / str(len(courses))).steps)
    assert courses[0] == courses[1] != courses[2]
