"""Game play of 104 Atari games, rendered by the emulator ALE: real motion with a label, as much as wanted.

Rendered once into the cache by `counterpoint_video.data.play`. ale-py, which brings the games, is GPL-2.0 and an extra of this pack.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from counterpoint.data.dataset import Dataset, Spec
from counterpoint.data.sources import prepared
from counterpoint.errors import ComponentError, DataError, suggest

SPLITS = ("train", "test")
TWO_PLAYERS = ("combat", "joust", "maze_craze", "warlords")  # they end the process when played alone
RECIPE = 1  # of `counterpoint_video.data.play`: another number renders anew
INSTALL = "pip install 'counterpoint-video[games]'"


class Games(Dataset):
    """Random play of 104 games: modality "video", uint8 (1, frames, size, size), grey, 15 pictures a second; label "game".

    clips: of a game in the training and in the test split, which are plays of their own, with other seeds of the emulator
    and other random actions; frames, size: of a clip. The first use renders all (245 MB by default, about a
    minute on two cores).
    Raises DataError when ale-py is not installed, with the command that installs it.
    Source: Bellemare et al., "The arcade learning environment", JAIR 47 (2013); the random actions of `counterpoint_video.data.play`.
    """

    def __init__(
        self,
        *,
        clips: tuple[int, int] = (8, 4),
        frames: int = 48,
        size: int = 64,
        split: Literal["train", "test"] = "train",
    ):
        if split not in SPLITS:
            raise DataError(f"data 'video.games' has no split {split!r}{suggest(split, SPLITS)}")
        if min(*clips, frames, size) < 1:
            raise ComponentError(
                f"data 'video.games': clips, frames and size are at least 1; got {clips}, {frames}, {size}"
            )
        self.names = names()
        key = f"{RECIPE}-{'x'.join(map(str, (*clips, frames, size)))}-{len(self.names)}"
        self.file = (
            prepared("video.games", key, lambda folder: _render(folder, self.names, clips, frames, size))
            / f"{split}.npy"
        )
        self.film = torch.from_numpy(
            np.load(self.file, mmap_mode="c")
        )  # (N, frames, size, size), read where it is needed
        self.labels = {"game": np.arange(len(self.names)).repeat(clips[SPLITS.index(split)])}
        self.spec = Spec(
            size=len(self.film),
            modalities={"video": {"channels": 1, "length": frames, "height": size, "width": size, "rate": 15.0}},
            labels={"game": len(self.names)},
            splits=SPLITS,
            in_memory=True,
        )

    def files(self) -> list[str]:
        return [str(self.file)]

    def inputs_of(self, index: Tensor) -> dict[str, Tensor]:
        return {"video": self.film.index_select(0, index)[:, None]}


def names() -> list[str]:
    """The games that one player can play."""
    if find_spec("ale_py") is None:
        raise DataError(f"data 'video.games' needs the emulator ale-py (GPL-2.0), which is not installed: {INSTALL}")
    from ale_py import roms

    return [name for name in sorted(roms.get_all_rom_ids()) if name not in TWO_PLAYERS]


def _render(folder: Path, games: list[str], clips: tuple[int, int], frames: int, size: int) -> None:
    """Play every game in as many processes as there are cores; train.npy and test.npy in `folder`."""
    count = min(os.cpu_count() or 1, len(games))
    shares = [games[i::count] for i in range(count)]
    order = dict(zip(SPLITS, clips))
    players = [
        _start({"folder": str(folder), "games": s, "clips": order, "frames": frames, "size": size}) for s in shares
    ]
    try:
        _watch(players, shares, len(games))
    finally:
        for player in players:
            player.kill()
            player.communicate()
    for split, number in order.items():
        shape = (len(games) * number, frames, size, size)
        film = np.lib.format.open_memmap(folder / f"{split}.npy", "w+", np.uint8, shape)
        for i, game in enumerate(games):
            part = folder / f"{game}.{split}.npy"
            film[i * number : (i + 1) * number] = np.load(part)
            part.unlink()
        film.flush()


def _start(order: dict) -> subprocess.Popen:
    command = [sys.executable, "-m", "counterpoint_video.data.play", json.dumps({**order, "skip": 4})]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def _watch(players: list[subprocess.Popen], shares: list[list[str]], total: int) -> None:
    """Wait for the players, with a line of progress on standard error."""
    done = 0
    for turn in range(max(map(len, shares))):
        for player, share in zip(players, shares):
            if turn >= len(share):
                continue
            if not player.stdout.readline():
                said = " ".join((player.communicate()[1] or "").split()[-40:])
                raise DataError(f"data 'video.games': rendering {share[turn]} failed: {said or 'the emulator ended'}")
            done += 1
            _tell(done, total)


def _tell(done: int, total: int) -> None:
    terminal = sys.stderr.isatty()
    if terminal or done % 26 == 0 or done == total:
        end = "\r" if terminal and done < total else "\n"
        print(f"video.games: rendering random play, {done} of {total} games", end=end, file=sys.stderr, flush=True)
