"""A good file of every format that the packs and the core read, and the same with what may be wrong in it.

A format has a name, the pack whose `from_manifest` recipe reads it, the modality, and `save(path, content)`. Contents
are made by the kind of sample: `CONTENTS[kind](what)`, where `what` is good, nan, inf, constant, short, long, channels
or rate; a format that cannot hold one has no such file.
"""

import gzip
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

WORDS = ("normal heart", "left effusion", "small nodule", "old fracture")


class CannotHold(Exception):
    """The format has no way to say this."""


@dataclass
class Signal:
    """Values (channels, samples) at a rate in Hz."""

    x: np.ndarray
    rate: int


def _rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def _spoilt(x: np.ndarray, what: str) -> np.ndarray:
    if what in ("nan", "inf"):
        x.flat[x.size // 3] = np.nan if what == "nan" else -np.inf
    return np.full_like(x, 0.25) if what == "constant" else x


def _signal(what: str, *, channels: int, length: int, rate: int, short: int, scale: float) -> Signal:
    length = {"short": short, "long": 100 * length}.get(what, length)
    x = scale * _rng().normal(size=(3 * channels if what == "channels" else channels, length)).astype(np.float32)
    return Signal(_spoilt(x, what), 2 * rate if what == "rate" else rate)


def _volume(what: str) -> np.ndarray:
    if what == "rate":
        raise CannotHold
    shape = {"short": (1, 14, 14), "long": (14, 14, 1400), "channels": (14, 14, 14, 3)}.get(what, (14, 14, 14))
    return _spoilt(_rng().normal(0, 300, shape).astype(np.float32), what)


def _picture(what: str) -> np.ndarray:
    if what in ("rate", "channels"):
        raise CannotHold
    height, width = {"short": (1, 1), "long": (9, 1400)}.get(what, (12, 14))
    return _spoilt(_rng().integers(0, 256, (height, width)).astype(np.float32), what)


def _film(what: str) -> np.ndarray:
    if what in ("nan", "inf", "channels", "rate"):
        raise CannotHold
    count = {"short": 1, "long": 1600}.get(what, 16)
    still = np.zeros((16, 16, 3), np.uint8) if what == "constant" else _rng().integers(0, 256, (16, 16, 3), np.uint8)
    return np.stack([np.roll(still, t, axis=1) for t in range(count)])


def _cloud(what: str) -> np.ndarray:
    if what in ("rate", "channels"):
        raise CannotHold
    count = {"short": 2, "long": 6400}.get(what, 64)
    return _spoilt(_rng().normal(size=(count, 3)), what)


def _text(what: str) -> str:
    if what not in ("good", "long"):
        raise CannotHold
    return " ".join(WORDS) * (3000 if what == "long" else 1)


def _code(what: str) -> str:
    if what not in ("good", "long"):
        raise CannotHold
    return "".join(f"def run_{i}(x):\n    y = x + {i}\n    return y\n" for i in range(2000 if what == "long" else 4))


CONTENTS: dict[str, Callable] = {
    "ecg": lambda what: _signal(what, channels=2, length=800, rate=100, short=8, scale=1.0),
    "sound": lambda what: _signal(what, channels=1, length=4000, rate=16000, short=40, scale=0.1),
    "volume": _volume,
    "picture": _picture,
    "film": _film,
    "cloud": _cloud,
    "text": _text,
    "code": _code,
}


# ---- arrays and tables ----


def _table(content) -> np.ndarray:
    if isinstance(content, Signal):
        if content.rate != 100:
            raise CannotHold
        return content.x
    return content


def save_npy(path: Path, content) -> None:
    np.save(path, _table(content))


def save_npz(path: Path, content) -> None:
    np.savez_compressed(path, x=_table(content))


def save_rows(path: Path, content) -> None:
    mark = {".csv": ",", ".tsv": "\t"}.get(path.suffix, " ")
    path.write_text("".join(mark.join(f"{value:.9g}" for value in row) + "\n" for row in _table(content)))


def save_parquet(path: Path, content) -> None:
    import pyarrow
    from pyarrow import parquet

    if content.x.shape[1] > 5000:
        raise CannotHold  # a column a sample: nobody writes a long recording so
    columns = {f"c{i}": column for i, column in enumerate(_table(content).T)}
    parquet.write_table(pyarrow.table(columns), path, write_page_checksum=True)


def save_text(path: Path, content: str) -> None:
    path.write_text(content, encoding="utf-8")


# ---- ecg ----


def save_wfdb(path: Path, content: Signal, fmt: str = "16") -> None:
    import wfdb

    if not np.isfinite(content.x).all() and np.isinf(content.x).any():
        raise CannotHold
    gain = [1000.0] * len(content.x)  # written out, so that a flat lead has one too
    digital = np.where(np.isnan(content.x), -32768, np.nan_to_num(content.x) * 1000).round().astype(int).T
    wfdb.wrsamp(
        path.stem, fs=content.rate, units=["mV"] * len(content.x), sig_name=[f"L{i}" for i in range(len(content.x))],
        d_signal=digital, adc_gain=gain, baseline=[0] * len(gain), fmt=[fmt] * len(gain), write_dir=str(path.parent),
    )  # fmt: skip


def save_edf(path: Path, content: Signal) -> None:
    import pyedflib

    length = content.x.shape[1]
    if not np.isfinite(content.x).all() or length % content.rate:
        raise CannotHold  # records are whole seconds
    bdf = path.suffix == ".bdf"
    high = 2**23 - 1 if bdf else 2**15 - 1
    kind = pyedflib.FILETYPE_BDF if bdf else pyedflib.FILETYPE_EDF
    with pyedflib.EdfWriter(str(path), len(content.x), file_type=kind) as file:
        file.setSignalHeaders(
            [
                {"label": f"L{i}", "dimension": "mV", "sample_frequency": content.rate, "physical_max": 100,
                 "physical_min": -100, "digital_max": high, "digital_min": -high - 1, "transducer": "", "prefilter": ""}
                for i in range(len(content.x))
            ]
        )  # fmt: skip
        file.writeSamples([np.ascontiguousarray(lead, dtype=np.float64) for lead in content.x])


def _dicom(path: Path, kind: str):
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = kind, "1.2.3.4"
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)


