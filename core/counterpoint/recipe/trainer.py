"""The section `trainer`: those of Lightning's own arguments that a person may choose, and why not the others."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from annotated_types import Ge
from pydantic import AfterValidator, AllowInfNan

PRECISIONS = Literal[
    "32-true",
    "16-mixed",
    "bf16-mixed",
    "16-true",
    "bf16-true",
    "64-true",
    "transformer-engine",
    "transformer-engine-float16",
]


def _duration(text: str) -> str:
    if not re.fullmatch(r"\d+:\d\d:\d\d:\d\d", text):
        raise ValueError(f"expected days:hours:minutes:seconds, as in 00:12:00:00; got {text[:40]!r}")
    return text


def _limit(count: int) -> int:
    if count < 1 and count != -1:
        raise ValueError(f"expected a positive integer, or -1 for no limit; got {count}")
    return count


Positive = Annotated[int, Ge(1)]
Limit = Annotated[int, AfterValidator(_limit)]

_VALIDATION = "there is no validation loop beside training; `evaluate` says what is measured"
_SHORTER = (
    "the loop counts batches itself, so that a resumed run is exact; shorten the run with max_steps or max_epochs"
)
_DISPLAY = "what is shown is the command line's choice, not the recipe's"
_RUN = "the run folder keeps checkpoints, metrics and recipe; where it is, the command line says"


@dataclass(frozen=True)
class TrainerOptions:
    """Lightning's arguments by their own names (lightning.pytorch.Trainer), with its meanings and its defaults.

    accelerator              cpu, gpu, tpu, or what is there
    devices                  how many processes of a machine, or which devices
    num_nodes                machines
    strategy                 how processes work together, as Lightning names it: ddp, ...; auto: what fits
    precision                of weights and arithmetic
    max_epochs               passes over the training set; None: 100, or as many as max_steps takes
    max_steps                optimizer steps; -1: no limit
    max_time                 days:hours:minutes:seconds
    accumulate_grad_batches  batches whose gradients are averaged before an optimizer step
    gradient_clip_val        the largest norm (or value) of a gradient; None: any
    gradient_clip_algorithm  whether norm or value is clipped; None: norm
    deterministic            whether only deterministic algorithms run; warn: say which are not
    benchmark                whether cuDNN tries out its algorithms first
    log_every_n_steps        optimizer steps between two lines of metrics
    sync_batchnorm           whether batch statistics are shared over processes
    detect_anomaly           whether the backward pass that makes a NaN is named; slow
    profiler                 simple, advanced or pytorch
    """

    accelerator: str = "auto"
    devices: Literal["auto"] | int | list[int] = "auto"
    num_nodes: Positive = 1
    strategy: str = "auto"
    precision: PRECISIONS = "32-true"
    max_epochs: Limit | None = None
    max_steps: Limit = -1
    max_time: Annotated[str, AfterValidator(_duration)] | None = None
    accumulate_grad_batches: Positive = 1
    gradient_clip_val: Annotated[float, Ge(0), AllowInfNan(False)] | None = None
    gradient_clip_algorithm: Literal["norm", "value"] | None = None
    deterministic: bool | Literal["warn"] | None = None
    benchmark: bool | None = None
    log_every_n_steps: Positive = 10
    sync_batchnorm: bool = False
    detect_anomaly: bool = False
    profiler: str | None = None

    REFUSED: ClassVar[dict[str, str]] = {
        "callbacks": "a section of its own: write `callbacks: [{use: ...}]` beside `trainer`",
        "logger": "a section of its own: write `loggers: [tensorboard]` beside `trainer`",
        "min_epochs": _SHORTER,
        "min_steps": _SHORTER,
        "limit_train_batches": _SHORTER,
        "overfit_batches": _SHORTER,
        "fast_dev_run": _SHORTER,
        "limit_val_batches": _VALIDATION,
        "limit_test_batches": _VALIDATION,
        "limit_predict_batches": _VALIDATION,
        "val_check_interval": _VALIDATION,
        "check_val_every_n_epoch": _VALIDATION,
        "num_sanity_val_steps": _VALIDATION,
        "inference_mode": _VALIDATION,
        "use_distributed_sampler": "the loop divides every batch among the ranks itself; `loader.sampler` chooses the order",
        "reload_dataloaders_every_n_epochs": "the loop draws each epoch's order itself, from seed and epoch",
        "enable_checkpointing": _RUN,
        "default_root_dir": _RUN,
        "enable_autolog_hparams": _RUN,
        "model_registry": _RUN,
        "plugins": "the loop sets these; choose `strategy` and `precision`",
        "enable_progress_bar": _DISPLAY,
        "enable_model_summary": _DISPLAY,
        "barebones": "the loop needs the hooks that this turns off",
    }
