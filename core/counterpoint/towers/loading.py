"""The way back from a run folder to modules: its towers, one encoder, or what makes token ids for it."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from counterpoint.data.text import Text
from counterpoint.errors import CounterpointError, RunError, suggest
from counterpoint.recipe import load as load_recipe
from counterpoint.runs.run import Run
from counterpoint.towers.building import build_towers
from counterpoint.towers.storing import load_weights


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


def tokenizer(run: str | Path, modality: str):
    """What makes token ids of text as the encoder of `modality` wants them: tokenizer("runs/x-1", "text").ids("some text").

    RunError when that modality of the run's data is no text.
    """
    found = Run.open(run)
    kind = found.facts().get("given", {}).get(modality, {}).get("tokenizer")
    if kind is None:
        raise RunError(f"{found.folder}: {modality!r} is not text")
    kept = found.folder / f"{modality}.tokenizer.json"
    return Text(tokenizer=str(kept) if kept.is_file() else kind, max_tokens=None)


def load_towers(run: Run) -> dict[str, nn.Module]:
    """The trained towers of a run, built from its recipe and what the data said then; no data is read."""
    towers = build_towers(load_recipe(run.recipe), run.facts().get("given", {}))
    load_weights(towers, run.weights)
    return towers
