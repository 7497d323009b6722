"""Kept samples read back, filtered, and on a page where what a model wrote is text and nothing else."""

import html
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from jqlight.errors import ConfigError, DataError
from jqlight.files import json_lines
from jqlight.report.samples import Filter, kept_steps, read_samples
from jqlight.report.samples_page import page_of_run, samples_page

HOSTILE = "</script><script>document.title='taken'</script><img src=x onerror=alert(1)>\x1b[2J\u2028\u202eevil & \ud800"


def row(id_: str, sample: int, **facts: object) -> dict:
    known = {"prompt": f"Question {id_}?", "rationale": f"thought {sample}", "reference": "gold"}
    return {"id": id_, "sample": sample, **known, "references": ["gold", "Gold"], **facts}


TRAINED = [
    row("a", 0, weight=-0.5, log_likelihood=-3.0, answer=None, verdicts=None, truncated=True, empty=False, length=9),
    row("a", 1, weight=0.3, log_likelihood=-0.25, answer=None, verdicts=None, truncated=False, empty=False, length=4),
    row("a", 2, weight=0.2, log_likelihood=None, rationale="", truncated=False, empty=True, length=0),
    row("b", 0, weight=0.0, log_likelihood=-1.0, rationale=HOSTILE, truncated=False, empty=False, length=7),
]
VALIDATED = [
    row("v", 0, answer="gold", verdicts={"match": 1.0, "exact": 0.0}),
    row("v", 1, answer="lead", verdicts={"match": 0.0, "exact": 0.0}, rationale=" "),
]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    tables = {"train_step_000001": TRAINED[:1], "train_step_000040": TRAINED, "step_000040": VALIDATED}
    (tmp_path / "samples").mkdir()
    for name, rows in tables.items():
        (tmp_path / "samples" / f"{name}.jsonl").write_text(
            json_lines(rows).replace("\ud800", "\\ud800"), encoding="utf-8"
        )
    (tmp_path / "samples" / "notes.jsonl").write_text("not ours\n")
    return tmp_path


def numbers(samples: list) -> list[tuple[str, int, str, int]]:
    return [(s.split, s.step, s.id, s.number) for s in samples]


def test_samples_are_read_by_split_and_step_and_sorted_by_weight(run: Path) -> None:
    assert {split: list(files) for split, files in kept_steps(run).items()} == {"train": [1, 40], "validation": [40]}
    last = [("train", 40, "a", 1), ("train", 40, "a", 2), ("train", 40, "a", 0), ("train", 40, "b", 0)]
    validation = [("validation", 40, "v", 0), ("validation", 40, "v", 1)]
    assert numbers(read_samples(run)) == [("train", 1, "a", 0), *last, *validation]
    assert numbers(read_samples(run, step="last")) == last + validation
    assert numbers(read_samples(run, "train", step=1)) == [("train", 1, "a", 0)]
    assert numbers(read_samples(run, "train", "last", most=2)) == last[:3], "questions stay whole"


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (Filter(wrong=True), [("v", 1)]),
        (Filter(empty=True), [("a", 2), ("v", 1)]),
        (Filter(truncated=True), [("a", 0)]),
        (Filter(question="QUESTION B"), [("b", 0)]),
        (Filter(question="v"), [("v", 0), ("v", 1)]),
        (Filter(empty=True, wrong=True), [("v", 1)]),
        (Filter(truncated=True, wrong=True), []),
    ],
)
def test_filters(run: Path, wanted: Filter, expected: list) -> None:
    assert [(s.id, s.number) for s in wanted(read_samples(run, step="last"))] == expected


