"""`jqlight fit` with the shipped configs, real engines and small models: every estimator, both scenarios."""

import json
import os
import re
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM

ROOT = Path(__file__).parents[2]
ESTIMATORS = ["GARL", "PAFT", "GRPO", "RLOO", "MaxRL"]
SMALL = {
    "model.policy.dtype": "float32",
    "model.sampler.dtype": "float32",
    "trainer.precision": "32-true",
    "model.rollouts": 2,
    "model.samples": 2,
    "model.sampler.max_thinking_tokens": 6,
    "model.sampler.max_answer_tokens": 8,
    "data.prompts_per_step": 2,
    "data.validation_size": 1,
    "trainer.accelerator": "cpu",
    "trainer.max_steps": 2,
    "trainer.val_check_interval": 2,
    "trainer.num_sanity_val_steps": 0,
}
FIXTURE = ROOT / "tests" / "fixtures" / "hotpotqa"


def options(settings):
    return [part for key, value in settings.items() for part in (f"--{key}", str(value))]


def steps(folder):
    rows = [json.loads(line) for line in Path(folder, "metrics.jsonl").read_text().splitlines()]
    return [row for row in rows if "train/success" in row]


def fit_hotpotqa(shell, config, estimator, engine, model, data, **settings):
    given = {
        **SMALL,
        "data.path": data,
        "model.policy.name_or_path": model,
        "model.sampler.engine": engine,
        **{key.replace("__", "."): value for key, value in settings.items()},
    }
    arguments = ["--config", ROOT / "conf" / config, "--model", f"jqlight.estimators.{estimator}"]
    return shell("fit", *arguments, *options(given), "--run_dir", "run")


@pytest.mark.parametrize("config", ["hotpotqa.yaml", "hotpotqa_cold.yaml"])
@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_every_estimator_trains_on_hotpotqa(shell, workplace, tiny_llama, estimator, config):
    code = fit_hotpotqa(shell, config, estimator, "transformers", tiny_llama, FIXTURE, data__max_prompt_tokens=900)
    assert code == 0, shell.err
    rows = steps("run")
    assert [row["step"] for row in rows] == [1, 2]
    assert all(row["train/logprob_gap"] < 1e-4 for row in rows)
    AutoModelForCausalLM.from_pretrained(workplace / "run" / "model")


def test_sft_then_grpo_as_documented(shell, workplace):
    """The page's two commands; the second starts from the weights that the first has learnt."""
    page = (ROOT / "docs/howto/baselines.md").read_text()
    commands = [line.split()[1:] for line in re.findall(r"^    (jqlight fit .*--run_dir runs/.*)$", page, re.MULTILINE)]
    size = {**SMALL, "model.sampler.engine": "transformers", "data.train_size": 8, "data.test_size": 1}
    size |= {"data.answer_format": "ans {answer}"}
    for command, rate in zip(commands, (0.01, 0.0001), strict=True):
        kept = {**size, "optimizer.lr": rate}
        if "SFT" in command:
            del kept["model.rollouts"]
        given = [str(ROOT / part) if part.startswith("conf/") else part for part in command]
        assert shell(*given, *options(kept)) == 0, shell.err
    folders = (ROOT / "jqlight/assets/twohop", "runs/sft/model", "runs/grpo/model")
    base, learnt, end = (AutoModelForCausalLM.from_pretrained(folder).state_dict() for folder in folders)
    moved = [max((b[name] - a[name]).abs().max().item() for name in a) for a, b in ((base, learnt), (learnt, end))]
    assert moved[0] > 5e-3 and moved[1] < 5e-4
    assert len(steps("runs/sft")) == len(steps("runs/grpo")) == 2
    assert "train/logprob_gap" not in steps("runs/sft")[0] and "train/logprob_gap" in steps("runs/grpo")[0]


@pytest.mark.engine
def test_hotpotqa_trains_through_vllm_with_the_bundled_model(shell, workplace):
    data = Path(os.environ.get("JQLIGHT_TEST_DATA", "/nowhere"), "data", "hotpotqa")
    data = data if data.exists() else FIXTURE
    code = fit_hotpotqa(shell, "hotpotqa.yaml", "GARL", "vllm", "twohop", data, data__max_prompt_tokens=3500)
    assert code == 0, shell.err
    rows = steps("run")
    assert len(rows) == 2
    assert all(row["train/logprob_gap"] < 1e-4 and row["train/truncated"] <= 1 for row in rows)
    assert all(row["train/grad_norm"] >= 0 for row in rows)


