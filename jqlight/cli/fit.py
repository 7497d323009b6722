"""``jqlight fit|validate|test|predict``: Lightning's verbs, and what they print at their end."""

import signal
import sys
from collections.abc import Sequence

from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Trainer
from lightning.pytorch.utilities.exceptions import SIGTERMException

from jqlight.cli import output, quiet
from jqlight.cli.build import TRAINER_DEFAULTS, RunCLI
from jqlight.cli.config import read_command_line
from jqlight.cli.help import help_text
from jqlight.errors import ConfigError
from jqlight.startup import mark
from jqlight.tracking.checkpoints import checkpoint_step
from jqlight.tracking.run_folder import release


def main(verb: str, argv: Sequence[str]) -> int:
    """Run ``jqlight <verb>`` and return its exit code."""
    quiet.silence_imported_libraries()
    if {"-h", "--help"} & set(argv):
        print(help_text(verb, read_command_line(argv).settings, Trainer, TRAINER_DEFAULTS))
        return 0
    mark("imports")
    try:
        cli = RunCLI(verb, argv)
        mark("config")
        return run(cli)
    finally:
        release()


def run(cli: RunCLI) -> int:
    """Train or evaluate what ``cli`` has built, then print the results; 130 when interrupted, 143 when terminated."""
    trainer, folder = cli.trainer, cli.run_folder
    checkpoint = str(folder.checkpoint) if folder.checkpoint else None
    start = checkpoint_step(checkpoint) if checkpoint else None  # a damaged file is told before an engine starts
    try:
        extra = {"verbose": False} if cli.verb in ("validate", "test") else {}
        outcome = getattr(trainer, cli.verb)(cli.model, datamodule=cli.datamodule, ckpt_path=checkpoint, **extra)
    except (KeyboardInterrupt, SystemExit) as stop:
        if isinstance(stop, SystemExit) and not trainer.interrupted:
            raise
        print(output.interrupted(folder), file=sys.stderr)
        return 128 + (signal.SIGTERM if isinstance(stop, SIGTERMException) else signal.SIGINT)
    except MisconfigurationException as error:
        raise ConfigError(f"trainer: {error}") from error
    if not trainer.is_global_zero:
        return 0
    if cli.verb == "fit":
        if end := output.early_end(trainer, start):
            print(end)
        model = output.export_best(trainer, cli.model, folder)
        print(output.fit_report(trainer, cli.model, folder, model), flush=True)
    elif cli.verb == "predict":
        print(output.write_predictions(outcome, folder), flush=True)
    else:
        print(output.scores_report(trainer, folder), flush=True)
    return 0
