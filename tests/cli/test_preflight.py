"""What is wrong in a sweep's settings is said before the first point starts."""

import os
import random
from pathlib import Path

import pytest

from jqlight.cli.sweep import check_points, main
from jqlight.errors import ConfigError
from jqlight.sweep.file import read_sweep

ROOT = Path(__file__).parents[2]


@pytest.fixture
def write(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def write(axes: str) -> str:
        (tmp_path / "s.yaml").write_text(f"base: {ROOT}/conf/quickstart.yaml\n{axes}\n")
        return "s.yaml"

    return write


@pytest.mark.parametrize(
    ("axes", "message"),
    [
        (
            "points: [{q: 0.5}, {q: 0.5, model.sampler.temprature: 0.7}]",
            r"s.yaml, point q0.5-temprature=0.7: model.sampler.temprature: no such setting \(given 0.7\); "
            r"did you mean model.sampler.evaluation.temperature\?",
        ),
        ("grid: {trainer.max_steps: [10, many]}", "s.yaml, point max_steps=many: trainer.max_steps: given many"),
        ("overrides: {data.size: 3}\ngrid: {seed: [0]}", "point seed0: data.size: no such setting"),
        ("points: [{estimator: nowhere.GARL}]", "point nowhere.GARL: .*nowhere"),
    ],
)
@pytest.mark.parametrize("options", [[], ["--dry-run"]])
def test_mistake_in_a_setting_starts_nothing(write, axes, message, options, tmp_path):
    with pytest.raises(ConfigError, match=message):
        main([write(axes), *options])
    assert not (tmp_path / "runs").exists()


def test_settings_that_fit_takes_pass_without_a_trace(write, monkeypatch, tmp_path):
    monkeypatch.delenv("PL_GLOBAL_SEED", raising=False)
    sweep = read_sweep(write("points: [{estimator: GRPO, model.rollouts: 4}, {q: {splice: 0.05}, seed: 7}]"))
    before = random.getstate()
    check_points(sweep)
    assert random.getstate() == before
    assert "PL_GLOBAL_SEED" not in os.environ  # it would reach the points
    assert [entry.name for entry in tmp_path.iterdir()] == ["s.yaml"]


def test_folder_of_another_machine_is_the_points_affair(write):
    check_points(read_sweep(write("points: [{model.policy.name_or_path: /on/the/cluster, data.prompts_per_step: 2}]")))