def save_waveform(path: Path, content: Signal) -> None:
    from pydicom.dataset import Dataset
    from pydicom.sequence import Sequence

    if not np.isfinite(content.x).all():
        raise CannotHold
    file, group, channels = _dicom(path, "1.2.840.10008.5.1.4.1.1.9.1.1"), Dataset(), []
    for i in range(len(content.x)):
        channel, source = Dataset(), Dataset()
        source.CodeValue, source.CodingSchemeDesignator, source.CodeMeaning = "2:1", "MDC", f"Lead L{i}"
        channel.ChannelSourceSequence, channel.WaveformBitsStored = Sequence([source]), 16
        channel.ChannelSensitivity, channel.ChannelSensitivityCorrectionFactor = "0.001", "1"
        channel.ChannelBaseline = "0"
        channels.append(channel)
    group.MultiplexGroupTimeOffset, group.WaveformOriginality = "0", "ORIGINAL"
    group.NumberOfWaveformChannels, group.NumberOfWaveformSamples = content.x.shape
    group.SamplingFrequency, group.ChannelDefinitionSequence = str(content.rate), Sequence(channels)
    group.WaveformBitsAllocated, group.WaveformSampleInterpretation = 16, "SS"
    group.WaveformData = (content.x.T * 1000).round().astype("<i2").tobytes()
    file.WaveformSequence, file.Modality = Sequence([group]), "ECG"
    file.save_as(path, enforce_file_format=True)


# ---- medical ----


def save_nifti(path: Path, content: np.ndarray) -> None:
    import nibabel

    nibabel.save(nibabel.Nifti1Image(content, np.diag([2.5, 2.5, 2.5, 1])), path)


def save_series(path: Path, content: np.ndarray) -> None:
    """A folder of slices."""
    if content.ndim > 3 or not np.isfinite(content).all():
        raise CannotHold
    path.mkdir()
    for z in range(min(content.shape[2], 20)):
        save_slice(path / f"{z:04}.dcm", content[:, :, z], z)


