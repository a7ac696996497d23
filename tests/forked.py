"""The command line in processes forked from one that has imported Lightning: a kill costs a second instead of six.

    done = server()("fit", "recipe.yaml", cwd=folder, first=[["kill_at_step", 7]])
    done.returncode, done.stdout, done.stderr

`first` names functions of tests/injections.py and their arguments, called in the child before the command. The server
has run nothing that starts a thread, so that forking it is safe.
"""

import atexit
import contextlib
import functools
import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent


@dataclass
class Done:
    returncode: int  # negative: the signal that ended it
    stdout: str
    stderr: str
    seconds: float


class Server:
    """One warm process; calls are answered one after another."""

    def __init__(self):
        paths = [str(HERE), str(HERE / "toy"), os.environ.get("PYTHONPATH", "")]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths)), "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def __call__(self, *argv, cwd, first=(), env=None, timeout=120, linger=0) -> Done:
        """Run a command; linger: seconds that processes which it has started may outlive it, else they are ended."""
        call = {"argv": list(map(str, argv)), "cwd": str(cwd), "first": list(first), "env": env or {}}
        self.process.stdin.write(json.dumps(call | {"timeout": timeout, "linger": linger}) + "\n")
        self.process.stdin.flush()
        return Done(**json.loads(self.process.stdout.readline()))

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait()


@functools.cache
def server() -> Server:
    """The one of this test process."""
    made = Server()
    atexit.register(made.close)
    return made


# In the server


WARM = ("cli.fit", "cli.packs", "fit.run", "fit.scoring", "fit.trainer", "objectives.info_nce", "evaluate.knn")


def serve() -> None:
    import torch

    torch.set_num_threads(1)
    for name in (*(f"counterpoint.{name}" for name in WARM), "counterpoint_toy.parts", "injections"):
        importlib.import_module(name)
    for line in sys.stdin:
        print(json.dumps(_answer(json.loads(line))), flush=True)


def _answer(call: dict) -> dict:
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        started = time.monotonic()
        child = os.fork()
        if child == 0:
            _become(call, out.fileno(), err.fileno())
        code = _wait(child, started + call["timeout"], call["linger"])
        texts = []
        for file in (out, err):
            file.seek(0)
            texts.append(file.read().decode(errors="replace"))
        return {"returncode": code, "stdout": texts[0], "stderr": texts[1], "seconds": time.monotonic() - started}


def _wait(child: int, until: float, linger: float) -> int:
    """How the child ended; what is left of its group (reading workers) is ended, too."""
    pid = 0
    while not pid and time.monotonic() < until:
        pid, status = os.waitpid(child, os.WNOHANG)
        time.sleep(0.005)
    until = time.monotonic() + linger
    while time.monotonic() < until and _alive(child):
        time.sleep(0.1)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)
    if not pid:
        _, status = os.waitpid(child, 0)
        return 999  # it had not ended in time
    return os.waitstatus_to_exitcode(status)


def _alive(group: int) -> bool:
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, _, of = path.read_text().rpartition(")")[2].split()[:3]
            if int(of) == group and state != "Z":
                return True
    return False


def _become(call: dict, out: int, err: int) -> None:
    code = 70
    try:
        os.setpgid(0, 0)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(out, 1)
        os.dup2(err, 2)
        sys.stdin = os.fdopen(0, closefd=False)  # the server's holds the next calls
        os.chdir(call["cwd"])
        os.environ.update(call["env"])
        import injections
        from counterpoint.cli import main

        for name, *arguments in call["first"]:
            getattr(injections, name)(*arguments)
        code = main(call["argv"])
        _end_workers()
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code if isinstance(code, int) else 71)


def _end_workers() -> None:
    """What the interpreter does at its exit."""
    import multiprocessing.util

    multiprocessing.util._exit_function()


if __name__ == "__main__":
    serve()
