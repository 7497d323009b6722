"""Running a sweep's points: who is started when, who has ended how, and how all of it is stopped."""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum
from types import FrameType
from typing import Any, Protocol

from jqlight.errors import ConfigError
from jqlight.sweep.file import Point, Sweep
from jqlight.sweep.folder import PointFolder, State, SweepFolder, recorded_settings
from jqlight.sweep.launchers import Command, Job, Launcher
from jqlight.sweep.progress import Progress
from jqlight.tracking.interrupts import SIGNALS

POLL_SECONDS = 0.5
STOP_SECONDS = 30.0
"""How long stopped points may take to write their last checkpoint before they are killed."""
SILENT_SECONDS = 600.0
"""How long a point may be without a new step before that is told."""


class Status(Enum):
    """State of a point in this invocation of the sweep."""

    KEPT = "finished before"
    WAITING = "waiting"
    RUNNING = "running"
    FINISHED = "finished"
    FAILED = "failed"
    STOPPED = "stopped"


@dataclass
class Run:
    """One point in this invocation of the sweep."""

    point: Point
    folder: PointFolder
    status: Status
    resumes: bool
    """Continues from its last checkpoint."""
    stages: list[str]
    """What is still to run, the first of them now or next: ``fit``, then ``test`` where the sweep asks for it."""
    progress: Progress = field(init=False)
    max_steps: int | None = None
    """Optimizer steps of the whole run; None while unknown, 0 for no limit."""
    job: Job | None = None
    started: float = 0.0
    """When its process was started, on the monotonic clock; seconds."""
    seconds: float | None = None
    """How long its process ran."""
    exit_code: int | None = None
    problem: str | None = None
    """What kept it from being started or recorded, where that was not its own process."""
    heard: float = field(default_factory=time.monotonic)
    """When its last step came in, on the monotonic clock; seconds."""

    def __post_init__(self) -> None:
        self.progress = Progress(self.folder.metrics)
        self.progress.skip_existing()

    @property
    def silent(self) -> float:
        """Seconds since its last step; 0 where it does not run."""
        return time.monotonic() - self.heard if self.status is Status.RUNNING else 0.0

    def seconds_left(self) -> float | None:
        """Seconds until this point is done, at its own pace; None while unknown."""
        if self.status is not Status.RUNNING:
            return None
        return self.progress.seconds_left(self.max_steps)


class View(Protocol):
    """Shows the sweep's progress."""

    def changed(self, run: Run) -> None:
        """A point has started or ended."""

    def refresh(self, runs: list[Run]) -> None:
        """New figures may have come in."""


class _NoView:
    def changed(self, run: Run) -> None:
        pass

    def refresh(self, runs: list[Run]) -> None:
        pass


def prepare(sweep: Sweep, folder: SweepFolder, resume: bool) -> list[Run]:
    """The runs of a sweep: what is finished is kept, what has a checkpoint continues from it, the rest is run.

    Raises:
        ConfigError: there are points from an earlier sweep and ``resume`` is off, or they had other settings.
    """
    runs = []
    for point in sweep.points:
        point_folder = folder.point(point)
        state = point_folder.state()
        if state is not State.MISSING:
            if not resume:
                raise ConfigError(
                    f"{folder.path} holds a sweep already; --resume runs what is missing or unfinished of it, "
                    f"--name gives this one another folder"
                )
            point_folder.check(recorded_settings(sweep, point))
        stages = [stage for stage in (("fit", "test") if sweep.test else ("fit",)) if stage not in point_folder.done()]
        # Without a stage left it was ended between the last one's note and the point's.
        status = Status.KEPT if state is State.FINISHED or not stages else Status.WAITING
        runs.append(Run(point, point_folder, status, resumes=state is State.UNFINISHED, stages=stages))
    return runs


