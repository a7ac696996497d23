"""Files as a person of each field has them, written by the tests: small, real formats, and the table that names them."""

import csv
from pathlib import Path

import numpy as np

SAMPLES = 12
WORDS = ("normal heart", "left effusion", "small nodule", "old fracture")


def table(folder: Path, name: str, header: str, rows: list[list[str]]) -> None:
    with (folder / name).open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header.split(","), *rows])


def ecg(folder: Path) -> list[str]:
    rng = np.random.default_rng(0)
    rows = []
    for i in range(SAMPLES):
        np.save(folder / f"e{i}.npy", rng.normal(size=(2, 800)).astype(np.float32))
        rows.append([f"e{i}.npy", f"P{i}", WORDS[i % 4]])
    table(folder, "recordings.csv", "file,patient,diagnosis", rows)
    return ["data.path=recordings.csv", "data.readers.ecg.rate=100", "encoders.ecg.width=4"]


def medical(folder: Path) -> list[str]:
    import nibabel

    rng = np.random.default_rng(0)
    rows = []
    for i in range(SAMPLES):
        volume = rng.normal(0, 300, (14, 14, 14)).astype(np.float32)
        nibabel.save(nibabel.Nifti1Image(volume, np.diag([2.5, 2.5, 2.5, 1])), folder / f"s{i}.nii.gz")
        rows.append([f"s{i}.nii.gz", f"{WORDS[i % 4]}, number {i}", f"P{i}", WORDS[i % 2]])
    table(folder, "studies.csv", "file,report,patient,diagnosis", rows)
    scan = ["data.readers.scan.size=[12,12,12]", "views.scan[1].size=[12,12,12]", "encoders.scan.width=8"]
    return ["data.path=studies.csv", *scan, "encoders.report.width=8", "encoders.report.depth=1", "heads.scan.dim=16", "heads.report.dim=16"]  # fmt: skip


def audio_text(folder: Path) -> list[str]:
    import soundfile

    rng = np.random.default_rng(0)
    rows = []
    for i in range(SAMPLES):
        soundfile.write(folder / f"a{i}.wav", 0.1 * rng.normal(size=4000 + 300 * i), 16000)
        rows.append([f"a{i}.wav", f"{WORDS[i % 4]}, number {i}"])
    table(folder, "captions.csv", "file,caption", rows)
    return ["data.path=captions.csv", "encoders.audio.width=8", "encoders.text.width=8", "encoders.text.depth=1"]


def video(folder: Path) -> list[str]:
    import av

    rng = np.random.default_rng(0)
    rows = []
    for i in range(SAMPLES):
        with av.open(str(folder / f"v{i}.mp4"), "w") as container:
            stream = container.add_stream("mpeg4", rate=12)
            stream.width = stream.height = 48
            stream.pix_fmt = "yuv420p"
            picture = rng.integers(0, 256, (48, 48, 3), dtype=np.uint8)
            for t in range(40):
                frame = av.VideoFrame.from_ndarray(np.roll(picture, t * (i % 3 + 1), axis=1), format="rgb24")
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
        rows.append([f"v{i}.mp4", f"P{i}", WORDS[i % 2]])
    table(folder, "videos.csv", "file,person,action", rows)
    small = ["data.readers.video.frames=32", "data.readers.video.size=32", "data.readers.video.rate=12"]
    return [
        "data.path=videos.csv",
        *small,
        "views.video[0].frames=4",
        "views.video[1].size=24",
        "encoders.video.width=8",
    ]


def code_search(folder: Path) -> list[str]:
    rows = [
        [f"{WORDS[i % 4]} number {i}", f"def run(x):\n    y = x + {i}\n    return y * {i}\n", f"p{i}"]
        for i in range(SAMPLES)
    ]
    table(folder, "pairs.csv", "query,code,project", rows)
    sizes = [f"encoders.{m}.{k}={v}" for m in ("text", "code") for k, v in (("width", 8), ("depth", 1), ("heads", 2))]
    return ["data.path=pairs.csv", *sizes, *(f"data.readers.{m}.vocabulary=300" for m in ("text", "code"))]


def points3d(folder: Path) -> list[str]:
    rng = np.random.default_rng(0)
    rows = []
    for i in range(SAMPLES):
        corners = rng.normal(size=(8, 3)) * (1 + i % 3)
        faces = [f"3 {a} {a + 1} {a + 2}" for a in range(6)]
        lines = ["OFF", f"8 {len(faces)} 0", *(" ".join(f"{x:.5f}" for x in corner) for corner in corners), *faces]
        (folder / f"m{i}.off").write_text("\n".join(lines) + "\n")
        rows.append([f"m{i}.off", f"o{i}", WORDS[i % 2]])
    table(folder, "shapes.csv", "file,object,class", rows)
    small = ["data.readers.shape.points=64", "views.shape[1].points=32", "encoders.shape.widths=[8,8]", "encoders.shape.wide=16"]  # fmt: skip
    return ["data.path=shapes.csv", *small]


PACKS = {f.__name__: f for f in (ecg, medical, audio_text, video, code_search, points3d)}


def admissions(folder: Path) -> list[str]:
    """Scans, ECGs and reports of patients, each missing for some."""
    ecg(folder)
    small = [*medical(folder), "views.scan[0].size=[12,12,12]", "heads.ecg.dim=16", "data.readers.ecg.rate=100"]
    small = [word for word in small if not word.startswith(("data.path", "views.scan[1]"))]
    rows = []
    for i in range(SAMPLES):
        scan = f"s{i}.nii.gz" if i % 3 else ""
        signal = f"e{i}.npy" if i % 4 else ""
        rows.append([scan, signal, f"{WORDS[i % 4]}, number {i}" if i % 5 else "", f"P{i}"])
    rows[0][2] = "seen by phone only"
    table(folder, "admissions.csv", "scan,ecg,report,patient", rows)
    return ["data.path=admissions.csv", *small, "encoders.ecg.width=4"]
