"""The trained towers as a file of plain tensors, and the way back from a run folder to a module."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from counterpoint.errors import CounterpointError, RunError, suggest
from counterpoint.modules import Named
from counterpoint.objectives.mechanisms.similarity import Similarity, similarity_of
from counterpoint.runs.atomic import replacing
from counterpoint.runs.run import Run


def save_towers(towers: Mapping[str, nn.Module], path: Path) -> None:
    """Write the parameters and buffers of every tower as safetensors with a checksum, under `modality.encoder...`."""
    from safetensors.torch import save

    state = Named(towers).state_dict()
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
        Named(towers).load_state_dict(tensors)
    except RuntimeError as error:
        raise RunError(f"{source}: {' '.join(str(error).split())[:300]}") from None


def load(run: str | Path, modality: str | None = None) -> nn.Module:
    """The trained encoder of a run as a plain module in evaluation mode: encoder(x) -> h (n, H).

    One that gives tokens or a map as well returns Features, in which h is `.h`. `run` is a run folder, the name of one under `runs/`, or "latest". A run with several modalities wants `modality`.
    """
    towers = load_towers(Run.open(run))
    if modality is None and len(towers) > 1:
        raise CounterpointError(f"{run} has several encoders; say modality=...: {', '.join(towers)}")
    if modality is not None and modality not in towers:
        raise CounterpointError(f"{run} has no encoder for {modality!r}{suggest(modality, towers)}")
    return towers[modality or next(iter(towers))].encoder.eval()


def save_similarity(objectives: Mapping[str, nn.Module], run: Run) -> None:
    """Write what the similarity of the objectives has learned, where there is one that learns."""
    similarity = similarity_of(objectives)
    if similarity is not None and similarity.state_dict():
        save_towers({"similarity": similarity}, run.similarity)


def load_similarity(run: Run, objectives: Mapping[str, nn.Module]) -> Similarity | None:
    """The similarity that retrieval ranks by, as trained: that of the objectives, None when it is a cosine."""
    similarity = similarity_of(objectives)
    if similarity is not None and similarity.state_dict():
        load_weights({"similarity": similarity}, run.similarity)
    return None if similarity is None else similarity.eval()


def tokenizer(run: str | Path, modality: str):
    """What makes token ids of text as the encoder of `modality` wants them: tokenizer("runs/x-1", "text").ids("some text").

    RunError when that modality of the run's data is no text.
    """
    from counterpoint.data.text import Text

    found = Run.open(run)
    kind = found.facts().get("given", {}).get(modality, {}).get("tokenizer")
    if kind is None:
        raise RunError(f"{found.folder}: {modality!r} is not text")
    kept = found.folder / f"{modality}.tokenizer.json"
    return Text(tokenizer=str(kept) if kept.is_file() else kind, max_tokens=None)


def load_towers(run: Run) -> dict[str, nn.Module]:
    """The trained towers of a run, built from its recipe and what the data said then; no data is read."""
    from counterpoint.fit.assembly import build_towers
    from counterpoint.recipe import load as load_recipe

    towers = build_towers(load_recipe(run.recipe), run.facts().get("given", {}))
    load_weights(towers, run.weights)
    return towers
