"""A whole recipe, and its stages, as dataclasses whose annotations say what each section may hold."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, fields, replace
from typing import Annotated, Any, ClassVar

from annotated_types import Ge, Le

from counterpoint.markers import Use
from counterpoint.recipe.annotations import section_fields
from counterpoint.recipe.call import Call, all_calls, plain
from counterpoint.recipe.origin import Origin
from counterpoint.recipe.sections import (
    Afresh,
    DataCall,
    EncoderCall,
    FileName,
    Heads,
    Loader,
    MomentumOptions,
    Objectives,
    OptimizerCall,
    Refreshes,
    ScheduleCall,
    Trained,
    Tune,
    Views,
    Weights,
)
from counterpoint.recipe.trainer import TrainerOptions
from counterpoint.recipe.yaml import dump


@dataclass(frozen=True)
class Stage:
    """A part of the training: the recipe with these sections in place of its own; each replaces its section whole.

    name   of the stage, in logs and in `start: {stage: ...}`
    start  where its encoders and heads begin: `afresh`, an earlier stage or another run; None: the stage before
    """

    name: FileName
    start: Afresh | Trained | None = None
    data: DataCall | None = None
    loader: Loader | None = None
    refresh: Refreshes | None = None
    heads: Heads | None = None
    views: Views | None = None
    objective: Objectives | None = None
    weights: Weights | None = None
    optimizer: OptimizerCall | None = None
    schedule: ScheduleCall | None = None
    momentum: MomentumOptions | None = None
    teacher: Trained | None = None
    tune: dict[str, Tune] | None = None
    trainer: TrainerOptions | None = None

    def sections(self) -> dict[str, Any]:
        """The sections that this stage replaces."""
        found = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "name"}
        return {name: section for name, section in found.items() if section is not None}


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A checked recipe. Mappings have the modalities as keys, `objective` and `weights` the names of the objectives.

    data         the dataset
    loader       how samples become batches
    refresh      columns made anew between epochs, by name: pseudo labels, neighbours
    encoders     what makes h of each modality
    heads        what makes z of h
    views        steps, one after another, that make the views of each modality
    objective    the loss: one, or several by name
    weights      of each objective of several; 1 where none is said
    optimizer    of all that is trained
    schedule     of the learning rate
    momentum     the momentum encoders, where the objective asks for some
    teacher      frozen encoders that see the same views, for objectives that distil
    start        where encoders and heads begin, in the first stage where there are stages; None: initial weights
    tune         what of each encoder and head is trained
    trainer      Lightning's own arguments
    evaluate     what is scored when the run ends
    baselines    encoders that are scored as they are, to be beaten
    callbacks    Lightning callbacks that packs bring
    loggers      of Lightning, by name: tensorboard, csv
    compile      whether the encoders run under torch.compile
    seed         of everything random
    name         of the run; None: that of the recipe
    stages       parts of the training, one after another
    concatenate  whether the trained encoder is those of all stages side by side

    `origin` says where each entry was written; of the recipe of a stage, `stage` is its name and `before` the recipes of
    those before it.
    """

    data: DataCall
    loader: Loader
    refresh: Refreshes = field(default_factory=dict)
    encoders: dict[str, EncoderCall]
    heads: Heads
    views: Views
    objective: Objectives
    weights: Weights = field(default_factory=dict)
    optimizer: OptimizerCall
    schedule: ScheduleCall
    momentum: MomentumOptions = field(default_factory=MomentumOptions)
    teacher: Trained | None = None
    start: Afresh | Trained | None = None
    tune: dict[str, Tune]
    trainer: TrainerOptions = field(default_factory=TrainerOptions)
    evaluate: list[Annotated[Call, Use("evaluator")]] = field(default_factory=list)
    baselines: dict[str, list[EncoderCall]] = field(default_factory=dict)
    callbacks: list[Annotated[Call, Use("callback")]] = field(default_factory=list)
    loggers: list[str] = field(default_factory=lambda: ["tensorboard"])
    compile: bool = False
    seed: Annotated[int, Ge(0), Le(2**63 - 1)] = 0
    name: FileName | None = None
    stages: list[Stage] = field(default_factory=list)
    concatenate: bool = False
    stage: str = field(default="", compare=False, repr=False, metadata={"key": False})
    before: dict[str, Recipe] = field(default_factory=dict, compare=False, repr=False, metadata={"key": False})
    origin: Origin = field(default_factory=Origin, compare=False, repr=False, metadata={"key": False})

    REFUSED: ClassVar[dict[str, str]] = {
        "use": "a recipe has sections; `use` names a component inside one",
        "lr": "write it under `optimizer`",
        "batch": "write it under `loader`",
        "batch_size": "write `loader: {batch: ...}`",
        "epochs": "write `trainer: {max_epochs: ...}`",
        "temperature": "write it under `objective`",
    }

    def stage_recipes(self) -> list[tuple[str, Recipe]]:
        """(name, recipe) of every stage in order; without stages, this recipe under the name `train`."""
        if not self.stages:
            return [("train", self)]
        found: dict[str, Recipe] = {}
        for number, stage in enumerate(self.stages):
            found[stage.name] = self._staged(number, stage, dict(found))
        return list(found.items())

    def _staged(self, number: int, stage: Stage, before: dict[str, Recipe]) -> Recipe:
        sections = ({"start": None} if number else {}) | stage.sections()  # the recipe's start is the first stage's
        origin = self.origin.of_stage(number, sections)
        return replace(
            self, stages=[], concatenate=False, stage=stage.name, before=before, origin=origin, **sections
        )  # fmt: skip

    @property
    def begins(self) -> Trained | None:
        """Whose weights the encoders and heads begin with; None: initial ones."""
        if self.start is None and self.before:
            return Trained(stage=list(self.before)[-1])
        return None if self.start == "afresh" else self.start

    @property
    def source(self) -> str:
        """The file that the recipe was read from."""
        return self.origin.source

    @property
    def objectives(self) -> dict[str, Call]:
        """The objectives by name; a single one without a name is `loss`."""
        return self.objective

    def where(self, path: str) -> str:
        """The head of a message about an entry of the recipe: `recipe.yaml:7: trainer.devices`."""
        return self.origin.where(path)

    def calls(self) -> Iterator[Call]:
        """Every component of the recipe, nested ones and those of the stages included."""
        return all_calls(self)

    def as_yaml(self) -> str:
        """The whole configuration, defaults included, as a recipe that loads to an equal one."""
        whole = plain(self)
        for tree, sections in [(whole, self), *zip(whole["stages"], self.stages)]:
            _shorten(tree, sections)
        return dump({key: value for key, value in whole.items() if value is not None})


def _shorten(tree: dict, sections: Recipe | Stage) -> None:
    """The single unnamed objective written without the name it was given; in a stage, only what it replaces."""
    only = (sections.objective or {}).get("loss")
    if only and len(sections.objective) == 1 and not only.path.endswith(".loss"):
        tree["objective"] = tree["objective"]["loss"]
    if isinstance(sections, Stage):
        for key in [key for key in section_fields(Stage) if tree[key] is None]:
            del tree[key]
