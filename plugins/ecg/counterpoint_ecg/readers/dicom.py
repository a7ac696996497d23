"""DICOM waveforms (.dcm, 12-lead ECG and others), read through the package pydicom when it is installed."""

from __future__ import annotations

import numpy as np

from counterpoint.data.guard import MAX_BYTES, check_file
from counterpoint.data.within import Within
from counterpoint.errors import CounterpointError
from counterpoint_ecg.readers.recording import Recording


def recording(path: str) -> Recording:
    """The longest group of signals in the file: the rhythm, not the averaged beats that may stand beside it.

    "Lead II (Einthoven)" is called "II". Raises ValueError for a file without waveforms, CounterpointError with the
    command that installs pydicom when it is missing.
    """
    dataset = _dataset(path)
    groups = list(dataset.get("WaveformSequence") or [])
    if not groups:
        raise ValueError("a DICOM file without waveforms")
    chosen = max(range(len(groups)), key=lambda i: int(groups[i].NumberOfWaveformSamples))
    group = groups[chosen]
    channels, length = group.ChannelDefinitionSequence, int(group.NumberOfWaveformSamples)
    if len(group.WaveformData) < (expected := len(channels) * length * int(group.WaveformBitsAllocated) // 8):
        raise ValueError(f"truncated: {len(group.WaveformData)} bytes of waveforms, its header says {expected}")

    def stretch(signals: list[int], start: int, stop: int) -> np.ndarray:
        return np.asarray(dataset.waveform_array(chosen), dtype=np.float64).T[signals, start:stop]

    rate = float(group.SamplingFrequency)
    if not 0 < rate < float("inf"):
        raise ValueError(f"a sampling rate of {rate} Hz")
    names, units = [_name(channel) for channel in channels], [_unit(channel) for channel in channels]
    return Recording(names, units, [rate] * len(names), [length] * len(names), stretch)


def _dataset(path: str):
    try:
        import pydicom
    except ImportError as error:
        raise CounterpointError(
            "reading DICOM needs pydicom; install it with: pip install 'counterpoint-ecg[dicom]'"
        ) from error
    check_file(path, max_bytes=MAX_BYTES)
    try:
        with Within(path) as file:
            return pydicom.dcmread(file)
    except pydicom.errors.InvalidDicomError as error:
        raise ValueError("not a DICOM file, whatever its name says") from error


def _name(channel) -> str:
    source = (channel.get("ChannelSourceSequence") or [{}])[0].get("CodeMeaning", "")
    return str(channel.get("ChannelLabel") or source).removeprefix("Lead ").split(" (")[0].strip()


def _unit(channel) -> str:
    return str((channel.get("ChannelSensitivityUnitsSequence") or [{}])[0].get("CodeValue", ""))
