import json
import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import mlflow
import pytest
from synthetic_runs import Fake, log_run, log_sweep

from jqlight.cli.compare import main
from jqlight.errors import ConfigError


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """A store with an experiment of two sweeps, and one of single runs."""
    folder = tmp_path_factory.mktemp("store")
    client = mlflow.MlflowClient(f"sqlite:///{folder}/mlflow.db")
    artifacts = (folder / "artifacts").as_uri()
    log_sweep(client, [Fake("GARL", "0.75")], experiment="sweeps", name="a", artifacts=artifacts)
    log_sweep(client, [Fake("PAFT", "0.25")], experiment="sweeps", name="b")
    alone = client.create_experiment("alone", artifact_location=artifacts)
    for run in (Fake("GARL", "0.5"), Fake("GRPO", middle=None)):
        log_run(client, alone, run)
    return folder / "mlflow.db", client


def test_experiment_compares_all_its_sweeps_and_the_newest_parent_keeps_the_report(store, tmp_path, capsys):
    path, client = store
    assert main(["--experiment", "sweeps", "--store", str(path), "--out", str(tmp_path)]) == 0
    output = capsys.readouterr().out
    assert "GARL q=0.75" in output
    assert "PAFT q=0.25" in output
    assert f"report: {tmp_path}/report.html" in output
    experiment = client.get_experiment_by_name("sweeps").experiment_id
    parents = {
        run.info.run_name: run.info.run_id for run in client.search_runs([experiment], "tags.`jqlight.sweep` != ''")
    }
    assert [entry.path for entry in client.list_artifacts(parents["b"])] == ["comparison"]
    assert client.list_artifacts(parents["a"]) == []


def test_runs_without_a_sweep_are_compared_too(store, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["--experiment", "alone", "--store", str(store[0])]) == 0
    output = capsys.readouterr().out
    assert "GARL q=0.5" in output
    assert "GRPO" in output
    assert Path("runs/comparisons/alone/report.html").exists()


def folder_of(path: Path, store: Path, **record: str) -> str:
    """A folder as a run (``run_id``) or a sweep (``parent_run_id``) leaves it, with its note of the store."""
    path.mkdir(parents=True)
    run = "run_id" in record
    noted = {**record, "tracking_uri" if run else "store": f"sqlite:///{store}"}
    (path / ("run.json" if run else "sweep.json")).write_text(json.dumps(noted))
    return str(path)


def test_folders_of_sweeps_and_runs_are_compared_with_each_other(store, tmp_path, capsys):
    path, client = store
    ids = {}
    for name in ("sweeps", "alone"):
        experiment = client.get_experiment_by_name(name).experiment_id
        ids |= {run.info.run_name: run.info.run_id for run in client.search_runs([experiment])}
    parent, single = ids["b"], next(run for name, run in ids.items() if name.startswith("GRPO"))
    sweep = folder_of(tmp_path / "runs" / "b", path, parent_run_id=parent)
    run = folder_of(tmp_path / "runs" / "grpo", path, run_id=single)
    assert main([sweep, run, "--out", str(tmp_path / "out")]) == 0
    output = capsys.readouterr().out
    assert "PAFT q=0.25" in output
    assert "GRPO" in output
    assert "GARL" not in output


def test_folders_without_a_run_of_mlflow_or_of_two_stores_are_refused(store, tmp_path):
    bare, other = tmp_path / "bare", tmp_path / "other.db"
    bare.mkdir()
    with pytest.raises(ConfigError, match=rf"^{bare} is no folder of a sweep or a run"):
        main([str(bare)])
    with pytest.raises(ConfigError, match=r"sweep\.json names no run of MLflow"):
        main([folder_of(tmp_path / "unnamed", store[0])])
    sqlite3.connect(other).close()
    folders = [
        folder_of(tmp_path / "x" / "r", store[0], run_id="1"),
        folder_of(tmp_path / "y" / "r", other, run_id="2"),
    ]
    with pytest.raises(ConfigError, match=r"one comparison reads one MLflow store, given .*other\.db"):
        main(folders)
    with pytest.raises(ConfigError, match=rf"^{folders[0]}: given 1, the store has no such run"):
        main(folders[:1])


