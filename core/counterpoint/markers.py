"""Markers for the annotations of a component's parameters, in a module that imports nothing heavy.

def crop(*, seconds: float, rate: Annotated[float, Given("rate")]): ...
def chain(*, steps: list[Annotated[Any, Use("view")]]): ...
"""

from dataclasses import dataclass
from typing import Annotated, Any

KINDS = (
    "dataset", "reader", "sampler", "encoder", "head", "view", "objective", "optimizer", "schedule", "refresh", "evaluator",
    "callback",
)  # fmt: skip


@dataclass(frozen=True)
class Use:
    """The parameter is itself a component of this kind, written as a mapping with `use` in a recipe."""

    kind: str


@dataclass(frozen=True)
class Given:
    """The parameter is filled from what the data or the model knows unless the recipe says otherwise.

    Of a modality (encoders, views): `channels`, `length`, `rate` (Hz), `vocabulary`, and whatever else its dataset's
    spec says. Of a head: `width` (H of the encoder's `h`), `token_width` (of its tokens), `map_width` (channels of its
    map). Of an objective: `dim` (D of `z`), `prototypes` (of its head), `size` (samples in the training set), `modalities`
    (their names, in the order of the recipe), `facts` (modality -> what its dataset's spec says, with the `width` of h, the
    `token_width` of tokens and the `layer_widths`).
    """

    name: str


Data = Annotated[Any, Use("dataset")]  # handed over as a function: of(split) -> the dataset
Reader = Annotated[Any, Use("reader")]
Encoder = Annotated[Any, Use("encoder")]
Head = Annotated[Any, Use("head")]
Step = Annotated[Any, Use("view")]
Channels = Annotated[int, Given("channels")]
Rate = Annotated[float, Given("rate")]
MaybeRate = Annotated[float | None, Given("rate")]
Length = Annotated[int | None, Given("length")]
Vocabulary = Annotated[int, Given("vocabulary")]
Width = Annotated[int, Given("width")]
TokenWidth = Annotated[int, Given("token_width")]
Prototypes = Annotated[int, Given("prototypes")]
MapWidth = Annotated[int, Given("map_width")]
Dim = Annotated[int, Given("dim")]
Size = Annotated[int, Given("size")]
MaybeSize = Annotated[int | None, Given("size")]
Facts = Annotated[dict[str, dict[str, Any]], Given("facts")]
Modalities = Annotated[list[str] | None, Given("modalities")]
