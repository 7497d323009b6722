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


@pytest.mark.parametrize("name", ["a\u202eb", "a\u200bb", "a\u2066b", "a\u00adb", "a\ufeffb"])
def test_what_cannot_be_seen_or_reorders_text_is_no_name(name):
    with pytest.raises(ConfigError, match=r"given 'a\\"):
        check_name("run_name", name)


@pytest.mark.parametrize("name", ["می\u200cخواهم", "क्\u200dष", "e\u0301tude", "日本語"])
def test_names_are_spelt_in_any_script(name):
    check_name("run_name", name)
