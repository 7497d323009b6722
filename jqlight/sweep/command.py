"""The command line and the environment of one point."""

import os
import shlex
import sys

from jqlight.sweep.file import Point, Sweep
from jqlight.sweep.folder import PointFolder
from jqlight.sweep.launchers import Command

PROGRAM: tuple[str, ...] = (sys.executable, "-m", "jqlight")
"""What ``jqlight`` is run as: this interpreter, so that the points have this environment's packages."""


def fit_command(sweep: Sweep, point: Point, folder: PointFolder, *, resumes: bool) -> tuple[str, ...]:
    """Arguments that run ``point`` in ``folder``, from its last checkpoint if it ``resumes``."""
    arguments = ["fit", *sweep.fit_arguments(point), "--run_dir", str(folder.path)]
    if resumes:
        arguments += ["--ckpt_path", str(folder.checkpoint)]
    return (*PROGRAM, *arguments)


def shown(sweep: Sweep, point: Point, folder: PointFolder) -> str:
    """The command of ``point`` as one would type it."""
    arguments = fit_command(sweep, point, folder, resumes=False)[len(PROGRAM) :]
    return shlex.join(["jqlight", *arguments])


def point_command(
    sweep: Sweep, point: Point, folder: PointFolder, *, resumes: bool, tracking: dict[str, str], threads: int | None
) -> Command:
    """What a launcher runs for ``point``.

    Args:
        sweep: that it belongs to.
        point: the point.
        folder: its folder.
        resumes: whether it goes on from its last checkpoint.
        tracking: environment variables that connect the run with the sweep's MLflow run.
        threads: CPU threads for each point where several share this machine; None leaves the choice to it.
    """
    environment = dict(tracking)
    if threads is not None and "OMP_NUM_THREADS" not in os.environ:
        environment["OMP_NUM_THREADS"] = str(threads)
    return Command(fit_command(sweep, point, folder, resumes=resumes), environment, folder.log)
