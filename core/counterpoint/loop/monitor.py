"""What is watched while a run trains: the geometry of the embeddings every epoch, and a live kNN score."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from lightning.pytorch import Callback, Trainer
from torch import Tensor

from counterpoint.batch import Batch
from counterpoint.data.guard import Skipped
from counterpoint.data.spread import spread
from counterpoint.errors import CounterpointError
from counterpoint.evaluate.embed import embed
from counterpoint.evaluate.geometry import alignment, effective_rank, uniformity
from counterpoint.loop.progress import Progress
from counterpoint.runs import atomic


class Geometry(Callback):
    """Alignment, uniformity and effective rank of each epoch's last batch, as the objectives saw it: no extra pass."""

    ROWS = 1024

    def __init__(self, progress: Progress):
        self.progress = progress

    def on_train_epoch_end(self, trainer: Trainer, module) -> None:
        outputs = module.last_outputs
        if outputs is None:
            return
        values = {}
        for modality in outputs.modalities():
            views = [e for e in outputs.views(modality) if len(e.row) > 1]
            if views:
                values[f"uniformity/{modality}"] = uniformity(_unit(views[0].z[: self.ROWS]))
                values[f"effective_rank/{modality}"] = effective_rank(views[0].h[: self.ROWS].float())
        if pairs := outputs.pairs():
            aligned = [alignment(_unit(pair.q), _unit(pair.k)) for pair in pairs]
            values["alignment"] = sum(float(a) for a in aligned) / len(aligned)
        step = trainer.fit_loop.epoch_loop.batch_progress.total.ready
        self.progress.record(trainer, {name: float(value) for name, value in values.items()}, step)


def _unit(z: Tensor) -> Tensor:
    return torch.nn.functional.normalize(z.float(), dim=-1)


class LiveKNN(Callback):
    """Leave-one-out kNN within the training set, at most twenty times a run; the held-out split is never looked at."""

    SAMPLES = 1024

    def __init__(self, progress: Progress, knn, dataset, pipelines, epochs: int, say: Callable[[str], None]):
        self.progress, self.knn, self.pipelines, self.say = progress, knn, pipelines, say
        self.every, self.ended = -(-epochs // 20), False
        self.dataset = _Part(dataset, spread(dataset, self.SAMPLES).tolist())

    def on_train_epoch_end(self, trainer: Trainer, module) -> None:
        if self.ended or (trainer.current_epoch + 1) % self.every or not trainer.is_global_zero:
            return
        models = {"now": dict(module.towers.items())}
        seen = embed(models, self.pipelines, self.dataset, device=module.device, skip=1.0)["now"]
        try:
            score = self.knn.leave_one_out(seen)[0]
        except CounterpointError as error:  # what is only watched ends no run; the scores at its end say the same
            self.progress.live = " kNN -"
            self.say(f"note: no live kNN: {error}")
            self.ended = True
            return
        step = trainer.fit_loop.epoch_loop.batch_progress.total.ready
        self.progress.live = f" kNN {score.value:.3f}"
        self.progress.record(trainer, {f"live/{score.name}": score.value}, step)


class _Part(torch.utils.data.Dataset):
    """Some samples of a data set, with their part of its columns."""

    def __init__(self, dataset, indices):
        self.dataset, self.indices = dataset, list(indices)
        self.groups = {name: column[self.indices] for name, column in getattr(dataset, "groups", {}).items()}
        self.labels = {name: column[self.indices] for name, column in getattr(dataset, "labels", {}).items()}

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, i: int):
        return self.dataset[self.indices[i]]


class SkippedSamples(Callback):
    """Raises for a sample that cannot be read, or counts it and names it in a file, as the recipe says."""

    def __init__(self, skipped: Skipped, path: Path, say: Callable[[str], None]):
        self.skipped, self.path, self.say = skipped, path, say

    def on_train_batch_start(self, trainer: Trainer, module, batch, batch_idx: int) -> None:
        self._count(trainer, batch)

    def on_train_epoch_end(self, trainer: Trainer, module) -> None:
        """Every rank met its own part of the data: now each learns of the others'."""
        if trainer.world_size > 1:
            found: list = [None] * trainer.world_size
            torch.distributed.all_gather_object(found, list(self.skipped.messages.values()))
            texts = [text for part in found for text in part]
            self._count(trainer, Batch({}, torch.empty(0), fields={"skipped": texts}))

    def _count(self, trainer: Trainer, batch: Batch) -> None:
        if self.skipped(batch) and trainer.is_global_zero:
            atomic.write(self.path, "".join(f"{text}\n" for text in self.skipped.messages.values()))

    def state_dict(self) -> dict[str, list[str]]:
        return {"skipped": list(self.skipped.messages.values())}

    def load_state_dict(self, state: dict[str, list[str]]) -> None:
        self.skipped(Batch({}, torch.empty(0), fields={"skipped": state["skipped"]}))

    def on_train_end(self, trainer: Trainer, module) -> None:
        if len(self.skipped):
            self.say(f"skipped {len(self.skipped)} samples that cannot be read; they are named in {self.path}")
