import pytest

from jqlight.errors import ConfigError
from jqlight.tracking.run_names import check_experiment, check_name


def test_a_name_is_refused_with_its_key():
    with pytest.raises(ConfigError, match=r"run_name: given '\.\./x', allowed are letters"):
        check_name("run_name", "../x")


def test_an_experiment_may_be_a_workspace_path():
    check_experiment("experiment_name", "/Users/me/x")
    for wrong in ("a/b", "/Users/../x", "/", "//x"):
        with pytest.raises(ConfigError):
            check_experiment("experiment_name", wrong)
