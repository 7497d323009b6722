"""What a config and its overrides come to: precedence, interpolation, short names."""

import pytest
import yaml

from jqlight.cli.config import GivenSetting, chosen_class, parameters, read_command_line, settings_of


@pytest.fixture
def printed(shell, climber, capsys):
    """The resolved config of ``fit`` with these arguments behind ``--config climber.yaml``."""

    def resolve(*arguments):
        with pytest.raises(SystemExit) as ended:
            shell("fit", "--config", climber, *arguments, "--print_config")
        assert ended.value.code == 0
        return yaml.safe_load(capsys.readouterr().out)

    return resolve


def test_interpolation_follows_command_line_overrides(printed, workplace):
    (workplace / "name.yaml").write_text("run_name: climber-q${model.init_args.q}\n")
    assert printed("--config", "name.yaml")["run_name"] == "climber-q0.25"
    config = printed("--config", "name.yaml", "--model.q", "0.5")
    assert config["model"]["init_args"]["q"] == 0.5
    assert config["run_name"] == "climber-q0.5"


def test_relative_interpolation_follows_overrides_and_later_files(printed, workplace):
    (workplace / "label.yaml").write_text("model: {init_args: {label: 'at ${.q}'}}\n")
    (workplace / "q.yaml").write_text("model: {init_args: {q: 1.0}}\n")
    assert printed("--config", "label.yaml", "--config", "q.yaml")["model"]["init_args"]["label"] == "at 1.0"
    assert printed("--config", "label.yaml", "--model.q", "0.5")["model"]["init_args"]["label"] == "at 0.5"


def test_interpolation_reaches_another_section(printed, workplace):
    (workplace / "label.yaml").write_text("model: {init_args: {label: '${data.init_args.size} numbers'}}\n")
    assert printed("--config", "label.yaml", "--data.size", "5")["model"]["init_args"]["label"] == "5 numbers"


def test_a_later_file_wins_and_the_command_line_wins_over_files(printed, workplace):
    (workplace / "later.yaml").write_text("model: {init_args: {q: 1.0}}\ndata: {init_args: {size: 3}}\n")
    config = printed("--config", "later.yaml", "--data.size", "4")
    assert config["model"]["init_args"]["q"] == 1.0
    assert config["data"]["init_args"]["size"] == 4
    assert config["trainer"]["max_steps"] == 6


def test_long_and_short_overrides_mean_the_same(printed):
    assert printed("--model.q", "0.5")["model"] == printed("--model.init_args.q=0.5")["model"]


def test_trainer_defaults_can_be_overridden(printed):
    assert printed()["trainer"]["log_every_n_steps"] == 1
    assert printed("--trainer.log_every_n_steps", "7")["trainer"]["log_every_n_steps"] == 7


def test_what_is_printed_is_a_config_again(printed, workplace):
    first = printed("--model.q", "0.5")
    (workplace / "again.yaml").write_text(yaml.safe_dump(first))
    assert printed("--config", "again.yaml") == first


@pytest.mark.parametrize("name", ["GRPO", "jqlight.estimators.GRPO"])
def test_another_estimator_takes_over_what_it_knows(shell, workplace, capsys, name):
    (workplace / "garl.yaml").write_text(
        "model: {class_path: jqlight.estimators.GARL, init_args: {q: 1.0, rollouts: 7, policy: {name_or_path: x}}}\n"
        "data: {class_path: jqlight.benchmarks.HotpotQA}\n"
    )
    with pytest.raises(SystemExit):
        shell("fit", "--config", "garl.yaml", "--model", name, "--print_config")
    model = yaml.safe_load(capsys.readouterr().out)["model"]
    assert model["class_path"] == "jqlight.estimators.GRPO"
    assert model["init_args"]["rollouts"] == 7
    assert "q" not in model["init_args"]


def test_given_settings_keep_order_and_say_where(workplace):
    (workplace / "a.yaml").write_text("model: {class_path: GARL, init_args: {q: 0.5, policy: {dtype: float32}}}\n")
    assert read_command_line(["--config=a.yaml", "--model.init_args.q", "1"]).settings == [
        GivenSetting("model.class_path", "GARL", "in a.yaml"),
        GivenSetting("model.q", 0.5, "in a.yaml"),
        GivenSetting("model.policy.dtype", "float32", "in a.yaml"),
        GivenSetting("model.q", "1", "on the command line"),
    ]


def test_the_last_class_given_is_the_chosen_one():
    from jqlight.estimators import GRPO

    settings = [
        GivenSetting("model.class_path", "jqlight.estimators.GARL", "in a"),
        GivenSetting("model", "GRPO", "in b"),
    ]
    assert chosen_class("model", settings) is GRPO
    assert chosen_class("data", settings) is None
    assert chosen_class("model", [GivenSetting("model", "no.such.Class", "in a")]) is None


def test_known_keys_descend_into_dataclasses_and_parents():
    class Parent:
        def __init__(self, depth: int, free: dict | None = None) -> None: ...

    class Child(Parent):
        def __init__(self, given: GivenSetting, **settings: object) -> None: ...

    class Closed(Parent):
        def __init__(self, given: GivenSetting) -> None: ...

    assert {setting.key: setting.is_open for setting in settings_of("model", Child)} == {
        "model.given": False,
        "model.given.key": False,
        "model.given.value": True,
        "model.given.source": False,
        "model.depth": False,
        "model.free": True,
    }
    assert list(parameters(Closed)) == ["given"]


@pytest.mark.parametrize("text", ["[[ {answer} ]]", "a: {answer}", "{answer}", "12", "true", "[a, b]", "- x"])
@pytest.mark.parametrize("equals", [True, False])
def test_a_text_stays_the_text_that_was_typed(shell, capsys, text, equals):
    words = [f"--data.path={text}"] if equals else ["--data.path", text]
    nested = ["--model.policy.thinking.separator", text]
    with pytest.raises(SystemExit) as ended:
        model = ["--model", "GRPO", "--model.policy.name_or_path", "twohop", "--model.sampler", "{}"]
        shell("fit", *model, "--data", "HotpotQA", *words, *nested, "--print_config")
    assert ended.value.code == 0
    config = yaml.safe_load(capsys.readouterr().out)
    assert config["data"]["init_args"]["path"] == text
    assert config["model"]["init_args"]["policy"]["thinking"]["separator"] == text


def test_null_is_still_nothing(shell, capsys):
    with pytest.raises(SystemExit):
        shell("fit", "--data", "HotpotQA", "--data.path", "null", "--print_config")
    assert yaml.safe_load(capsys.readouterr().out)["data"]["init_args"]["path"] is None
