"""`jqlight samples`: a listing at 80 columns, a page, mistakes in one sentence; and the page that a fit leaves."""

import json
from pathlib import Path

import pytest

from jqlight.errors import DataError

HOSTILE = "\x1b]0;taken\x07</script>\u202eevil\u2028[bold]x[/bold]\nsecond " + "word " * 30


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.chdir(tmp_path)
    folder = Path("runs/mine")
    (folder / "samples").mkdir(parents=True)
    known = {"prompt": "Which river?", "reference": "Scheldt", "references": ["Scheldt", "Escaut"]}
    trained = [
        {"id": "t1", "sample": 0, **known, "rationale": HOSTILE, "weight": -0.25, "log_likelihood": -7.5, "length": 3},
        {"id": "t1", "sample": 1, **known, "rationale": "Ghent", "weight": 0.75, "log_likelihood": -0.125},
        {"id": "t2", "sample": 0, **known, "prompt": "Which sea?", "rationale": "", "empty": True, "truncated": True},
    ]
    scored = {"id": "v1", "sample": 0, **known, "rationale": "hm", "answer": "Lys\nx", "verdicts": {"match": 0.0}}
    for name, rows in (("train_step_000040", trained), ("step_000000", [scored]), ("step_000040", [scored])):
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / "samples" / f"{name}.jsonl").write_text(text, encoding="utf-8")
    return folder


def test_a_question_and_its_rationales_by_weight(shell, run):
    assert shell("samples", run, "--split", "train") == 0
    lines = shell.out.splitlines()
    assert all(len(line) <= 80 for line in lines)
    assert lines[0].endswith("train 40; validation 0, 40") or "validation 0, 40" in " ".join(lines[:3])
    first, second = (
        "sample 1  weight +0.750  log p(gold) -0.125 nats",
        "sample 0  weight -0.250  log p(gold) -7.500 nats",
    )
    assert shell.out.index("gold: Scheldt | Escaut") < shell.out.index(first) < shell.out.index(second)
    assert "    Ghent\n" in shell.out and f"{second}  3 tokens\n" in shell.out
    assert "sample 0  EMPTY  TRUNCATED\n" in shell.out


def test_rationales_that_say_the_same_are_shown_once(shell, run):
    path = run / "samples" / "train_step_000040.jsonl"
    row = json.loads(path.read_text().splitlines()[1])
    again = "".join(json.dumps({**row, "sample": number, "weight": 0.1}) + "\n" for number in (2, 3))
    path.write_text(path.read_text() + again)
    other = json.dumps({**row, "sample": 4, "answer": "Lys"}) + "\n"
    path.write_text(path.read_text() + other)
    assert shell("samples", run, "--split", "train", "--question", "t1") == 0
    assert shell.out.count("    Ghent\n") == 2, "another answer is another sample"
    assert "sample 1  weight +0.750  log p(gold) -0.125 nats  and 2 alike\n" in shell.out


def test_what_a_model_wrote_does_nothing_to_a_terminal(shell, run):
    assert shell("samples", run) == 0
    assert not set("\x1b\x07\u202e\u2028") & set(shell.out)
    assert "    \\x1b]0;taken\\x07</script>\\u202eevil\\u2028[bold]x[/bold]\n    second word" in shell.out
    assert 'answer "Lys\\nx"  WRONG' in shell.out


@pytest.mark.parametrize(
    ("options", "headings"),
    [
        ([], ["train, step 40, question t1", "train, step 40, question t2", "validation, step 40, question v1"]),
        (["--step", 0], ["validation, step 0, question v1"]),
        (["--step", "all", "--wrong"], ["validation, step 0, question v1", "validation, step 40, question v1"]),
        (["--empty", "--truncated"], ["train, step 40, question t2"]),
        (["--question", "SEA"], ["train, step 40, question t2"]),
        (["--limit", 1], ["train, step 40, question t1"]),
    ],
)
def test_options_narrow_the_choice(shell, run, options, headings):
    assert shell("samples", run, *options) == 0
    assert [line for line in shell.out.splitlines() if ", question " in line] == headings


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "RUN: given nowhere, which is no folder"),
        (["."], "RUN: . has no samples (samples/*.jsonl)"),
        (["runs/mine", "--step", 7], "--step: given 7, but samples were kept at 0, 40;"),
        (["runs/mine", "--split", "test"], "--split: given test, but runs/mine has kept train and validation"),
        (["runs/mine", "--split", "validatoin"], "did you mean validation?"),
        (["runs/mine", "--limit", 0], "--limit: given 0, allowed is a number of questions from 1 up"),
        (["runs/mine", "--question", "lake"], "--question: none of the 4 samples read is such"),
    ],
)
def test_mistakes_are_one_sentence(shell, run, arguments, message):
    assert shell("samples", *arguments) == 2
    assert message in shell.err and len(shell.err.splitlines()) == 1 and not shell.out


def test_a_page_has_what_the_options_leave(shell, run, tmp_path):
    assert shell("samples", run, "--wrong", "--html", "out/page.html") == 0
    assert shell.out == "page: out/page.html\n"
    page = (tmp_path / "out" / "page.html").read_text()
    assert "2 samples of 2 questions" in page and "Samples of mine" in page


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), DataError("line 3: no sample")])
def test_a_fit_without_its_page_still_exports_its_model(shell, climber, workplace, monkeypatch, caplog, error):
    def failing(run_dir: Path) -> str:
        raise error

    monkeypatch.setattr("jqlight.report.samples_page.page_of_run", failing)
    assert shell("fit", "--config", climber) == 0, shell.err
    assert (workplace / "runs/climber/model/weight.txt").is_file()
    assert f"no page of samples was written: {error}" in caplog.text and "samples.html" not in shell.out
