"""``jqlight sweep``: run every point of a sweep file, then compare them."""

import argparse
import os
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from jqlight.cli import failures
from jqlight.cli.arguments import CommandParser
from jqlight.cli.config import read_value
from jqlight.errors import ConfigError
from jqlight.sweep.command import point_command, shown, stages
from jqlight.sweep.file import Sweep, read_sweep
from jqlight.sweep.folder import SweepFolder, recorded_settings
from jqlight.sweep.launchers import Command, Launcher, LocalLauncher
from jqlight.sweep.runner import Run, Runner, Status, prepare
from jqlight.sweep.view import LiveView, PlainView, count_line, point_table, report_failures
from jqlight.tracking.mlflow import reason, store_errors

if TYPE_CHECKING:
    from jqlight.sweep.parent import ParentRun

_SIGNAL_EXIT = 128
_UNLIMITED = 1000


def main(argv: list[str]) -> int:
    """Exit code of ``jqlight sweep``: 0 when every point is finished, 1 when one failed, 128 + the signal if stopped.

    Args:
        argv: what follows ``jqlight sweep`` on the command line.

    Raises:
        ConfigError: a sweep file or an option that cannot work; nothing was started.
    """
    own, overrides = _split(argv)
    options = _parser().parse_args(own)
    if options.jobs is not None and options.jobs < 1:
        raise ConfigError(f"--jobs: given {options.jobs}, allowed is 1 or more")
    sweep = read_sweep(options.file, overrides, options.name)
    folder = SweepFolder(options.runs_dir / sweep.name)
    console = Console()
    if options.dry_run:
        _dry_run(console, sweep, folder)
        check_points(sweep)
        return 0
    if options.jobs is None:
        options.jobs = 1 if options.launcher == "local" else len(sweep.points)
    again = shlex.join(["jqlight", "sweep", *argv, *([] if options.resume else ["--resume"])])
    check_points(sweep)
    lock = folder.lock()
    try:
        return _run(console, sweep, folder, options, lock, again)
    finally:
        os.close(lock)


def _parser() -> argparse.ArgumentParser:
    parser = CommandParser("sweep", "Run every point of a sweep file as its own `jqlight fit`, then compare them.")
    parser.epilog = (
        "Any option with a dot is a setting for every point, as `jqlight fit` knows it: --trainer.max_steps 60"
    )
    parser.add_argument("file", type=Path, help="the sweep file, such as sweeps/quickstart_q.yaml")
    parser.add_argument("--dry-run", action="store_true", help="print the points and their commands, run nothing")
    parser.add_argument("--resume", action="store_true", help="run what is missing or unfinished of an earlier sweep")
    parser.add_argument("--jobs", type=int, metavar="N", help="points side by side (default: 1; on Ray: what fits)")
    parser.add_argument("--name", help="name of the sweep and its folder (default: the file's name)")
    parser.add_argument("--runs-dir", type=Path, default=Path("runs"), help="where sweeps are kept (default: runs)")
    parser.add_argument("--launcher", choices=("local", "ray"), default="local", help="where points run")
    parser.add_argument("--devices", default="", metavar="IDS", help="local: GPU ids to share out, such as 0,1,2,3")
    parser.add_argument(
        "--ray-address", metavar="ADDRESS", help="ray: a running cluster (default: one on this machine)"
    )
    parser.add_argument("--cpus", type=float, default=1, help="ray: CPU cores that each point holds (default: 1)")
    parser.add_argument("--gpus", type=float, default=0, help="ray: GPUs that each point holds (default: 0)")
    return parser


def _split(argv: Sequence[str]) -> tuple[list[str], dict[str, Any]]:
    """The sweep's own options, and the settings for every point: the options whose name has a dot."""
    own: list[str] = []
    overrides: dict[str, Any] = {}
    words = list(argv)
    while words:
        word = words.pop(0)
        option, equals, value = word.partition("=")
        if not option.startswith("--") or "." not in option:
            own.append(word)
            continue
        if not equals and not words:
            raise ConfigError(f"command line: {option} has no value; give {option} VALUE")
        overrides[option.removeprefix("--")] = read_value(value if equals else words.pop(0))
    return own, overrides


def _dry_run(console: Console, sweep: Sweep, folder: SweepFolder) -> None:
    width = console.width if console.is_terminal else None  # a pipe has no width: everything is shown there
    table, left_out = point_table(sweep, folder, width)
    (console if width else Console(file=console.file, width=_UNLIMITED)).print(table)
    if left_out:
        _say(console, f"not shown for lack of room: {', '.join(left_out)}")
    console.print(
        f"\n{len(sweep.points)} points, experiment {sweep.experiment}, folder {folder.path}\n", highlight=False
    )
    for point in sweep.points:
        for line in shown(sweep, point, folder.point(point)):
            _say(console, line)


