"""MLflow as jqlight uses it: which store a run is in, how its URI is written and shown, and the experiment in it."""

import logging
import os
import re
import sqlite3
import time
from collections.abc import Mapping
from contextlib import closing
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from jqlight.errors import ConfigError
from jqlight.tracking.journal import read_record
from jqlight.tracking.run_folder import RUNS

if TYPE_CHECKING:
    from mlflow import MlflowClient

log = logging.getLogger("jqlight")

STORE_VARIABLE = "MLFLOW_TRACKING_URI"
ARTIFACTS = "mlartifacts"
"""Folder of artifacts beside a sqlite store's file."""
PARENT_VARIABLE = "JQLIGHT_PARENT_RUN_ID"
"""Environment variable that makes a run the child of a sweep's run."""
PARENT_TAG = "mlflow.parentRunId"
SWEEP_TAG = "jqlight.sweep"
"""Tag of a sweep's parent run: the sweep's name."""
_KIND = "mlflow.experimentKind"
PARAM_CHARACTERS = 500
"""Characters of a parameter's value; older servers refuse longer ones."""

# Up to the last @, since some passwords hold one that is not quoted.
_PASSWORD = re.compile(r"""(://[^:/\s@]*):[^\s'"]*@|([?&](?:password|token|secret)=)[^&\s'"]+""", re.IGNORECASE)
_REASON_CHARACTERS = 160
REFUSED = "the server refuses the account"
# Making a store takes MLflow 2 to 4 seconds, in which it writes to the file all the time.
_MAKING_S, _LEFT_S = 10.0, 3600.0


class NoStoreError(ConfigError, OSError):
    """What is given as a store and is none of MLflow's; an OSError too, since a run goes on without its store."""


def store_uri(given: str | None = None, *, recorded: str | None = None, runs: Path = RUNS) -> str:
    """Tracking URI: ``given``, else ``MLFLOW_TRACKING_URI``, else ``recorded``, else ``mlflow.db`` in ``runs``.

    A sqlite path is made absolute, so that the URI means the same in every process; a file name that ends in ``.db``
    is a sqlite path too.

    Args:
        given: a URI or a file name, as a user gave it.
        recorded: the store that a run is in already, possibly without its password.
        runs: the folder of runs.

    Raises:
        ConfigError: a URI whose password is blotted out, which the environment does not know.
    """
    variable = os.environ.get(STORE_VARIABLE, "").strip()
    return _with_password(_absolute((given or "").strip() or variable or recorded or str(runs / "mlflow.db")))


def recorded_store(folder: Path) -> str | None:
    """The store that a run's folder names; None where it names none."""
    record = read_record(folder)
    return moved_store(record.get("tracking_uri"), folder, record.get("folder"))


def moved_store(uri: str | None, folder: Path, was: str | None = None) -> str | None:
    """The store that was noted as ``uri`` in a folder, which may have been moved or copied since.

    A sqlite file beside or above the folder has come along, also where the old one is still there: a copy never writes
    to what it was copied from.

    Args:
        uri: as it was noted.
        folder: where the note lies now.
        was: where it lay when it was made; None where that is not known, in notes of earlier versions.
    """
    path = sqlite_path(uri) if isinstance(uri, str) else None
    here = folder.resolve()
    if path is None or (was and Path(was) == here):  # also where it is yet to be made: another above is not this run's
        return uri
    before = list(Path(was).parents)[:2] if was else []  # a sweep's points lie two below
    if path.exists() and path.parent not in before:
        return uri
    near = list(here.parents)[:3]
    first = [here.parents[before.index(path.parent)]] if path.parent in before else []
    return sqlite_uri(next((place for place in first + near if (place / path.name).exists()), near[0]) / path.name)


def same_store(one: str, other: str) -> bool:
    """Whether two URIs are of one store; their passwords do not count."""
    return redacted(_absolute(one)) == redacted(_absolute(other))


