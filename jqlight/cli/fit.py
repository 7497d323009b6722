"""``jqlight fit|validate|test|predict``: Lightning's verbs, and what they print at their end."""

import signal
import sys
import traceback

from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Trainer

from jqlight import quiet
from jqlight.cli import output
from jqlight.cli.build import TRAINER_DEFAULTS, RunCLI
from jqlight.cli.cluster import requeue
from jqlight.cli.config import CommandLine
from jqlight.cli.help import help_text
from jqlight.errors import ConfigError, DataError, JQLightError
from jqlight.startup import mark
from jqlight.tracking.checkpoint_files import checkpoint_step
from jqlight.tracking.interrupts import Stopped
from jqlight.tracking.logger import RunLogger
from jqlight.tracking.run_folder import release


def main(verb: str, line: CommandLine) -> int:
    """Run ``jqlight <verb>`` and return its exit code."""
    quiet.silence_imported_libraries()
    if line.asks_help:
        print(help_text(verb, line.settings, Trainer, TRAINER_DEFAULTS))
        return 0
    mark("imports")
    try:
        cli = RunCLI(verb, line)
        mark("config")
        return run(cli)
    finally:
        release()


def run(cli: RunCLI) -> int:
    """Train or evaluate what ``cli`` has built, then print the results; 128 + n when ended by signal n.

    A fit has ended when its model is exported: until then its loggers stay open.
    """
    loggers = [logger for logger in cli.trainer.loggers if isinstance(logger, RunLogger)]
    for logger in loggers:
        logger.held = cli.verb == "fit"
    try:
        _run(cli)
    except BaseException as error:
        for logger in loggers:
            logger.finalize("failed")
        if isinstance(error, KeyboardInterrupt | SystemExit):
            return _end(cli, error)
        if isinstance(error, MisconfigurationException):
            error = ConfigError(f"trainer: {error}")
        if isinstance(error, KeyError) and "optimizer state" in str(error):  # Lightning's
            error = ConfigError(
                f"ckpt_path: {cli.run_folder.checkpoint} holds weights alone, without the optimizer's state that fit "
                "goes on from; export it and train the exported model in a new run"
            )
        if cli.run_folder.checkpoint and _while_restoring(error):
            error = ConfigError(
                f"ckpt_path: {cli.run_folder.checkpoint} does not fit this run, or is not as a run writes it "
                f"({' '.join(str(error).split())[:200] or type(error).__name__}); give another one, or begin a new run"
            )
        if isinstance(error, Exception):
            error = cli.ranks.first_failure(error)
        if not isinstance(error, ConfigError | DataError) and (way_on := output.way_on(cli.run_folder)):
            print(way_on, file=sys.stderr)
        raise error
    for logger in loggers:
        logger.held = False
        logger.finalize("success")
    cli.ranks.close()
    return 0


def _run(cli: RunCLI) -> None:
    trainer, folder = cli.trainer, cli.run_folder
    checkpoint = str(folder.checkpoint) if folder.checkpoint else None
    start = checkpoint_step(checkpoint) if checkpoint else None
    extra = {"verbose": False} if cli.verb in ("validate", "test") else {}
    outcome = getattr(trainer, cli.verb)(cli.model, datamodule=cli.datamodule, ckpt_path=checkpoint, **extra)
    if Stopped.by is not None:  # while training came to its end
        raise Stopped(128 + Stopped.by)
    if not trainer.is_global_zero:
        return
    if cli.verb == "fit":
        if end := output.early_end(trainer, start):
            print(end)
        output.leave_samples_page(trainer, folder)
        model = None
        try:
            model = output.export_best(trainer, cli.model, folder)
        finally:
            print(output.fit_report(trainer, cli.model, folder, model), flush=True)
    elif cli.verb == "predict":
        print(output.write_predictions(outcome, folder), flush=True)
    else:
        print(output.scores_report(trainer, folder), flush=True)


def _while_restoring(error: BaseException) -> bool:
    """Whether Lightning raised ``error`` while it read a checkpoint's parts, which may be anything."""
    if not isinstance(error, ArithmeticError | AttributeError | LookupError | RuntimeError | TypeError | ValueError):
        return False
    frames = traceback.extract_tb(error.__traceback__)
    return not isinstance(error, JQLightError) and any(
        frame.name.lstrip("_").startswith(("restore", "resume")) and "checkpoint_connector" in frame.filename
        for frame in frames
    )


def _end(cli: RunCLI, stop: BaseException) -> int:
    """Say how to go on, have a cluster's queue do so where it asked for the end, and give the exit code."""
    if isinstance(stop, SystemExit) and not isinstance(stop, Stopped) and not cli.trainer.interrupted:
        raise stop
    number = Stopped.by or signal.SIGINT
    launcher = cli.trainer.strategy.launcher
    if launcher is not None and hasattr(launcher, "kill"):
        launcher.kill(number)  # the run's other processes
    if cli.trainer.is_global_zero:
        print(output.interrupted(cli.run_folder), file=sys.stderr)
        if cli.verb == "fit":
            requeue(number)
    return 128 + number
