"""Importing libraries: quickly, and with what they change in this process put back."""

import gc
import random
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def untouched() -> Iterator[None]:
    """Python's and numpy's random state and the warning filters are afterwards as they were, whatever is imported inside.

    Importing tsai or MONAI moves the one and adds to the other, so that a run would depend on when it happened.
    """
    import numpy as np

    python, numpy = random.getstate(), np.random.get_state()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)


@contextmanager
def set_aside() -> Iterator[None]:
    """The garbage collector rests while torch is imported inside, and never looks at what was made: it stays anyhow.

    Looking through it, again and again and once more when the process ends, takes a quarter of a short command. Where torch
    is there already nothing is done: what this process has made since may become garbage.
    """
    if "torch" in sys.modules:
        yield
        return
    resting = not gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if not resting:
            gc.enable()
