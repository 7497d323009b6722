import subprocess
import sys

import pytest

from jqlight import benchmarks, estimators
from jqlight.names import BENCHMARKS, ESTIMATORS, SCORE, format_value, k_of_majority, majority, pass_at


@pytest.mark.parametrize(
    ("names", "package", "base"), [(ESTIMATORS, estimators, "Estimator"), (BENCHMARKS, benchmarks, "Benchmark")]
)
def test_every_estimator_and_benchmark_has_its_place(names, package, base):
    parent = getattr(package, base)
    found = {name for name, kind in vars(package).items() if isinstance(kind, type) and issubclass(kind, parent)} - {
        base
    }
    assert set(names) == found
    assert all(getattr(package, name).__name__ == name for name in names)


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.75, "0.75"), (1.0, "1"), (3, "3"), (True, "true"), (None, "null"), ("splice(0.05)", "splice(0.05)"),
     ({"class_path": "jqlight.objective.Splice", "init_args": {"tau": 0.05}}, "splice(0.05)"),
     ({"class_path": "jqlight.schedules.Step", "init_args": {"steps": 70}}, "step(1->0@70)"),
     ({"class_path": "nowhere.Ramp", "init_args": {"a": 1.0, "b": "x"}}, "ramp(a=1, b=x)"),
     ({"class_path": "jqlight.objective.Splice", "init_args": {"tau": 5}}, "splice(tau=5)")],
)  # fmt: skip
def test_a_value_has_one_spelling(value, text):
    assert format_value(value) == text


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        (f"val/{majority(16)}", ("val", "", "maj", "16")),
        (f"test/{majority(8, 'em_')}", ("test", "em_", "maj", "8")),
        (f"val/{pass_at(1, 'exact_')}", ("val", "exact_", "pass", "1")),
    ],
)
def test_names_are_read_as_they_are_written(name, parts):
    assert SCORE.fullmatch(name).groups() == parts


def test_k_is_that_of_the_papers_rule_or_exact_match():
    names = ["val/maj_at_16", "test/exact_maj_at_8", "val/em_maj_at_4", "val/pass_at_16", "train/success", "maj_at_16"]
    assert [k_of_majority(name) for name in names] == [16, 8, None, None, None, None]


def test_a_comparison_is_imported_without_torch():
    code = "import sys, jqlight.report.html; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
