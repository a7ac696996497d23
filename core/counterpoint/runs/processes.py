"""The processes of a run that has several: when one dies, the others say so and end, whatever they wait for.

Lightning's own watch kills the first process without a word as soon as it sees that another has died. Here the first
process learns which one and how; what it waits for in a collective usually fails by itself, and the error is then told in
one line. Where nothing fails, it ends after GRACE seconds.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time

POLL, GRACE = 0.5, 10.0  # seconds
STARTED: list[subprocess.Popen] = []  # by this process, ranks from 1


def dead() -> str | None:
    """`rank 1 died (SIGKILL)`, once that is known; None while all live or ended well."""
    for rank, process in enumerate(STARTED, 1):
        if process.poll():
            return f"rank {rank} died ({_how(process.returncode)})"
    return "rank 0 died" if _PARENT and os.getppid() != _PARENT else None


def dead_soon(seconds: float = 3.0) -> str | None:
    """The same, of a process whose end has been noticed by other means."""
    until = time.monotonic() + seconds
    while (found := dead()) is None and time.monotonic() < until and (STARTED or _PARENT):
        time.sleep(0.05)
    return found


def _how(code: int) -> str:
    if code < 0:
        return signal.Signals(-code).name
    return f"exit code {code}; what it said stands above"


_PARENT = 0  # the process that started this one, where that is a rank
_WATCH: list[threading.Thread] = []


def watch() -> None:
    """Watch the processes that this one has started, or the one that it was started by."""
    global _PARENT
    if _WATCH:
        return
    if not STARTED and os.environ.get("LOCAL_RANK", "0") != "0" and "TORCHELASTIC_RUN_ID" not in os.environ:
        _PARENT = os.getppid()
    if STARTED or _PARENT:
        _WATCH.append(threading.Thread(target=_look, daemon=True, name="processes of the run"))
        _WATCH[0].start()


def _look() -> None:
    while (found := dead()) is None:
        time.sleep(POLL)
    time.sleep(GRACE)  # for the collective to fail, and the error to be told
    if not _PARENT:
        print(f"error: {found}; the other processes are ended", file=sys.stderr, flush=True)
        for process in STARTED:
            process.kill()
    os._exit(2)


def forget() -> None:
    """Training is over, well or not: how the others end is nothing to end for any more."""
    STARTED.clear()
