"""What holds for every recipe: it is valid, its parts fit each other, and it trains three steps with a finite loss."""

from __future__ import annotations

import contextlib
import io
import tempfile
from dataclasses import replace
from pathlib import Path

from counterpoint.errors import CounterpointError, DataError, TrainingError
from counterpoint.fit.assembly import assemble
from counterpoint.recipe import Recipe, load
from counterpoint.testing.finding import Broken, Untried
from counterpoint.testing.material import ReadOnce, dataset_of

STEPS, BATCH = 3, 8


def is_valid(path: Path, overrides: tuple[str, ...], found: dict) -> None:
    """Every key and value is one that its component takes; `found["recipe"]` is the recipe."""
    try:
        found["recipe"] = _read_once(load(path, overrides))
    except CounterpointError as error:
        raise _refused(error, path) from error


def _read_once(recipe: Recipe) -> Recipe:
    stages = [replace(stage, data=ReadOnce.of(stage.data)) if stage.data else stage for stage in recipe.stages]
    return replace(recipe, data=ReadOnce.of(recipe.data), stages=stages)


def fits_together(path: Path, found: dict) -> None:
    """Its parts are built and tried on two samples, stage by stage: `found["stages"]`; Untried when the data are not here."""
    from counterpoint.fit.dry_run import try_out

    stages = [stage for _, stage in found["recipe"].stage_recipes()]
    try:
        found["stages"] = [assemble(stage) for stage in stages]
    except CounterpointError as error:
        for stage in stages:
            dataset_of(stage)
        raise _refused(error, path) from error
    try:
        for assembly in found["stages"]:
            try_out(assembly)
    except DataError as error:
        raise Untried(str(error).partition("\n")[0]) from error
    except CounterpointError as error:
        raise _refused(error, path) from error


def _refused(error: CounterpointError, path: Path) -> Broken:
    first, *more = str(error).splitlines()
    place, _, said = first.partition(": ")
    line = place.rpartition(":")[2]
    return Broken(
        "it is not valid" if not more else f"it is not valid; {len(more)} mistakes more",
        expected="`counterpoint check` finds nothing",
        got=said if line.isdigit() else first,
        mend="correct the recipe, or the component it names",
        where=place if line.isdigit() else f"{path}:1",
    )


def small(recipe: Recipe) -> Recipe:
    """The recipe for a few steps on a small batch, on this machine's CPU, without scores."""
    shorter = lambda trainer: trainer and replace(  # noqa: E731
        trainer, max_epochs=None, max_steps=STEPS, max_time=None, accelerator="cpu", devices=1, num_nodes=1, strategy="auto"
    )  # fmt: skip
    fewer = lambda loader: loader and replace(loader, batch=min(BATCH, loader.batch), workers=0, micro_batch=None)  # noqa: E731
    stages = [replace(s, trainer=shorter(s.trainer), loader=fewer(s.loader)) for s in recipe.stages]
    return replace(
        recipe, trainer=shorter(recipe.trainer), loader=fewer(recipe.loader), stages=stages, evaluate=[], baselines={},
        loggers=[], compile=False,
    )  # fmt: skip


def trains_three_steps(path: Path, found: dict) -> None:
    """Three steps of every stage; a loss or weights that are not finite end a run."""
    from counterpoint.fit.run import fit

    talk = io.StringIO()
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stderr(talk), contextlib.redirect_stdout(talk):
        try:
            fit(small(found["recipe"]), root=Path(folder))
        except TrainingError as error:
            raise Broken(
                f"it does not train {STEPS} steps",
                expected="a finite loss and finite weights",
                got=str(error).partition("\n")[0],
                mend="try its objective on odd batches, then a smaller optimizer.lr",
                where=f"{path}:1",
            ) from error