def sqlite_uri(path: Path) -> str:
    """URI of the sqlite store in this file, absolute.

    Of all characters only ``%`` and ``?`` mean something to SQLAlchemy there. What it need not quote stays as it is,
    since MLflow takes the quoted text for a path when it makes the file's folder, and leaves an empty one behind.
    """
    return f"sqlite:///{str(path.absolute()).replace('%', '%25').replace('?', '%3F')}"


def sqlite_path(uri: str) -> Path | None:
    """The file of a sqlite store; None for every other kind of store."""
    from sqlalchemy.engine import make_url

    if not uri.startswith("sqlite:///"):
        return None
    database = make_url(uri).database
    return Path(database) if database else None


def artifact_location(uri: str) -> str | None:
    """Folder for artifacts next to a sqlite store's file, as a URI; None leaves the choice to a server."""
    path = sqlite_path(uri)
    return None if path is None else (path.resolve().parent / ARTIFACTS).as_uri()


def redacted(text: str) -> str:
    """``text`` with the passwords of the URIs in it as ``***``: what may be shown and kept."""
    return _PASSWORD.sub(lambda match: f"{match[2]}***" if match[2] else f"{match[1]}:***@", text)


def _absolute(uri: str) -> str:
    path = Path(uri) if "://" not in uri and uri.endswith(".db") else sqlite_path(uri)
    return uri if path is None else sqlite_uri(path)


def _with_password(uri: str) -> str:
    if "***" not in uri:
        return uri
    known = os.environ.get(STORE_VARIABLE, "")
    if same_store(known, uri):
        return known
    raise ConfigError(
        f"{STORE_VARIABLE}: not given for {uri}, whose password is not kept in files; set it to the whole URI"
    )


def prepare_client(uri: str, timeout: int) -> None:
    """Import MLflow's client of the store at ``uri``, set to give up after ``timeout`` seconds and to print nothing.

    What the user has set by MLflow's own environment variables stays. Nothing is connected.
    """
    for name, value in {
        "MLFLOW_HTTP_REQUEST_TIMEOUT": str(timeout),
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
        "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "0",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_LOGGING_LEVEL": "WARNING",
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    }.items():
        os.environ.setdefault(name, value)
    os.environ["MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"] = "true"  # the URL has the password in it
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)  # what it tells is raised as well
    import_module("mlflow.tracking")
    if sqlite_path(uri) is not None:
        import_module("mlflow.store.tracking.sqlalchemy_store")


def open_store(uri: str, *, timeout: int = 60, must_exist: bool = False) -> "MlflowClient":
    """Client of the store at ``uri``; a sqlite file that is missing is made.

    Args:
        uri: from :func:`store_uri`.
        timeout: seconds to wait for an answer of a server, where the user has not set MLflow's own variable.
        must_exist: refuse a sqlite file that is missing, or has none of MLflow's tables yet.

    Raises:
        NoStoreError: ``must_exist`` and there is no such sqlite file; a file that holds something else, or a folder.
    """
    path = sqlite_path(uri)
    if path is not None and (must_exist or path.exists()):
        _check_sqlite(path, must_exist)
    prepare_client(uri, timeout)
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    if path is not None:
        _make_sqlite(path)
    try:
        return MlflowClient(tracking_uri=uri)
    except MlflowException as error:  # nothing was connected: it is the kind of store
        raise NoStoreError(
            f"--store: {redacted(uri)} is no store that MLflow opens ({reason(error)}); give http://HOST:PORT or "
            f"sqlite:///FILE there or as {STORE_VARIABLE}"
        ) from error


def _check_sqlite(path: Path, must_exist: bool) -> None:
    """Raise NoStoreError unless MLflow can use this file; MLflow itself would write into it first."""
    way_out = f"give another with --store or {STORE_VARIABLE}"
    if not path.exists():
        raise NoStoreError(f"--store: there is no MLflow store at {path}; {way_out}")
    if path.is_dir():
        raise NoStoreError(f"--store: {path} is a folder and no MLflow store; {way_out}")
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as database:
            columns = [row[1] for row in database.execute("PRAGMA table_info(experiments)")]
    except sqlite3.OperationalError:  # locked, or not to be opened: MLflow says so
        return
    except sqlite3.DatabaseError as error:
        raise NoStoreError(f"--store: {path} is no MLflow store ({error}); {way_out}") from error
    if (columns or must_exist) and "experiment_id" not in columns:
        raise NoStoreError(f"--store: {path} is no MLflow store (it has no experiments of MLflow's); {way_out}")


