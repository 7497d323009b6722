"""Runs of several processes: one sentence and one exit code when a rank fails, and nobody left waiting for it."""

import json
import os
import sys
import threading
import time
import traceback
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from jqlight.cli import failures
from jqlight.errors import ConfigError, EngineError

_KEY = "jqlight/failed"
_POLL_S = 0.5
_WORD_S = 2.0
"""How long a rank whose collective broke waits for the word of the one that failed."""
_KILLED = "another process of the run has ended without a word (killed, or out of memory)"
_GRACE_S = 8.0
"""How long a rank may take to notice by itself that another has failed, which a broken connection tells at once."""


class RankWatch(Callback):
    """Keeps, of a run on several ranks, who failed first and why, and ends the others.

    The sentence lies in the store by which the processes found each other, outside of the collectives, which a failed
    rank never joins. Rank 0 tells it; a rank that waits in a collective is ended by a thread of its own.

    Args:
        verb: of ``jqlight``.
    """

    def __init__(self, verb: str) -> None:
        self._verb = verb
        self._trainer: Trainer | None = None
        self._store: Any = None
        self._ended = threading.Event()

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Begin to watch, where there is something to be watched."""
        if trainer.world_size == 1 or self._store is not None:
            return
        self._trainer = trainer
        # Torch has no public name for it.
        self._store = torch.distributed.distributed_c10d._get_default_store().clone()  # type: ignore[attr-defined]
        for thread in threading.enumerate():
            if thread.name == "child-process-observer":  # Lightning's kills this process without a word
                thread._terminate_all = lambda: None  # type: ignore[attr-defined]  # its own class is not public
        threading.Thread(target=self._watch, args=(trainer,), daemon=True, name="ranks").start()

    def first_failure(self, error: Exception) -> Exception:
        """What ended the run: ``error``, or what another rank had failed with before; on other ranks than 0 no return.

        Their sentence is told by rank 0 and their process ends here.
        """
        if self._trainer is None:
            return error
        self._ended.set()
        try:
            rank, code, sentence = self._word(self._trainer.global_rank, error)
        except torch.distributed.DistError:  # whoever kept the store is gone
            rank, code, sentence = 0, 1, "has ended without a word"
            print(f"jqlight {self._verb}: rank {self._trainer.global_rank} ended, rank 0 is gone", file=sys.stderr)
        if self._trainer.global_rank:
            if os.environ.get("JQLIGHT_DEBUG"):
                traceback.print_exception(error)
            _leave(code)
        _end_children(self._trainer)
        if rank == 0:
            return error
        return (ConfigError if code == failures.USAGE_EXIT else EngineError)(_told(rank, sentence))

    def close(self) -> None:
        """End the process group of a run that has come to its end, on all ranks together."""
        self._ended.set()
        if self._trainer is not None:
            self._trainer.strategy.barrier()
            torch.distributed.destroy_process_group()

    def _word(self, rank: int, error: Exception) -> tuple[int | None, int, str]:
        """Rank, exit code and sentence of the first failure; this rank's where there was none before."""
        if _is_broken_connection(error):
            end = time.monotonic() + _WORD_S
            while not self._store.check([_KEY]) and time.monotonic() < end:
                time.sleep(_POLL_S / 5)
            own = [None, 1, _KILLED]
        else:
            own = [rank, *failures.described(error)]
        found, code, sentence = json.loads(self._store.compare_set(_KEY, "", json.dumps(own)))
        return found, code, sentence

    def _watch(self, trainer: Trainer) -> None:
        while not self._ended.wait(_POLL_S):
            try:
                failed = self._store.check([_KEY])
            except torch.distributed.DistError:
                failed = True
            if not (failed or _dead(trainer)):
                continue
            if self._ended.wait(_GRACE_S):
                return
            code = 1
            if trainer.global_rank == 0:
                rank, code, sentence = json.loads(self._store.get(_KEY)) if failed else (None, 1, _KILLED)
                print(f"jqlight {self._verb}: {_told(rank, sentence)}", file=sys.stderr)
                for logger in trainer.loggers:
                    logger.finalize("failed")
                _end_children(trainer)
            _leave(code)


def _told(rank: int | None, sentence: str) -> str:
    return sentence if rank is None else f"rank {rank}: {sentence}"


def _is_broken_connection(error: Exception) -> bool:
    return isinstance(error, torch.distributed.DistError) or (isinstance(error, RuntimeError) and "gloo" in str(error))


def _dead(trainer: Trainer) -> bool:
    """Whether a process that this one started has failed."""
    return any(process.poll() for process in _children(trainer))


def _children(trainer: Trainer) -> list[Any]:
    return list(getattr(trainer.strategy.launcher, "procs", []))


def _end_children(trainer: Trainer) -> None:
    """They hold nothing that is not saved; those that have their own failure to end by get a moment."""
    end = time.monotonic() + 1
    for process in _children(trainer):
        while process.poll() is None and time.monotonic() < end:
            time.sleep(_POLL_S / 5)
        process.kill()


def _leave(code: int) -> None:
    """End this process now: at a usual end threads of the process group would wait for ranks that are gone."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
