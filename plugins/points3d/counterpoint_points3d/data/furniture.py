"""820 pieces of furniture with their names: the models of Sweet Home 3D's libraries, a package of Debian."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from counterpoint.data.dataset import Dataset, Sample, Spec, encode_categories
from counterpoint.data.guard import reading
from counterpoint.data.sources import MINILM, Debian, Source, prepared, sources_of_model
from counterpoint.data.split import select
from counterpoint.data.text import Text
from counterpoint.errors import ComponentError, DataError
from counterpoint.randomness import key
from counterpoint_points3d.data.catalogue import Piece, libraries, pieces, surfaces
from counterpoint_points3d.readers.cloud import sampled

FOLDER = "usr/share/sweethome3d/furniture"
FURNITURE = Debian("sweethome3d-furniture", FOLDER)
KEPT = 4096  # points kept of every model; a sample is a random part of them
WORDS = 32  # tokens kept of a name with its tags


class Furniture(Dataset):
    """Shapes and their English names: "shape" float32 (6, points) and "name", token ids int64 (L,).

    shape: x, y, z in metres (y up, the front looking along z, the middle of the box at the origin, as large as the
    catalogue says the piece is) and the unit normal of the surface; `points` of the 4,096 that are drawn once of every
    model, other ones at every reading. name: in training, one time in two followed by tags in random order ("Armchair,
    Seat"), unless `tags` is False; in the test the name alone.

    Group "name": pieces of one name (capitals aside); label "category": the room of the catalogue, 12 of them.
    holdout: the share that is the test split, by hash. holdout_by: "model" holds out pieces, exactly that share of them
    (164 of 820); the name of one may also be that of a piece in training, which is so for 54 of the 164. "name" holds out
    names, so no name of the test is ever trained on (163 pieces), which is harder. tokenizer: as of the reader `text`;
    minilm goes with `sentence_encoder`.

    The first use samples all models, about half a minute, and keeps the points in the cache.
    Raises DataError when the package, or the tokenizer, is not there. Source: Debian's sweethome3d-furniture, libraries of
    Blend Swap, Kator Legaz, Reallusion and Scopia (CC0, CC-BY 3.0).
    """

    sources = (FURNITURE, MINILM)

    @staticmethod
    def sources_of(*, tokenizer: str = "minilm", **_) -> tuple[Source, ...]:
        """What these parameters need of `sources`."""
        return (FURNITURE, *sources_of_model(tokenizer))

    def __init__(
        self,
        *,
        split: Literal["train", "test"] = "train",
        points: int = 1024,
        tokenizer: str = "minilm",
        tags: bool = True,
        holdout: float = 0.2,
        holdout_by: Literal["model", "name"] = "model",
    ):
        if not 4 <= points <= KEPT:
            raise ComponentError(f"data 'points3d.furniture': points is 4 to {KEPT}; got {points}")
        self.folder = folder = FURNITURE.find() / FOLDER
        catalogue = [piece for library in _libraries(folder) for piece in _pieces(library)]
        names = [piece.name.lower() for piece in catalogue]
        column = None if holdout_by == "name" else _exactly(holdout, [f"{p.library}/{p.model}" for p in catalogue])
        chosen, splits = select(split, column, names, holdout, "points3d.furniture")
        train, _ = select("train", column, names, holdout, "points3d.furniture")
        self.text = Text(tokenizer=tokenizer, max_tokens=WORDS)
        self.text.fit([", ".join((catalogue[i].name, *catalogue[i].tags)) for i in train])
        self.pieces = [catalogue[i] for i in chosen]
        self.points, self.tags = points, tags and split == "train"
        self.clouds = np.load(_clouds(folder) / "points.npy", mmap_mode="r")[chosen]  # float16 (N, 6, KEPT), in memory
        identities, different = encode_categories(names)
        rooms, kinds = encode_categories([piece.category for piece in catalogue])
        self.groups, self.labels = {"name": identities[chosen]}, {"category": rooms[chosen]}
        shape = {"channels": 6, "length": points, "normals": True}
        self.spec = Spec(
            size=len(chosen),
            modalities={"shape": shape, "name": self.text.given()},
            groups={"name": len(different)},
            labels={"category": len(kinds)},
            splits=splits,
            in_memory=True,
        )

    def files(self) -> list[str]:
        return [str(library) for library in _libraries(self.folder)]

    def inputs(self, index: int) -> dict[str, Tensor]:
        picked = np.random.permutation(KEPT)[: self.points]
        shape = torch.from_numpy(self.clouds[index][:, picked].astype(np.float32))
        return {"shape": shape, "name": self.text.ids(self._caption(self.pieces[index]))}

    def _caption(self, piece: Piece) -> str:
        if not self.tags or random.random() < 0.5:
            return piece.name
        return ", ".join([piece.name, *random.sample(piece.tags, len(piece.tags))])

    def __getitem__(self, index: int) -> Sample:
        sample = super().__getitem__(index)
        sample.fields["name"] = self.pieces[index].name
        return sample

    def assets(self) -> dict[str, Any]:
        """Text files, by name, that the encoders trained on this need beside their weights."""
        return {f"name.{name}": text for name, text in self.text.assets().items()}


def _exactly(share: float, models: list[str]) -> list[str]:
    """The split of every piece: the `share` of them whose hash ranks first is "test"."""
    ranked = sorted(range(len(models)), key=lambda i: (key("holdout", models[i]), models[i]))
    test = set(ranked[: round(share * len(models))])
    return ["test" if i in test else "train" for i in range(len(models))]


def _libraries(folder: Path) -> list[Path]:
    found = libraries(folder)
    if not found:
        raise DataError(f"{folder}: holds no library (.sh3f)")
    return found


def _pieces(library: Path) -> list[Piece]:
    with reading(library):
        return pieces(library)


def _clouds(folder: Path) -> Path:
    """The prepared folder with the points of every model, sampled when it is not there."""
    sizes = "-".join(str(library.stat().st_size) for library in _libraries(folder))
    return prepared("points3d.furniture", f"{KEPT}-{sizes}", lambda target: _sample(folder, target))


def _sample(folder: Path, target: Path) -> None:
    """points.npy, float16 (pieces, 6, KEPT): points and normals of every model, the same ones every time."""
    state = np.random.get_state()
    np.random.seed(0)
    try:
        clouds = [_cloud(surface) for library in _libraries(folder) for surface in _surfaces(library)]
    finally:
        np.random.set_state(state)
    np.save(target / "points.npy", np.stack(clouds))


def _surfaces(library: Path):
    with reading(library):
        yield from surfaces(library)


def _cloud(surface) -> np.ndarray:
    points, normals = sampled(surface, KEPT)
    return np.concatenate([points, normals], 1).T.astype(np.float16)
