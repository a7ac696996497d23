"""Queues of past embeddings: ring buffers that the loop owns and the checkpoint holds."""

import torch
from torch import Tensor, nn

from counterpoint.batch import Queued


class Queue(nn.Module):
    """The last `capacity` rows pushed: z (K, dim) with each row's data-set index and groups.

    It starts empty, so that no random row ever serves as a negative, and takes pushes of any size.
    """

    def __init__(self, capacity: int, dim: int, groups: tuple[str, ...] = ()):
        super().__init__()
        self.capacity, self.seen, self.groups = capacity, 0, groups
        self.register_buffer("z", torch.zeros(capacity, dim))
        self.register_buffer("index", torch.full((capacity,), -1))
        for name in groups:
            self.register_buffer(f"group_{name}", torch.full((capacity,), -1))

    def rows(self) -> Queued:
        """The rows held now, in storage order."""
        held = min(self.seen, self.capacity)
        groups = {name: getattr(self, f"group_{name}")[:held] for name in self.groups}
        return Queued(self.z[:held], self.index[:held], groups)

    @torch.no_grad()
    def push(self, rows: Queued) -> None:
        """Add `rows`, the oldest of those held giving way."""
        n = len(rows.z)
        kept = slice(max(0, n - self.capacity), n)
        at = torch.arange(self.seen + kept.start, self.seen + n, device=self.z.device) % self.capacity
        self.z[at] = rows.z[kept].to(self.z)
        self.index[at] = rows.index[kept]
        for name in self.groups:
            getattr(self, f"group_{name}")[at] = rows.groups[name][kept]
        self.seen += n

    def get_extra_state(self) -> Tensor:
        return torch.tensor(self.seen)

    def set_extra_state(self, state: Tensor) -> None:
        self.seen = int(state)
