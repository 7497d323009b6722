import subprocess
import sys

import pytest

from jqlight import estimators
from jqlight.names import ESTIMATORS, SCORE, k_of_majority, majority, pass_at


def test_every_estimator_has_its_place():
    assert {*ESTIMATORS, "Estimator"} == set(estimators.__all__)
    assert all(getattr(estimators, name).__name__ == name for name in ESTIMATORS)


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
