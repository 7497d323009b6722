"""A store beside the runs is there whole or not at all, whoever makes it and whatever happens meanwhile."""

import os
import signal
import sqlite3
import time
from contextlib import closing

import pytest
from mlflow import MlflowClient

from jqlight.tracking import mlflow as tracking
from jqlight.tracking.mlflow import open_store, sqlite_uri


@pytest.fixture
def quick(empty_store, monkeypatch):
    """Stores are made from an empty one in no time; ``quick(hook)`` runs a hook in between."""

    def making(hook=lambda path: None):
        def make(tracking_uri):
            path = tracking.sqlite_path(tracking_uri)
            if not path.exists():
                data = empty_store.read_bytes()
                path.write_bytes(data[: len(data) // 2])
                hook(path)
                path.write_bytes(data)
            return MlflowClient(tracking_uri=tracking_uri)

        monkeypatch.setattr("mlflow.MlflowClient", make)

    return making


def test_a_kill_leaves_no_store_and_the_next_makes_it(tmp_path, quick):
    path = tmp_path / "mlflow.db"
    quick(lambda _: os.kill(os.getpid(), signal.SIGKILL))
    if (child := os.fork()) == 0:
        open_store(sqlite_uri(path))
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -9
    assert not path.exists()
    quick()
    assert open_store(sqlite_uri(path)).search_experiments()


def test_two_at_once_have_one_store(tmp_path, quick, empty_store):
    path = tmp_path / "mlflow.db"

    def theirs(_):
        path.write_bytes(empty_store.read_bytes())
        MlflowClient(sqlite_uri(path)).create_experiment("theirs")

    quick(theirs)
    names = {experiment.name for experiment in open_store(sqlite_uri(path)).search_experiments()}
    assert names == {"Default", "theirs"}
    assert [found.name for found in tmp_path.iterdir()] == ["mlflow.db"]


def test_a_store_that_an_earlier_version_left_half_made_is_made_again(tmp_path, empty_store, quick):
    path = tmp_path / "mlflow.db"
    path.write_bytes(empty_store.read_bytes())
    with closing(sqlite3.connect(path)) as database:
        database.execute("DELETE FROM experiments")
        database.execute("DROP TABLE runs")
        database.commit()
    os.utime(path, (time.time() - 60,) * 2)
    quick()
    assert open_store(sqlite_uri(path)).search_runs(["0"]) == []


def test_stores_with_something_in_them_stay(tmp_path, empty_store):
    path = tmp_path / "mlflow.db"
    path.write_bytes(empty_store.read_bytes())
    os.utime(path, (time.time() - 60,) * 2)
    MlflowClient(sqlite_uri(path)).create_experiment("mine")
    inode = path.stat().st_ino
    assert open_store(sqlite_uri(path)).get_experiment_by_name("mine")
    assert path.stat().st_ino == inode


def test_a_file_system_without_hard_links_has_one_too(tmp_path, quick, monkeypatch):
    def refused(*paths):
        raise PermissionError(1, "Operation not permitted", *paths)

    left = tmp_path / "mlflow.db.1.partial"
    left.write_bytes(b"of a killed process")
    os.utime(left, (time.time() - 7200,) * 2)
    monkeypatch.setattr(os, "link", refused)
    quick()
    assert open_store(sqlite_uri(tmp_path / "mlflow.db")).search_experiments()
    assert [found.name for found in tmp_path.iterdir()] == ["mlflow.db"]