def test_store_comes_from_the_environment(store, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{store[0]}")
    assert main(["--experiment", "alone", "--out", str(tmp_path)]) == 0
    assert "GARL q=0.5" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "one of the arguments FOLDER --experiment --parent is required"),
        (["--experiment", "x", "--parent", "y"], "not allowed with"),
        (["--experiment", "x"], "--experiment: given x, the store has "),
        (["--parent", "0" * 32], "--parent: given 0000"),
    ],
)
def test_mistakes_are_one_sentence(store, arguments, message):
    with pytest.raises(ConfigError, match=message):
        main([*arguments, "--store", str(store[0])])


def test_missing_store_is_named_and_not_made(tmp_path):
    with pytest.raises(ConfigError, match="there is no MLflow store at"):
        main(["--experiment", "x", "--store", str(tmp_path / "none.db")])
    assert list(tmp_path.iterdir()) == []


def foreign(path, text):
    """A file that is no store of MLflow's: a text, another program's database, or a folder for None."""
    if text is None:
        path.mkdir()
    elif text.startswith("create"):
        with closing(sqlite3.connect(path)) as database:
            database.execute(text)
    else:
        path.write_text(text)


@pytest.mark.parametrize("name", ["other.db", "folder"])
@pytest.mark.parametrize("text", ["no database " * 99, "create table experiments (a int)", "create table b (a)", None])
def test_what_is_no_store_is_named_and_left_as_it_was(tmp_path, monkeypatch, capfd, name, text):
    monkeypatch.chdir(tmp_path)
    foreign(tmp_path / name, text)
    before = (tmp_path / name).read_bytes() if text else sorted((tmp_path / name).iterdir())
    with pytest.raises(ConfigError, match=rf"--store: .*{name} is "):
        main(["--experiment", "x", "--store", name])
    assert (before == (tmp_path / name).read_bytes()) if text else not list((tmp_path / name).iterdir())
    assert capfd.readouterr().err == ""


def test_names_of_a_store_are_inert_wherever_they_are_shown(tmp_path, capsys):
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    experiment = client.create_experiment("[x](javascript:alert(1)) | <b>", artifact_location=tmp_path.as_uri())
    for q in ("<script>alert(7)</script>", "$\\frac{", "\x1b[2J[red]"):
        run_id = log_run(client, experiment, Fake("GARL", q))
        client.set_terminated(run_id, status="FAILED")
    command = ["--experiment", "[x](javascript:alert(1)) | <b>", "--store", f"{tmp_path}/mlflow.db"]
    assert main([*command, "--out", str(tmp_path / "out")]) == 0
    shown = capsys.readouterr().out
    written = [path.read_text() for path in (tmp_path / "out").iterdir() if path.suffix in (".md", ".html")]
    assert "Not finished" in shown
    assert len(written) >= 3
    for text in (shown, *written):
        assert "<script>alert" not in text
    assert "\x1b" not in shown
    assert "[red]" in shown


def test_narrow_terminal_says_which_columns_it_leaves_out(store, tmp_path):
    controller, terminal = os.openpty()
    environment = {**os.environ, "COLUMNS": "60", "LINES": "40", "TERM": "dumb"}
    command = [sys.executable, "-m", "jqlight", "compare", "--experiment", "alone", "--store", str(store[0])]
    process = subprocess.Popen([*command, "--out", str(tmp_path)], stdout=terminal, env=environment)
    os.close(terminal)
    shown = b""
    while True:
        try:
            part = os.read(controller, 65536)
        except OSError:  # the other end is closed
            break
        shown += part
    assert process.wait(60) == 0
    lines = shown.decode().replace("\r", "").splitlines()
    assert max(map(len, lines[:5])) <= 60
    assert "not shown for lack of room" in shown.decode()
    assert "minutes" in "".join(lines[3:6])