@pytest.mark.engine
def test_the_quickstart_learns_a_little_and_can_be_evaluated_again(shell, workplace):
    """Twenty-five steps of the quickstart: log-success climbs by many nats; `validate` repeats the run's own score."""
    run = {"trainer.max_steps": 25, "trainer.val_check_interval": 25, "data.validation_size": 8, "model.samples": 4}
    assert shell("fit", "--config", ROOT / "conf/quickstart.yaml", *options(run), "--run_dir", "run") == 0, shell.err
    rows = steps("run")
    assert rows[0]["train/log_success"] < -15
    assert rows[-1]["train/log_success"] > rows[0]["train/log_success"] + 10
    assert max(row["train/logprob_gap"] for row in rows) < 1e-3
    validation = [json.loads(line) for line in Path("run/metrics.jsonl").read_text().splitlines()]
    validation = [row for row in validation if "val/maj_at_4" in row]
    assert [row["step"] for row in validation] == [0, 25]
    assert validation[0]["val/maj_at_4"] == 0.0
    for row in validation:
        questions = Path(f"run/artifacts/questions/step_{row['step']:06d}.jsonl").read_text().splitlines()
        ours = [json.loads(line)["pass_at_1"] for line in questions]
        assert len(ours) == 8 and row["val/pass_at_1"] == pytest.approx(sum(ours) / 8)

    assert shell("validate", "--run_dir", "run", "--ckpt_path", "last") == 0, shell.err
    again = [json.loads(line) for line in Path("run/metrics.jsonl").read_text().splitlines()]
    again = [row for row in again if "val/maj_at_4" in row][-1]
    assert again["val/pass_at_1"] == validation[1]["val/pass_at_1"]


@pytest.mark.engine
def test_the_quickstart_learns_while_it_samples_ahead(shell, workplace):
    run = {"trainer.max_steps": 25, "trainer.val_check_interval": 12, "data.validation_size": 8, "model.samples": 4}
    arguments = ["--config", ROOT / "conf/quickstart.yaml", *options(run | {"model.sampler.lookahead": 1})]
    assert shell("fit", *arguments, "--run_dir", "run") == 0, shell.err
    rows = steps("run")
    assert [row["train/staleness"] for row in rows] == [0, *[1] * 24]
    assert rows[-1]["train/log_success"] > rows[0]["train/log_success"] + 10
    assert all(0.5 < row["train/importance_ratio"] < 2 for row in rows[1:])
    assert all(0 <= row["train/importance_clipped"] < 0.5 for row in rows[1:])
    assert [row["step"] for row in rows if "train/logprob_gap" in row] == [1], "no gap where the rollouts are older"
    assert rows[0]["train/logprob_gap"] < 1e-3


@pytest.mark.engine
def test_grpo_does_not_learn_where_no_answer_is_ever_right(shell, workplace):
    run = {"trainer.max_steps": 3, "trainer.val_check_interval": 3, "data.validation_size": 4, "model.samples": 2}
    arguments = ["--config", ROOT / "conf/quickstart.yaml", "--model", "jqlight.estimators.GRPO", *options(run)]
    assert shell("fit", *arguments, "--run_dir", "run") == 0, shell.err
    rows = steps("run")
    assert all(row["train/success"] == 0 and row["train/grad_norm"] == 0 for row in rows)
    assert all(row["train/dead_groups"] == 8 for row in rows)


@pytest.mark.engine
def test_a_run_that_collapses_says_so_and_continues(shell, workplace):
    """From a model that is right, in its own format, with a learning rate that ruins it."""
    run = {"trainer.max_steps": 8, "trainer.val_check_interval": 8, "data.validation_size": 4, "model.samples": 2}
    ruin = {"data.answer_format": "ans {answer}", "optimizer.lr": 0.05}
    arguments = ["--config", ROOT / "conf/quickstart.yaml", *options(run | ruin)]
    assert shell("fit", *arguments, "--run_dir", "run") == 0, shell.err
    assert "collapse. The running mean of train/success fell under a tenth of its best" in shell.out
    assert re.search(r"but the starting model scored higher: val/maj_at_2 0\.\d{3} at step 0", shell.out)
    rows = steps("run")
    assert [row["step"] for row in rows] == list(range(1, 9))
    assert rows[0]["train/success"] > 0.5
    assert rows[0]["train/collapsed"] == 0
    assert rows[-1]["train/collapsed"] == 1
