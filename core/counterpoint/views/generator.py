"""What a view generator is: a step that makes one View or several of a View."""

from torch import Tensor, nn

from counterpoint.batch import Outputs, View
from counterpoint.randomness import Draw


class ViewGenerator(nn.Module):
    """A step of a view pipeline: batched, on the device, with random numbers of its own for every sample.

    `forward(view, draw)` returns a View or a list of Views and leaves its input as it was. `prepare(view)` is what an
    evaluation sees instead, once for every sample and without chance: the View as it is for an augmentation, the
    spectrogram for a spectrogram. A step with `whole_batch = True` makes what it makes of all samples of a batch together
    (those of one process); the loop then cuts the batch into micro-batches after the views, not before. `records` names
    what every View that comes out holds in `meta`, where an objective asks for it: `place` (counterpoint.views.place).
    """

    whole_batch = False
    records: frozenset[str] = frozenset()

    def layout(self, roles: list[str]) -> list[str]:
        """Roles of the Views that come out when Views with these roles go in, known without running."""
        return roles

    def forward(self, view: View, draw: Draw) -> View | list[View]:
        raise TypeError(f"{type(self).__name__} must define forward(view, draw)")

    def prepare(self, view: View) -> View:
        return view


class TrainableView(ViewGenerator):
    """A view generator whose parameters learn by a loss of its own, computed through the encoder.

    The objective does not train these parameters, and `own_loss` trains nothing else: the encoder, its head and all
    other steps are constants for it. (A view generator with parameters that is no TrainableView learns by the
    objective, together with the encoder.) Both losses are descended in the same optimizer step, each from the weights
    before it, where published systems often let the view step first: one optimizer then does for both, with its state
    in the checkpoint and clipping by one norm. The parameters have a learning rate of their own, which follows the
    recipe's schedule.

    lr     before the schedule; None: the recipe's
    every  the parameters learn in the optimizer steps 0, every, 2 every, ...; in others they stay, with their state of
           the optimizer, whatever momentum or decay it has
    """

    lr: float | None = None
    every: int = 1

    def own_loss(self, outputs: Outputs) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss and parts to log, from the views of this modality over all ranks, in order of the layout.

        They are as the encoder sees them in evaluation mode; z is not normalised; meta (tensors with n rows) has what
        the step put there, with its gradient. Not called for a batch without any row.
        """
        raise TypeError(f"{type(self).__name__} must define own_loss(outputs)")


class Augmentation(ViewGenerator):
    """A view generator that changes `data` alone, applied to each sample with probability `p`."""

    def __init__(self, *, p: float = 1.0):
        super().__init__()
        if not 0.0 <= p <= 1.0:
            raise ValueError(f"p is a probability in [0, 1]; got {p}")
        self.p = p

    def augment(self, data: Tensor, mask: Tensor | None, draw: Draw) -> Tensor:
        """A new tensor of the shape and dtype of `data` (n, ...)."""
        raise TypeError(f"{type(self).__name__} must define augment(data, mask, draw)")

    def forward(self, view: View, draw: Draw) -> View:
        chosen = draw.chance(self.p) if self.p < 1.0 else None
        data = self.augment(view.data, view.mask, draw)
        if chosen is not None:
            data = data.where(chosen.view(-1, *[1] * (data.ndim - 1)), view.data)
        return view.replace(data=data)
