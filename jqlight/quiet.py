"""Switches off the notices of libraries that say nothing about the user's run: all in the command, some in a script."""

import logging
import os
import sys
import tempfile
import warnings
from pathlib import Path
from typing import TextIO

from jqlight.files import can_write

_ENVIRONMENT = {
    "VLLM_LOGGING_LEVEL": "ERROR",
    "TORCH_CPP_LOG_LEVEL": "ERROR",
    "TRANSFORMERS_VERBOSITY": "error",
    "TOKENIZERS_PARALLELISM": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
}

_WARNINGS = (
    # Lightning, about settings that are right here: loaders are sharded and shuffled by the benchmarks themselves.
    r"The '?\w+'? ?(dataloader)? ?does not have many workers",
    r"Starting from v1\.9\.0",
    r"Checkpoint directory .* exists and is not empty",
    r"Trying to infer the `batch_size`",
    r"`isinstance\(treespec, LeafSpec\)` is deprecated",
    r".*`LightningCLI`'s args parameter is intended",
    r"LightningCLI's args parameter is intended",
    r"The number of training batches \(\d+\) is smaller than the logging interval",
    r"You are trying to `self\.log\(\)` but the `self\.trainer` reference",
    r"Found \d+ module\(s\) in eval mode",
    # An embedded engine starts torch.distributed with one process; between several the evaluator itself is in step.
    r"It is recommended to use `self\.log\(.*sync_dist=True",
    r"Be aware that when using `ckpt_path`, callbacks used to create the checkpoint",
)


# Folders in which libraries keep what they can make again; each complains where it cannot write.
_CACHES = ("MPLCONFIGDIR", "VLLM_CACHE_ROOT", "VLLM_CONFIG_ROOT", "TRITON_HOME")


class _Stderr(logging.StreamHandler[TextIO]):
    """Writes to what ``sys.stderr`` is at that moment, not to what it was when this was made."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> TextIO:  # type: ignore[override]  # an attribute there
        return sys.stderr


def silence_advice() -> None:
    """Leave out of a script's output what libraries say that is wrong here or advertises; all else stays as it is.

    ``JQLIGHT_DEBUG=1`` leaves that too.
    """
    if os.environ.get("JQLIGHT_DEBUG"):
        return
    _silence_known_notices()
    _silence_bars()
    logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(lambda line: "Tip:" not in str(line.msg))


def silence_libraries() -> None:
    """Silence the notices of libraries, before they are imported; ``JQLIGHT_DEBUG=1`` leaves them as they are."""
    if os.environ.get("JQLIGHT_DEBUG"):
        return
    _silence_known_notices()
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    logging.getLogger("vllm").setLevel(logging.ERROR)  # used where VLLM_CONFIGURE_LOGGING=0
    logging.getLogger("urllib3").setLevel(logging.ERROR)  # "Retrying ..." of a store that does not answer
    log = logging.getLogger("jqlight")
    if not log.handlers:
        handler = _Stderr()
        handler.setFormatter(logging.Formatter("jqlight: %(message)s"))
        log.addHandler(handler)
        log.propagate = False


def use_writable_caches() -> None:
    """Send the caches of libraries to temporary files where the user's home cannot be written, before their import.

    What the user has set stays, and so does a home's cache that is there to be read: it may hold downloaded models.
    """
    home = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    if can_write(home):
        return
    folder = Path(tempfile.gettempdir()) / f"jqlight-{os.getuid()}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        if folder.stat().st_uid != os.getuid():  # anyone can make one of that name
            folder = Path(tempfile.mkdtemp(prefix="jqlight-"))
    except OSError:
        return
    for name in (*_CACHES, *([] if home.exists() else ["XDG_CACHE_HOME"])):
        os.environ.setdefault(name, str(folder))


def silence_imported_libraries() -> None:
    """Silence what sets its own level when it is imported, and transformers' bars (downloads keep theirs)."""
    if os.environ.get("JQLIGHT_DEBUG"):
        return
    _silence_bars()
    for name in ("lightning", "lightning.pytorch", "lightning.fabric", "lightning_fabric", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)


def _silence_known_notices() -> None:
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    for pattern in _WARNINGS:
        warnings.filterwarnings("ignore", message=pattern)


def _silence_bars() -> None:
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
