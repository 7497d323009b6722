"""``jqlight evaluate`` on a base model that was never trained, and its agreement with ``test`` and ``score``."""

import json
import re
from pathlib import Path

import pytest
import yaml

FIXTURES = Path(__file__).parent.parent / "fixtures"


@pytest.fixture
def config(workplace):
    content = {
        "seed_everything": 3,
        "model": {
            "class_path": "jqlight.estimators.GARL",
            "init_args": {
                "samples": 4,
                "policy": {"name_or_path": "someone/not-used"},
                "sampler": {"engine": "transformers", "max_thinking_tokens": 3, "max_answer_tokens": 24},
            },
        },
        "data": {
            "class_path": "jqlight.benchmarks.HotpotQA",
            "init_args": {"path": str(FIXTURES / "hotpotqa"), "context": "gold", "max_prompt_tokens": 800},
        },
        "trainer": {"accelerator": "cpu", "max_steps": 1},
    }
    path = workplace / "own.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def metrics(text):
    """Name to value of the lines that hold these two alone."""
    pairs = (re.fullmatch(r"(\S+) +([01]\.\d+)", line) for line in text.splitlines())
    return {pair[1]: float(pair[2]) for pair in pairs if pair}


def test_a_base_model_is_scored_as_by_test_and_again_offline(shell, config, workplace, tiny_qwen3):
    assert shell("evaluate", "--config", config, "--model", tiny_qwen3) == 0
    assert "2        343    2 (fewer than asked)  none" in shell.out  # the data's own table
    ours = metrics(shell.out)
    (folder,) = (workplace / "evaluations").iterdir()
    assert folder.name == "qwen3-hotpotqa-cold-test"
    rows = [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]
    assert len(rows) == 2 * 4
    facts = {"length", "truncated", "empty"}
    sample = {"id", "sample", "prompt", "rationale", "answer", "reference", "references", "verdicts"}
    assert set(rows[0]) == sample | facts
    assert len({row["answer"] for row in rows}) > 2
    scores = json.loads((folder / "scores.json").read_text())
    assert scores["model"] == tiny_qwen3 and scores["samples"] == 4 and scores["seed"] == 3
    assert {name: pytest.approx(value, abs=1e-3) for name, value in scores["metrics"].items()} == ours

    assert shell("score", folder / "predictions.jsonl") == 0
    assert metrics(shell.out) == ours

    assert (
        shell("test", "--config", config, "--model.policy.name_or_path", tiny_qwen3, "--trainer.logger", "false") == 0
    )
    theirs = {name.removeprefix("test/"): value for name, value in metrics(shell.out).items()}
    assert theirs == ours


def test_a_second_evaluation_does_not_overwrite_the_first(shell, config, workplace, tiny_qwen3):
    few = ["--model.samples", 1, "--data.test_size", 1]
    for expected in ("qwen3-hotpotqa-cold-test", "qwen3-hotpotqa-cold-test-2"):
        assert shell("evaluate", "--config", config, "--model", tiny_qwen3, *few) == 0
        assert expected in {folder.name for folder in (workplace / "evaluations").iterdir()}
    out = workplace / "evaluations" / "qwen3-hotpotqa-cold-test"
    assert shell("evaluate", "--config", config, "--model", tiny_qwen3, "--out", out, *few) == 2
    assert "holds predictions already" in shell.err


def test_validation_split(shell, config, workplace, tiny_qwen3):
    few = ["--model.samples", 1, "--split", "validation", "--out", workplace / "here"]
    assert shell("evaluate", "--config", config, "--model", tiny_qwen3, *few) == 0
    rows = [json.loads(line) for line in (workplace / "here" / "predictions.jsonl").read_text().splitlines()]
    assert {row["id"] for row in rows} == {f"{11:024x}", f"{12:024x}"}


def test_a_split_that_nothing_is_left_of_is_refused_before_anything_is_written(shell, config, workplace, tiny_qwen3):
    few = ["--data.max_prompt_tokens", 5, "--out", workplace / "here"]
    assert shell("evaluate", "--config", config, "--model", tiny_qwen3, *few) == 2
    assert "data.max_prompt_tokens: given 5, but " in shell.err and "2 prompt too long" in shell.err
    assert not (workplace / "here").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "last.ckpt"], "jqlight export --ckpt last.ckpt --out DIR"),
        (["--model", "./nowhere"], "policy.name_or_path: given './nowhere'"),
        (["--split", "train"], "--split: given train, allowed are validation, test"),
    ],
)
def test_mistakes_are_one_sentence(shell, config, workplace, arguments, message):
    assert shell("evaluate", "--config", config, *arguments) == 2
    assert message in shell.err
    assert not (workplace / "evaluations").exists()
