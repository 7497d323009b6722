import re
import shutil

import mlflow
import pytest
from matplotlib.text import Text
from synthetic_runs import Fake, log_sweep

from jqlight.cli.compare import main
from jqlight.errors import ConfigError
from jqlight.report import figures
from jqlight.report.html import read_report
from jqlight.report.runs import get_run


def read(client, parent):
    return read_report(client, "here", parents=[get_run(client, parent)])


SWEEP_FILE = """
base: <b>.yaml
published:
  source: a paper & more
  rows: [{benchmark: TwoHop, scenario: cold, estimator: GARL, q: 0.75, maj_at_16: 38.3}]
"""
RUNS = [Fake("GARL", "0.75", seed) for seed in (0, 1)] + [Fake("GARL", "splice(0.05)"), Fake("GRPO", middle=None)]


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("store")
    client = mlflow.MlflowClient(f"sqlite:///{folder}/mlflow.db")
    parent = log_sweep(client, RUNS, sweep_file=SWEEP_FILE, artifacts=(folder / "artifacts").as_uri())
    return folder, client, parent


@pytest.fixture(scope="module")
def report(store):
    folder, client, parent = store
    return read_report(client, f"sqlite:///{folder}/mlflow.db", parents=[get_run(client, parent)])


def test_report_is_one_page_that_needs_no_network(report):
    page = report.html()
    assert not re.findall(r"https?://|<script|<link|@import|url\(", page)
    sources = re.findall(r'<img alt="[^"]+" src="([^"]{30})', page)
    assert len(sources) == 4
    assert all(source.startswith("data:image/png;base64,iVBOR") for source in sources)
    assert page.count("<table>") == page.count("</table>") == 4


def test_report_says_what_its_numbers_are(report):
    page = report.html()
    assert "running mean of train/success over 5 steps reaches 0.1" in page
    assert "a paper &amp; more" in page
    assert "made_up" in page
    assert all(record.run_id in page for record in report.comparison.runs["record"])


def test_runs_that_have_not_finished_are_named(store, tmp_path):
    client = store[1]
    runs = [Fake("GARL", "1", 0), Fake("GARL", "1", 1)]
    parent = log_sweep(client, runs, experiment="unfinished", artifacts=tmp_path.as_uri())
    assert not read(client, parent).notes()[0].startswith("Not finished")
    experiment = client.get_experiment_by_name("unfinished").experiment_id
    (run,) = client.search_runs([experiment], "attributes.run_name = 'GARL-q1-seed1'")
    client.update_run(run.info.run_id, status="RUNNING")
    note = "Not finished, and counted with what they have so far: GARL-q1-seed1 (running)."
    assert read(client, parent).notes()[0] == note
    assert note in read(client, parent).html()


def test_advantage_has_a_mark_for_every_step_where_it_is_not_zero(store, tmp_path, monkeypatch):

    client = store[1]
    parent = log_sweep(client, [], experiment="marks", artifacts=tmp_path.as_uri())
    tags = {"mlflow.parentRunId": parent, "estimator": "GARL", "q": "1"}
    experiment = client.get_experiment_by_name("marks").experiment_id
    run_id = client.create_run(experiment, run_name="p", tags=tags).info.run_id
    for step, value in ((1, 0.0), (2, 1e-7), (3, 0.0), (4, 0.5)):
        client.log_metric(run_id, "train/max_amplified_advantage", value, step=step)
        client.log_metric(run_id, "train/log_success", -5.0, step=step)
    drawn = []
    monkeypatch.setattr(figures, "_png", lambda figure: drawn.append(figure) or b"")
    figures.pictures(read(client, parent).comparison)
    (marks,) = drawn[0].axes[1].get_lines()
    assert list(marks.get_xdata()) == [2, 4]
    assert drawn[0].axes[1].get_yscale() == "log"


def test_a_panel_without_validations_says_so_next_to_one_that_has_them(store, tmp_path, monkeypatch):

    client = store[1]
    parent = log_sweep(client, [Fake("GARL", "1")], experiment="begun", artifacts=tmp_path.as_uri())
    tags = {"mlflow.parentRunId": parent, "estimator": "GARL", "q": "1", "benchmark": "FinQA", "scenario": "warm"}
    experiment = client.get_experiment_by_name("begun").experiment_id
    run_id = client.create_run(experiment, run_name="p", tags=tags).info.run_id
    client.log_metric(run_id, "train/log_success", -5.0, step=7)
    drawn = []
    monkeypatch.setattr(figures, "_png", lambda figure: drawn.append(figure) or b"")
    figures.pictures(read(client, parent).comparison)
    texts = {panel.get_title(): [text.get_text() for text in panel.texts] for panel in drawn[1].axes}
    assert texts == {"TwoHop, cold": [], "FinQA, warm": ["no values"]}
    assert all(panel.get_xlim()[0] == 0 for panel in drawn[2].axes[::2])


def test_figures_name_axes_with_units_and_tell_methods_apart_without_colour(report, monkeypatch):

    drawn = []
    png = figures._png
    monkeypatch.setattr(figures, "_png", lambda figure: drawn.append(figure) or png(figure))
    names = [picture.name for picture in figures.pictures(report.comparison)]
    assert names == ["q", "validation", "cold_start", "cost"]
    axes = [axes for figure in drawn for axes in figure.axes]
    assert all(panel.get_xlabel() for panel in axes)
    labels = {panel.get_ylabel() for panel in axes}
    assert {"validation maj@16 (share)", "mean log P(answer) (nats)"} <= labels
    assert "training time per run (minutes)" in {panel.get_xlabel() for panel in axes}
    curves = [line for line in drawn[1].axes[0].get_lines() if not line.get_label().startswith("_")]
    assert len({(line.get_marker(), line.get_linestyle()) for line in curves}) == len(curves) == 3