def save_slice(path: Path, content: np.ndarray, z: int = 0) -> None:
    if content.ndim > 2 or not np.isfinite(content).all():
        raise CannotHold
    file = _dicom(path, "1.2.840.10008.5.1.4.1.1.2")
    file.Modality, file.SeriesInstanceUID = "CT", "1.2.3"
    file.Rows, file.Columns = content.shape
    file.PixelSpacing, file.ImagePositionPatient, file.ImageOrientationPatient = (
        [2.5, 2.5],
        [0, 0, 2.5 * z],
        [1, 0, 0, 0, 1, 0],
    )
    file.SamplesPerPixel, file.PhotometricInterpretation, file.PixelRepresentation = 1, "MONOCHROME2", 1
    file.BitsAllocated, file.BitsStored, file.HighBit = 16, 16, 15
    file.RescaleSlope, file.RescaleIntercept = 1, 0
    file.PixelData = content.astype("<i2").tobytes()
    file.save_as(path, enforce_file_format=True)


def save_picture(path: Path, content: np.ndarray) -> None:
    from PIL import Image

    if not np.isfinite(content).all():
        raise CannotHold
    Image.fromarray(content.astype(np.uint8)).save(path, **({"quality": 95} if path.suffix == ".jpg" else {}))


# ---- sound and film ----

SUBTYPES = {".wav": "FLOAT", ".flac": "PCM_16", ".ogg": "VORBIS", ".mp3": "MPEG_LAYER_III", ".aiff": "FLOAT", ".au": "FLOAT", ".caf": "FLOAT"}  # fmt: skip


def save_sound(path: Path, content: Signal) -> None:
    import soundfile

    if not np.isfinite(content.x).all() and SUBTYPES[path.suffix] != "FLOAT":
        raise CannotHold
    if len(content.x) > 2 and path.suffix == ".mp3":
        raise CannotHold
    soundfile.write(path, content.x.T, content.rate, subtype=SUBTYPES[path.suffix])


CODECS = {".avi": "mpeg4", ".mpg": "mpeg2video", ".webm": "libvpx"}


def save_film(path: Path, content: np.ndarray) -> None:
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream(CODECS.get(path.suffix, "mpeg4"), rate=25)
        stream.height, stream.width, stream.pix_fmt = *content.shape[1:3], "yuv420p"
        for picture in content:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())


# ---- points ----


def _faces(count: int) -> list[tuple[int, int, int]]:
    return [(i, i + 1, i + 2) for i in range(max(0, count - 2))]


def _lines(rows, head: str = "") -> str:
    return "".join(f"{head}{' '.join(f'{value:.9g}' for value in row)}\n" for row in rows)


def save_off(path: Path, content: np.ndarray) -> None:
    faces = [(3, *face) for face in _faces(len(content))]
    path.write_text(f"OFF\n{len(content)} {len(faces)} 0\n{_lines(content)}{_lines(faces)}")


def save_obj(path: Path, content: np.ndarray) -> None:
    path.write_text(_lines(content, "v ") + _lines([[i + 1 for i in face] for face in _faces(len(content))], "f "))


def save_stl(path: Path, content: np.ndarray) -> None:
    faces = _faces(len(content))
    body = b"".join(struct.pack("<12fH", 0, 0, 0, *content[list(face)].ravel(), 0) for face in faces)
    path.write_bytes(b"made by a test".ljust(80) + struct.pack("<I", len(faces)) + body)


def save_ply(path: Path, content: np.ndarray) -> None:
    faces = _faces(len(content))
    head = (
        f"ply\nformat binary_little_endian 1.0\nelement vertex {len(content)}\nproperty float x\nproperty float y\n"
        f"property float z\nelement face {len(faces)}\nproperty list uchar int vertex_indices\nend_header\n"
    )
    body = content.astype("<f4").tobytes() + b"".join(struct.pack("<B3i", 3, *face) for face in faces)
    path.write_bytes(head.encode() + body)


def save_ply_text(path: Path, content: np.ndarray) -> None:
    head = f"ply\nformat ascii 1.0\nelement vertex {len(content)}\nproperty float x\nproperty float y\nproperty float z\nend_header\n"
    path.write_text(head + _lines(content))


def save_las(path: Path, content: np.ndarray) -> None:
    import laspy

    if not np.isfinite(content).all():
        raise CannotHold
    header = laspy.LasHeader(point_format=3, version="1.2")
    header.scales, header.offsets = np.full(3, 1e-4), np.zeros(3)
    data = laspy.LasData(header)
    data.x, data.y, data.z = content.T
    data.write(str(path))


