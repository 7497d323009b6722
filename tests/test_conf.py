"""Every file in conf/: its first line is its command, and model, data and trainer can be built from it."""

from pathlib import Path

import pytest
from lightning.pytorch import Trainer

from jqlight import benchmarks, estimators
from jqlight.benchmarks import FinQA, HotpotQA, MuSiQue
from jqlight.cli.fit import RunCLI

CONF = Path(__file__).parent.parent / "conf"
FILES = sorted(CONF.glob("*.yaml"))
# Thinking budgets and subsets of Lin & Ie (2026); 128 tokens of the budget are kept for the answer.
PAPER = {
    FinQA: (4096 - 128, (6145, 872, 1132)),
    HotpotQA: (3072 - 128, (9067, 342, 343)),
    MuSiQue: (2048 - 128, (9985, 579, 445)),
}


@pytest.fixture
def build(tmp_path, monkeypatch):
    """Build a config's classes as ``jqlight fit`` does, without running them."""
    monkeypatch.chdir(tmp_path)
    return lambda path, *overrides: RunCLI("fit", ["--config", str(path), *overrides])


def test_there_is_a_warm_and_a_cold_file_per_benchmark():
    assert {path.stem for path in FILES} >= {
        "quickstart", *(f"{name}{kind}" for name in ("finqa", "hotpotqa", "musique") for kind in ("", "_cold")),
    }  # fmt: skip


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_file_is_short_and_opens_with_its_command(path):
    lines = path.read_text(encoding="utf-8").splitlines()
    assert lines[0] == f"# jqlight fit --config conf/{path.name}"
    assert len(lines) <= 50


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_file_can_be_built(path, build):
    built = build(path)
    assert type(built.model).__name__ in estimators.__all__
    assert isinstance(built.datamodule, benchmarks.Benchmark)
    assert isinstance(built.trainer, Trainer)
    assert callable(built.model.configure_optimizers)


@pytest.mark.parametrize(
    "path", [p for p in FILES if p.stem.split("_")[0] in ("finqa", "hotpotqa", "musique")], ids=lambda p: p.stem
)
def test_a_benchmarks_file_follows_the_papers_protocol(path, build):
    built = build(path)
    thinking, sizes = PAPER[type(built.datamodule)]
    assert built.model.policy.config.name_or_path == "Qwen/Qwen3-0.6B"
    assert (built.model.rollouts, built.model.samples) == (32, 16)
    assert built.model.sampler_config.max_thinking_tokens == thinking
    assert built.model.sampler_config.max_answer_tokens == 128
    assert built.datamodule.scenario == ("cold" if path.stem.endswith("_cold") else "warm")
    assert tuple(built.datamodule.sizes[split] for split in ("train", "validation", "test")) == sizes
    assert set(built.datamodule.asked.values()) == {None}  # the class's own sizes
    # Weights that a small step moves, with passes and an engine in bfloat16.
    assert (built.model.policy.config.dtype, built.trainer.precision) == ("float32", "bf16-mixed")
    assert built.model.sampler_config.dtype == "bfloat16"


@pytest.mark.parametrize("name", ["finqa", "hotpotqa", "musique"])
def test_warm_and_cold_differ_in_the_scenario_alone(name, build):
    warm, cold = (build(CONF / f"{name}{kind}.yaml").config.as_dict() for kind in ("", "_cold"))
    assert (warm["data"]["init_args"].pop("scenario"), cold["data"]["init_args"].pop("scenario")) == ("warm", "cold")
    assert warm.pop("config") != cold.pop("config")
    assert warm == cold
