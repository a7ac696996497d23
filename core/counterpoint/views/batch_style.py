"""One style for a whole batch: the low frequencies of all samples have the amplitudes of one of them.

Dimensions: n rows, C channels, and the axes of time or space that follow.
"""

from __future__ import annotations

import torch
from torch import Tensor

from counterpoint.batch import View
from counterpoint.errors import ComponentError
from counterpoint.randomness import Draw
from counterpoint.views.generator import ViewGenerator


class BatchStyle(ViewGenerator):
    """Batch styles standardisation: data (n, C, ...) of any number of axes -> the same.

    With x = A exp(i P) the Fourier transform of each channel over the axes, and s the style sample of this view and batch,

        x' = inverse transform of  A' exp(i P),  A' = A_s in the window of low frequencies, A elsewhere

    The phases stay, so do the high frequencies, and the style sample itself. The window is centred on frequency 0 and takes
    the share `ratio` of all frequencies: ratio^(1/d) of each of the d axes. A mean is an amplitude of the window.

    A view of a sample depends on its batch, by definition. The style sample is the one with the smallest of numbers drawn
    for each sample, so neither the order of the batch nor the size of micro-batches matters: the loop makes these views
    of the whole batch before it cuts it. Of several processes each has its part of the batch, and so a style of its own.

    ratio  its range, from which one number is drawn a view and batch

    Source: Scalbert, Vakalopoulou and Couzinié-Devy, ICLR 2024, figure 1 (areas ratio r); how the authors draw r was not
    found, the range here is this project's. Raises ComponentError for integers and for samples that differ in length.
    """

    whole_batch = True

    def __init__(self, *, ratio: tuple[float, float] = (0.02, 1.0)):
        super().__init__()
        if not 0 < ratio[0] <= ratio[1] <= 1:
            raise ComponentError(f"view 'batch_style': ratio is a range in (0, 1], low before high; got {list(ratio)}")
        self.ratio = ratio

    def forward(self, view: View, draw: Draw) -> View:
        if not view.data.is_floating_point() or view.data.ndim < 3:
            shape = tuple(view.data.shape)
            raise ComponentError(
                f"view 'batch_style': wants real numbers (n, channels, ...); got {view.data.dtype} {shape}"
            )
        if view.mask is not None and not view.mask.all():
            raise ComponentError("view 'batch_style': samples differ in length; put a crop to one length before it")
        chances, shares = draw.uniform(), draw.uniform(low=self.ratio[0], high=self.ratio[1])
        if not len(view):
            return view
        style = torch.argmin(chances)
        return view.replace(data=restyled(view.data, view.data[style], shares[style]))


def restyled(data: Tensor, style: Tensor, ratio: float | Tensor) -> Tensor:
    """`data` (n, C, ...) with the amplitudes of `style` (C, ...) in the low frequencies, the share `ratio` of all."""
    wide = data if data.dtype == torch.float64 else data.float()
    axes = tuple(range(2, data.ndim))
    spectrum = torch.fft.rfftn(wide, dim=axes)
    amplitude = torch.fft.rfftn(style.to(wide), dim=[axis - 1 for axis in axes]).abs()
    low = window(tuple(data.shape[2:]), ratio, data.device)
    changed = torch.polar(amplitude.expand_as(spectrum), spectrum.angle())
    return torch.fft.irfftn(torch.where(low, changed, spectrum), s=data.shape[2:], dim=axes).to(data.dtype)


def window(sizes: tuple[int, ...], ratio: float | Tensor, device: torch.device | str = "cpu") -> Tensor:
    """bool, in the layout of rfftn over axes of these sizes: the low frequencies, at least frequency 0."""
    share = torch.as_tensor(ratio, device=device) ** (1 / len(sizes))
    found = torch.ones((), dtype=torch.bool, device=device)
    for axis, size in enumerate(sizes):
        frequencies = torch.fft.rfftfreq if axis == len(sizes) - 1 else torch.fft.fftfreq
        near = 2 * frequencies(size, device=device).abs() <= share
        found = found & near.view(-1, *[1] * (len(sizes) - 1 - axis))
    return found
