"""``jqlight score`` on files of predictions, and ``jqlight prompts`` on a config."""

import json
from pathlib import Path

import pytest
import yaml

FIXTURES = Path(__file__).parent.parent / "fixtures"

SAMPLES = [
    {"id": "a", "answer": "Ida Berg", "references": ["Ida Berg", "Berg"], "rationale": "r1"},
    {"id": "a", "answer": "berg", "references": ["Ida Berg", "Berg"], "rationale": "r2"},
    {"id": "b", "answer": "", "reference": "1784"},
    {"id": "b", "answer": "in 1784", "reference": "1784"},
]


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture
def predictions(workplace):
    return write(workplace / "predictions.jsonl", SAMPLES)


def test_score_prints_every_metric(shell, predictions):
    assert shell("score", predictions, "--benchmark", "MuSiQue") == 0
    values = {line.split()[0]: float(line.split()[1]) for line in shell.out.splitlines()}
    assert values["pass_at_1"] == 0.5
    assert values["exact_pass_at_1"] == 0.25
    assert values["em"] == 0.5  # "Ida Berg", and "berg" by its alias
    assert values["maj_at_2"] == 0.75  # a: a tie of right and wrong; b: one answered, rightly
    assert values["unanswered_rate"] == 0.25


def test_one_line_may_hold_all_samples_of_a_question(shell, predictions, workplace):
    grouped = [
        {"id": "a", "answers": ["Ida Berg", "berg"], "references": ["Ida Berg", "Berg"]},
        {"id": "b", "answers": ["", "in 1784"], "rationales": ["x", "y"], "references": ["1784"]},
    ]
    shell("score", predictions, "--benchmark", "MuSiQue")
    expected = shell.out
    assert shell("score", write(workplace / "grouped.jsonl", grouped), "--benchmark", "MuSiQue") == 0
    assert shell.out == expected


def test_fewer_voters_than_samples(shell, predictions):
    assert shell("score", predictions, "--benchmark", "HotpotQA", "-k", 1) == 0
    assert "maj_at_1 " in shell.out and "maj_at_2" not in shell.out


def test_rescored_rows_are_written(shell, predictions, workplace):
    assert shell("score", predictions, "--benchmark", "FinQA", "--out", workplace / "again.jsonl") == 0
    rows = [json.loads(line) for line in (workplace / "again.jsonl").read_text().splitlines()]
    assert [row["verdicts"]["value"] for row in rows] == [0, 1, 0, 1]  # by the last reference
    assert rows[0]["rationale"] == "r1"


def test_the_benchmark_is_the_one_that_the_predictions_were_made_on(shell, predictions, workplace):
    (workplace / "scores.json").write_text(json.dumps({"benchmark": "jqlight.benchmarks.finqa.FinQA"}))
    assert shell("score", predictions) == 0
    assert "strict_maj_at_2" in shell.out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere.jsonl"], "nowhere.jsonl does not exist"),
        (["predictions.jsonl"], "--benchmark: not given, and there is no scores.json"),
        (["predictions.jsonl", "--benchmark", "SQuAD"], "--benchmark: given SQuAD, allowed are HotpotQA"),
        (["predictions.jsonl", "--benchmark", "hotpotQQ"], "import path; did you mean HotpotQA?"),
        (["predictions.jsonl", "--benchmark", "FinQA", "-k", 3], "-k: given 3, allowed is 1 to 2"),
        (["predictions.jsonl", "--benchmark", "FinQA", "-k", 0], "-k: given 0, allowed is 1 to 2"),
    ],
)
def test_mistakes_are_one_sentence(shell, predictions, arguments, message):
    assert shell("score", *arguments) == 2
    assert message in shell.err
    assert shell.err.count("\n") == 1


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("not json", "line 2: not JSON"),
        ("[1]", "line 2: must be an object with an id"),
        ('{"id": "c", "references": ["x"]}', "line 2: field 'answers' (or its singular) must hold strings, given None"),
        ('{"id": "c", "answer": "x"}', "field 'references' (or its singular) must hold strings"),
        ('{"id": "c", "answer": "x", "references": []}', "line 2: needs a reference, an answer"),
        ('{"id": "a", "answer": "x", "references": ["other"]}', "line 2: id a came before with other references"),
        ('{"id": "c", "answers": ["x"], "rationales": [], "references": ["y"]}', "as many rationales as answers"),
    ],
)
def test_a_malformed_line_names_file_and_line(shell, workplace, row, message):
    path = workplace / "x.jsonl"
    path.write_text(json.dumps(SAMPLES[0]) + "\n" + row + "\n")
    assert shell("score", path, "--benchmark", "FinQA") == 2
    assert message in shell.err and "x.jsonl" in shell.err


@pytest.fixture
def config(workplace, tiny_qwen3):
    content = {
        "model": {
            "class_path": "jqlight.estimators.GARL",
            "init_args": {"policy": {"name_or_path": tiny_qwen3}, "sampler": {"engine": "transformers"}},
        },
        "data": {"class_path": "jqlight.benchmarks.FinQA", "init_args": {"path": str(FIXTURES / "finqa")}},
        "trainer": {"max_steps": 1},
    }
    path = workplace / "own.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def test_prompts_shows_what_the_model_sees_and_what_is_scored(shell, config):
    assert shell("prompts", "--config", config, "-n", 2) == 0
    assert shell.out.count("=== ABC/2019/page_7.pdf-") == 2
    assert "revenue | 2018: $ 1200 | 2019: $ 1500" in shell.out
    assert shell.out.count("--- answer: ") == 2
    assert "<eos>'" in shell.out
    header = next(line for line in shell.out.splitlines() if line.startswith("==="))
    prompt = shell.out.split(header + "\n")[1].split("\n--- answer")[0]
    tokens = len(prompt.replace("<think>", "~"))  # the tokenizer's tokens are characters
    assert f"prompt {tokens} tokens" in header


def test_prompts_takes_overrides_and_the_split(shell, config):
    assert shell("prompts", "--config", config, "--split", "test", "--data.scenario", "warm") == 0
    assert "Read the excerpt of a financial report" in shell.out
    assert shell.out.count("===") == 1  # the test split has one record


def test_prompts_leaves_no_run_behind(shell, config, workplace):
    before = sorted(workplace.rglob("*"))
    shell("prompts", "--config", config)
    assert sorted(workplace.rglob("*")) == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-n", 0], "--number: given 0, allowed is 1 or more"),
        (["--data.scenari", "warm"], "data.scenari: no such setting"),
        (["--data.path", "nowhere"], "data.path: given 'nowhere', allowed is an existing file or folder"),
    ],
)
def test_prompts_mistakes_are_one_sentence(shell, config, arguments, message):
    assert shell("prompts", "--config", config, *arguments) == 2
    assert message in shell.err
