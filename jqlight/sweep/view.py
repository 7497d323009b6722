"""What a running sweep shows: a live table on a terminal, a line per event elsewhere, and its closing report."""

from collections import Counter
from statistics import fmean
from types import TracebackType

from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from jqlight.names import format_value
from jqlight.sweep.file import Sweep
from jqlight.sweep.folder import SweepFolder
from jqlight.sweep.runner import SILENT_SECONDS, Run, Status

_STYLES = {Status.RUNNING: "bold cyan", Status.FAILED: "bold red", Status.STOPPED: "yellow", Status.FINISHED: "green"}
_LOG_LINES = 12
_GAP = 2
_SHORTEST_NAME = 12


class PlainView:
    """One line when a point starts, ends or has been validated: for logs and pipes."""

    def __init__(self, console: Console, runs: list[Run]) -> None:
        self._console = console
        self._total = len(runs)
        self._ended = sum(run.status is Status.KEPT for run in runs)
        self._majority: dict[str, float] = {}
        self._silent: set[str] = set()

    def __enter__(self) -> "PlainView":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def changed(self, run: Run) -> None:
        """Say that a point has started or ended."""
        if run.status is Status.RUNNING:
            done = f", from step {run.progress.step}" if run.resumes else ""
            self._say(run, f"started{done}; log: {run.folder.log}")
            return
        self._ended += 1
        facts = ", ".join(text for text in (_figures(run), duration(run.seconds), self._exit(run)) if text)
        self._say(run, f"{run.status.value} ({self._ended} of {self._total}): {facts}")

    def refresh(self, runs: list[Run]) -> None:
        """Say what a validation that came in has found, and who has not been heard of for long."""
        for run in runs:
            if run.silent < SILENT_SECONDS:
                self._silent.discard(run.point.name)
            elif run.point.name not in self._silent:
                self._silent.add(run.point.name)
                self._say(run, f"no new step for {run.silent / 60:.0f} minutes; log: {run.folder.log}")
            found = run.progress.majority
            if run.status is Status.RUNNING and found is not None and self._majority.get(run.point.name) != found:
                self._majority[run.point.name] = found
                self._say(run, _figures(run))

    def _exit(self, run: Run) -> str:
        return (run.problem or f"exit code {run.exit_code}") if run.status is Status.FAILED else ""

    def _say(self, run: Run, text: str) -> None:
        self._console.print(f"{run.point.name}: {text}", markup=False, highlight=False, soft_wrap=True)


class LiveView:
    """A table of all points, redrawn in place."""

    def __init__(self, console: Console, runs: list[Run], jobs: int) -> None:
        self._runs = runs
        self._jobs = jobs
        self._console = console
        self._live = Live(console=console, auto_refresh=False)

    def __enter__(self) -> "LiveView":
        self._live.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.refresh(self._runs)
        self._live.__exit__(kind, error, trace)

    def changed(self, run: Run) -> None:
        """Redraw."""
        self.refresh(self._runs)

    def refresh(self, runs: list[Run]) -> None:
        """Redraw."""
        width, height = self._console.size
        table = progress_table(runs, max(4, height - 6), width)
        self._live.update(Group(table, _closing_line(runs, self._jobs)), refresh=True)


def progress_table(runs: list[Run], rows: int, width: int) -> Table:
    """Table of the points' progress; when there are more than ``rows``, those that run or failed come first.

    Names of points that leave no room for the figures in ``width`` characters are shortened in the middle.
    """
    shown = runs
    if len(runs) > rows:
        urgent = [run for run in runs if run.status in (Status.RUNNING, Status.FAILED, Status.STOPPED)]
        others = [run for run in runs if run not in urgent]
        chosen = [*urgent, *others][:rows]
        shown = [run for run in runs if run in chosen]
    table = Table(box=None, pad_edge=False, header_style="bold")
    headings = ("state", "step", "success", "maj@k", "time left")
    table.add_column("point", no_wrap=True)
    for heading in headings:
        table.add_column(heading, justify="left" if heading == "state" else "right", no_wrap=True)
    cells = [_cells(run) for run in shown]
    taken = sum(_GAP + max(map(len, column)) for column in zip(headings, *cells))
    for run, (status, *figures) in zip(shown, cells):
        name = escape(shortened(run.point.name, max(_SHORTEST_NAME, width - taken)))
        table.add_row(name, Text(status, style=_STYLES.get(run.status, "dim")), *figures)
    return table


