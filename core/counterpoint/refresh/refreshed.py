"""The columns of a run: when they are due they are made anew, and the checkpoint holds them.

Whoever asks the plan for the batches of an epoch has them made first. `on_train_epoch_start` would be too late: with
reading workers, Lightning asks for the first batches of the run, and of a resumed one, before that hook.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from counterpoint.batch import Batch
from counterpoint.data.plan import Order
from counterpoint.evaluate.embed import embed
from counterpoint.modules import NamedModules
from counterpoint.randomness import key
from counterpoint.refresh.refresh import Refresh, Space, Vectors, one_a_sample
from counterpoint.runs.ranks import active, all_gather

NOW = ""  # the towers that are trained


class Column(nn.Module):
    """One column: `values` (N, ...) and the epoch that it was made before (-1: not yet)."""

    def __init__(self, rule: Refresh, size: int):
        super().__init__()
        self.rule, self.epoch = rule, -1
        self.register_buffer("values", rule.empty(size))

    def groups(self, name: str) -> dict[str, Tensor]:
        """name -> int64 (N,): the groups that it is; none for a table."""
        values = self.values if self.values.ndim > 1 else self.values[:, None]
        return {group: values[:, place] for place, group in enumerate(self.rule.groups(name))}

    def due(self, epoch: int) -> bool:
        every = self.rule.every
        return self.epoch < 0 or (every is not None and epoch - self.epoch >= every)

    def hold(self, values: Tensor, epoch: int) -> None:
        self.values.copy_(values)
        self.epoch = epoch

    def get_extra_state(self) -> Tensor:
        return torch.tensor(self.epoch)

    def set_extra_state(self, state: Tensor) -> None:
        self.epoch = int(state)


class Refreshed(nn.Module):
    """The columns that a recipe names under `refresh`, for the training set.

    seen_by: name -> frozen towers, for columns that are made from what others than the trained towers see.
    """

    def __init__(
        self,
        rules: Mapping[str, Refresh],
        dataset,
        *,
        seed: int = 0,
        workers: int = 0,
        skip: float = 0.0,
        seen_by: Mapping[str, nn.Module] | None = None,
    ):
        super().__init__()
        self.seen_by = NamedModules(seen_by or {})
        self.columns = NamedModules({name: Column(rule, len(dataset)) for name, rule in rules.items()})
        self.dataset, self.seed, self.workers, self.skip = dataset, seed, workers, skip

    def into(self, order: Order) -> Order:
        """The order with the columns as they are now: known by name before the first refresh, their values unknown."""
        groups = {name: values.cpu().numpy() for name, values in self._groups().items()}
        tables = {name: c.values.cpu().numpy() for name, c in self.columns.items() if not c.rule.groups(name)}
        return replace(order, groups={**order.groups, **groups}, tables={**order.tables, **tables})

    def add_to(self, batch: Batch) -> Batch:
        """The batch with the groups of its samples."""
        groups = {name: values[batch.index] for name, values in self._groups().items()}
        return replace(batch, groups={**batch.groups, **groups})

    def _groups(self) -> dict[str, Tensor]:
        return {group: values for name, c in self.columns.items() for group, values in c.groups(name).items()}

    @torch.no_grad()
    def refresh(self, epoch: int, towers: nn.ModuleDict, pipelines: nn.ModuleDict, device: torch.device) -> None:
        """Make the columns that are due before `epoch`, from the towers as they are; alike on every rank."""
        due = {name: column for name, column in self.columns.items() if column.due(epoch)}
        if not due:
            return
        first = next(iter(towers))
        found = {
            who: self._vectors(who, sorted(wanted), towers, pipelines, device)
            for who, wanted in _wanted(due.values(), first).items()
        }
        for name, column in due.items():
            rule, made = column.rule, []
            for who in rule.by or (NOW,):
                seen = {modality: found[who][modality or first, rule.space] for modality in rule.modalities}
                made.append(rule.make(seen, key(self.seed, "refresh", name, epoch, *rule.by and (who,))))
            values = rule.joined(made).to(column.values)
            if active():
                dist.broadcast(values, 0)  # computed alike; equal to the bit only by sending
            column.hold(values, epoch)

    def _vectors(
        self, who: str, wanted: list[tuple[str, Space]], towers, pipelines, device
    ) -> dict[tuple[str, Space], Vectors]:
        """A vector of every sample; each rank embeds its part of the data set."""
        towers = towers if who == NOW else self.seen_by[who]
        world, rank = (dist.get_world_size(), dist.get_rank()) if active() else (1, 0)
        parts = np.array_split(np.arange(len(self.dataset)), world)
        models = {who: {modality: towers[modality] for modality in sorted({m for m, _ in wanted})}}
        mine = self.dataset if world == 1 else torch.utils.data.Subset(self.dataset, parts[rank].tolist())
        seen = embed(models, pipelines, mine, device=device, workers=self.workers, skip=self.skip)[who]
        counts, found = [len(part) for part in parts], {}
        for modality, space in wanted:
            width = towers[modality].dim if space == "z" else towers[modality].encoder.width
            vectors = one_a_sample(seen, modality, space, width, counts[rank])
            rows, known = vectors.rows.to(device), vectors.known.to(device)
            if active():
                rows, known = all_gather(rows, counts), all_gather(known.to(torch.uint8), counts).bool()
            found[modality, space] = Vectors(rows, known)
        return found


def _wanted(columns: Iterable[Column], first: str) -> dict[str, set[tuple[str, Space]]]:
    """Who has to embed the data set: which modalities, and h or z of each."""
    found: dict[str, set[tuple[str, Space]]] = {}
    for rule in (column.rule for column in columns):
        for who in rule.by or (NOW,):
            found.setdefault(who, set()).update((modality or first, rule.space) for modality in rule.modalities)
    return found
