"""What the datasets of the pack make of files in the layouts that people have, and facts of Colin27."""

import csv
import pickle
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from PIL import Image as Pillow

from counterpoint.errors import DataError
from counterpoint_medical.data import colin27 as colin27_module
from counterpoint_medical.data.chexpert import FINDINGS, chexpert
from counterpoint_medical.data.colin27 import AREAS, FOLDER, Colin27
from counterpoint_medical.data.medmnist import MedMNIST

STARTS = [start for begins in AREAS.values() for start in begins]


@pytest.fixture
def atlas(tmp_path, monkeypatch):
    """A small head in the layout of the package: every region a block, the hemispheres unlike."""
    sides, names, labels = (181, 40, 40), [], np.zeros((181, 40, 40), np.uint8)
    for i, start in enumerate(STARTS):
        block = (slice(4 * (i % 10), 4 * (i % 10) + 4), slice(8 * (i // 10), 8 * (i // 10) + 8))
        for side, x in (("L", slice(60, 80)), ("R", slice(100, 120))):
            names.append(f"{start}_{side}")
            labels[(x, *block)] = len(names)
    volume = np.random.default_rng(0).integers(0, 200, sides).astype(np.uint8)
    volume[91:] //= 2
    volume[91, :, :] = 255  # beside the midline, on the right
    folder = tmp_path / "root" / FOLDER
    folder.mkdir(parents=True)
    affine = np.diag([1.0, 1.0, 1.0, 1.0])
    affine[0, 3] = -90
    nibabel.save(nibabel.Nifti1Image(volume, affine), folder / "ch2.nii.gz")
    nibabel.save(nibabel.Nifti1Image(labels, affine), folder / "aal.nii.gz")
    (folder / "aal.nii.txt").write_text("".join(f"{i + 1} {name} {i}\n" for i, name in enumerate(names)))

    class Here:
        def find(self):
            return tmp_path / "root"

    monkeypatch.setattr(Colin27, "sources", (Here(),))
    colin27_module._halves.cache_clear()
    yield volume
    colin27_module._halves.cache_clear()


def test_patches_of_a_hemisphere_hold_nothing_of_the_other(atlas):
    train, test = (Colin27(split=split, size=40, spacing=1.0, count=3) for split in ("train", "test"))
    for data, mine in ((train, atlas[:91]), (test, atlas[90:])):
        reference = atlas[:91].astype(np.float32)
        whole = np.concatenate([reference, reference[-2::-1]])
        stored = (data.half * whole.std(ddof=1) + whole.mean()).round().numpy()
        assert set(np.unique(stored)) <= set(np.unique(mine))
        assert np.array_equal(stored, stored[..., ::-1])  # the mirror image beyond the midline
    assert 255 not in np.round(train.half * whole.std(ddof=1) + whole.mean())


def test_colin27_says_what_it_gives(atlas):
    for split in ("train", "test"):
        data = Colin27(split=split, size=9, spacing=2.0, count=5)
        assert len(data) == 35 and data.spec.labels == {"area": 7} and data.spec.in_memory
        assert data.spec.modalities["scan"]["shape"] == (9, 9, 9) and data.spec.groups == {"region": len(STARTS)}
        assert np.array_equal(np.bincount(data.labels["area"]), np.full(7, 5))
        sample = data[7]
        assert sample.inputs["scan"].shape == (1, 9, 9, 9) and torch.isfinite(sample.inputs["scan"]).all()
        again = Colin27(split=split, size=9, spacing=2.0, count=5)
        assert torch.equal(again[7].inputs["scan"], sample.inputs["scan"])


def test_the_centre_of_a_patch_is_the_voxel_of_its_label(atlas):
    data = Colin27(size=5, spacing=1.0, count=4)
    for i in (0, 11, 27):
        assert data[i].inputs["scan"][0, 2, 2, 2] == data.half[tuple(data.centres[i])]
        assert atlas.transpose(2, 1, 0)[tuple(data.centres[i])] is not None


def test_a_split_of_colin27_that_is_not_there(atlas):
    with pytest.raises(DataError, match="did you mean 'test'"):
        Colin27(split="tset")
    with pytest.raises(DataError, match="size of 2 or more"):
        Colin27(size=1)


@pytest.mark.slow
def test_colin27_is_what_the_package_says():
    try:
        train, test = Colin27(split="train"), Colin27(split="test")
    except DataError as error:
        if "counterpoint data" not in str(error):
            raise
        pytest.skip(str(error))
    assert len(train) == len(test) == 2100 and train.spec.groups["region"] == 62
    for data in (train, test):
        assert np.array_equal(np.bincount(data.labels["area"]), np.full(7, 300))
    assert float(train.half.mean()) == pytest.approx(0, abs=1e-4)
    assert 0.9 < float(torch.corrcoef(torch.stack([train.half.flatten(), test.half.flatten()]))[0, 1]) < 0.9999


# ---- MedMNIST ----


def medmnist(path: Path, shape=(28, 28), findings: int = 1, **changes) -> str:
    rng = np.random.default_rng(0)
    arrays = {}
    for split, n in (("train", 6), ("val", 3), ("test", 4)):
        arrays[f"{split}_images"] = rng.integers(0, 256, (n, *shape)).astype(np.uint8)
        top = 5 if findings == 1 else 2
        arrays[f"{split}_labels"] = rng.integers(0, top, (n, findings)).astype(np.uint8)
    arrays["train_labels"][0] = top - 1
    np.savez(path, **(arrays | changes))
    return str(path)


@pytest.mark.parametrize(
    "shape, expected", [((28, 28), (1, 28, 28)), ((28, 28, 3), (3, 28, 28)), ((9, 9, 9), (1, 9, 9, 9))]
)
def test_medmnist_of_images_and_volumes(tmp_path, shape, expected):
    path = medmnist(tmp_path / "x.npz", shape)
    for split, n in (("train", 6), ("val", 3), ("test", 4)):
        data = MedMNIST(path=path, split=split)
        stored = np.load(path)[f"{split}_images"][1].astype(np.float32) / 255
        assert len(data) == n and data.spec.labels == {"label": 5} and data.spec.splits == ("train", "val", "test")
        assert (
            data[1].inputs["image"].shape
            == expected
            == (data.spec.modalities["image"]["channels"], *data.spec.modalities["image"]["shape"])
        )
        stored = stored.transpose(2, 0, 1) if shape[-1] == 3 else stored[None]
        torch.testing.assert_close(data[1].inputs["image"], torch.from_numpy(stored))
        assert data[1].labels == {"label": int(np.load(path)[f"{split}_labels"][1, 0])}


def test_medmnist_with_several_findings(tmp_path):
    data = MedMNIST(path=medmnist(tmp_path / "x.npz", findings=3))
    assert data.spec.labels == {f"label_{i}": 2 for i in range(3)} and set(data[0].labels) == set(data.spec.labels)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"train_images": np.zeros((6, 28, 28), np.float32)}, "expected uint8"),
        ({"train_images": np.zeros((6, 28), np.uint8)}, "expected uint8"),
        ({"train_images": np.zeros((0, 28, 28), np.uint8)}, "expected uint8"),
        ({"train_labels": np.zeros((5, 1), np.uint8)}, r"expected integers \(6"),
        ({"train_labels": np.zeros((6, 1), np.float32)}, "expected integers"),
        ({"train_images": np.array([{"a": 1}] * 6, dtype=object)}, "x.npz: "),
    ],
)
def test_what_is_no_medmnist_is_refused(tmp_path, changes, message):
    with pytest.raises(DataError, match=message):
        MedMNIST(path=medmnist(tmp_path / "x.npz", **changes))