def _cells(run: Run) -> list[str]:
    of = f"/{run.max_steps}" if run.max_steps else ""
    silent = run.silent >= SILENT_SECONDS
    return [
        f"no step for {run.silent / 60:.0f} min" if silent else run.status.value,
        f"{run.progress.step}{of}" if run.progress.step else "",
        _number(run.progress.success, ".2g"),
        _number(run.progress.majority, ".3f"),
        duration(run.seconds_left()),
    ]


def shortened(name: str, width: int) -> str:
    """``name`` in at most ``width`` characters: its middle left out, since begin and end differ most between points."""
    if len(name) <= width:
        return name
    end = (width - 1) // 2
    return f"{name[: width - 1 - end]}…{name[len(name) - end :]}"


def point_table(sweep: Sweep, folder: SweepFolder, width: int | None = None) -> tuple[Table, list[str]]:
    """Table of a sweep's points with the state of their folders and their settings, and the settings left out.

    Args:
        sweep: the sweep.
        folder: its folder.
        width: of the terminal in characters, None for no limit. Settings that do not fit are left out, since the names
            of points have them too.
    """
    named = {key.removeprefix("model.").removeprefix("data."): key for key in sweep.axes()}
    columns = {
        "": [str(number) for number, _ in enumerate(sweep.points, 1)],
        "point": [point.name for point in sweep.points],
        "state": [folder.point(point).state().value for point in sweep.points],
        **{
            heading: [format_value(point.settings[key]) if key in point.settings else "–" for point in sweep.points]
            for heading, key in named.items()
        },
    }
    table = Table(box=None, pad_edge=False, header_style="bold")
    left, kept = width, []
    for heading, cells in columns.items():
        size = max(len(cell) for cell in [heading, *cells]) + _GAP
        if heading in named and left is not None and size - _GAP > left:
            continue
        left = None if left is None else left - size
        # A name too long for the terminal is wrapped: cutting it would make two points look the same.
        table.add_column(heading, overflow="fold")
        kept.append(heading)
    for row in zip(*(columns[heading] for heading in kept)):
        table.add_row(*map(escape, row))
    return table, [heading for heading in named if heading not in kept]


def report_failures(console: Console, runs: list[Run]) -> None:
    """Print the last lines that each failed point printed."""
    for run in runs:
        if run.status is not Status.FAILED:
            continue
        if run.problem:
            console.print(f"\n{run.point.name} failed: {run.problem}", markup=False, soft_wrap=True)
            continue
        how = f"exit code {run.exit_code}" if (run.exit_code or 0) >= 0 else f"ended by signal {-(run.exit_code or 0)}"
        console.print(f"\n{run.point.name} failed ({how}); the end of {run.folder.log}:", markup=False, soft_wrap=True)
        for line in run.folder.tail(_LOG_LINES) or ["(nothing printed)"]:
            console.print(f"  | {line}", markup=False, highlight=False, soft_wrap=True)


def duration(seconds: float | None) -> str:
    """``1:02:03`` or ``2:03`` for a number of seconds; empty for None."""
    if seconds is None:
        return ""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def count_line(runs: list[Run]) -> str:
    """How many points are in which state, such as ``3 finished, 1 failed``."""
    counts = Counter(run.status for run in runs)
    return ", ".join(f"{counts[status]} {status.value}" for status in Status if counts[status])


def _closing_line(runs: list[Run], jobs: int) -> Text:
    left = _sweep_seconds_left(runs, jobs)
    return Text(count_line(runs) + (f"; about {duration(left)} left" if left is not None else ""), style="dim")


def _sweep_seconds_left(runs: list[Run], jobs: int) -> float | None:
    """Seconds until the last point is done, from the pace of those that ended and those that run; None if unknown.

    None as well when nothing runs: the sweep has ended or was stopped.
    """
    running = [run for run in runs if run.status is Status.RUNNING]
    left = [seconds for run in running if (seconds := run.seconds_left()) is not None]
    waiting = sum(run.status is Status.WAITING for run in runs)
    lengths = [run.seconds for run in runs if run.status is Status.FINISHED and run.seconds is not None]
    if not running or len(left) < len(running) or (waiting and not lengths):
        return None
    total = sum(left) + (waiting * fmean(lengths) if waiting else 0)
    return max(total / max(1, min(jobs, len(running) + waiting)), *left)


def _figures(run: Run) -> str:
    parts = [
        f"step {run.progress.step}",
        f"success {run.progress.success:.2g}" if run.progress.success is not None else "",
        f"maj@k {run.progress.majority:.3f}" if run.progress.majority is not None else "",
    ]
    return ", ".join(part for part in parts if part)


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)
