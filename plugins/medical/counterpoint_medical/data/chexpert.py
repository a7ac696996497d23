"""The layout of CheXpert: a table of radiographs with their findings, beside the folders of the patients."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Literal

from counterpoint.data.files import Files, from_columns
from counterpoint.data.guard import check_file, name_of, reading
from counterpoint.errors import DataError, suggest
from counterpoint_medical.readers.image import Image

FINDINGS = (
    "No Finding", "Enlarged Cardiomediastinum", "Cardiomegaly", "Lung Opacity", "Lung Lesion", "Edema", "Consolidation",
    "Pneumonia", "Atelectasis", "Pneumothorax", "Pleural Effusion", "Pleural Other", "Fracture", "Support Devices",
)  # fmt: skip
SPLITS = {"train": "train.csv", "valid": "valid.csv"}

Uncertain = Literal["ignore", "zeros", "ones"]


def chexpert(
    *,
    path: str,
    split: Literal["train", "valid"] = "train",
    findings: list[str] | None = None,
    uncertain: Uncertain = "ignore",
    view: Literal["all", "frontal", "lateral"] = "frontal",
    size: int = 224,
) -> Files:
    """CheXpert: modality "image", float32 (1, size, size); groups "patient" and "study"; a label a finding.

    path       the folder that holds train.csv and valid.csv
    findings   those that become labels, by their names in the table (default: all 14); spaces become underscores and
               capitals small: "pleural_effusion"
    uncertain  what -1 in the table becomes: unknown, 0 or 1 (U-Ignore, U-Zeros, U-Ones); an empty cell is unknown
    view       which radiographs

    Raises DataError naming the table and the line for columns that are not there and paths outside the folder.
    Source: Irvin et al., "CheXpert", AAAI 2019, sections 2 and 3.
    """
    chosen = list(FINDINGS if findings is None else findings)
    for name in chosen:
        if name not in FINDINGS:
            raise DataError(f"data 'medical.chexpert': {name!r} is no finding{suggest(name, FINDINGS)}")
    root = Path(path).expanduser()
    rows, splits = [], []
    for name, table in SPLITS.items():
        if name == split or name == "train":
            found = _rows(root / table, chosen, view)
            rows, splits = rows + found, splits + [name] * len(found)
    names = [_patient_and_study(line) for line in (row["Path"] for row in rows)]
    return from_columns(
        cells={"image": [str(root / _inside(row["Path"])) for row in rows]},
        readers={"image": Image(size=size)},
        groups={"patient": [patient for patient, _ in names], "study": [f"{p}/{s}" for p, s in names]},
        labels={_label(name): [_value(row[name], uncertain) for row in rows] for name in chosen},
        splits=splits,
        split=split,
        where=name_of(root),
    )


def _rows(table: Path, findings: list[str], view: str) -> list[dict[str, str]]:
    check_file(table)
    with reading(table), table.open(newline="", encoding="utf-8-sig") as file:
        lines = csv.DictReader(file)
        for name in ("Path", "Frontal/Lateral", *findings):
            if name not in (lines.fieldnames or ()):
                raise DataError(f"{name_of(table)}: there is no column {name!r}{suggest(name, lines.fieldnames or ())}")
        rows = []
        for number, row in enumerate(lines, 2):
            if not row["Path"] or row["Path"].startswith("/") or ".." in Path(row["Path"]).parts:
                raise DataError(f"{name_of(table)}:{number}: {row['Path']!r} is no path inside the folder")
            if view == "all" or row["Frontal/Lateral"].lower() == view:
                rows.append(row)
    return rows


def _inside(path: str) -> Path:
    """The path without the name of the release, which the table puts before it: train/patient00001/study1/view1.jpg."""
    parts = Path(path).parts
    start = next((i for i, part in enumerate(parts) if part in SPLITS), 0)
    return Path(*parts[start:])


def _patient_and_study(path: str) -> tuple[str, str]:
    parts = Path(path).parts
    return (parts[-3], parts[-2]) if len(parts) > 2 else ("", "")


def _label(finding: str) -> str:
    return finding.lower().replace(" ", "_")


def _value(cell: str, uncertain: Uncertain) -> str:
    """ "1", "0", or "" for unknown."""
    value = (cell or "").strip().removesuffix(".0")
    return {"ignore": "", "zeros": "0", "ones": "1"}[uncertain] if value == "-1" else value
