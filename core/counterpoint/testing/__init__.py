"""What an author of a pack tests with: one call tries everything, and says what to mend and where.

from counterpoint.testing import check_pack

def test_the_pack_keeps_the_contract():
    check_pack("seismo")
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from counterpoint.testing.finding import Report
    from counterpoint.testing.material import Example

__all__ = ["Example", "check_pack"]


def check_pack(name: str, examples: Mapping[str, Example] | None = None) -> Report:
    """Every check of an installed pack; AssertionError with every finding, a warning for each thing not tried.

    An API version that is soon no longer spoken is a FutureWarning.

    examples  what components and recipes are tried on that the pack's recipes alone do not try: `kind name` -> Example,
    such as {"encoder net": Example(data=torch.randn(4, 2, 100), given={"channels": 2})}
    """
    from counterpoint.testing.kit import examine

    report = examine(name, examples)
    for who, why in report.untried.items():
        warnings.warn(f"{who} was not tried: {why}", stacklevel=2)
    if report.deprecated:
        warnings.warn(f"{report.pack} {report.deprecated}", FutureWarning, stacklevel=2)
    if report.findings:
        raise AssertionError(f"\n{report}")
    return report


def __getattr__(name: str):
    if name == "Example":  # torch is imported by whoever has an example
        from counterpoint.testing.material import Example

        return Example
    raise AttributeError(name)
