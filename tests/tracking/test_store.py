"""Which store a run is in, how its URI is written, and that its password is written nowhere."""

import json
from pathlib import Path

import mlflow
import pytest
import yaml
from mlflow import MlflowClient

from jqlight.cli import ui
from jqlight.cli.compare import main as compare
from jqlight.errors import ConfigError
from jqlight.sweep.folder import SweepFolder
from jqlight.sweep.parent import _store
from jqlight.tracking.journal import Journal, read_record
from jqlight.tracking.logger import RunLogger
from jqlight.tracking.mlflow import (
    STORE_VARIABLE,
    NoStoreError,
    artifact_location,
    open_store,
    reason,
    redacted,
    same_store,
    sqlite_path,
    sqlite_uri,
    store_uri,
)

SECRET = "http://user:s3cret@127.0.0.1:9"
SHOWN = "http://user:***@127.0.0.1:9"


def test_given_goes_before_the_environment_and_that_before_what_is_recorded(workplace, monkeypatch):
    assert store_uri() == f"sqlite:///{workplace}/runs/mlflow.db"
    assert store_uri(runs=workplace / "others") == f"sqlite:///{workplace}/others/mlflow.db"
    assert store_uri(recorded="http://example.invalid") == "http://example.invalid"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///here.db")
    assert store_uri(recorded="http://example.invalid") == f"sqlite:///{workplace}/here.db"
    assert store_uri("other.db") == f"sqlite:///{workplace}/other.db"
    assert store_uri("http://localhost:5000", recorded="http://example.invalid") == "http://localhost:5000"


def test_a_run_its_sweep_and_the_pages_find_the_same_store(workplace, monkeypatch):
    expected = f"sqlite:///{workplace}/runs/mlflow.db"
    assert RunLogger("runs/a").tracking_uri == ui.find_store(Path("runs"), None) == expected
    assert _store({}, SweepFolder(Path("runs/s"))) == expected
    Journal(workplace / "runs/a").update(tracking_uri="http://example.invalid")
    assert RunLogger("runs/a").tracking_uri == ui.find_store(Path("runs/a"), None) == "http://example.invalid"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://other.invalid")
    assert RunLogger("runs/a").tracking_uri == ui.find_store(Path("runs/a"), None) == "http://other.invalid"
    with pytest.raises(ConfigError, match=r"given http://other\.invalid, but this sweep was begun in http://begun"):
        _store({"store": "http://begun.invalid"}, SweepFolder(Path("runs/s")))


@pytest.mark.parametrize("name", ["50% naïve?", "exp%20a", "a b#c", "x@y:z", "naïve", "+"])
def test_a_folder_may_have_any_name(tmp_path, name):
    path = tmp_path / name / "mlflow.db"
    assert sqlite_path(sqlite_uri(path)) == path
    assert store_uri(sqlite_uri(path)) == sqlite_uri(path)
    assert same_store(str(path), sqlite_uri(path))


@pytest.mark.parametrize("name", ["50% naïve?", "exp%20a"])
def test_runs_in_a_folder_of_any_name_are_logged_and_read(empty_store, tmp_path, monkeypatch, name, capsys):
    folder = tmp_path / name
    (folder / "runs").mkdir(parents=True)
    (folder / "runs" / "mlflow.db").write_bytes(empty_store.read_bytes())
    monkeypatch.chdir(folder)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    logger = RunLogger("runs/a")
    logger.log_metrics({"train/success": 0.5}, 1)
    logger.log_config("q: 0.5\n", {"q": 0.5}, {"estimator": "GARL", "q": "0.5"})
    logger.finalize("success")
    run = MlflowClient(logger.tracking_uri).get_run(read_record(folder / "runs/a")["run_id"])
    assert run.info.artifact_uri.startswith(artifact_location(logger.tracking_uri))
    assert mlflow.artifacts.load_text(f"{run.info.artifact_uri}/config.yaml") == "q: 0.5\n"
    assert sorted(path.name for path in (folder / "runs").iterdir()) == ["a", "mlartifacts", "mlflow.db"]
    assert compare(["--experiment", "jqlight"]) == 0
    assert "GARL q=0.5" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (SECRET, SHOWN),
        ("postgresql://me:pw@db:5432/x", "postgresql://me:***@db:5432/x"),
        ("postgresql://me:p@ss/w@db/x", "postgresql://me:***@db/x"),
        ("postgresql://db/x?user=me&password=pw&a=1", "postgresql://db/x?user=me&password=***&a=1"),
        ("at http://u:pw@h/a, then http://u:pw@h/b", "at http://u:***@h/a, then http://u:***@h/b"),
        ("http://localhost:5000", "http://localhost:5000"),
        ("sqlite:////a:b@c/mlflow.db", "sqlite:////a:b@c/mlflow.db"),
    ],
)
def test_passwords_are_blotted_out(text, shown):
    assert redacted(text) == shown
    assert redacted(shown) == shown
    assert "pw" not in reason(OSError(text))


