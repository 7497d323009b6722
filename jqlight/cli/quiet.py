"""A clean screen: switches off the notices of libraries that say nothing about the user's run."""

import logging
import os
import sys
import warnings
from typing import TextIO

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


class _Stderr(logging.StreamHandler[TextIO]):
    """Writes to what ``sys.stderr`` is at that moment, not to what it was when this was made."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> TextIO:  # type: ignore[override]
        return sys.stderr


def silence_libraries() -> None:
    """Silence the notices of libraries, before they are imported; ``JQLIGHT_DEBUG=1`` leaves them as they are."""
    if os.environ.get("JQLIGHT_DEBUG"):
        return
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    for pattern in _WARNINGS:
        warnings.filterwarnings("ignore", message=pattern)
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


def silence_imported_libraries() -> None:
    """Silence what sets its own level when it is imported, and transformers' bars (downloads keep theirs)."""
    if os.environ.get("JQLIGHT_DEBUG"):
        return
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    for name in ("lightning", "lightning.pytorch", "lightning.fabric", "lightning_fabric", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)
