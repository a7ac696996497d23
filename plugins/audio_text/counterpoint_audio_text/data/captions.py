"""Sound files with several human captions each, in the tables in which Clotho and AudioCaps are published."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from counterpoint.data.files import Files, from_columns
from counterpoint.data.guard import name_of, raise_all
from counterpoint.data.table import Table, read_table
from counterpoint.data.text import Text
from counterpoint.errors import DataError, suggest
from counterpoint.markers import Reader
from counterpoint_audio_text.readers.sound import Sound

CLOTHO = {"train": "development", "validation": "validation", "test": "evaluation"}
AUDIOCAPS = {"train": "train", "validation": "val", "test": "test"}


def clotho(*, path: str, audio: Reader | None = None, text: Reader | None = None, split: str = "train") -> Files:
    """Clotho: "audio" float32 (1, samples), "text" token ids of every caption of it (five rows a sample).

    path: the folder with `clotho_captions_development.csv` (columns file_name, caption_1 to caption_5), `..._validation.csv`
    and `..._evaluation.csv`, and the recordings in folders `development`, `validation` and `evaluation` beside them.
    split: train (development), validation, test (evaluation), where there is such a table. audio: the reader of the
    recordings (default: 32 kHz, whole; they last 15 to 30 s); text: of the captions (default: a tokenizer learnt on
    train). Raises DataError for missing tables, columns and files, all of a table at once.
    Source: Drossos, Lipping and Virtanen, "Clotho", ICASSP 2020.
    """
    tables = _tables(path, {name: f"clotho_captions_{part}.csv" for name, part in CLOTHO.items()}, "Clotho")
    samples = [
        (os.path.join(path, CLOTHO[name], file), captions, name)
        for name, table in tables.items()
        for file, captions in _clotho_rows(table)
    ]
    return _dataset("audio_text.clotho", samples, audio or Sound(rate=32000), text, split)


def audiocaps(
    *, path: str, audio: Reader | None = None, text: Reader | None = None, split: str = "train", suffix: str = ".wav"
) -> Files:
    """AudioCaps: "audio" float32 (1, samples), "text" token ids of every caption of it (one in train, else five rows).

    path: the folder with `train.csv`, `val.csv` and `test.csv` (columns audiocap_id, youtube_id, start_time, caption) and
    the clips in folders of these names as `<youtube_id>_<start_time><suffix>`, or `<youtube_id><suffix>`. Clips that are
    not there (videos vanish) are left out. split: train, validation, test; audio: reader of the clips
    (default: 32 kHz, 10 s); text: of the captions (default: a tokenizer learnt on train).
    Raises DataError for missing tables and columns, and when no clip is there.
    Source: Kim et al., "AudioCaps", NAACL 2019.
    """
    tables = _tables(path, {name: f"{part}.csv" for name, part in AUDIOCAPS.items()}, "AudioCaps")
    samples = [
        (file, captions, name)
        for name, table in tables.items()
        for file, captions in _audiocaps_rows(table, Path(path) / AUDIOCAPS[name], suffix)
    ]
    if not samples:
        raise DataError(
            f"data 'audio_text.audiocaps': no clip of its tables is in {name_of(path)}; looked for "
            f"train{os.sep}<youtube_id>_<start_time>{suffix} and the like; other files: say their `suffix`"
        )
    return _dataset("audio_text.audiocaps", samples, audio or Sound(rate=32000, seconds=10.0), text, split)


def _dataset(
    where: str, samples: Sequence[tuple[str, list[str], str]], audio: Reader, text: Reader | None, split: str
) -> Files:
    """samples: (file, captions, split) each."""
    files, captions, splits = (list(column) for column in zip(*samples))
    return from_columns(
        cells={"audio": files, "text": captions},
        readers={"audio": audio, "text": text or Text(tokenizer="bpe")},
        splits=splits,
        split=split,
        where=f"data {where!r}",
    )


def _tables(path: str, names: dict[str, str], what: str) -> dict[str, Table]:
    folder = Path(path).expanduser()
    found = {split: read_table(str(folder / name)) for split, name in names.items() if (folder / name).is_file()}
    if not found:
        raise DataError(f"{name_of(folder)}: {what} has one of {', '.join(names.values())} there; found none")
    return found


def _clotho_rows(table: Table) -> list[tuple[str, list[str]]]:
    columns = [name for name in table.columns if name.startswith("caption_")]
    _need(table, ["file_name", "caption_1"])
    texts = zip(*(table.columns[name] for name in columns))
    rows = [(file, [caption for caption in row if caption]) for file, row in zip(table.columns["file_name"], texts)]
    problems = [(line, "file_name is empty") for line, (file, _) in zip(table.lines, rows) if not file]
    problems += [(line, "no caption") for line, (_, captions) in zip(table.lines, rows) if not captions]
    first: dict[str, int] = {}
    for line, (file, _) in zip(table.lines, rows):
        if file and first.setdefault(file, line) != line:
            problems.append((line, f"{file!r} is also on line {first[file]}"))
    raise_all([f"{name_of(table.path)}:{line}: {problem}" for line, problem in sorted(problems)])
    return rows


def _audiocaps_rows(table: Table, folder: Path, suffix: str) -> list[tuple[str, list[str]]]:
    """Captions of one clip stand in several rows."""
    _need(table, ["youtube_id", "start_time", "caption"])
    captions: dict[tuple[str, str], list[str]] = {}
    for clip, start, caption in zip(*(table.columns[name] for name in ("youtube_id", "start_time", "caption"))):
        if clip and caption:
            captions.setdefault((clip, start), []).append(caption)
    rows = []
    for (clip, start), texts in captions.items():
        places = [folder / f"{clip}_{start}{suffix}", folder / f"{clip}{suffix}"]
        rows += [(str(place), texts) for place in places if place.is_file()][:1]
    return rows


def _need(table: Table, names: Sequence[str]) -> None:
    raise_all(
        [
            f"{name_of(table.path)}: there is no column {name!r}{suggest(name, table.columns)}"
            for name in names
            if name not in table.columns
        ]
    )
