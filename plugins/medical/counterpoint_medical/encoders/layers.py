"""What encoders of volumes and images share: how many axes there are, and layers that normalise."""

from typing import Annotated, Literal

from counterpoint.errors import ComponentError
from counterpoint.markers import Given

SpatialDims = Annotated[Literal[2, 3], Given("spatial_dims")]
Norm = Literal["batch", "group", "instance"]


def norm_of(norm: Norm) -> tuple:
    """The layer in MONAI's words: its name and its parameters."""
    return {
        "batch": ("batch", {}),
        "group": ("group", {"num_groups": 8}),
        "instance": ("instance", {"affine": True}),
    }[norm]


def check_width(who: str, width: int, norm: Norm) -> None:
    """ComponentError for a width of encoder `who` below 1, or one that the 8 groups do not divide."""
    if width < 1 or (norm == "group" and width % 8):
        multiple = " that 8 groups divide" if norm == "group" else ""
        raise ComponentError(f"encoder {who!r}: width must be 1 or more{multiple}; got {width}")
