"""Batches on which objectives are tried, and the plain arithmetic that their formulas are written in.

Dimensions: B samples, n rows of a view, D width of z, L tokens, K rows of a queue. Everything is float64.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch

from counterpoint.batch import Batch, Encoded, Outputs, Queued

D = 4
FULL = [0, 1, 2, 3, 4]
SCENES = {  # views as (modality and role, rows): partners may be missing, a sample may have several rows
    "two views": [("ecg", FULL), ("ecg", FULL)],
    "three views": [("ecg", FULL), ("ecg", FULL), ("ecg", FULL)],
    "rows missing": [("ecg", [0, 1, 3, 4]), ("ecg", [4, 2, 1, 0])],
    "multi-crop": [("ecg", FULL), ("ecg", FULL), ("ecg local", FULL), ("ecg local", [0, 1, 2, 4])],
    "two modalities": [("image", FULL), ("text", FULL)],
    "three modalities": [("image", FULL), ("text", FULL), ("ecg", FULL)],
    "three modalities, some missing": [("image", [0, 1, 2, 4]), ("text", [0, 2, 3, 4]), ("ecg", FULL)],
    "captions, some missing": [("image", [0, 1, 2, 4]), ("text", [1, 1, 2, 3, 4, 4])],
    "views and modalities": [("image", FULL), ("image", FULL), ("text", [0, 2, 3])],
    "views of two modalities": [("image", FULL), ("image", FULL), ("text", FULL), ("text", FULL)],
    "hard negatives": [("text", FULL), ("text", FULL), ("text negative", [0, 1, 1, 4])],
    "edited text": [("image", FULL), ("text", FULL), ("text positive", [0, 2, 3]), ("text negative", [0, 1, 1, 4])],
    "mixtures": [("image", FULL), ("image mixed", FULL), ("text", FULL), ("text mixed", [0, 2, 3])],
    "mixtures, some missing": [("image", FULL), ("image mixed", [0, 2, 3, 4]), ("text", [1, 1, 2, 3, 4, 4])],
    "edited text, some missing": [
        ("image", [0, 1, 2, 4]),
        ("text", FULL),
        ("text positive", [2]),
        ("text negative", [3]),
    ],
    "views of two modalities, some missing": [
        ("image", FULL),
        ("image", [0, 1, 3, 4]),
        ("text", [4, 2, 1, 0]),
        ("text", [0, 1, 1, 2]),
    ],
    "labels' texts": [("text", FULL), ("text", [0, 1, 3, 4]), ("label", [0, 1, 1, 3, 4])],
}
ONE = ("two views", "three views", "rows missing")
MANY = ("two modalities", "captions, some missing", "views and modalities")
ALL = (*ONE, *MANY, "hard negatives")
LAYERS = (3, 5)  # widths of what two earlier layers of the encoder give
HEADS = ("common", "salient", "a", "b")  # outputs of the head beside z
SIDES = ("student", "momentum", "teacher")
TENSORS = ("z", "h", "tokens", "mask", "map", "input", "input_mask")  # of an Encoded, a row for each of its rows
INDEX = torch.tensor([40, 10, 20, 30, 50])  # of the samples, in the data set
QUEUES = ("keys", "keys_image", "keys_text", "keys_ecg", "support")


class Case(NamedTuple):
    """An objective to try: how it is built, its formula as plain loops of (outputs, objective), and on which scenes."""

    make: Callable
    plain: Callable
    scenes: tuple[str, ...]
    zero_without_pairs: bool = True  # it has no term that a view alone can have
    refuses_one: bool = True  # a batch of one sample has nothing to contrast with


def scene(name, dtype=torch.float64, layout=None):
    """Outputs of a scene. Samples 1 and 3 share a patient, so do 0 and 4 a class; sample 2 is unknown; `age` is a value.

    Rows have three tokens, the last of which is padding in every other row, a map of 2 x 3 places, two layers, and named heads.
    Mixtures know their partner, the next sample, and the share of their own. Every row says where it lies in its sample, flipped or
    turned, and heads give the scores of its places against five prototypes.
    """
    random, apart = torch.Generator().manual_seed(7), torch.Generator().manual_seed(8)
    drawn = lambda by, *shape: torch.randn(*shape, generator=by, dtype=torch.float64).to(dtype)  # noqa: E731
    draw = partial(drawn, random)
    sides = {side: [] for side in SIDES}
    for view, (title, rows) in enumerate(layout or SCENES[name]):
        modality, _, role = title.partition(" ")
        row, n = torch.tensor(rows, dtype=torch.int64), len(rows)
        mask = torch.ones(n, 3, dtype=torch.bool)
        mask[1::2, 2] = False
        meta = {"partner": INDEX[(row + 1) % 5], "share": (row.to(dtype) + 1) / 7} if role == "mixed" else {}
        meta["place"] = place(row, view, dtype)
        for side in sides.values():
            z, h, tokens, places = (draw(n, *more).requires_grad_() for more in ((D,), (D,), (3, D), (D, 2, 3)))
            heads = {head: draw(n, D).requires_grad_() for head in HEADS}
            heads["scores"] = drawn(apart, n, 5, 2, 3).tanh().requires_grad_()
            raw = inputs(modality, row, view, dtype)
            layers = tuple(drawn(apart, n, width).requires_grad_() for width in LAYERS)
            seen = (z, h, tokens, mask, places, heads, meta, *raw, layers)
            side.append(Encoded(modality, role or "global", view, row, *seen))
    batch = Batch({}, INDEX.clone())
    batch.groups["patient"] = torch.tensor([0, 1, -1, 1, 2])
    batch.labels["class"] = torch.tensor([3, 1, -1, 2, 3])
    batch.labels["age"] = torch.tensor([30.0, 62.0, float("nan"), 31.0, 45.0], dtype=torch.float32)
    queues = {
        name: Queued(torch.nn.functional.normalize(draw(6, D), dim=1), torch.tensor([1, 2, 10, 40, 50, 3]))
        for name in QUEUES
    }
    return Outputs(batch=batch, queues=queues, **sides)


def place(row, view, dtype):
    """Corner and two edges: every other view is flipped along its last axis, samples from 3 on are turned; all on eighths."""
    corner = torch.stack([row * 0.5 + view % 2, row * 0.25 - view % 3], 1)
    edges = torch.tensor([[4.0 + view % 2, 0.0], [0.0, 6.0]]).repeat(len(row), 1, 1)
    turned = row >= 3
    edges[turned, 0, 1], edges[turned, 1, 0] = 0.5, -0.75
    if view % 2:
        corner, edges = corner + edges[:, 1], edges * torch.tensor([1.0, -1.0])[:, None]
    return torch.cat([corner[:, None], edges], 1).to(dtype)


def inputs(modality, row, view, dtype):
    """What the encoder was shown: four token ids, the last of every other row padding, or six times two channels."""
    if modality != "text":
        return torch.sin(torch.arange(12) + 2.0 * row[:, None] + view).to(dtype).view(-1, 2, 6), None
    mask = torch.ones(len(row), 4, dtype=torch.bool)
    mask[::2, 3] = False
    return (5 * row[:, None] + 3 * torch.arange(4) + view) % 7, mask


def everything(o):
    """Every tensor of the student's that may have a gradient."""
    return [t for e in o.student for t in (e.z, e.h, e.tokens, e.map, *e.heads.values(), *e.layers)]


