"""Context managers that keep an engine from changing the process it runs in.

An engine inside the trainer's process shares its random generators, environment, thread count and terminal. vLLM
reseeds the first, adds to the second (``LD_PRELOAD``, ``LOCAL_WORLD_SIZE`` would reach every child process), replaces
``torch.set_num_threads`` by a function that does nothing, sets torch's precision of float32 products, and writes to the
last.
"""

import logging
import os
import random
import sys
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import torch


@contextmanager
def preserved_rng() -> Iterator[None]:
    """Global random states of python, numpy and torch (CPU and the current GPU) as they were, after the block."""
    devices = [torch.cuda.current_device()] if torch.cuda.is_initialized() else []
    python, legacy = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=devices):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(legacy)


@contextmanager
def preserved_environ(kept_prefix: str, temporary: Mapping[str, str]) -> Iterator[None]:
    """``os.environ`` with ``temporary`` added inside the block; afterwards as before, but for new ``kept_prefix*``."""
    before = dict(os.environ)
    os.environ.update(temporary)
    try:
        yield
    finally:
        for name in set(os.environ) - set(before):
            if name in temporary or not name.startswith(kept_prefix):
                del os.environ[name]
        os.environ.update(before)


@contextmanager
def preserved_torch_settings() -> Iterator[None]:
    """Precision of float32 products, ``torch.set_num_threads`` and number of threads as they were, after the block."""
    setter, count = torch.set_num_threads, torch.get_num_threads()
    precision = torch.get_float32_matmul_precision()
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(precision)
        torch.set_num_threads = setter
        if torch.get_num_threads() != count:
            setter(count)


@contextmanager
def quiet() -> Iterator[None]:
    """No warnings, no log records below errors and nothing on the stderr file descriptor inside the block.

    What native code wrote there is replayed if the block raises.
    """
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)  # a library that configures logging again would undo a logger's level
    sys.stderr.flush()
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as captured, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        os.dup2(captured.fileno(), 2)
        failed = True
        try:
            yield
            failed = False
        finally:
            logging.disable(disabled)
            sys.stderr.flush()
            os.dup2(stderr, 2)
            os.close(stderr)
            if failed:
                captured.seek(0)
                sys.stderr.write(captured.read().decode(errors="replace"))


@contextmanager
def intercepted(*loggers: str) -> Iterator[list[str]]:
    """Messages of warnings that these loggers record inside the block; they go nowhere else."""
    messages: list[str] = []

    def take(record: logging.LogRecord) -> bool:
        messages.append(record.getMessage())
        return False

    found = [(logger, logger.level) for logger in map(logging.getLogger, loggers)]
    for logger, _ in found:
        logger.addFilter(take)
        if not logger.isEnabledFor(logging.WARNING):
            logger.setLevel(logging.WARNING)
    try:
        yield messages
    finally:
        for logger, level in found:
            logger.removeFilter(take)
            if logger.level != level:
                logger.setLevel(level)
