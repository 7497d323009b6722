"""Generated mistakes of every kind end well or in one sentence; ``make fuzz`` runs thousands of the same kinds."""

import importlib.util
import random
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

ROOT = Path(__file__).parents[1]


def load_script():
    spec = importlib.util.spec_from_file_location("fuzz", ROOT / "scripts" / "fuzz.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


fuzz = load_script()
# What the long run finds becomes a test of its own where it is mended.
EVERY_TIME_THE_SAME = settings(deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
EXAMPLES = {"command_line": 25, "config_file": 15, "setting": 15, "checkpoint": 60}


@pytest.fixture(autouse=True)
def surroundings(tmp_path, monkeypatch):
    """Where inputs are written; what they leave behind in the process is taken back."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("JQLIGHT_RUN_DIR", raising=False)


@pytest.mark.parametrize("kind", fuzz.KINDS)
def test_no_input_ends_in_a_traceback(kind, tmp_path_factory):
    ends = []

    @settings(EVERY_TIME_THE_SAME, max_examples=EXAMPLES.get(kind, 120))
    @given(st.integers(0, 2**32))
    def run(seed):
        ends.append(fuzz.outcome(kind, random.Random(seed), tmp_path_factory.mktemp("fuzz")))

    run()
    assert ends.count("ok") and ends.count("sentence"), f"{len(ends)} inputs all ended alike: they try nothing"


def test_a_traceback_is_noticed(tmp_path, monkeypatch):
    def fail(rng, folder):
        raise ZeroDivisionError

    monkeypatch.setitem(fuzz.KINDS, "names", (fail, 1.0))
    with pytest.raises(ZeroDivisionError):
        fuzz.outcome("names", random.Random(0), tmp_path)
