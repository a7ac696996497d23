"""Published convolutional networks over time, made by tsai.

Dimensions: n rows, C channels (leads), L samples in time, T steps of time left of them, H width of `h`. An encoder is
`encoder(data (n, C, L))`, says H in `width`, and gives h (n, H) with tokens (n, T, H), one a step. tsai is imported when an
encoder of its is built (about 3 s beyond torch).
"""

from torch import Tensor, nn

from counterpoint.batch import Features
from counterpoint.markers import Channels
from counterpoint.packs.importing import untouched


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