class Runner:
    """Runs points, at most ``jobs`` at a time, until all have ended or a signal asks to stop.

    Args:
        runs: from :func:`prepare`; their fields are brought up to date while they run.
        launcher: where they run.
        command: the command of a run's next stage; called just before it starts.
        jobs: how many run side by side.

    Attributes:
        stopped_by: number of the signal that ended the sweep early; None if none did.
    """

    def __init__(self, runs: list[Run], launcher: Launcher, command: Callable[[Run], Command], jobs: int) -> None:
        self._runs = runs
        self._launcher = launcher
        self._command = command
        self._jobs = jobs
        self._view: View = _NoView()
        self._wake = threading.Event()
        self._stopping = False
        self.stopped_by: int | None = None

    def run(self, view: View) -> None:
        """Run everything that waits; on SIGINT or SIGTERM stop the points in order, at a second one at once."""
        self._view = view
        with self._signals():
            try:
                while self.stopped_by is None and self._work():
                    self._wake.wait(POLL_SECONDS)
            finally:
                self._stop()

    def _work(self) -> bool:
        """Record what has ended, start what may start; False when nothing is left to do."""
        for run in self._running():
            self._collect(run, Status.FAILED)
        for run in [run for run in self._runs if run.status is Status.WAITING]:
            if len(self._running()) >= self._jobs or self.stopped_by is not None:
                break
            self._start(run)
        self._view.refresh(self._runs)
        return bool(self._running())

    def _running(self) -> list[Run]:
        return [run for run in self._runs if run.status is Status.RUNNING]

    def _start(self, run: Run) -> None:
        try:
            run.job = self._launcher.start(self._command(run))
            run.started = run.heard = time.monotonic()
            run.status = Status.RUNNING
        except OSError as error:  # a full disk: the other points may lie elsewhere or find room
            run.status, run.problem = Status.FAILED, str(error)
        self._view.changed(run)

    def _collect(self, run: Run, otherwise: Status) -> None:
        """Bring a run up to date; when its process has ended, exit code 0 is FINISHED and any other ``otherwise``."""
        assert run.job is not None
        code, step = run.job.poll(), run.progress.step
        run.progress.update()
        if run.progress.step != step:
            run.heard = time.monotonic()
        if run.max_steps is None:
            run.max_steps = run.folder.max_steps()
        if code is None:
            return
        run.exit_code, run.seconds = code, time.monotonic() - run.started
        # A process that was asked to stop may end with 0 halfway: its point is not finished.
        if code != 0 or self._stopping:
            run.status = otherwise
        else:
            try:
                if self._next_stage(run):
                    return
            except OSError as error:
                run.status, run.problem = Status.FAILED, str(error)
        self._view.changed(run)

    def _next_stage(self, run: Run) -> bool:
        """Start what comes behind a stage that ended with 0; False where that was the last, or not its end."""
        if run.stages[0] == "fit" and (status := run.folder.left_open()):
            run.status = Status.FAILED
            run.problem = f"its process ended with exit code 0, but the run in {run.folder.path} is {status}"
            return False
        run.folder.add_done(run.stages.pop(0))
        if run.stages:
            run.job = self._launcher.start(self._command(run))
            return True
        run.folder.finish(exit_code=run.exit_code, seconds=round(run.seconds or 0.0, 1), step=run.progress.step)
        run.status = Status.FINISHED
        return False

    def _stop(self) -> None:
        for run in self._running():
            self._collect(run, Status.FAILED)
        self._stopping = True
        for run in self._running():
            assert run.job is not None
            run.job.stop()
        end = time.monotonic() + STOP_SECONDS
        while self._running() and time.monotonic() < end:
            for run in self._running():
                self._collect(run, Status.STOPPED)
            self._view.refresh(self._runs)
            time.sleep(POLL_SECONDS / 5)
        for run in self._running():
            assert run.job is not None
            run.job.kill()
            run.status, run.seconds = Status.STOPPED, time.monotonic() - run.started
            self._view.changed(run)

    @contextmanager
    def _signals(self) -> Iterator[None]:
        def handle(number: int, frame: FrameType | None) -> None:
            if self.stopped_by is not None:
                for run in self._running():
                    assert run.job is not None
                    run.job.kill()
            self.stopped_by = number
            self._wake.set()

        # Under nohup the end of the terminal is ignored, and stays so.
        numbers = [number for number in SIGNALS if not _hangup_ignored(number)]
        before: dict[int, Any] = {number: signal.signal(number, handle) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def _hangup_ignored(number: int) -> bool:
    return number == getattr(signal, "SIGHUP", None) and signal.getsignal(number) is signal.SIG_IGN