def check_points(sweep: Sweep) -> None:
    """Check the settings of every point: that they exist and have values of their kind. About 0.2 s a point.

    What a class itself refuses (a folder that is not there, too few rollouts) is left to the point, which may run on
    another machine.

    Raises:
        ConfigError: the sentence of ``jqlight fit``, behind the point's name.
    """
    # Imported late: Lightning and all estimators take seconds to import; a mistake above is reported at once.
    from jqlight.cli.build import parse

    for point in sweep.points:
        try:
            parse(sweep.fit_arguments(point))
        except ConfigError as error:
            # The point's command line is not one that the user typed.
            sentence = str(error).replace(" on the command line", "")
            raise ConfigError(f"{sweep.path}, point {point.name}: {sentence}") from error


def _run(
    console: Console, sweep: Sweep, folder: SweepFolder, options: argparse.Namespace, lock: int, again: str
) -> int:
    # Imported late: a dry run needs no MLflow.
    from jqlight.sweep.parent import ParentRun

    runs = prepare(sweep, folder, options.resume)
    launcher = _launcher(options, lock)
    parent = ParentRun(sweep, folder)
    runner = Runner(runs, launcher, _commands(sweep, parent, options), options.jobs)
    _say(console, f"sweep {sweep.name}: {count_line(runs)}; MLflow {parent.shown_store}, experiment {sweep.experiment}")
    try:
        with _view(console, runs, options.jobs) as view:
            runner.run(view)
    finally:
        launcher.close()
        parent.close(runs)
    report_failures(console, runs)
    _say(console, f"sweep {sweep.name}: {count_line(runs)}")
    if any(run.status not in (Status.FINISHED, Status.KEPT) for run in runs):
        _say(console, f"to run what is missing: {again}")
    if any(run.status in (Status.FINISHED, Status.KEPT) for run in runs):
        try:
            _compare(console, parent, folder)
        except OSError as error:
            _say(console, f"no comparison: {failures.sentence(error)}")
    _say_where(console, parent, folder)
    if runner.stopped_by is not None:
        return _SIGNAL_EXIT + runner.stopped_by
    return int(any(run.status is Status.FAILED for run in runs))


def _commands(sweep: Sweep, parent: "ParentRun", options: argparse.Namespace) -> Callable[[Run], Command]:
    """What starts a run: notes its settings in its folder and returns its command."""
    from jqlight.machine import usable_cores  # imports torch

    # Points that share a machine and each take all of its cores wait for each other.
    threads = max(1, usable_cores() // options.jobs) if options.launcher == "local" and options.jobs > 1 else None

    def command(run: Run) -> Command:
        run.folder.begin(recorded_settings(sweep, run.point))
        words = stages(sweep, run.point, run.folder, resumes=run.resumes)[run.stages[0]]
        return point_command(words, run.folder, parent.environment(), threads)

    return command


def _compare(console: Console, parent: "ParentRun", folder: SweepFolder) -> None:
    """Show how the points compare; what can go wrong here is not the sweep's failure."""
    from jqlight.cli.compare import log_report, present
    from jqlight.report.html import read_report
    from jqlight.report.runs import get_run
    from jqlight.tracking.mlflow import open_store

    client = open_store(parent.store)
    try:
        report = read_report(client, parent.store, parents=[get_run(client, parent.run_id)])
    except ConfigError as error:
        _say(console, f"no comparison: {error}")
        return
    except store_errors() as error:
        _say(console, f"no comparison: MLflow at {parent.shown_store} cannot be read ({reason(error)})")
        return
    present(console, report, folder.path / "comparison")
    log_report(client, report, parent.run_id, folder.path / "comparison")


def _say_where(console: Console, parent: "ParentRun", folder: SweepFolder) -> None:
    from jqlight.cli.ui import addresses

    if view := parent.leave_view():
        _say(console, "\n".join(["", *addresses(parent.store, view, folder.path)]))


def _launcher(options: argparse.Namespace, lock: int) -> Launcher:
    if options.launcher == "local":
        return LocalLauncher(lock, tuple(device for device in options.devices.split(",") if device))
    from jqlight.sweep.ray_launcher import RayLauncher

    return RayLauncher(options.ray_address, options.cpus, options.gpus)


def _view(console: Console, runs: list[Run], jobs: int) -> LiveView | PlainView:
    return LiveView(console, runs, jobs) if console.is_terminal else PlainView(console, runs)


def _say(console: Console, text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)