def test_a_password_comes_back_from_the_environment_alone(monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with pytest.raises(ConfigError, match="MLFLOW_TRACKING_URI: not given for http://user:"):
        store_uri(recorded=SHOWN)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", SECRET)
    assert store_uri(SHOWN) == SECRET
    assert same_store(SHOWN, SECRET)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://user:s3cret@elsewhere")
    with pytest.raises(ConfigError, match="set it to the whole URI"):
        store_uri(SHOWN)


def everything(folder, *texts):
    found = [path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.suffix not in (".db", ".ckpt")]
    return b"".join([*found, *(text.encode() for text in texts)]).decode()


@pytest.mark.parametrize("how", ["environment", "config"])
def test_a_password_is_neither_in_the_runs_files_nor_on_the_screen(shell, climber, workplace, monkeypatch, how):
    if how == "environment":
        monkeypatch.setenv("MLFLOW_TRACKING_URI", SECRET)
        options = []
    else:
        logger = {"class_path": "jqlight.tracking.logger.RunLogger"}
        logger["init_args"] = {"run_dir": "runs/climber", "tracking_uri": SECRET}
        content = yaml.safe_load(climber.read_text())
        content["trainer"]["logger"] = logger
        # Outside of the run's folder the user's own file may have it.
        elsewhere = workplace.parent / f"{workplace.name}-climber.yaml"
        elsewhere.write_text(yaml.safe_dump(content))
        climber.unlink()
        climber, options = elsewhere, ["--run_dir", "runs/climber"]
    assert shell("fit", "--config", climber, *options) == 0, shell.err
    shown = shell.out + shell.err
    assert SHOWN in shown
    assert shell("sync", "runs/climber") == (1 if how == "environment" else 2)
    assert SHOWN in shell.err
    assert shell("ui", "runs/climber", "--store", SECRET) == 0
    text = everything(workplace, shown, shell.out, shell.err)
    assert "s3cret" not in text
    assert json.loads((workplace / "runs/climber/run.json").read_text())["tracking_uri"] == SHOWN


class Recorder:
    """Stands for a store with a password: an empty sqlite store under the hood."""

    def __init__(self, monkeypatch, path):
        self.opened = []
        client = MlflowClient(sqlite_uri(path))
        monkeypatch.setattr("jqlight.tracking.upload.open_store", lambda uri, **_: self.opened.append(uri) or client)


def test_an_upload_has_the_password(workplace, monkeypatch, shell):
    store = Recorder(monkeypatch, workplace / "runs/mlflow.db")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", SECRET)
    logger = RunLogger("runs/a")
    logger.log_metrics({"a": 1.0}, 1)
    logger.finalize("success")
    assert store.opened == [SECRET]
    assert read_record(workplace / "runs/a")["uploaded"]["status"] == "FINISHED"
    first = read_record(workplace / "runs/a")["run_id"]
    RunLogger("runs/a").log_metrics({"a": 2.0}, 2)
    assert shell("sync", "runs/a") == 0, shell.err
    assert store.opened[-1] == SECRET
    assert read_record(workplace / "runs/a")["run_id"] == first


def test_what_links_out_of_a_run_is_not_uploaded(workplace, shell):
    logger = RunLogger("runs/a", tracking_uri="http://127.0.0.1:9")
    logger.log_metrics({"a": 1.0}, 1)
    logger.log_samples("val", 1, [{"id": "mine"}])
    logger.log_text_artifact("notes.txt", "mine")
    logger.finalize("success")
    (workplace / "private").mkdir()
    (workplace / "private" / "key.txt").write_text("theirs")
    (workplace / "private" / "step_000009.jsonl").write_text('{"id": "theirs"}\n')
    run = workplace / "runs/a"
    (run / "artifacts" / "key.txt").symlink_to(workplace / "private" / "key.txt")
    (run / "artifacts" / "folder").symlink_to(workplace / "private")
    (run / "samples" / "step_000009.jsonl").symlink_to(workplace / "private" / "step_000009.jsonl")
    (run / "artifacts" / "own.txt").symlink_to(run / "artifacts" / "notes.txt")
    assert shell("sync", "runs/a", "--store", "runs/mlflow.db") == 0, shell.err
    client, run_id = MlflowClient(store_uri()), read_record(run)["run_id"]
    assert {item.path for item in client.list_artifacts(run_id)} == {"notes.txt", "own.txt", "samples"}
    assert [item.path for item in client.list_artifacts(run_id, "samples")] == ["samples/step_000001.json"]


@pytest.mark.parametrize("file", ["metrics.jsonl", "run.json"])
def test_a_runs_own_files_are_not_read_through_links_either(workplace, shell, file):
    logger = RunLogger("runs/a", tracking_uri="http://127.0.0.1:9")
    logger.log_metrics({"a": 1.0}, 1)
    logger.finalize("success")
    path = workplace / "runs/a" / file
    path.rename(workplace / "moved")
    path.symlink_to(workplace / "moved")
    code = shell("sync", "runs/a", "--store", "runs/mlflow.db")
    if file == "run.json":
        assert code == 2
        assert "runs/a is no run's folder" in shell.err
    else:
        assert code == 0
        assert "0 metric lines uploaded" in shell.out


@pytest.mark.parametrize("uri", ["htp://u:SECRET@host", "./mlruns", "file:./mlruns"])
def test_a_kind_of_store_that_mlflow_does_not_open_is_told_without_passwords(uri):
    with pytest.raises(NoStoreError, match="is no store that MLflow opens") as refused:
        open_store(uri)
    assert "SECRET" not in str(refused.value)


def test_blanks_around_a_store_are_no_part_of_it(monkeypatch):
    monkeypatch.setenv(STORE_VARIABLE, "  http://127.0.0.1:9\n")
    assert store_uri() == store_uri(" http://127.0.0.1:9 ") == "http://127.0.0.1:9"
