"""A model of transformers with the weights of a local folder: never a download, never a pickle."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from counterpoint.errors import ComponentError


def stored(who: str, folder: Path | str, kind: type, what: str, **options) -> nn.Module:
    """What `kind.from_pretrained` makes of a folder with safetensors, in float32; ComponentError when it holds no `what`."""
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()  # a bar for weights that are on the disk
    try:
        return kind.from_pretrained(folder, local_files_only=True, use_safetensors=True, **options).float()
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise ComponentError(f"{who}: {folder} holds no {what}: {error}") from error
