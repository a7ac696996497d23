"""Published time-series encoders, made by tsai, and a spectrum without parameters to compare them with.

Dimensions: n rows, C channels (leads), L samples in time, T steps of time left of them, H width of `h`. An encoder is
`encoder(data (n, C, L))`, says H in `width`, and gives h (n, H) with tokens (n, T, `token_width`), one a step; the spectrum
gives h alone. tsai is imported when an encoder of its is built (about 3 s beyond torch).
"""

import torch
from torch import Tensor, nn

from counterpoint.batch import Features
from counterpoint.errors import ComponentError
from counterpoint.importing import untouched
from counterpoint.markers import Channels, Length


def inception_time(*, channels: Channels, width: int = 32, depth: int = 6, kernel: int = 40) -> nn.Module:
    """InceptionTime: residual blocks of three parallel convolutions; H = 4 * width, any L; tokens (n, L, H).

    width: filters of each branch; depth: inception modules, one residual connection every three; kernel: samples that
    the longest of the three kernels spans (40, 20 and 10 rounded down to odd). Its BatchNorm learns batch statistics.
    Source: Ismail Fawaz et al., "InceptionTime", DMKD 34 (2020), section 3 (there width 32, depth 6, kernel 40).
    """
    with untouched():
        from tsai.models.InceptionTime import InceptionTime
    model = InceptionTime(channels, 1, nf=width, depth=depth, ks=kernel)
    model.gap, model.fc = _Mean(), nn.Identity()
    return _giving(model, 4 * width)


def xception_time(*, channels: Channels, width: int = 16, kernel: int = 40) -> nn.Module:
    """XceptionTime: four modules of depthwise separable convolutions, then adaptive pooling; H = 8 * width, any L.

    tokens (n, 50, H): the stretches of equal length that the pooling leaves.

    width: filters of the first module, doubled in each next; kernel: samples the longest kernel spans. The published
    head is kept up to its last hidden layer. Source: Rahimian et al., "XceptionTime", arXiv 1911.03803 (2019), section 3.
    """
    with untouched():
        from tsai.models.XceptionTime import XceptionTime
    model = XceptionTime(channels, 1, nf=width, ks=kernel)
    pool, first, second, _, _ = model.head
    model.head = nn.Sequential(pool, first, second, _Mean())
    return _giving(model, 8 * width)


def resnet(*, channels: Channels) -> nn.Module:
    """The time-series ResNet: three residual blocks of kernels 7, 5, 3 at full resolution; H = 128, any L; tokens (n, L, H).

    Source: Wang, Yan and Oates, "Time series classification from scratch", IJCNN 2017, section II.C (there kernels 8,
    5, 3). `resnet1d` is the one that shortens the series on the way and knows padded lengths.
    """
    with untouched():
        from tsai.models.ResNet import ResNet
    model = ResNet(channels, 1)
    model.gap, model.squeeze, model.fc = _Mean(), nn.Identity(), nn.Identity()
    return _giving(model, 128)


class _Mean(nn.Module):
    """The pool over time at an encoder's end, which knows the steps too: it has no weights, so that none is renamed."""

    def forward(self, x: Tensor) -> Features:
        h = nn.functional.adaptive_avg_pool1d(x, 1)[..., 0]  # (n, H, T) -> (n, H)
        return Features(h, tokens=x.transpose(1, 2))


def _giving(model: nn.Module, width: int) -> nn.Module:
    model.width, model.gives = width, frozenset({"tokens"})
    return model


def patch_tst(
    *,
    channels: Channels,
    length: Length,
    width: int = 128,
    depth: int = 3,
    heads: int = 16,
    hidden: int = 256,
    patch: int = 16,
    stride: int = 8,
    dropout: float = 0.2,
    normalise: bool = True,
) -> nn.Module:
    """PatchTST: a transformer over patches of each channel on its own; h is the mean over patches, H = channels * width.

    tokens (n, patches, H): all channels at one place.

    length: samples of the series it sees, after any crop (its position embedding has that many patches); width: model
    dimension; depth: layers; hidden: feed-forward width; patch, stride: samples; normalise: subtract each series' mean
    and divide by its standard deviation first, so that level and amplitude are lost.
    Raises ComponentError when `length` is unknown or shorter than a patch, or `heads` does not divide `width`.
    Source: Nie et al., "A Time Series is Worth 64 Words", ICLR 2023, section 3.1 (defaults: its appendix A.1.4).
    """
    if length is None or length < patch:
        raise ComponentError(
            f"encoder 'ecg.patch_tst': length must be the samples of every series, at least patch: {patch}; got {length}. "
            "After a crop, give its length: `length: 1000`"
        )
    if width % heads:
        raise ComponentError(f"encoder 'ecg.patch_tst': heads must divide width; got heads: {heads}, width: {width}")
    with untouched():
        from tsai.models.PatchTST import PatchTST
    model = PatchTST(
        channels,
        1,
        length,
        pred_dim=1,
        n_layers=depth,
        n_heads=heads,
        d_model=width,
        d_ff=hidden,
        dropout=dropout,
        patch_len=patch,
        stride=stride,
        revin=False,
    ).model
    return _Patches(model, channels, length, width, normalise)


class _Patches(nn.Module):
    """tsai's PatchTST without its forecasting head."""

    gives = frozenset({"tokens"})

    def __init__(self, model: nn.Module, channels: int, length: int, width: int, normalise: bool):
        super().__init__()
        model.head, model.revin_layer = nn.Identity(), nn.Identity()  # both have parameters that nothing would train
        self.model, self.channels, self.length, self.normalise = model, channels, length, normalise
        self.width = channels * width

    def forward(self, data: Tensor) -> Features:
        if data.shape[1:] != (self.channels, self.length):
            raise ComponentError(
                f"encoder 'ecg.patch_tst' was built for ({self.channels}, {self.length}) channels and samples; got "
                f"{tuple(data.shape[1:])}. Give it the length that the views leave: `length: {data.shape[-1]}`"
            )
        if self.normalise:
            data = nn.functional.instance_norm(data)
        steps = self.model(data).flatten(1, 2)  # (n, C, D, patches) -> (n, C * D, patches)
        return Features(steps.mean(-1), tokens=steps.transpose(1, 2))


class Rfft(nn.Module):
    """Magnitudes of the real Fourier transform, without parameters: the baseline that a trained encoder has to beat.

    length: samples transformed; a longer series is cut there, a shorter one padded with zeros. H = channels *
    (length // 2 + 1). Raises ComponentError when `length` is unknown.
    """

    def __init__(self, *, channels: Channels, length: Length):
        super().__init__()
        if length is None:
            raise ComponentError("encoder 'ecg.rfft': series of many lengths need one to transform: `length: 1000`")
        self.length, self.width = length, channels * (length // 2 + 1)

    def forward(self, data: Tensor) -> Tensor:
        return torch.fft.rfft(data.float(), n=self.length).abs().flatten(1)  # (n, C, L) -> (n, C * (L // 2 + 1))
