"""Reads many damaged files of one format in a forked child, under a bound of memory and of time for each.

The child tells of every file before it reads it, so that a crash or a hang names the file.
"""

import json
import os
import resource
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

SECONDS = 60  # of one file; a slow machine is no hang
ROOM = 1 << 30  # bytes that reading one small file may need at most, beside what the process has


def _taken() -> int:
    return int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")


def _late(*_) -> None:
    os._exit(97)  # python code and native code alike


def told_by_child(work: Callable[[int], str], count: int, seconds: int = SECONDS, room: int = ROOM) -> list[str]:
    """What work(0), work(1), ... said, each in a child; AssertionError naming the one that crashed or hung.

    When the child dies, what it had said is kept and the error says at which number.
    """
    read_end, write_end = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child == 0:
        os.close(read_end)
        _work(work, count, seconds, room, write_end)
    os.close(write_end)
    with os.fdopen(read_end) as stream:
        lines = [json.loads(line) for line in stream]
    _, status = os.waitpid(child, 0)
    said = [line["said"] for line in lines if "said" in line]
    if len(said) < count:
        how = "hung" if os.WIFEXITED(status) and os.WEXITSTATUS(status) == 97 else f"ended with status {status}"
        raise AssertionError(f"the child {how} at number {lines[-1]['at'] if lines else 0}")
    return said


def _work(work: Callable[[int], str], count: int, seconds: int, room: int, write_end: int) -> None:
    try:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        hard = resource.getrlimit(resource.RLIMIT_AS)[1]
        resource.setrlimit(resource.RLIMIT_AS, (_taken() + room, hard))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        signal.signal(signal.SIGALRM, _late)
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.dup2(null, 2)  # decoders complain there
        for number in range(count):
            os.write(write_end, (json.dumps({"at": number}) + "\n").encode())
            signal.alarm(seconds)
            try:
                said = work(number)
            except BaseException as error:
                frames = traceback.extract_tb(error.__traceback__)
                said = f"BARE {type(error).__name__}: {str(error)[:300]} at {frames[-1].filename}:{frames[-1].lineno}"
            signal.alarm(0)
            os.write(write_end, (json.dumps({"said": said}) + "\n").encode())
    finally:
        os._exit(0)
