"""Generated purchases, a graph of two sorts of nodes. Dimensions: U users, I items, E purchases."""

from __future__ import annotations

from typing import Literal

import numpy as np

from counterpoint.errors import DataError
from counterpoint.randomness import key
from counterpoint_graphs.data import SPLITS, Nodes


class Purchases(Nodes):
    """Users who buy items mostly to their taste: nodes without features, edges between a user and an item alone.

    Label "taste": of users and of items, planted. The first `users` nodes are the users. `stray`: the share of purchases
    that follow no taste. Half of the nodes are held out, which holds out their label alone.
    Raises DataError for a split that is neither train nor test, and for numbers that make no graph.
    """

    def __init__(
        self, *, users: int = 600, items: int = 300, tastes: int = 6, purchases: int = 10, stray: float = 0.5,
        seed: int = 0, split: Literal["train", "test"] = "train",
    ):  # fmt: skip
        if split not in SPLITS or min(users, items) < tastes or tastes < 1 or purchases < 1 or not 0 <= stray <= 1:
            raise DataError(
                f"data 'graphs.purchases': expected train or test, and users and items of every taste; got split={split}, "
                f"users={users}, items={items}, tastes={tastes}, purchases={purchases}, stray={stray}"
            )
        rng = np.random.default_rng(key(seed, "purchases"))
        taste = np.arange(users + items) % tastes
        buyer = np.repeat(np.arange(users), purchases)
        favourite = rng.integers(0, items // tastes, len(buyer)) * tastes + (taste[buyer] - users) % tastes
        bought = np.where(rng.random(len(buyer)) < stray, rng.integers(0, items, len(buyer)), favourite)
        place = rng.permutation(users + items)
        chosen = np.sort(place[: len(place) // 2] if split == "train" else place[len(place) // 2 :])
        edges = np.stack([buyer, users + bought])
        super().__init__(np.zeros((users + items, 0)), edges, chosen, {"taste": taste}, {"taste": tastes})
