import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import mlflow
import pytest
from mlflow import MlflowClient

from jqlight.tracking.journal import Journal, read_record
from jqlight.tracking.logger import RunLogger
from jqlight.tracking.mlflow import reason, sqlite_uri
from jqlight.tracking.params import flatten
from jqlight.tracking.upload import Uploader

DEAD = "http://127.0.0.1:9"


@pytest.fixture
def store(workplace):
    return f"sqlite:///{workplace}/runs/mlflow.db"


@pytest.fixture
def client(store):
    return MlflowClient(store)


def write(logger, steps=range(1, 4)):
    logger.log_config(
        "q: 0.5\n", {"q": "0.5", "model.rollouts": 32}, {"q": "0.5", "estimator": "GARL", "benchmark": "TwoHop"}
    )
    for step in steps:
        logger.log_metrics({"train/success": step / 10, "train/log_success": -float(step), "epoch": 0}, step)
    logger.log_samples("val", 3, [{"id": "a", "answer": "x"}, {"id": "b", "tie": 1.0}])
    logger.log_questions("val", 3, [{"id": "a", "maj_at_16": 0.5}, {"id": "b", "maj_at_16": 1.0}])
    logger.log_text_artifact("notes/data.txt", "3 dropped")


def check_complete(client, run_id, steps=(1, 2, 3)):
    run = client.get_run(run_id)
    assert run.data.params == {"q": "0.5", "model.rollouts": "32"}
    assert {"q": "0.5", "estimator": "GARL", "benchmark": "TwoHop"}.items() <= run.data.tags.items()
    history = client.get_metric_history(run_id, "train/success")
    assert [(m.step, m.value) for m in history] == [(step, step / 10) for step in steps]
    assert "epoch" not in run.data.metrics
    assert {item.path for item in client.list_artifacts(run_id)} == {"config.yaml", "samples", "questions", "notes"}
    rows = mlflow.artifacts.load_text(f"{run.info.artifact_uri}/questions/step_000003.jsonl").splitlines()
    assert [json.loads(row) for row in rows] == [{"id": "a", "maj_at_16": 0.5}, {"id": "b", "maj_at_16": 1.0}]
    assert mlflow.artifacts.load_text(f"{run.info.artifact_uri}/config.yaml") == "q: 0.5\n"


def test_everything_arrives_in_the_store(workplace, client):
    logger = RunLogger("runs/a")
    write(logger)
    logger.finalize("success")
    record = read_record(workplace / "runs" / "a")
    check_complete(client, record["run_id"])
    run = client.get_run(record["run_id"])
    assert run.info.run_name == "a"
    assert run.info.status == "FINISHED"
    assert client.get_experiment(run.info.experiment_id).name == "jqlight"
    assert run.info.artifact_uri.startswith((workplace / "runs" / "mlartifacts").as_uri())


def test_what_was_not_measured_is_left_out(workplace):
    logger = RunLogger("runs/a")
    logger.log_metrics({"train/success": 0.1, "train/logprob_gap": float("nan")}, 1)
    logger.log_metrics({"train/logprob_gap": float("nan")}, 2)
    logger.log_metrics({"train/log_success": -float("inf")}, 3)
    logger.finalize("success")
    rows = [json.loads(line) for line in (workplace / "runs/a/metrics.jsonl").read_text().splitlines()]
    assert [{k: v for k, v in row.items() if "/" in k} for row in rows] == [
        {"train/success": 0.1},
        {"train/log_success": -float("inf")},
    ]


def test_samples_are_a_table_of_mlflow(workplace, client, store):
    logger = RunLogger("runs/a")
    write(logger)
    logger.finalize("success")
    run = client.get_run(logger.journal.record["run_id"])
    mlflow.set_tracking_uri(store)
    table = client.load_table(run.info.experiment_id, "samples/step_000003.json", run_ids=[run.info.run_id])
    assert list(table.columns) == ["id", "answer", "step", "tie"]
    assert table["id"].tolist() == ["a", "b"]
    assert table["tie"][1] == 1.0
    assert json.loads((workplace / "runs/a/samples/step_000003.jsonl").read_text().splitlines()[0]) == {
        "id": "a",
        "answer": "x",
        "step": 3,
    }


def test_samples_may_hold_any_line_separator(workplace, client, store):
    written = "one\u2028two\u2029three\x85four\x0bfive\x1csix\r\nseven\reight"
    logger = RunLogger("runs/a")
    logger.log_samples("val", 3, [{"id": "a", "answer": written}, {"id": "b", "answer": "x"}])
    logger.finalize("success")
    run = client.get_run(logger.journal.record["run_id"])
    mlflow.set_tracking_uri(store)
    table = client.load_table(run.info.experiment_id, "samples/step_000003.json", run_ids=[run.info.run_id])
    assert table["answer"].tolist() == [written, "x"]
    assert run.info.status == "FINISHED"


