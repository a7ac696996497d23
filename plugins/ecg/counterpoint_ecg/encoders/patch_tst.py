"""The transformer over patches of time, made by tsai.

Dimensions: n rows, C channels (leads), L samples in time, H width of `h`. tsai is imported when the encoder is built (about
3 s beyond torch).
"""

from torch import Tensor, nn

from counterpoint.batch import Features
from counterpoint.errors import ComponentError
from counterpoint.markers import Channels, Length
from counterpoint.packs.importing import untouched


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
