from dataclasses import dataclass

import pytest

from jqlight.benchmarks import HotpotQA
from jqlight.cli.config import settings_of
from jqlight.cli.help import RUN, TRAINER, class_table
from jqlight.estimators import GARL
from jqlight.names import BENCHMARKS, ESTIMATORS


@dataclass(frozen=True)
class Inner:
    """Settings of a part."""

    size: int = 3
    """How large, in tokens."""
    name: str = ""
    """What it is called."""


class Outer:
    """A class.

    Args:
        part: not shown, its settings are.
        rate: how fast, per step.
        maybe: may be missing.
        path: where it lies.
    """

    def __init__(
        self, path: str, part: Inner, rate: float = 0.5, maybe: Inner | None = None, on: bool = True
    ) -> None: ...


def test_every_setting_has_its_default_and_meaning():
    assert [" ".join(line.split()) for line in class_table("model", Outer)] == [
        "--model.path (required) where it lies.",
        "--model.part.size 3 How large, in tokens.",
        "--model.part.name '' What it is called.",
        "--model.rate 0.5 how fast, per step.",
        "--model.maybe null may be missing.",
        "--model.maybe.size 3 How large, in tokens.",
        "--model.maybe.name '' What it is called.",
        "--model.on true",
    ]


def test_every_setting_of_ours_is_explained():
    from jqlight import benchmarks, estimators

    models = [getattr(estimators, name) for name in ESTIMATORS]
    data = [getattr(benchmarks, name) for name in BENCHMARKS]
    for prefix, classes in (("model", models), ("data", data)):
        for cls in classes:
            unexplained = [row.key for row in settings_of(prefix, cls) if not row.meaning]
            assert unexplained == [], cls


def test_a_run_has_few_settings():
    owners = (("model", GARL), ("data", HotpotQA))
    rows = [row for prefix, cls in owners for row in settings_of(prefix, cls) if not row.is_group]
    own = [row.key for row in rows if not row.key.startswith("model.policy.lora.")]
    assert len(own) + len(RUN) <= 45, "one that every user would leave alone is a constant"


@pytest.mark.parametrize("verb", ["fit", "test"])
def test_help_of_a_lightning_verb(shell, verb):
    assert shell(verb, "--help") == 0
    assert shell.out.startswith(f"usage: jqlight {verb} --config FILE")
    assert "--model.q  0.75" in shell.out
    assert "--model.policy.name_or_path  (required)" in shell.out
    assert "--trainer.devices  1" in shell.out
    assert all(len(line) <= 120 for line in shell.out.splitlines())


def test_help_follows_the_class_that_is_given(shell):
    assert shell("fit", "--model", "GRPO", "--help") == 0
    assert "model: GRPO" in shell.out
    assert "--model.q " not in shell.out


def test_the_trainers_settings_exist():
    import inspect

    from lightning.pytorch import Trainer

    assert set(TRAINER) <= set(inspect.signature(Trainer.__init__).parameters)