def test_files_that_are_no_medmnist_are_refused(tmp_path):
    whole = Path(medmnist(tmp_path / "x.npz")).read_bytes()
    np.savez(tmp_path / "other.npz", a=np.zeros(3))
    for name, content in (("cut.npz", whole[:-300]), ("empty.npz", b""), ("pickle.npz", pickle.dumps([1, 2]))):
        (tmp_path / name).write_bytes(content)
    for name in ("cut.npz", "empty.npz", "pickle.npz", "other.npz", "none.npz", "."):
        with pytest.raises(DataError):
            MedMNIST(path=str(tmp_path / name))
    with pytest.raises(DataError, match="no split"):
        MedMNIST(path=str(tmp_path / "x.npz"), split="valid")


# ---- CheXpert ----


@pytest.fixture
def chexpert_folder(tmp_path):
    header = ["Path", "Sex", "Age", "Frontal/Lateral", "AP/PA", *FINDINGS]
    rng = np.random.default_rng(0)
    for table, patients in (("train", 4), ("valid", 2)):
        rows = []
        for patient in range(patients):
            for view in ("frontal", "lateral"):
                name = f"{table}/patient{patient + 10 * (table == 'valid'):05d}/study1/view1_{view}.jpg"
                (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
                Pillow.fromarray(rng.integers(0, 256, (30, 40)).astype(np.uint8)).save(tmp_path / name)
                cells = ["1.0" if patient % 2 else "0.0", "-1.0", ""] + [""] * 11
                rows.append([f"CheXpert-v1.0-small/{name}", "Male", "60", view.title(), "AP", *cells])
        with (tmp_path / f"{table}.csv").open("w", newline="") as file:
            csv.writer(file).writerows([header, *rows])
    return tmp_path


def test_chexpert_is_read_in_its_layout(chexpert_folder):
    for split, n in (("train", 4), ("valid", 2)):
        data = chexpert(path=str(chexpert_folder), split=split, size=24)
        assert len(data) == n and set(data.spec.groups) == {"patient", "study"} and len(data.spec.labels) == 14
        assert data[0].inputs["image"].shape == (1, 24, 24)
        assert [data[i].labels["no_finding"] for i in range(2)] == [0, 1]
        assert data[0].labels["enlarged_cardiomediastinum"] == -1 or np.isnan(
            data[0].labels["enlarged_cardiomediastinum"]
        )
    ids = [set(chexpert(path=str(chexpert_folder), split=s, size=24).groups["patient"]) for s in ("train", "valid")]
    assert not ids[0] & ids[1]


@pytest.mark.parametrize("uncertain, classes", [("zeros", {0}), ("ones", {0})])
def test_uncertain_findings_become_what_is_asked(chexpert_folder, uncertain, classes):
    options = {"findings": ["Enlarged Cardiomediastinum", "No Finding"], "uncertain": uncertain, "size": 24}
    data = chexpert(path=str(chexpert_folder), **options)
    named = data.classes["enlarged_cardiomediastinum"]
    assert named == [{"zeros": 0, "ones": 1}[uncertain]] and set(data.labels["enlarged_cardiomediastinum"]) == classes


def test_a_bad_chexpert_table_is_refused_by_line(chexpert_folder):
    table = chexpert_folder / "train.csv"
    lines = table.read_text().splitlines()
    for bad in ("../../secret.jpg", "/etc/secret.jpg"):
        table.write_text("\n".join([lines[0], lines[1], bad + lines[2][lines[2].index(",") :]]) + "\n")
        with pytest.raises(DataError, match=r"train\.csv:3: .*no path inside"):
            chexpert(path=str(chexpert_folder))
    table.write_text(lines[0].replace("Edema", "Oedema") + "\n")
    with pytest.raises(DataError, match="no column 'Edema'; did you mean 'Oedema'"):
        chexpert(path=str(chexpert_folder))
    with pytest.raises(DataError, match="no finding"):
        chexpert(path=str(chexpert_folder), findings=["Edemaa"])
    table.unlink()
    with pytest.raises(DataError, match="no such file"):
        chexpert(path=str(chexpert_folder))