def test_an_answer_is_right_by_the_first_verdict_alone(run: Path) -> None:
    assert [s.right for s in read_samples(run, "validation")] == [True, False]
    assert {s.right for s in read_samples(run, "train")} == {None}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("test",), "--split: given test, but .* has kept train and validation samples only"),
        (("validation", 1), "--step: given 1, but samples were kept at 40;"),
        ((None, "soon"), "--step: given soon, but samples were kept at 1, 40;"),
    ],
)
def test_what_was_not_kept_is_told_with_what_was(run: Path, arguments: tuple, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_samples(run, *arguments)


@pytest.mark.parametrize("line", ['{"id": "a"', "[1]", '{"id": "a", "verdicts": 3}', '{"sample": 0}'])
def test_a_damaged_line_is_named(run: Path, line: str) -> None:
    file = run / "samples" / "step_000040.jsonl"
    file.write_text(json.dumps(VALIDATED[0]) + f"\n{line}\n")
    with pytest.raises(DataError, match=rf"{file} line 2: no sample"):
        read_samples(run)


def embedded(page: str) -> list[dict]:
    (found,) = re.findall(r'<script type="application/json" id="samples">(.*?)</script>', page, re.DOTALL)
    assert not re.search("[<>&\u2028\u2029]", found)
    return json.loads(found)


def test_the_page_holds_the_samples_newest_step_first(run: Path) -> None:
    groups = embedded(samples_page(read_samples(run), run))
    assert [(g["split"], g["step"], g["id"]) for g in groups] == [
        ("train", 40, "a"),
        ("train", 40, "b"),
        ("validation", 40, "v"),
        ("train", 1, "a"),
    ]
    rows = groups[0]["rows"]
    assert [(r["number"], r["weight"], r["log_likelihood"]) for r in rows] == [
        (1, 0.3, -0.25),
        (2, 0.2, None),
        (0, -0.5, -3.0),
    ]
    assert [r["top"] for r in rows] == [True, False, False]
    assert [r["top"] for r in groups[3]["rows"]] == [False], "the only weight pushes away"
    assert groups[1]["rows"][0]["rationale"].endswith("\\x1b[2J\\u2028\\u202eevil & \\ud800")


def test_the_page_needs_no_network_and_no_element_comes_from_a_model(run: Path) -> None:
    page = samples_page(read_samples(run), run)
    assert page.count("</script>") == 2 and "<img" not in page
    assert not re.findall(r"https?://|<link|@import|url\(|innerHTML|insertAdjacentHTML|document\.write|eval\(", page)


def test_the_page_that_a_run_leaves_has_the_first_questions_of_each_step(run: Path, monkeypatch) -> None:
    monkeypatch.setattr("jqlight.report.samples_page.MOST", 3)
    assert [(g["step"], g["id"]) for g in embedded(page_of_run(run))] == [(40, "a"), (40, "v"), (1, "a")]


@pytest.mark.parametrize(
    ("filters", "samples"),
    [
        ("", 7),
        ("split=train&step=40", 4),
        ("wrong=1", 1),
        ("empty=1", 2),
        ("truncated=1", 2),
        ("top=1", 1),
        ("text=EVIL", 1),
    ],
)
def test_filters_in_a_browser(run: Path, filters: str, samples: int) -> None:
    dom = in_browser(run, filters)
    assert re.search(rf"<output>{samples} samples? of", dom)
    assert len(re.findall(r'<section class="row">', dom)) == samples
    assert "<title>Samples of" in dom and "<img" not in dom
    if filters in ("", "text=EVIL"):
        shown = re.findall(r'<p class="text">(.*?)</p>', dom, re.DOTALL)
        assert HOSTILE.partition("\x1b")[0] + "\\x1b[2J\\u2028\\u202eevil & \\ud800" in map(html.unescape, shown)


def in_browser(run: Path, filters: str) -> str:
    """The page's elements after its script has run."""
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser is None:
        pytest.skip("no Chromium on this machine")
    page = run / "page.html"
    page.write_text(samples_page(read_samples(run), run), encoding="utf-8")
    options = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={run / 'profile'}", "--dump-dom"]
    address = f"{page.as_uri()}#{filters}"
    return subprocess.run([browser, *options, address], capture_output=True, text=True, timeout=60, check=True).stdout
