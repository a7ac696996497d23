"""Where a stage begins: initial weights, those of an earlier stage, or those of another run.

What a run takes from another is known by its checksum, written down when the run begins. It is looked at again when the
stage that starts there begins, and never after that: from then on the checkpoints of the run hold all there is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from torch import Tensor, nn

from counterpoint.errors import CounterpointError, RecipeError, RunError
from counterpoint.fit.assembly import Assembly
from counterpoint.modules import NamedModules
from counterpoint.recipe import Recipe
from counterpoint.runs.run import Run, open_trained
from counterpoint.towers.building import build_towers
from counterpoint.towers.storing import load_tensors, read_tensors, stored_checksum

SHOWN = 3  # tensors that a line names


@dataclass
class Finished:
    """The weights of the stages of a run that are done: kept from this process, or read from the run's folder."""

    run: Run
    kept: dict[str, dict[str, Tensor]] = field(default_factory=dict)

    def keep(self, stage: str, towers: Mapping[str, nn.Module]) -> None:
        self.kept[stage] = {name: t.detach().cpu().clone() for name, t in NamedModules(towers).state_dict().items()}

    def __getitem__(self, stage: str) -> dict[str, Tensor]:
        return self.kept.get(stage) or read_tensors(self.run.stage(stage))


def begin(assembly: Assembly, finished: Finished, say: Callable[[str], None]) -> None:
    """Fill the towers with what their stage starts from; RunError when nothing of it fits, or it has changed."""
    recipe = assembly.recipe
    source = recipe.begins
    if source is None:
        return
    if source.run is not None:
        what, tensors = source.run, _of_run(recipe, finished.run)
    else:
        what, tensors = f"stage {source.stage}", finished[source.stage]
    line = _take(assembly.towers, tensors)
    if line is None:
        raise RunError(f"{recipe.where('start')}: {_nothing(what, tensors, assembly.towers)}")
    if recipe.start is not None or "not taken" in line:
        say(f"{'stage ' + recipe.stage if recipe.stage else 'the run'} starts from {what}: {line}")


def fill_earlier(assembly: Assembly, finished: Finished) -> None:
    """The weights of the frozen towers of earlier stages that the stage looks at."""
    for stage, teacher in assembly.earlier.items():
        load_tensors(teacher.towers, finished[stage], f"stage {stage}")


def side_by_side(recipe: Recipe, assembly: Assembly, finished: Finished) -> dict[str, nn.Module]:
    """The towers of all stages as one, with the weights that each stage ended with."""
    towers = build_towers(recipe, assembly.given)
    for stage, _ in recipe.stage_recipes():
        parts = {modality: tower.encoder.parts[stage] for modality, tower in towers.items()}
        load_tensors(parts, finished[stage], f"stage {stage}")
    return towers


def _of_run(recipe: Recipe, run: Run) -> dict[str, Tensor]:
    weights = open_trained(recipe.start.run).weights
    then, now = run.facts().get("start", {}).get(_name(recipe)), stored_checksum(weights)
    if then is not None and then["sha256"] != now:
        raise RunError(
            f"{run.folder}: the weights in {recipe.start.run} (sha256 {now[:12]}) are not those that the run was begun "
            f"for ({then['sha256'][:12]}); start a new run"
        )
    return read_tensors(weights)


def _name(recipe: Recipe) -> str:
    return recipe.stage or "train"


def check_start(assembly: Assembly) -> None:
    """RecipeError when the run that a stage starts from cannot be had, or none of its tensors fits."""
    recipe = assembly.recipe
    if recipe.begins is None or recipe.begins.run is None:
        return
    try:
        tensors = read_tensors(open_trained(recipe.begins.run).weights)
    except CounterpointError as error:
        raise RecipeError([f"{recipe.where('start.run')}: {error}"]) from None
    if not any(_fits(tensors.get(name), own) for name, own in NamedModules(assembly.towers).state_dict().items()):
        nothing = _nothing(recipe.begins.run, tensors, assembly.towers)
        raise RecipeError([f"{recipe.where('start.run')}: {nothing}"])


def _take(towers: Mapping[str, nn.Module], there: Mapping[str, Tensor]) -> str | None:
    """Copy the tensors whose names and shapes agree; what to say of it, None when there is none."""
    named = NamedModules(towers)
    own = named.state_dict()
    taken = {name: there[name] for name, tensor in own.items() if _fits(there.get(name), tensor)}
    if not taken:
        return None
    named.load_state_dict(own | taken)
    left = [_difference(name, tensor, there.get(name)) for name, tensor in own.items() if name not in taken]
    if not left:
        return f"all {len(own)} tensors"
    more = f" and {len(left) - SHOWN} more" if len(left) > SHOWN else ""
    return f"{len(taken)} of {len(own)} tensors; not taken: {', '.join(left[:SHOWN])}{more}"


def _fits(there: Tensor | None, here: Tensor) -> bool:
    return there is not None and there.shape == here.shape


def _difference(name: str, here: Tensor, there: Tensor | None) -> str:
    return f"{name} ({'absent' if there is None else tuple(there.shape)} there, {tuple(here.shape)} here)"


def _nothing(what: str, there: Mapping[str, Tensor], towers: Mapping[str, nn.Module]) -> str:
    """One tensor of each side tells what does not fit: other modalities, or other sizes."""
    own = NamedModules(towers).state_dict()
    name = next((name for name in own if name in there), next(iter(own)))
    return (
        f"none of the {len(there)} tensors of {what} fits the encoders and heads: {_difference(name, own[name], there.get(name))}; "
        f"it has the modalities {', '.join(sorted({n.partition('.')[0] for n in there}))}"
    )
