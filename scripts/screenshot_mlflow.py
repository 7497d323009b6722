"""Pictures of what MLflow's pages show of a sweep, table and charts, with headless Chromium.

    python scripts/screenshot_mlflow.py --sweep runs/quickstart_q --out docs/images/mlflow

Starts an MLflow server on the sweep's store, opens the addresses that `jqlight sweep` prints, as a browser does, and
stops the server again. Writes OUT_table.png and OUT_charts.png.
"""

import argparse
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from jqlight.cli.ui import find_store
from jqlight.files import read_json
from jqlight.tracking.mlflow import open_store
from jqlight.tracking.views import charts, leave_view

SERVER_SECONDS = 120
PAGE_MILLISECONDS = 60_000
"""Time that the page believes to have passed before the picture is taken."""
FLAGS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    # A mouse, without which charts show their toolbars all the time.
    "--blink-settings=primaryHoverType=2,availableHoverTypes=2,primaryPointerType=4,availablePointerTypes=4",
]


@contextmanager
def serve(store: str, artifacts: Path) -> Iterator[str]:
    """URL of an MLflow server on ``store`` that runs inside the ``with`` block."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", store, "--workers", "1"]
    command += ["--artifacts-destination", str(artifacts), "--host", "127.0.0.1", "--port", str(port)]
    environment = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with tempfile.TemporaryFile() as output:
        server = subprocess.Popen(
            command, env=environment, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            url = f"http://127.0.0.1:{port}"
            _wait(server, url, output)
            yield url
        finally:
            stop(server)


def stop(server: "subprocess.Popen[bytes]") -> None:
    """End a server and its workers."""
    if server.poll() is None:
        os.killpg(server.pid, 15)
        try:
            server.wait(15)
        except subprocess.TimeoutExpired:
            os.killpg(server.pid, 9)
            server.wait()


def open_page(address: str, *, picture: Path | None = None, size: str = "1900,1200") -> str:
    """The page's HTML as the browser ends up with it; also saves a picture of it."""
    browser = find_chromium()
    if browser is None:
        raise SystemExit("no Chromium found; install it (Debian: apt-get install chromium)")
    what = f"--screenshot={picture.absolute()}" if picture else "--dump-dom"
    with tempfile.TemporaryDirectory() as profile:
        command = [browser, *FLAGS, f"--user-data-dir={profile}", f"--window-size={size}"]
        command += [f"--virtual-time-budget={PAGE_MILLISECONDS}", what, address]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return done.stdout


def find_chromium() -> str | None:
    """Path of a Chromium or Chrome; None if there is none."""
    return next(
        (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
    )


def main() -> None:
    """Take the picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sweep", type=Path, required=True, help="folder of the sweep")
    parser.add_argument("--out", type=Path, required=True, help="path of the pictures without _table.png, _charts.png")
    options = parser.parse_args()
    store = find_store(options.sweep, None)
    parent = read_json(options.sweep / "sweep.json")["parent_run_id"]
    view = leave_view(open_store(store, must_exist=True), parent)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    with serve(store, options.sweep.parent / "mlartifacts") as url:
        for name, page, size in (("table", view, "1800,620"), ("charts", charts(view), "1600,1040")):
            open_page(f"{url}/{page}", picture=options.out.with_name(f"{options.out.name}_{name}.png"), size=size)


def _wait(server: "subprocess.Popen[bytes]", url: str, output: object) -> None:
    end = time.monotonic() + SERVER_SECONDS
    while time.monotonic() < end and server.poll() is None:
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=2):
                return
        except OSError:
            time.sleep(0.3)
    output.seek(0)
    raise SystemExit(f"the MLflow server did not start:\n{output.read().decode(errors='replace')[-2000:]}")


if __name__ == "__main__":
    main()