def _make_sqlite(path: Path) -> None:
    """Make a sqlite store that is missing: beside its place, from where it gets its name when it is whole.

    MLflow makes its tables one by one. A process that is killed meanwhile, or two at once, would leave a file that
    nothing can open any more; such a file without runs, from an earlier version, is made again.
    """
    if path.exists() and path.stat().st_size and not _is_half_made(path):
        return
    from mlflow import MlflowClient

    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    partial.parent.mkdir(parents=True, exist_ok=True)
    for left in partial.parent.glob(f"{path.name}.*.partial*"):  # by a process that was killed
        if time.time() - left.stat().st_mtime > _LEFT_S:
            left.unlink(missing_ok=True)
    try:
        MlflowClient(tracking_uri=sqlite_uri(partial))
        if path.exists() and (not path.stat().st_size or _is_half_made(path)):
            path.unlink()
        try:
            os.link(partial, path)
        except OSError:  # made by another process in the meantime, or a file system that has no such links
            if not path.exists():
                partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _is_half_made(path: Path) -> bool:
    """Whether a sqlite file is a store whose making was cut off: MLflow adds its first experiment in the end."""
    if time.time() - path.stat().st_mtime < _MAKING_S:
        return False  # an MLflow server may be at it
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as database:
            return not database.execute("SELECT count(*) FROM experiments").fetchone()[0]
    except sqlite3.DatabaseError:  # locked, or no store at all
        return False


def store_errors() -> tuple[type[Exception], ...]:
    """What a store that cannot be used right now raises: MLflow's, the network's and the database's errors."""
    from mlflow.exceptions import MlflowException

    errors: tuple[type[Exception], ...] = (MlflowException, OSError)
    try:
        from sqlalchemy.exc import SQLAlchemyError
    except ImportError:
        return errors
    return (*errors, SQLAlchemyError)


def reason(error: BaseException) -> str:
    """The innermost cause of an error in one line of at most 160 characters, without passwords."""
    text = str(error).strip() or type(error).__name__
    if refused := re.search(r"failed with error code (40[13]) != 200", text):
        return f"{REFUSED}, HTTP {refused[1]}: check MLFLOW_TRACKING_USERNAME and _PASSWORD, or MLFLOW_TRACKING_TOKEN"
    for mark in ("Caused by ", "exceeded with url"):
        text = text.rsplit(mark, 1)[-1]
    line = " ".join(redacted(text).split())
    return line if len(line) <= _REASON_CHARACTERS else line[: _REASON_CHARACTERS - 3] + "..."


def find_experiment(client: "MlflowClient", name: str) -> str:
    """Id of the experiment of this name.

    Raises:
        ConfigError: the store has no such experiment.
    """
    found = client.get_experiment_by_name(name)
    if found is None:
        names = ", ".join(sorted(entry.name for entry in client.search_experiments())) or "none"
        raise ConfigError(f"--experiment: given {name}, the store has {names}")
    return str(found.experiment_id)


def ensure_experiment(client: "MlflowClient", name: str) -> str:
    """Id of the experiment of this name; made where it is missing, restored where it was deleted."""
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            return str(client.create_experiment(name, artifact_location(client.tracking_uri), experiment_kind()))
        except MlflowException:  # another process made it in the meantime
            found = client.get_experiment_by_name(name)
            if found is None:
                raise
    if found.lifecycle_stage == "deleted":
        client.restore_experiment(found.experiment_id)
    return str(found.experiment_id)


def experiment_kind(tags: Mapping[str, str] | None = None) -> dict[str, str]:
    """The tag by which MLflow opens an experiment on its runs, not on traces; a kind that someone chose stays."""
    chosen = (tags or {}).get(_KIND, "")
    return (
        {} if chosen and not chosen.endswith(("_inferred", "no_inferred_type")) else {_KIND: "custom_model_development"}
    )
