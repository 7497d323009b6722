"""The command line and the environment of one point."""

import os
import shlex
import sys

from jqlight.sweep.file import Point, Sweep
from jqlight.sweep.folder import PointFolder
from jqlight.sweep.launchers import Command

PROGRAM: tuple[str, ...] = (sys.executable, "-m", "jqlight")
"""What ``jqlight`` is run as: this interpreter, so that the points have this environment's packages."""


def stages(sweep: Sweep, point: Point, folder: PointFolder, *, resumes: bool) -> dict[str, tuple[str, ...]]:
    """Verb -> arguments of ``jqlight``, in the order in which ``point`` runs them.

    Args:
        sweep: the sweep of the point.
        point: the point.
        folder: its folder.
        resumes: whether ``fit`` continues from its last checkpoint.
    """
    arguments = [*sweep.fit_arguments(point), "--run_dir", str(folder.path), "--experiment_name", sweep.experiment]
    verbs = {"fit": ("fit", *arguments, *(("--ckpt_path", str(folder.checkpoint)) if resumes else ()))}
    if sweep.test:
        verbs["test"] = ("test", *arguments, "--ckpt_path", "best")
    return verbs


def shown(sweep: Sweep, point: Point, folder: PointFolder) -> list[str]:
    """The commands of ``point`` as one would type them."""
    return [shlex.join(["jqlight", *words]) for words in stages(sweep, point, folder, resumes=False).values()]


def point_command(
    words: tuple[str, ...], folder: PointFolder, tracking: dict[str, str], threads: int | None
) -> Command:
    """What a launcher runs for one stage of a point.

    Args:
        words: arguments of ``jqlight``, from :func:`stages`.
        folder: the point's.
        tracking: environment variables that connect the run with the sweep's MLflow run.
        threads: CPU threads for each point where several share this machine; None leaves the choice to it.
    """
    environment = dict(tracking)
    if threads is not None and "OMP_NUM_THREADS" not in os.environ:
        environment["OMP_NUM_THREADS"] = str(threads)
    return Command((*PROGRAM, *words), environment, folder.log)
