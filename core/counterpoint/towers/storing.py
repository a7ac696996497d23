"""Towers as a file of plain tensors with a checksum."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from counterpoint.errors import RunError
from counterpoint.modules import NamedModules
from counterpoint.runs.atomic import replacing


def save_towers(towers: Mapping[str, nn.Module], path: Path) -> None:
    """Write the parameters and buffers of every tower as safetensors with a checksum, under `modality.encoder...`."""
    from safetensors.torch import save

    state = NamedModules(towers).state_dict()
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in state.items()}
    with replacing(path) as file:
        file.write(save(tensors, metadata={"sha256": _checksum(tensors)}))


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of such a file; RunError when it is missing, or its checksum does not hold."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            metadata, tensors = file.metadata() or {}, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except FileNotFoundError:
        raise RunError(f"{path}: there are no weights there") from None
    except (SafetensorError, OSError) as error:
        raise RunError(f"{path} is damaged ({error})") from None
    if metadata.get("sha256") != _checksum(tensors):
        raise RunError(f"{path} is damaged (its checksum does not hold)")
    return tensors


def stored_checksum(path: Path) -> str:
    """The checksum that such a file holds of its tensors; RunError when there is none."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            found = (file.metadata() or {}).get("sha256")
    except FileNotFoundError:
        raise RunError(f"{path}: there are no weights there") from None
    except (SafetensorError, OSError) as error:
        raise RunError(f"{path} is damaged ({error})") from None
    if found is None:
        raise RunError(f"{path} is damaged (it has no checksum)")
    return found


def _checksum(tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(tensors[name].contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def load_weights(towers: Mapping[str, nn.Module], path: Path) -> None:
    """Fill towers from such a file; RunError when it is missing, damaged, or of other towers."""
    load_tensors(towers, read_tensors(path), str(path))


def load_tensors(towers: Mapping[str, nn.Module], tensors: Mapping[str, Tensor], source: str) -> None:
    """Fill towers from tensors by name; RunError, which names the source, when they are of other towers."""
    try:
        NamedModules(towers).load_state_dict(tensors)
    except RuntimeError as error:
        raise RunError(f"{source}: {' '.join(str(error).split())[:300]}") from None
