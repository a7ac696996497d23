"""Code of packs runs where it can change nothing that belongs to the whole process."""

import contextlib
import locale
import os
import signal
import sys
import threading
import warnings
from collections.abc import Iterator


@contextlib.contextmanager
def isolated() -> Iterator[None]:
    """What is printed goes to stderr, and what belongs to the whole process is afterwards as before.

    That is python's, numpy's and torch's random state, torch's default type, threads and gradient mode, the working
    directory, sys.path, the filters of warnings, the locale, the limit of recursion, and who handles Ctrl-C and SIGTERM.
    Only modules that are imported already have a state to keep.
    """
    states = (_python_state, _numpy_state, _torch_state, _process_state, _signal_state)
    restore = [put_back for state in states if (put_back := state())]
    try:
        with contextlib.redirect_stdout(sys.stderr), warnings.catch_warnings():
            yield
    finally:
        for put_back in restore:
            put_back()


def _python_state():
    if random := sys.modules.get("random"):
        state = random.getstate()
        return lambda: random.setstate(state)


def _numpy_state():
    if random := sys.modules.get("numpy.random"):
        state = random.get_state()
        return lambda: random.set_state(state)


def _torch_state():
    torch = sys.modules.get("torch")
    if torch is None or not hasattr(torch, "get_rng_state"):
        return _default_type
    kind, threads, gradients = torch.get_default_dtype(), torch.get_num_threads(), torch.is_grad_enabled()
    cpu, cuda = torch.get_rng_state(), torch.cuda.is_initialized() and torch.cuda.get_rng_state_all()

    def put_back():
        torch.set_default_dtype(kind)
        torch.set_num_threads(threads)
        torch.set_grad_enabled(gradients)
        torch.set_rng_state(cpu)
        if cuda:
            torch.cuda.set_rng_state_all(cuda)

    return put_back


def _default_type():
    """Of a torch that the pack itself was the first to import."""
    if (torch := sys.modules.get("torch")) and hasattr(torch, "set_default_dtype"):
        torch.set_default_dtype(torch.float32)


def _process_state():
    try:
        folder = os.getcwd()
    except OSError:  # it was removed
        folder = None
    path, limit, words = list(sys.path), sys.getrecursionlimit(), locale.setlocale(locale.LC_ALL)

    def put_back():
        sys.path[:] = path
        sys.setrecursionlimit(limit)
        locale.setlocale(locale.LC_ALL, words)
        if folder is not None:
            with contextlib.suppress(OSError):
                os.chdir(folder)

    return put_back


def _signal_state():
    if threading.current_thread() is not threading.main_thread():  # no other may set them
        return None
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def put_back():
        for number, handler in handlers.items():
            if handler is not None and signal.getsignal(number) is not handler:
                signal.signal(number, handler)

    return put_back
