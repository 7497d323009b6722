"""``jqlight ui``: MLflow's pages on the store of a run, on this machine only unless told otherwise."""

import os
import re
import shlex
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jqlight.cli.arguments import CommandParser
from jqlight.cli.sync import sync
from jqlight.errors import ConfigError
from jqlight.files import read_json
from jqlight.tracking.journal import read_record
from jqlight.tracking.mlflow import (
    STORE_VARIABLE,
    NoStoreError,
    artifact_location,
    moved_store,
    open_store,
    recorded_store,
    redacted,
    sqlite_path,
    store_uri,
)
from jqlight.tracking.views import charts, try_view

HOST, PORT = "127.0.0.1", 5000
_TIMEOUT_S = 5
_PAGES_VARIABLE = "JQLIGHT_MLFLOW_PAGES"
"""Environment variable: where browsers find the server, which has a name of its own among containers."""


def main(argv: Sequence[str]) -> int:
    """Start MLflow's server on the right store and print where to look; ends with Ctrl-C."""
    parser = CommandParser("ui", "Open MLflow on a run, a folder of runs, or a store.")
    parser.add_argument("run_dir", nargs="?", type=Path, default=Path("runs"), help="folder of a run, or of runs")
    parser.add_argument("--store", help="MLflow tracking URI; default: MLFLOW_TRACKING_URI, else the run's own")
    parser.add_argument("--host", default=HOST, help="default 127.0.0.1; in a container 0.0.0.0")
    parser.add_argument("--port", type=int, default=PORT)
    parser.add_argument("--print", action="store_true", dest="show", help="print the command and end")
    options = parser.parse_args(argv)
    record = read_record(options.run_dir)
    store = find_store(options.run_dir, options.store)
    if store.startswith("http"):
        _print_pages(store, record, _view(store, options.run_dir, record))
        return 0
    file = sqlite_path(store)
    if record and file and not file.exists():  # the folder was moved without its store
        print(sync(options.run_dir, store))
        record = read_record(options.run_dir)
    if options.show:
        print(shlex.join(server_command(redacted(store), options.port, options.host)))
        return 0
    if in_use(options.port):
        raise ConfigError(
            f"--port: given {options.port}, which is in use on this machine; give another, as in "
            f"--port {options.port + 1}"
        )
    print(f"MLflow of {redacted(store)}\n")
    _print_pages(f"http://{HOST}:{options.port}", record, _view(store, options.run_dir, record))
    print("\nCtrl-C ends it.", flush=True)
    return exec_server(server_command(store, options.port, options.host, hidden=True), store)


def exec_server(command: list[str], store: str) -> int:
    """Exit code of MLflow's server, which replaces this process, so that Ctrl-C and kill reach it.

    The store goes through the environment: a command line, with the password in it, is for everyone to see.
    """
    # Processes in which MLflow's judges of chats would run take a start of many seconds, and memory.
    environment = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", **os.environ}
    environment |= {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_BACKEND_STORE_URI": store}
    os.execve(sys.executable, [sys.executable, "-m", *command], environment)


def find_store(folder: Path, given: str | None) -> str:
    """Tracking URI: ``given``, else the environment's, else that of the run in ``folder`` or of the runs below it.

    Raises:
        ConfigError: there is none.
    """
    recorded = recorded_store(folder) or moved_store(_noted(folder).get("store"), folder)
    if not (given or recorded or os.environ.get(STORE_VARIABLE)):
        found = [parent for parent in (folder, folder.parent) if (parent / "mlflow.db").is_file()]
        if not found:
            raise ConfigError(f"no MLflow store in {folder}; give a run's folder, or --store URI")
        return store_uri(runs=found[0])
    return store_uri(given, recorded=recorded)


def server_command(store: str, port: int, host: str = HOST, *, hidden: bool = False) -> list[str]:
    """The command that serves ``store``, or with ``hidden`` the environment's; its first word is MLflow's program."""
    command = ["mlflow", "server", *([] if hidden else ["--backend-store-uri", store])]
    if artifacts := artifact_location(store):
        command += ["--default-artifact-root", artifacts]
    return [*command, "--host", host, "--port", str(port), "--workers", "1"]


def page(server: str, record: dict[str, Any]) -> str:
    """Address of the run's page, or of the list of experiments where no run is known."""
    run, experiment = record.get("run_id"), record.get("experiment_id")
    if run and experiment:
        return f"{_shown(server)}/#/experiments/{experiment}/runs/{run}"
    return _shown(server)


def addresses(store: str, view: str, folder: Path | None = None) -> list[str]:
    """Lines that say where a view's table and charts are, from :func:`jqlight.tracking.views.leave_view`.

    Args:
        store: URI of a server, or of a store that has none yet.
        view: from ``#`` on.
        folder: of the runs, for the command that starts a server.
    """
    served = store.startswith("http")
    server = _shown(store) if served else f"http://{HOST}:{PORT}"
    first = [] if served else [f"MLflow   jqlight ui {folder}"]
    return [*first, f"table    {server}/{view}", f"charts   {server}/{charts(view)}"]


def _print_pages(server: str, record: dict[str, Any], view: str | None) -> None:
    """Where to look: at the run, where it is one, and at the view of all that belong together."""
    if record or not view:
        print(page(server, record))
    if view:
        print("\n".join(addresses(server, view)))


def _view(store: str, folder: Path, record: dict[str, Any]) -> str | None:
    """The view of the sweep in this folder, of the run's experiment, or of what was started last."""
    run = record.get("run_id") or _noted(folder).get("parent_run_id")
    try:
        client = open_store(store, timeout=_TIMEOUT_S, must_exist=True)
    except NoStoreError:  # MLflow's server makes it, or says why not
        return None
    return try_view(client, run)


def _noted(folder: Path) -> dict[str, Any]:
    """What a sweep has noted about itself in its folder."""
    noted = read_json(folder / "sweep.json")
    return noted if isinstance(noted, dict) else {}


def _shown(server: str) -> str:
    """A server's address for a browser, which asks for name and password itself."""
    return re.sub("//[^/@]*@", "//", os.environ.get(_PAGES_VARIABLE) or server)


def in_use(port: int) -> bool:
    """Whether something listens on this port already."""
    with socket.socket() as probe:
        return probe.connect_ex((HOST, port)) == 0
