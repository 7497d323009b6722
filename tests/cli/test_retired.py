"""Settings of earlier versions in config files, command lines and checkpoints."""

import pytest
import yaml

from jqlight.cli.export import policy_config
from jqlight.policy import LoRA

MODEL = ["--model", "GRPO", "--model.policy.name_or_path", "twohop", "--model.sampler", "{}", "--data", "TwoHop"]
OLD = """
model:
  class_path: jqlight.estimators.GARL
  init_args:
    seed: null
    policy:
      name_or_path: twohop
      lora: {r: 4, dropout: 0.0}
    sampler:
      training: {temperature: 1.0, top_p: 1.0, top_k: 0}
data: {class_path: jqlight.benchmarks.TwoHop}
"""


def test_an_old_config_means_what_it_meant_and_says_what_is_left_out(shell, workplace, capsys, monkeypatch):
    told = []
    monkeypatch.setattr("jqlight.cli.retired.log.warning", lambda text, *values: told.append(text % values))
    (workplace / "old.yaml").write_text(OLD)
    with pytest.raises(SystemExit) as ended:
        shell("fit", "--config", "old.yaml", "--print_config")
    assert ended.value.code == 0
    settings = yaml.safe_load(capsys.readouterr().out)["model"]["init_args"]
    assert settings["policy"]["lora"]["r"] == 4 and "dropout" not in settings["policy"]["lora"]
    assert "training" not in settings["sampler"] and "seed" not in settings
    assert len(told) == 1 and "in old.yaml" in told[0] and "model.seed" in told[0] and "lora.dropout" in told[0]


@pytest.mark.parametrize(
    ("option", "sentence"),
    [
        ("--model.sampler.training.temperature=0.7", "samples of the policy itself"),
        ("--model.policy.lora.dropout=0.1", "without dropout"),
        ("--model.sampler.max_importance_ratio=.inf", "truncated at 2"),
        ("--model.seed=3", "one seed, seed_everything"),
        ("--model.seed={answer", "one seed, seed_everything"),
    ],
)
def test_a_value_that_cannot_be_had_any_more_is_refused(shell, option, sentence):
    assert shell("fit", *MODEL, option) == 2
    key, value = option.removeprefix("--").split("=")
    assert f"{key}: given {value} on the command line" in shell.err and sentence in shell.err


@pytest.mark.parametrize(
    "words",
    [
        ["--model.seed", "null"],
        ["--model.sampler.training.top_k=0"],
        ["--model.sampler.enforce_eager=true"],
        ["--model.policy.share_prompt=false"],
    ],
)
def test_a_command_line_that_says_what_is_done_anyway_is_taken(shell, words):
    with pytest.raises(SystemExit) as ended:
        shell("fit", *MODEL, *words, "--print_config")
    assert ended.value.code == 0


def test_the_policy_of_an_old_checkpoint():
    settings = {"name_or_path": "twohop", "lora": {"r": 4, "dropout": 0.0}}
    assert policy_config(settings).lora == LoRA(r=4)
