"""Renders game play to arrays; a program of its own, because a game may end the process it runs in.

python -m counterpoint_video.data.play '{"folder": "...", "games": ["pong"], ...}' writes one .npy a game and split, and prints its name.

Dimensions: N clips, T frames, S pixels a side.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
from ale_py import ALEInterface, LoggerMode, roms
from PIL import Image

from counterpoint.randomness import key

GAP = (10, 40)  # actions before a clip that are played and not kept: at least, and fewer than


def play(game: str, split: str, *, clips: int, frames: int, size: int, skip: int) -> np.ndarray:
    """uint8 (N, T, S, S): clips of one long random play of a game, grey; their frames are `skip` emulator frames apart.

    Emulator and player have seeds of their own for every game and split, so nothing is in both splits. Actions are
    uniform over the game's own and repeat with probability 0.25; a frame is the maximum of the last two screens, because
    some games draw an object on every other one only. A lost game begins again.
    Source: Machado et al., JAIR 61 (2018), section 5 (repeated actions); Mnih et al., Nature 518 (2015) (maximum).
    """
    emulator = ALEInterface()
    emulator.setInt("random_seed", key("games", "emulator", game, split) % 2**31)
    emulator.setFloat("repeat_action_probability", 0.25)
    emulator.loadROM(roms.get_rom_path(game))
    player = np.random.default_rng(key("games", "player", game, split))
    actions = emulator.getMinimalActionSet()
    act = lambda: step(emulator, actions[player.integers(len(actions))], skip)  # noqa: E731
    film = np.empty((clips, frames, size, size), np.uint8)
    for clip in film:
        for _ in range(player.integers(*GAP)):
            act()
        for frame in clip:
            frame[:] = Image.fromarray(act()).resize((size, size), Image.Resampling.BOX)
    return film


def step(emulator: ALEInterface, action: int, skip: int) -> np.ndarray:
    """uint8 (height, width): what is seen after one action was held for `skip` emulator frames; a lost game starts anew."""
    for left in reversed(range(skip)):
        if emulator.game_over():
            emulator.reset_game()
        emulator.act(action)
        if left == 1:
            before = emulator.getScreenGrayscale()
    screen = emulator.getScreenGrayscale()
    return np.maximum(before, screen) if skip > 1 else screen


def main(folder: str, games: list[str], clips: dict[str, int], frames: int, size: int, skip: int) -> None:
    ALEInterface.setLoggerMode(LoggerMode.Error)
    for game in games:
        for split, count in clips.items():
            film = play(game, split, clips=count, frames=frames, size=size, skip=skip)
            np.save(Path(folder) / f"{game}.{split}.npy", film)
        print(game, flush=True)


if __name__ == "__main__":
    main(**json.loads(sys.argv[1]))
