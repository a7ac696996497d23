"""VideoMAE, made by transformers.

Dimensions: n rows, C channels, T frames, H and W pixels, L places in space and time, F the encoder's width. Tokens come frame
after frame and line after line. transformers is imported when the encoder is built.
"""

from __future__ import annotations

from torch import Tensor, nn

from counterpoint.batch import Features
from counterpoint.data.sources import model_folder
from counterpoint.encoders.stored import stored
from counterpoint.errors import ComponentError
from counterpoint.markers import Channels


def videomae(
    *,
    channels: Channels,
    size: int = 112,
    frames: int = 16,
    patch: int = 16,
    tubelet: int = 2,
    width: int = 384,
    depth: int = 12,
    heads: int = 6,
    weights: str | None = None,
) -> nn.Module:
    """VideoMAE's vision transformer over tubelets of patches; h (n, width), the mean of its tokens.

    size, frames: of the clips it sees, after the views; patch, tubelet: pixels and frames of a token; width, depth, heads: ViT-S by default.
    weights: a local folder in the format of transformers, whose sizes then hold; None: from scratch.
    Raises ComponentError when patch, tubelet or heads do not divide, or the clips are of another size.
    Source: Tong et al., "VideoMAE", NeurIPS 2022, section 3.3; transformers' `VideoMAEModel`.
    """
    from transformers import VideoMAEConfig, VideoMAEModel

    if weights is not None:
        folder = model_folder(weights, "encoder 'video.videomae'")
        return _Tubelets(stored("encoder 'video.videomae'", folder, VideoMAEModel, "model of VideoMAE"))
    if size % patch or frames % tubelet or width % heads:
        raise ComponentError(
            "encoder 'video.videomae': patch must divide size, tubelet frames, heads width; got "
            f"{patch} and {size}, {tubelet} and {frames}, {heads} and {width}"
        )
    config = VideoMAEConfig(
        image_size=size,
        patch_size=patch,
        num_channels=channels,
        num_frames=frames,
        tubelet_size=tubelet,
        hidden_size=width,
        num_hidden_layers=depth,
        num_attention_heads=heads,
        intermediate_size=4 * width,
        use_mean_pooling=True,
    )
    return _Tubelets(VideoMAEModel(config))


class _Tubelets(nn.Module):
    """transformers' VideoMAE, which takes (n, T, C, H, W)."""

    gives = frozenset({"tokens"})

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model, self.width = model, model.config.hidden_size
        self.norm = nn.LayerNorm(self.width)  # with mean pooling the model itself normalises nothing at its end

    def forward(self, data: Tensor) -> Features:
        config = self.model.config
        sides = {"channels": config.num_channels, "frames": config.num_frames}
        if tuple(data.shape[1:]) != (*sides.values(), config.image_size, config.image_size):
            raise ComponentError(
                f"encoder 'video.videomae': built for {config.num_channels} channels, {config.num_frames} frames of "
                f"{config.image_size} x {config.image_size}; got {tuple(data.shape[1:])}. Give it the `frames` and `size` that the views leave"
            )
        tokens = self.norm(self.model(data.transpose(1, 2)).last_hidden_state)  # (n, L, F)
        return Features(tokens.mean(1), tokens)
