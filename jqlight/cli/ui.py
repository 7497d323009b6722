"""``jqlight ui``: MLflow's pages on the store of a run, on this machine only."""

import os
import shlex
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jqlight.cli.arguments import CommandParser
from jqlight.errors import ConfigError
from jqlight.tracking.journal import read_record

HOST = "127.0.0.1"


def main(argv: Sequence[str]) -> int:
    """Start MLflow's server on the right store and print where to look; ends with Ctrl-C."""
    parser = CommandParser("ui", "Open MLflow on a run, a folder of runs, or a store.")
    parser.add_argument("run_dir", nargs="?", type=Path, default=Path("runs"), help="folder of a run, or of runs")
    parser.add_argument("--store", help="MLflow tracking URI; default: MLFLOW_TRACKING_URI, else the run's own")
    parser.add_argument("--port", type=int, default=5000)
    parser.add_argument("--print", action="store_true", dest="show", help="print the command and end")
    options = parser.parse_args(argv)
    record = read_record(options.run_dir)
    store = find_store(options.run_dir, options.store)
    if store.startswith("http"):
        print(page(store, record))
        return 0
    command = server_command(store, options.port)
    if options.show:
        print(shlex.join(command))
        return 0
    if in_use(options.port):
        raise ConfigError(
            f"--port: given {options.port}, which is in use on this machine; give another, as in "
            f"--port {options.port + 1}"
        )
    print(f"MLflow of {store}\n\n    {page(f'http://{HOST}:{options.port}', record)}\n\nCtrl-C ends it.", flush=True)
    return become(command)


def become(command: list[str]) -> int:
    """Exit code of MLflow's server, which takes this process's place, so that Ctrl-C and kill reach it."""
    environment = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true"}
    os.execve(sys.executable, [sys.executable, "-m", *command], environment)


def find_store(folder: Path, given: str | None) -> str:
    """Tracking URI: ``given``, else the environment's, else that of the run in ``folder`` or of the runs below it.

    Raises:
        ConfigError: there is none.
    """
    if given:
        return given if "://" in given else f"sqlite:///{Path(given).absolute()}"
    if os.environ.get("MLFLOW_TRACKING_URI"):
        return os.environ["MLFLOW_TRACKING_URI"]
    if recorded := read_record(folder).get("tracking_uri"):
        return str(recorded)
    for place in (folder, folder.parent):
        if (place / "mlflow.db").is_file():
            return f"sqlite:///{(place / 'mlflow.db').absolute()}"
    raise ConfigError(f"no MLflow store in {folder}; give a run's folder, or --store URI")


def server_command(store: str, port: int) -> list[str]:
    """The command that serves ``store``; its first word is MLflow's program."""
    artifacts = (Path(store.removeprefix("sqlite:///")).parent / "mlartifacts").as_uri()
    return [
        "mlflow",
        "server",
        "--backend-store-uri",
        store,
        "--default-artifact-root",
        artifacts,
        "--host",
        HOST,
        "--port",
        str(port),
        "--workers",
        "1",
    ]


def page(server: str, record: dict[str, Any]) -> str:
    """Address of the run's page, or of the list of experiments where no run is known."""
    run, experiment = record.get("run_id"), record.get("experiment_id")
    if run and experiment:
        return f"{server}/#/experiments/{experiment}/runs/{run}"
    return server


def in_use(port: int) -> bool:
    """Whether something listens on this port already."""
    with socket.socket() as probe:
        return probe.connect_ex((HOST, port)) == 0
