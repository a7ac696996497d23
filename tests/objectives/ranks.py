"""Run by torchrun: each of two processes holds the rows of half of a scene; the first writes what the whole batch gives."""

import sys
from dataclasses import replace

import torch
import torch.distributed as dist

from counterpoint.batch import Batch
from counterpoint.loop.gather import gather
from objectives.scenes import SIDES, TENSORS, everything, scene
from test_objectives import CASES, build, called


def part(e, samples):
    """The rows of an Encoded that belong to `samples`, connected to it."""
    own = torch.isin(e.row, samples)
    cut = lambda t: None if t is None else t[own]  # noqa: E731
    fields = {name: cut(getattr(e, name)) for name in TENSORS}
    fields |= {kind: {name: cut(t) for name, t in getattr(e, kind).items()} for kind in ("heads", "meta")}
    fields["layers"] = tuple(cut(layer) for layer in e.layers)
    return replace(e, **fields, row=torch.searchsorted(samples, e.row[own]))


def of_all(o, samples):
    """The outputs as this rank's samples and those of the other rank give them together."""
    table = lambda columns: {name: column[samples] for name, column in columns.items()}  # noqa: E731
    batch = Batch({}, o.batch.index[samples], table(o.batch.groups), table(o.batch.labels))
    encoded = [part(e, samples) for side in SIDES for e in getattr(o, side)]
    found, whole = gather(encoded, batch)
    count = len(o.student)
    sides = {side: found[i * count : (i + 1) * count] for i, side in enumerate(SIDES)}
    return replace(o, batch=whole, **sides)


def main(path):
    dist.init_process_group("gloo")
    rank, found = dist.get_rank(), {}
    samples = torch.tensor([0, 1, 2] if rank == 0 else [3, 4])
    for name, case in CASES.items():
        o, m = scene(case.scenes[0]), build(name)
        loss = called(m, of_all(o, samples))
        inputs = everything(o)
        own = [p for p in m.parameters() if p.requires_grad]
        slopes = torch.autograd.grad(loss, inputs + own, allow_unused=True, materialize_grads=True)
        for slope in slopes[: len(inputs)]:  # each rank has those of its rows, times the number of ranks
            dist.all_reduce(slope)
        found[name] = [loss.detach(), *(s / 2 for s in slopes[: len(inputs)]), *slopes[len(inputs) :]]
    if rank == 0:
        torch.save(found, path)
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1])
