"""Taking level and amplitude out of series, or putting a whole data set on one scale.

Dimensions: N series, C channels (leads), L samples in time.
"""

from typing import Literal

import numpy as np

Scaling = Literal["dataset", "series", "none"]


def scaled(x: np.ndarray, how: Scaling, train: np.ndarray) -> np.ndarray:
    """float32 (N, C, L); NaN (padding) stays NaN.

    dataset  minus the mean of `train` (M, C, L), over its standard deviation, one a channel: every series keeps its
             level and amplitude
    series   each series and channel to mean 0 and standard deviation 1; a flat one becomes 0
    none     as it is
    """
    if how == "none":
        return x.astype(np.float32)
    source, axis = (train, (0, 2)) if how == "dataset" else (x, 2)
    mean = np.nanmean(source, axis=axis, keepdims=True, dtype=np.float64)
    deviation = np.nanstd(source, axis=axis, keepdims=True, dtype=np.float64)
    flat = deviation <= 1e-7 * np.abs(mean)  # what rounding leaves of a constant
    return ((x - mean) / np.where(flat, 1.0, deviation)).astype(np.float32)
