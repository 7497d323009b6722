"""Signals that end a run: after the step or validation batch in hand while it trains, at once otherwise."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any, ClassVar

SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1") if hasattr(signal, name)]
"""What ends a run; SIGHUP comes from a terminal that closes, SIGUSR1 from a queue whose time is nearly up."""
# Terminals and launchers often send one signal twice at once, to the process and to its group.
_SECOND_AFTER_S = 0.3


class Stopped(SystemExit):
    """A signal has ended the run; ``code`` is 128 and the signal's number.

    Attributes:
        by: the signal that was sent, for the whole process; None while none was.
        waits: whether the run ends at the next step or batch instead of at once.
    """

    by: ClassVar[int | None] = None
    waits: ClassVar[bool] = False
    since: ClassVar[float] = 0.0


def received(number: int, frame: FrameType | None) -> None:
    """Handler of :data:`SIGNALS`."""
    now = time.monotonic()
    if Stopped.by is not None:
        if now - Stopped.since >= _SECOND_AFTER_S:
            os._exit(128 + number)
        return
    Stopped.by, Stopped.since = number, now
    if not Stopped.waits:
        raise Stopped(128 + number)


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """A block that the first signal ends with :class:`Stopped` and a second one with the process."""
    before: dict[int, Any] = {}
    Stopped.by, Stopped.waits = None, False
    try:
        for number in SIGNALS:
            # What nohup or a shell ignores stays ignored; a thread that is not the main one can set nothing.
            if signal.getsignal(number) != signal.SIG_IGN:
                with suppress(ValueError):
                    before[number] = signal.signal(number, received)
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        Stopped.by, Stopped.waits = None, False