def test_what_stops_an_upload_for_any_reason_is_told(workplace, client, caplog, monkeypatch):
    monkeypatch.setattr("jqlight.tracking.upload.log.propagate", True)
    logger = RunLogger("runs/a")
    write(logger)
    (workplace / "runs/a/samples/step_000003.jsonl").write_text("not JSON")
    logger.log_samples("val", 4, [{"id": "a"}])
    logger.finalize("success")
    assert any("jqlight sync runs/a" in message for message in caplog.messages)


def test_a_stage_other_than_validation_is_in_the_name(workplace):
    logger = RunLogger("runs/a")
    logger.log_samples("test", 120, [{"id": "a"}])
    logger.finalize("success")
    assert (workplace / "runs/a/samples/test_step_000120.jsonl").exists()


def test_a_dead_store_delays_nothing_and_sync_uploads_everything(workplace, client, store, caplog, monkeypatch):
    monkeypatch.setattr("jqlight.tracking.upload.log.propagate", True)
    logger = RunLogger("runs/a", tracking_uri=DEAD)
    write(logger)
    assert len(Journal(workplace / "runs/a").series("train/success")) == 3
    logger.finalize("success")
    assert any("jqlight sync runs/a" in message for message in caplog.messages)
    journal = Journal(workplace / "runs/a")
    assert journal.record.get("run_id") is None
    assert Uploader(journal, store).push() == 6
    check_complete(client, journal.record["run_id"])
    assert client.get_run(journal.record["run_id"]).info.status == "FINISHED"


def test_a_store_that_dies_mid_run_misses_only_what_came_after(workplace, client, store):
    logger = RunLogger("runs/a", timeout=1.0)
    write(logger, steps=[1, 2])
    run_id = logger.run_id
    uploader = logger._started()
    uploader.push()
    uploader._client = MlflowClient(DEAD)
    logger.log_metrics({"train/success": 0.3, "train/log_success": -3.0}, 3)
    logger.finalize("success")
    assert [m.step for m in client.get_metric_history(run_id, "train/success")] == [1, 2]
    later = Uploader(Journal(workplace / "runs/a"), store)
    assert later.missing() == 1
    assert later.push() == 2
    check_complete(client, run_id)
    assert later.missing() == 0


def test_a_store_that_comes_back_while_the_run_waits_has_everything(workplace, client, monkeypatch, caplog):
    for name in ("_END_RETRY_S", "_QUIET_END_S"):
        monkeypatch.setattr(f"jqlight.tracking.upload.{name}", 0.2)
    logger = RunLogger("runs/a")
    write(logger, steps=[1, 2])
    uploader = logger._started()
    uploader.push()
    uploader._client = MlflowClient(DEAD)
    logger.log_metrics({"train/success": 0.3, "train/log_success": -3.0}, 3)
    back = threading.Timer(1.0, lambda: setattr(uploader, "_client", client))
    back.start()
    logger.finalize("success")
    check_complete(client, logger.run_id)
    assert "Waiting up to 60 s for MLflow" in caplog.text


def test_a_run_whose_creation_was_not_answered_is_found_again(workplace, client):
    logger = RunLogger("runs/a")
    write(logger)
    logger.finalize("success")
    first = read_record(workplace / "runs/a")["run_id"]
    journal = Journal(workplace / "runs/a")
    journal.forget_upload()
    Uploader(journal, logger.tracking_uri).push()
    assert journal.record["run_id"] == first


def test_sending_a_part_twice_changes_nothing(workplace, client):
    logger = RunLogger("runs/a")
    write(logger)
    logger.finalize("success")
    journal = Journal(workplace / "runs/a")
    journal.record["uploaded"] = {}  # as if the process had been killed before it noted what had arrived
    Uploader(journal, sqlite_uri(workplace / "runs/mlflow.db")).push()
    check_complete(client, journal.record["run_id"])


def test_the_same_folder_continues_the_same_run(workplace, client):
    first = RunLogger("runs/a")
    write(first, steps=[1, 2])
    first.finalize("failed")
    run_id = first.journal.record["run_id"]
    first.finalize("failed")
    assert client.get_run(run_id).info.status == "FAILED"
    second = RunLogger("runs/a")
    second.log_metrics({"train/success": 0.3}, 3)
    assert second.run_id == run_id
    second._started().push()
    assert client.get_run(run_id).info.status == "RUNNING"
    second.finalize("success")
    check_complete(client, run_id)
    assert client.get_run(run_id).info.status == "FINISHED"
    assert len(client.search_runs([client.get_run(run_id).info.experiment_id])) == 1


def test_a_run_deleted_from_the_store_is_uploaded_again(workplace, client):
    logger = RunLogger("runs/a")
    write(logger)
    logger.finalize("success")
    old = logger.journal.record["run_id"]
    logger.finalize("success")
    client.delete_run(old)
    journal = Journal(workplace / "runs/a")
    Uploader(journal, sqlite_uri(workplace / "runs/mlflow.db")).push()
    assert journal.record["run_id"] != old
    check_complete(client, journal.record["run_id"])