# --- plain arithmetic ------------------------------------------------------------------------------------------------


def unit(v):
    return v / v.norm()


def dot(a, b):
    return (unit(a) * unit(b)).sum()


def total(terms):
    return torch.stack(list(terms)).sum()


def average(terms):
    terms = list(terms)
    return total(terms) / len(terms)


def lse(terms):
    terms = list(terms)
    return torch.stack(terms).exp().sum().log() if terms else torch.tensor(-torch.inf, dtype=torch.float64)


def view_pairs(o, which="all"):
    views = [e for e in o.student if e.role != "negative"]
    for n, a in enumerate(views):
        for b in views[n + 1 :]:
            if which == "all" or (which == "within") == (a.modality == b.modality):
                yield a, b


def aligned(a, b):
    return [(i, j) for i, r in enumerate(a.row) for j, s in enumerate(b.row) if r == s]


def who(o, e, i, by="index"):
    sample = e.row[i]
    index = int(o.batch.index[sample])
    name = index if by == "index" else int({**o.batch.groups, **o.batch.labels}[by][sample])
    return name if by == "index" or name >= 0 else f"unknown {index}"


def across(o):
    return "across" if len({e.modality for e in o.student}) > 1 else "all"


def columns(a, b):
    pairs = aligned(a, b)
    return torch.stack([a.z[i] for i, _ in pairs]), torch.stack([b.z[j] for _, j in pairs])
