"""What the header of a recording says, whatever its format, and how a stretch of it is read.

Dimensions: C channels (leads), L samples in time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from counterpoint.errors import suggest

MILLIVOLTS = {"v": 1e3, "mv": 1.0, "uv": 1e-3, "µv": 1e-3, "μv": 1e-3, "nv": 1e-6}  # both signs for micro


@dataclass(frozen=True)
class Recording:
    """Signals side by side, and `stretch(signals, start, stop)`: float64 (C, stop - start), NaN where a sample is missing.

    names, units, rates (Hz), lengths (samples) have one entry a signal; `start` and `stop` count samples of the signals
    asked for, which have one rate.
    """

    names: list[str]
    units: list[str]
    rates: list[float]
    lengths: list[int]
    stretch: Callable[[list[int], int, int], np.ndarray]

    def signals(self, leads: Sequence[str] | None) -> list[int]:
        """Positions of `leads`, or of all signals that have the most common rate; ValueError when they do not go together."""
        if leads is not None:
            chosen = [self._position(lead) for lead in leads]
        else:
            rate = Counter(self.rates).most_common(1)[0][0] if self.rates else None
            chosen = [i for i, other in enumerate(self.rates) if other == rate]
        if not chosen:
            raise ValueError("holds no signals")
        rates = {self.rates[i] for i in chosen}
        if len(rates) > 1:
            told = ", ".join(f"{self.names[i]} {self.rates[i]:g} Hz" for i in chosen)
            raise ValueError(f"leads of different rates ({told}); name leads of one rate")
        return chosen

    def millivolts(self, signals: Sequence[int], start: int, stop: int) -> np.ndarray:
        """float64 (C, stop - start): voltages in mV, other quantities in the unit of the file."""
        factors = [MILLIVOLTS.get(self.units[i].strip().lower(), 1.0) for i in signals]
        return self.stretch(list(signals), start, stop) * np.array(factors)[:, None]

    def _position(self, lead: str) -> int:
        """The one signal of this name, in any case; a name may lack the kind before it ("II" for "ECG II")."""
        wanted = spoken(lead)
        for names in ([spoken(name) for name in self.names], [spoken(name).split()[-1:] for name in self.names]):
            found = [i for i, name in enumerate(names) if name in (wanted, [wanted])]
            if len(found) > 1:
                raise ValueError(f"{len(found)} signals are called {lead!r}")
            if found:
                return found[0]
        raise ValueError(f"holds no lead {lead!r}{suggest(lead, self.names)}")


def spoken(name: str) -> str:
    """A lead's name without the case that distinguishes aVR from AVR."""
    return " ".join(name.split()).casefold()