def test_escape_marks_stand_on_the_curve_at_the_escape_step(report, monkeypatch):

    drawn = []
    monkeypatch.setattr(figures, "_png", lambda figure: drawn.append(figure) or b"")
    figures.pictures(report.comparison)
    marks = [line for line in drawn[2].axes[0].get_lines() if line.get_marker() == "v" and len(line.get_xdata()) == 1]
    escaped = [runs["escape"].mean() for runs in report.comparison.settings().values() if runs["escape"].count()]
    assert [line.get_xdata()[0] for line in marks] == [round(step) for step in escaped]
    assert len(marks) == 2  # GRPO never escapes


def test_q_figure_places_numbers_commitments_and_methods_without_q(report, monkeypatch):

    drawn = []
    monkeypatch.setattr(figures, "_png", lambda figure: drawn.append(figure) or b"")
    figures.pictures(report.comparison)
    panel = drawn[0].axes[0]
    ticks = {label.get_text(): place for label, place in zip(panel.get_xticklabels(), panel.get_xticks())}
    assert ticks["0.75"] == 0.75
    assert ticks["splice(0.05)"] > 1
    assert {"GARL", "GRPO (no q)"} == set(panel.get_legend_handles_labels()[1])


def test_compare_needs_neither_run_folders_nor_checkpoints_nor_artifacts(store, tmp_path, capsys, monkeypatch):
    folder, _, parent = store
    copy = tmp_path / "elsewhere.db"
    shutil.copy(folder / "mlflow.db", copy)
    shutil.rmtree(folder / "artifacts")
    monkeypatch.chdir(tmp_path)
    assert main(["--parent", parent, "--store", str(copy), "--out", "out"]) == 0
    output = capsys.readouterr().out
    assert "GARL q=0.75" in output
    assert "published" not in output  # the sweep file was an artifact
    written = {path.name for path in (tmp_path / "out").iterdir()}
    assert written == {
        "report.html",
        "summary.md",
        "verdicts.md",
        "runs.md",
        "q.png",
        "validation.png",
        "cold_start.png",
        "cost.png",
    }


def test_runs_without_any_metric_make_a_report_without_figures(store, tmp_path):
    client = store[1]
    experiment = client.create_experiment("fresh", artifact_location=tmp_path.as_uri())
    parent = client.create_run(experiment, run_name="s", tags={"jqlight.sweep": "s"})
    with pytest.raises(ConfigError, match="sweep s: no point has started yet"):
        read_report(client, "here", parents=[parent])
    client.create_run(experiment, run_name="p", tags={"mlflow.parentRunId": parent.info.run_id, "estimator": "GARL"})
    page = read_report(client, "here", parents=[parent]).html()
    assert "nothing to draw yet" in page


NASTY = 'x|y <script>alert("$a$")</script> $\\frac{1}{'


def test_names_that_hold_markup_are_shown_as_they_are(store, tmp_path, monkeypatch):
    client = store[1]
    runs = [Fake("GARL", "0.5", benchmark=NASTY), Fake("GARL", "$a$", 1, benchmark=NASTY)]
    parent = log_sweep(client, runs, experiment="nasty", name=NASTY, artifacts=tmp_path.as_uri())
    drawn = []
    png = figures._png
    monkeypatch.setattr(figures, "_png", lambda figure: drawn.append(figure) or png(figure))
    found = read(client, parent)
    found.write(tmp_path / "out")
    page = (tmp_path / "out" / "report.html").read_text()
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert page.count("<tr>") == 8
    for table in (tmp_path / "out").glob("*.md"):
        assert "<script" not in table.read_text()
        assert len({line.replace(r"\\|", "").count("|") for line in table.read_text().splitlines()}) == 1
    assert drawn[0].axes[0].get_title() == f"{NASTY}, cold"
    assert not any(text.get_parse_math() for figure in drawn for text in figure.findobj(Text))


def test_the_stores_password_is_not_in_the_report(store, tmp_path):
    client, parent = store[1:]
    shown = read_report(client, "http://user:s3cret@host", parents=[get_run(client, parent)])
    shown.write(tmp_path)
    assert "http://user:***@host" in (tmp_path / "report.html").read_text()
    assert not any(b"s3cret" in path.read_bytes() for path in tmp_path.iterdir())


def test_the_sweeps_own_run_names_the_best_setting_once_and_keeps_a_description_of_someones_own(store, tmp_path):
    _, client, parent = store
    for _ in range(2):
        report = read(client, parent)
        report.write(tmp_path)
        report.log(client, parent, tmp_path)
    run = client.get_run(parent)
    # Of equal votes the largest pass@1; its first run, since all are equal here.
    assert {name: run.data.metrics[f"best/{name}"] for name in ("maj_at_16", "pass_at_1", "q")} == {
        "maj_at_16": 0.8,
        "pass_at_1": 0.2,
        "q": 0.75,
    }
    assert len(client.get_metric_history(parent, "best/q")) == 1
    note = run.data.tags["mlflow.note.content"]
    assert note.startswith(
        "Sweep made_up: 4 runs. Highest mean: GARL q=0.75 (maj_at_16 0.800, pass_at_1 0.200, q 0.750)."
    )
    assert "| GARL splice(0.05) | 1 |" in note
    client.set_tag(parent, "mlflow.note.content", "mine")
    read(client, parent).log(client, parent, tmp_path)
    assert client.get_run(parent).data.tags["mlflow.note.content"] == "mine"