def test_a_parent_makes_it_a_child_in_the_parents_experiment(workplace, client, monkeypatch):
    experiment = client.create_experiment("sweep", artifact_location=(workplace / "art").as_uri())
    parent = client.create_run(experiment).info.run_id
    monkeypatch.setenv("JQLIGHT_PARENT_RUN_ID", parent)
    logger = RunLogger("runs/a")
    write(logger)
    logger.finalize("success")
    run = client.get_run(logger.journal.record["run_id"])
    logger.finalize("success")
    assert run.data.tags["mlflow.parentRunId"] == parent
    assert run.info.experiment_id == experiment


def test_steps_come_from_the_trainer_where_there_is_one(workplace):
    logger = RunLogger("runs/a")
    logger.step_source = lambda: 40
    logger.log_metrics({"val/maj_at_16": 0.5}, 39)
    logger.finalize("success")
    assert Journal(workplace / "runs/a").series("val/maj_at_16") == [(40, 0.5)]


def test_hyperparameters_are_logged_unless_the_config_is(workplace):
    alone = RunLogger("runs/a")
    alone.log_hyperparams({"q": 0.5, "policy": {"dtype": "float32", "lora": None}, "_instantiator": "x"})
    alone.finalize("success")
    assert read_record(workplace / "runs/a")["params"] == {"q": "0.5", "policy.dtype": "float32"}
    spliced = RunLogger("runs/c")
    spliced.log_hyperparams({"q": "splice(0.05)", "commitment": "splice", "commitment.tau": 0.05})
    spliced.finalize("success")
    record = read_record(workplace / "runs/c")
    assert record["params"] == {"commitment": "splice", "commitment.tau": "0.05"}
    assert record["tags"]["q"] == "splice(0.05)"
    under_cli = RunLogger("runs/b")
    under_cli.awaits_config = True
    under_cli.log_hyperparams({"q": 0.5})
    under_cli.log_metrics({"a": 1.0}, 1)
    under_cli.finalize("success")
    assert "params" not in read_record(workplace / "runs/b")


def test_nothing_is_written_before_something_is_logged(workplace):
    logger = RunLogger("runs/a")
    assert logger.experiment is not None
    assert logger.save_dir == "runs/a"
    logger.finalize("success")
    assert not (workplace / "runs/a").exists()


def test_the_experiment_is_mlflows_client(workplace, client):
    logger = RunLogger("runs/a")
    logger.experiment.log_text(logger.run_id, "hello", "mine.txt")
    logger.finalize("success")
    assert "mine.txt" in [item.path for item in client.list_artifacts(logger.journal.record["run_id"])]
    logger.finalize("success")


def test_a_slow_store_is_given_up_after_the_timeout(workplace, monkeypatch):
    class Sleeper(BaseHTTPRequestHandler):
        def do_GET(self):
            released.wait(20)

        do_POST = do_GET

    released = threading.Event()
    server = HTTPServer(("127.0.0.1", 0), Sleeper)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        logger = RunLogger("runs/a", tracking_uri=f"http://127.0.0.1:{server.server_port}", timeout=0.2)
        write(logger)
        logger.finalize("success")  # would wait for the server's 20 s otherwise
        assert len(Journal(workplace / "runs/a").series("train/success")) == 3
    finally:
        released.set()
        server.shutdown()


def test_the_old_name_of_the_timeout_is_taken_with_a_notice(workplace, caplog, monkeypatch):
    monkeypatch.setattr("jqlight.tracking.upload.log.propagate", True)
    assert RunLogger("runs/a", patience=3.0).timeout == 3.0
    assert "trainer.logger.patience is now called trainer.logger.timeout." in caplog.messages


def test_flatten_drops_what_is_empty_private_or_only_structure():
    config = {
        "model": {"class_path": "jqlight.estimators.GARL", "init_args": {"q": 0.1 + 0.2, "lora": None}},
        "data": {"init_args": {"sizes": [1, 2], "seed": 0}},
        "_instantiator": "x",
        "run_name": None,
    }
    assert flatten(config) == {
        "model.class_path": "jqlight.estimators.GARL",
        "model.q": "0.3",
        "data.sizes": [1, 2],
        "data.seed": 0,
    }


def test_reason_is_one_short_line():
    assert reason(OSError("a\n  b")) == "a b"
    assert reason(OSError("x" * 500)).endswith("...")
    assert len(reason(OSError("x" * 500))) == 160
    assert reason(ConnectionResetError()) == "ConnectionResetError"


@pytest.fixture
def refusing():
    class Refusing(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_error(401)

        do_POST = do_GET

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Refusing)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


ACCOUNT = "the server refuses the account, HTTP 401: check MLFLOW_TRACKING_USERNAME"


def test_an_account_that_is_refused_is_told_as_that(workplace, shell, refusing):
    Journal(workplace / "runs/a").update(experiment_name="e", run_name="a", tracking_uri=refusing)
    assert shell("sync", "runs/a") == 1
    assert ACCOUNT in shell.err and "start it" not in shell.err


def test_a_run_tells_of_an_account_that_is_refused_at_its_start_and_its_end(workplace, refusing, caplog):
    logger = RunLogger("runs/b", tracking_uri=refusing, timeout=2.0)
    logger.log_metrics({"a": 1.0}, 1)
    logger.finalize("success")
    assert len(caplog.messages) == 2 and all(ACCOUNT in line for line in caplog.messages)
