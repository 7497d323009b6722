"""Points on a Ray cluster: the one of ``--ray-address``, else one started on this machine.

Each point is a Ray task that holds its CPUs and GPUs and runs the point's process. The runs folder and the MLflow store
must be reachable from every node (a shared file system, an MLflow server).
"""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from jqlight.errors import ConfigError
from jqlight.sweep.launchers import Command
from jqlight.tracking.mlflow import reason

_STOP_SECONDS = 20.0
_POLL_SECONDS = 0.2
_CONNECT_SECONDS = 5.0


class RayLauncher:
    """Starts points as tasks of a Ray cluster, which queues those that do not fit yet.

    Args:
        address: of a running cluster, such as ``auto`` or ``ray://head:10001``; None starts one on this machine.
        cpus: CPU cores reserved for each point.
        gpus: GPUs reserved for each point; a fraction shares one.

    Raises:
        ConfigError: Ray is not installed, the cluster cannot be reached, or no node is large enough for a point.
    """

    def __init__(self, address: str | None, cpus: float, gpus: float) -> None:
        try:
            import ray
        except ImportError as error:
            raise ConfigError(
                '--launcher ray: Ray is not installed; run pip install "jqlight[ray]" or use --launcher local'
            ) from error
        self._ray: Any = ray
        try:
            _check_port(address)
            ray.init(address=address, log_to_driver=False)
        except (OSError, ValueError, RuntimeError) as error:
            ray.shutdown()
            raise ConfigError(
                f"--ray-address: no cluster answers at {address or 'this machine'} ({reason(error)}); "
                f"give the address of a running one, or leave it out for one on this machine"
            ) from error
        self._check_fits(cpus, gpus)
        self._task = ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=0)(run_command)

    def start(self, command: Command) -> "_RayJob":
        """Hand the point to the cluster; it starts when its CPUs and GPUs are free."""
        log = command.log.absolute()
        reference = self._task.remote(command.argv, dict(command.environment), str(log), str(Path.cwd()))
        return _RayJob(self._ray, reference, log)

    def close(self) -> None:
        """Disconnect, and end the cluster if this launcher started it."""
        self._ray.shutdown()

    def _check_fits(self, cpus: float, gpus: float) -> None:
        nodes = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        if not any(node.get("CPU", 0) >= cpus and node.get("GPU", 0) >= gpus for node in nodes):
            self._ray.shutdown()
            held = "; ".join(f"{node.get('CPU', 0):g} CPUs, {node.get('GPU', 0):g} GPUs" for node in nodes)
            raise ConfigError(f"--cpus {cpus:g} --gpus {gpus:g}: no node has that much for a point (nodes: {held})")


def _check_port(address: str | None) -> None:
    """Raise OSError when nothing listens at ``host:port``, which Ray itself takes minutes to find out."""
    host, colon, port = (address or "").removeprefix("ray://").rpartition(":")
    if colon and port.isdigit():
        socket.create_connection((host, int(port)), timeout=_CONNECT_SECONDS).close()


class _RayJob:
    def __init__(self, ray: Any, reference: Any, log: Path) -> None:
        self._ray = ray
        self._reference = reference
        self._log = log

    def poll(self) -> int | None:
        ready, _ = self._ray.wait([self._reference], timeout=0)
        if not ready:
            return None
        try:
            return int(self._ray.get(self._reference))
        except self._ray.exceptions.TaskCancelledError:
            return -signal.SIGTERM
        except self._ray.exceptions.RayError as error:  # the node or its worker was lost
            with suppress(OSError), self._log.open("a", encoding="utf-8") as log:
                log.write(f"Ray: {error}\n")
            return 1

    def stop(self) -> None:
        self._ray.cancel(self._reference)

    def kill(self) -> None:
        self._ray.cancel(self._reference, force=True)


def run_command(argv: tuple[str, ...], environment: Mapping[str, str], log: str, folder: str) -> int:
    """Exit code of ``argv`` run on this node; a cancelled task ends the process it waits for."""
    # Ray cancels by an interrupt, which a worker whose cluster was started in the background of a shell ignores.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with open(log, "ab") as output:  # noqa: PTH123 - runs on a worker, which may be another version of jqlight
        process = subprocess.Popen(
            argv,
            env={**os.environ, "PYTHONUNBUFFERED": "1", **environment},
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            # A cancelled task is interrupted between two instructions of Python, so not inside a blocking wait.
            while process.poll() is None:
                time.sleep(_POLL_SECONDS)
            return process.returncode
        finally:
            if process.poll() is None:
                process.terminate()
                with suppress(subprocess.TimeoutExpired):
                    process.wait(_STOP_SECONDS)
                process.kill()
