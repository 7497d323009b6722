"""``jqlight sync RUN_DIR``: upload to MLflow what a run could not, whether the run has ended or was killed."""

from collections.abc import Sequence
from pathlib import Path

from jqlight.cli.arguments import CommandParser
from jqlight.errors import ConfigError, JQLightError
from jqlight.tracking.journal import Journal, read_record
from jqlight.tracking.mlflow import REFUSED, reason, recorded_store, redacted, same_store, store_errors, store_uri
from jqlight.tracking.upload import Uploader


class StoreError(JQLightError, RuntimeError):
    """An MLflow store that cannot be reached or refuses what is sent."""


def main(argv: Sequence[str]) -> int:
    """Upload what is missing of each run; 0 when everything is in MLflow."""
    parser = CommandParser("sync", "Upload to MLflow what is in runs' folders and not yet there.")
    parser.add_argument("run_dir", nargs="+", type=Path, help="folder of a run (it holds run.json)")
    parser.add_argument("--store", help="MLflow tracking URI; default: the one the run was logged to")
    options = parser.parse_args(argv)
    for folder in options.run_dir:
        print(sync(folder, options.store))
    return 0


def sync(folder: Path, store: str | None = None) -> str:
    """Bring MLflow up to date with one run's folder; the sentence that says what was uploaded.

    Raises:
        ConfigError: the folder is no run's.
        StoreError: MLflow cannot be reached or refuses; what was sent so far stays.
    """
    if not read_record(folder):
        raise ConfigError(f"{folder} is no run's folder: it has no run.json")
    journal = Journal(folder)
    if not journal.inside(folder / "run.json"):
        raise ConfigError(f"{folder} is no run's folder: its run.json is a link that leads out of it")
    recorded = recorded_store(folder)
    uri = store_uri(store or recorded)
    if not same_store(uri, recorded or ""):
        journal.forget_upload()
    journal.update(tracking_uri=redacted(uri), folder=str(folder.resolve()))
    uploader = Uploader(journal, uri)
    rows = uploader.missing()
    try:
        uploader.push()
    except store_errors() as error:
        why = reason(error)
        way_out = "" if why.startswith(REFUSED) else "; start it or give another with --store"
        raise StoreError(f"MLflow at {redacted(uri)} cannot be used ({why}){way_out}; nothing is lost") from error
    return f"{folder}: {rows} metric lines uploaded, run {journal.record['run_id']} is complete in MLflow"