def save_xyz(path: Path, content: np.ndarray) -> None:
    path.write_text(_lines(content))


def save_pts(path: Path, content: np.ndarray) -> None:
    path.write_text(f"{len(content)}\n{_lines(content)}")


# ---- code ----


def save_jsonl(path: Path, content: str) -> None:
    import json

    rows = [
        {"code": part, "docstring": f"Adds {i} to what it is given", "repo": f"r{i}", "language": "python", "partition": "train"}
        for i, part in enumerate(f"def {piece}" for piece in content.split("def ")[1:])
    ]  # fmt: skip
    text = "".join(json.dumps(row) + "\n" for row in rows)
    path.write_bytes(gzip.compress(text.encode(), mtime=0) if path.suffix == ".gz" else text.encode())


@dataclass(frozen=True)
class Format:
    """name, of the tests; pack; modality of its `from_manifest` recipe; ending; what it holds; how it is written.

    overrides  what the recipe needs to read it
    silent     damage that nothing in the file could tell: a text without counts, samples without checksums
    """

    name: str
    pack: str
    modality: str
    suffix: str
    kind: str
    save: Callable[[Path, object], None]
    overrides: tuple[str, ...] = ()
    silent: frozenset[str] = field(default_factory=frozenset)

    def write(self, path: Path, what: str = "good") -> Path:
        """The file at `path` (whose ending is the format's); CannotHold when there is no such file."""
        self.save(path, CONTENTS[self.kind](what))
        return path


def _all() -> dict[str, Format]:
    rows = ("truncated",)  # cut between two rows it is a shorter table
    ecg, scan, dicom = ("readers.ecg.rate=100",), ("readers.scan.size=[12,12,12]",), ("readers.scan={use: medical.dicom, size: [12,12,12]}",)  # fmt: skip
    image, clip = ("readers.scan={use: medical.image, size: 12}",), ("readers.video.frames=8", "readers.video.size=16", "readers.video.rate=null")  # fmt: skip
    cloud, words = ("readers.shape.points=32",), ("readers.text={use: text}", "readers.code={use: code_search.code, tokenizer: bytes}")  # fmt: skip
    found = [
        *(Format(f"ecg{end}", "ecg", "ecg", end, "ecg", save, ecg, frozenset(odd))
          for end, save, odd in ((".npy", save_npy, ()), (".npz", save_npz, ()), (".csv", save_rows, ()), (".tsv", save_rows, ()),
                                 (".txt", save_rows, ()), (".parquet", save_parquet, ()), (".hea", save_wfdb, ()),
                                 (".edf", save_edf, ()), (".bdf", save_edf, ()), (".dcm", save_waveform, ()))),
        *(Format(f"medical{end}", "medical", "scan", end, "volume", save_nifti, scan) for end in (".nii", ".nii.gz")),
        Format("medical.dcm", "medical", "scan", ".dcm", "picture", save_slice, dicom),
        Format("medical folder", "medical", "scan", "", "volume", save_series, dicom),
        *(Format(f"medical{end}", "medical", "scan", end, "picture", save_picture, image) for end in (".png", ".jpg")),
        *(Format(f"audio{end}", "audio_text", "audio", end, "sound", save_sound) for end in SUBTYPES),
        *(Format(f"video{end}", "video", "video", end, "film", save_film, clip, frozenset(() if end in (".mp4", ".avi", ".mov") else rows))
          for end in (".mp4", ".avi", ".mov", ".mkv", ".webm", ".mpg")),
        *(Format(f"points{name}", "points3d", "shape", "." + name.strip(".").split("_")[0], "cloud", save, cloud, frozenset(odd))
          for name, save, odd in ((".off", save_off, ()), (".obj", save_obj, rows), (".stl", save_stl, ()), (".ply", save_ply, ()),
                                  (".ply_text", save_ply_text, ()), (".las", save_las, ()), (".xyz", save_xyz, rows),
                                  (".pts", save_pts, ()), (".npy", save_npy, ()), (".csv", save_rows, rows))),
        Format("code.py", "code_search", "code", ".py", "code", save_text, words, frozenset(rows)),
        Format("code.txt", "code_search", "text", ".txt", "text", save_text, words, frozenset(rows)),
    ]  # fmt: skip
    return {one.name: one for one in found}


FORMATS = _all()
