"""The sections of a recipe, as dataclasses whose annotations say what each may hold."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le
from pydantic import AfterValidator, AllowInfNan

from counterpoint.markers import Use
from counterpoint.recipe.annotations import Named
from counterpoint.recipe.call import Call
from counterpoint.recipe.trainer import Positive


def _afresh(word: str) -> str:
    if word != "afresh":
        raise ValueError(f"expected afresh, {{stage: ...}} or {{run: ...}}; got {word[:40]!r}")
    return word


def _file_name(name: str) -> str:
    """A name that stays inside the folder it is put in, on every file system."""
    if not re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}", name):
        raise ValueError(f"expected letters, digits, '.', '_' and '-', without a leading dot; got {name[:40]!r}")
    return name


DataCall = Annotated[Call, Use("dataset")]
EncoderCall = Annotated[Call, Use("encoder")]
Heads = dict[str, Annotated[Call, Use("head")]]
Views = dict[str, list[Annotated[Call, Use("view")]]]
Objectives = Annotated[dict[str, Annotated[Call, Use("objective")]], Named("loss")]
OptimizerCall = Annotated[Call, Use("optimizer")]
ScheduleCall = Annotated[Call, Use("schedule")]
FileName = Annotated[str, AfterValidator(_file_name)]
Finite = Annotated[float, AllowInfNan(False)]
Decay = Annotated[float, Ge(0), Le(1)]
Weights = dict[str, Finite]
Afresh = Annotated[str, AfterValidator(_afresh)]
Refreshes = dict[str, Annotated[Call, Use("refresh")]]


@dataclass(frozen=True)
class Loader:
    """How samples become batches.

    sampler      the order of the samples
    batch        samples in a batch, over all ranks
    micro_batch  samples encoded at a time; None: all of the batch
    workers      processes that read samples; auto: as many as help
    on_bad       what a sample that cannot be read does: end the run, or be left out and counted
    """

    sampler: Annotated[Call, Use("sampler")]
    batch: Positive = 64
    micro_batch: Positive | None = None
    workers: Annotated[int, Ge(0)] | Literal["auto"] = "auto"
    on_bad: Literal["raise", "skip"] = "raise"


@dataclass(frozen=True)
class MomentumOptions:
    """Of the momentum encoders; None: what the objective asks for.

    decay  target = decay * target + (1 - decay) * student after every optimizer step
    final  the decay that a run ends with
    """

    decay: Decay | None = None
    final: Decay | None = None


@dataclass(frozen=True)
class Trained:
    """Trained encoders and heads.

    run    of a run: its folder, its name in `runs/`, or `latest`
    stage  of an earlier stage of this recipe, by name
    """

    run: str | None = None
    stage: FileName | None = None


@dataclass(frozen=True)
class LoRA:
    """Low-rank adapters (Hu et al., 2021).

    targets  the modules that they are put beside, by name
    rank     of the update
    alpha    the update is scaled by alpha / rank
    """

    targets: list[str]
    rank: Positive = 8
    alpha: Annotated[float, Gt(0), AllowInfNan(False)] = 16.0


@dataclass(frozen=True)
class Tune:
    """What of an encoder, and of its head, is trained.

    train  of the encoder: all, none, or patterns of parameter names
    head   the same of its head
    lora   adapters beside the encoder's modules
    lr     multiplies the optimizer's learning rate, in both
    """

    train: Literal["all", "none"] | list[str] = "all"
    head: Literal["all", "none"] | list[str] = "all"
    lora: LoRA | None = None
    lr: Annotated[float, Ge(0), AllowInfNan(False)] = 1.0
