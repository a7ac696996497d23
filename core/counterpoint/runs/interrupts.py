"""Ctrl-C and SIGTERM outside of training, and a second one within it: the command ends at once, in one line."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager


class Interrupted(BaseException):
    """A signal ended the command; not an Exception, so that nothing on the way takes it for a fault of its own."""

    def __init__(self, number: int):
        self.signal, self.run = signal.Signals(number), None  # the run folder, once it is known and kept
        super().__init__(f"stopped by {self.signal.name}")


@contextmanager
def interruptible() -> Iterator[None]:
    """SIGINT and SIGTERM raise Interrupted inside the block, in this process alone."""
    owner, before = os.getpid(), {}

    def receive(number: int, frame) -> None:
        if os.getpid() == owner:  # reading workers have inherited it, and end with this process
            raise Interrupted(number)

    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            if signal.getsignal(number) is not signal.SIG_IGN:  # as under nohup
                before[number] = signal.signal(number, receive)
    except ValueError:  # not in the main thread
        pass
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
