"""The reader of arrays: numbers in .npy, .npz, .csv, .tsv, .txt and .parquet files, channels first, time last."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from counterpoint.data import numbers
from counterpoint.data.guard import check_array
from counterpoint.data.reader import Reader
from counterpoint.errors import ComponentError

Layout = Literal["channels_first", "time_first"]


class Arrays(Reader):
    """Arrays as float32 (C, L), or (C, H, W) and so on; arrays (L,) become (1, L).

    key         name of the array in a .npz, of the column in a table
    rate        sampling rate in Hz, for what the data is to say of it
    layout      channels_first: arrays are (C, L); time_first: (L, C). Left out: channels first, and more channels than
                samples are refused, because that is how the other layout looks
    min_length, max_length  bounds of the last dimension, in samples
    constant    accept arrays whose values are all equal

    Raises DataError for NaN, infinity, and other channels or dimensions than most files have.
    """

    suffixes = numbers.SUFFIXES
    headless = numbers.HEADLESS

    def __init__(
        self,
        *,
        key: str | None = None,
        rate: float | None = None,
        layout: Layout | None = None,
        min_length: int = 1,
        max_length: int | None = None,
        constant: bool = False,
    ):
        if rate is not None and not rate > 0:
            raise ComponentError(f"reader 'arrays': rate is in Hz, above 0; got {rate}")
        self.key, self.rate, self.layout = key, rate, layout
        self.min_length, self.max_length, self.constant = min_length, max_length, constant
        self.shape: tuple[int | None, ...] | None = None

    def given(self) -> dict[str, Any]:
        return {} if self.rate is None else {"rate": self.rate}

    def facts(self, path: str) -> dict[str, Any]:
        shape = numbers.shape_of(path, self.key)
        shape = (shape[-1], *shape[:-1]) if self.layout == "time_first" and len(shape) > 1 else shape
        shape = (1, *shape) if len(shape) < 2 else shape
        self._refuse_turned(shape)
        return {"channels": shape[0], "dimensions": len(shape), "length": shape[-1]}

    def expect(self, facts: dict[str, Any]) -> None:
        self.shape = (facts["channels"], *[None] * (facts["dimensions"] - 1))

    def read(self, path: str) -> Tensor:
        array = self._channels_first(numbers.read(path, self.key))
        self._refuse_turned(array.shape)
        with np.errstate(over="ignore"):  # what does not fit in float32 is infinite, and refused for that
            array = np.ascontiguousarray(array, dtype=np.float32)
        check_array(
            array,
            path,
            shape=self.shape,
            min_length=self.min_length,
            max_length=self.max_length,
            constant=self.constant,
        )
        return torch.from_numpy(array)

    def _channels_first(self, array: np.ndarray) -> np.ndarray:
        if array.ndim < 2:
            return array.reshape(1, -1)
        return np.moveaxis(array, -1, 0) if self.layout == "time_first" else array

    def _refuse_turned(self, shape: Sequence[int]) -> None:
        if self.layout is None and shape[0] > shape[-1]:
            raise ValueError(
                f"{shape[0]} channels of length {shape[-1]}; say layout: time_first of its reader if the file is "
                "(time, channels), layout: channels_first if this is right"
            )
