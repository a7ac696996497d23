"""What the readers make of files in the real formats, and of everything that is wrong with one."""

import gzip
import os
import pickle
import shutil
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from PIL import Image as Pillow
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from counterpoint.data.guard import reading
from counterpoint.errors import ComponentError, DataError
from counterpoint_medical.readers import dicom as dicom_module
from counterpoint_medical.readers import image as image_module
from counterpoint_medical.readers import volume as volume_module
from counterpoint_medical.readers.dicom import Dicom
from counterpoint_medical.readers.image import Image
from counterpoint_medical.readers.nifti import Nifti

RAS = np.random.default_rng(0).integers(-1000, 1000, (6, 8, 5)).astype(np.float32)  # x to the right, y front, z up
AFFINE = np.diag([1.0, 1.5, 3.0, 1.0])
TENSOR = torch.from_numpy(RAS.transpose(2, 1, 0).copy())[None]  # (1, D, H, W)


def nifti(path: Path, array=RAS, affine=AFFINE, kind=nibabel.Nifti1Image) -> str:
    nibabel.save(kind(array, affine), path)
    return str(path)


def one_slice(path: Path, pixels, position, uid, **changes) -> None:
    """A CT slice: stored values are the Hounsfield units plus 1024."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = "1.2.840.10008.5.1.4.1.1.2", generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    file = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    file.Modality, file.SeriesInstanceUID = "CT", uid
    file.Rows, file.Columns = pixels.shape
    file.PixelSpacing, file.ImagePositionPatient = [1.5, 1.0], list(position)
    file.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    file.SamplesPerPixel, file.PhotometricInterpretation, file.PixelRepresentation = 1, "MONOCHROME2", 0
    file.BitsAllocated, file.BitsStored, file.HighBit = 16, 16, 15
    file.RescaleSlope, file.RescaleIntercept = 1, -1024
    file.PixelData = (pixels + 1024).astype(np.uint16).tobytes()
    for name, value in changes.items():
        setattr(file, name, value)
    file.save_as(path, enforce_file_format=True)


def series(folder: Path, uid: str = "1.2.3", **changes) -> str:
    """The volume RAS as axial slices, whose names are in another order than their places."""
    folder.mkdir(exist_ok=True)
    for z in range(RAS.shape[2]):
        pixels = RAS[::-1, ::-1, z].T  # rows run to the back, columns to the left
        position = (-float(RAS.shape[0] - 1), -1.5 * (RAS.shape[1] - 1), 3.0 * z)
        one_slice(folder / f"{(z * 3) % 7}.dcm", pixels, position, uid, **changes)
    return str(folder)


def picture(path: Path, mode: str = "L", size=(9, 7), **options) -> str:
    top = 65535 if mode == "I;16" else 255
    shape = (size[1], size[0], *((3,) if mode == "RGB" else ()))
    values = np.random.default_rng(0).integers(0, top + 1, shape)
    values.flat[0], values.flat[1] = 0, top
    Pillow.fromarray(values.astype(np.uint16 if mode == "I;16" else np.uint8)).save(path, **options)
    return str(path)


# ---- NIfTI ----


@pytest.mark.parametrize("name", ["scan.nii", "scan.nii.gz", "größe ✓ .nii.gz"])
@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
def test_a_nifti_volume_is_read_in_the_order_of_the_body(tmp_path, name, kind):
    path = nifti(tmp_path / name, kind=kind)
    assert torch.equal(Nifti().read(path), TENSOR)
    assert Nifti().facts(path) == {"channels": 1, "spatial_dims": 3, "shape": (5, 8, 6), "spacing": (3.0, 1.5, 1.0)}
    assert Nifti().reads(path)


@pytest.mark.parametrize("axes", ["LPS", "ASL", "IRP"])
def test_every_orientation_gives_the_same_tensor(tmp_path, axes):
    image = nibabel.Nifti1Image(RAS, AFFINE)
    target = nibabel.orientations.axcodes2ornt(tuple(axes))
    turned = image.as_reoriented(nibabel.orientations.ornt_transform(nibabel.io_orientation(AFFINE), target))
    path = str(tmp_path / "x.nii")
    nibabel.save(turned, path)
    assert torch.equal(Nifti().read(path), TENSOR)
    assert Nifti().facts(path)["spacing"] == (3.0, 1.5, 1.0)


def test_slope_and_intercept_of_the_header_count(tmp_path):
    image = nibabel.Nifti1Image(RAS.astype(np.int16), AFFINE)
    image.header.set_slope_inter(2.0, -10.0)
    image.header["scl_slope"], image.header["scl_inter"] = 2.0, -10.0
    nibabel.save(image, tmp_path / "x.nii")
    stored = np.asarray(nibabel.load(tmp_path / "x.nii").dataobj)
    torch.testing.assert_close(
        Nifti().read(str(tmp_path / "x.nii"))[0], torch.from_numpy(stored.transpose(2, 1, 0)).float()
    )


def test_a_fourth_axis_are_channels(tmp_path):
    path = nifti(tmp_path / "x.nii", np.stack([RAS, 2 * RAS], axis=-1))
    out = Nifti().read(path)
    assert torch.equal(out, torch.cat([TENSOR, 2 * TENSOR])) and Nifti().facts(path)["channels"] == 2


@pytest.mark.parametrize("options", [{"spacing": 2.0}, {"spacing": (1.5, 1.5, 1.5), "size": (6, 10, 4)}, {"size": 6}])
def test_facts_say_the_shape_that_reading_gives(tmp_path, options):
    path = nifti(tmp_path / "x.nii.gz")
    reader = Nifti(**options)
    assert reader.read(path).shape == (1, *reader.facts(path)["shape"])


def test_resampling_keeps_a_ramp_and_the_mean():
    ramp = torch.arange(12.0)[None, :, None]
    fine = volume_module.resampled(ramp, 1, 24)[0, :, 0]
    torch.testing.assert_close(fine[1:-1], (torch.arange(24.0)[1:-1] + 0.5) / 2 - 0.5)
    coarse = volume_module.resampled(ramp, 1, 4)[0, :, 0]
    assert coarse.shape == (4,) and float(coarse.mean()) == pytest.approx(5.5, abs=1e-4)


def test_size_cuts_and_pads_about_the_centre_with_the_least_value(tmp_path):
    out = Nifti(size=(3, 8, 10)).read(nifti(tmp_path / "x.nii"))
    assert torch.equal(out[:, :, :, 2:8], TENSOR[:, 1:4])
    assert (out[..., :2] == TENSOR[:, 1:4].min()).all() or (out[..., :2] == TENSOR.min()).all()


def test_a_window_becomes_zero_to_one(tmp_path):
    out = Nifti(window=(-160, 240)).read(nifti(tmp_path / "x.nii"))
    torch.testing.assert_close(out, ((TENSOR + 160) / 400).clamp(0, 1))


# ---- DICOM ----


def test_a_dicom_series_is_the_volume_of_the_nifti_file_in_hounsfield_units(tmp_path):
    folder = series(tmp_path / "série 1")
    (tmp_path / "série 1/DICOMDIR").write_bytes(b"x" * 200)
    (tmp_path / "série 1/notes.txt").write_text("not a slice")
    assert torch.equal(Dicom().read(folder), TENSOR)
    facts = Dicom().facts(folder)
    assert facts == Nifti().facts(nifti(tmp_path / "x.nii")) and Dicom.directories
    assert Dicom(spacing=2.0).read(folder).shape[1:] == Dicom(spacing=2.0).facts(folder)["shape"]


def test_every_slice_has_its_own_rescaling(tmp_path):
    folder = Path(series(tmp_path / "s"))
    doubled = RAS[::-1, ::-1, 0].T
    one_slice(folder / "0.dcm", (doubled + 1024) * 2 - 1024, (-5.0, -10.5, 0.0), "1.2.3", RescaleSlope=0.5)
    assert torch.equal(Dicom().read(str(folder)), TENSOR)


def test_one_file_is_an_image_and_monochrome1_is_inverted(tmp_path):
    pixels = RAS[:, :, 0]
    for name, kind in (("2", "MONOCHROME2"), ("1", "MONOCHROME1")):
        one_slice(tmp_path / f"{name}.dcm", pixels, (0, 0, 0), "1.2.3", PhotometricInterpretation=kind)
    bright, dark = (Dicom().read(str(tmp_path / f"{name}.dcm")) for name in "21")
    assert torch.equal(bright, torch.from_numpy(pixels.copy())[None])
    assert torch.equal(dark, bright.max() + bright.min() - bright)
    assert Dicom().facts(str(tmp_path / "1.dcm"))["shape"] == (6, 8)


def _mixed(folder):
    one_slice(folder / "z.dcm", RAS[:, :, 0].T, (0, 0, 99), "9.9.9")


def _missing(folder):
    os.remove(folder / "6.dcm")  # the third slice


def _doubled(folder):
    shutil.copy(folder / "3.dcm", folder / "copy.dcm")


def _wider(folder):
    one_slice(folder / "3.dcm", RAS[:, :-1, 1].T, (-5.0, -10.5, 3.0), "1.2.3")


def _turned(folder):
    one_slice(folder / "3.dcm", RAS[:, :, 1].T, (-5.0, -10.5, 3.0), "1.2.3", ImageOrientationPatient=[0, 1, 0, 1, 0, 0])


def _spaced(folder):
    one_slice(folder / "3.dcm", RAS[:, :, 1].T, (-5.0, -10.5, 3.0), "1.2.3", PixelSpacing=[2.0, 1.0])


def _cut(folder):
    (folder / "3.dcm").write_bytes((folder / "3.dcm").read_bytes()[:-40])


def _headless(folder):
    (folder / "3.dcm").write_bytes((folder / "3.dcm").read_bytes()[:200])


def _empty(folder):
    (folder / "3.dcm").write_bytes(b"")


def _alone(folder):
    for path in folder.glob("[1-9].dcm"):
        path.unlink()


@pytest.mark.parametrize(
    "spoil, message",
    [
        (_mixed, "slices of 2 series"),
        (_missing, "slices are missing: 6.00 mm"),
        (_doubled, "same place"),
        (_wider, "Rows|Columns"),
        (_turned, "ImageOrientationPatient"),
        (_spaced, "PixelSpacing"),
        (_cut, r"3\.dcm: "),
        (_headless, r"3\.dcm: "),
        (_empty, r"3\.dcm: empty file"),
        (_alone, "expected the slices of a series"),
    ],
)
def test_a_spoilt_series_is_refused(tmp_path, spoil, message):
    folder = Path(series(tmp_path / "s"))
    spoil(folder)
    with pytest.raises(DataError, match=message), reading(str(folder)):
        Dicom().read(str(folder))


# ---- images ----


@pytest.mark.parametrize("mode, top", [("L", 255), ("I;16", 65535), ("RGB", 255)])
def test_pixels_are_between_zero_and_one_whatever_the_bits(tmp_path, mode, top):
    path = picture(tmp_path / "é.png", mode)
    values = np.asarray(Pillow.open(path)).astype(np.float32) / top
    out = Image(color="rgb" if mode == "RGB" else "grey").read(path)
    expected = values.transpose(2, 0, 1) if mode == "RGB" else values[None]
    torch.testing.assert_close(out, torch.from_numpy(expected.copy()))
    assert Image(color="rgb").read(path).shape == (3, 7, 9) and Image().read(path).shape == (1, 7, 9)
    assert Image().facts(path) == {"channels": 1, "spatial_dims": 2, "shape": (7, 9)}


@pytest.mark.parametrize("size", [4, 20, (5, 12)])
def test_an_image_covers_the_size_asked_for(tmp_path, size):
    path, reader = picture(tmp_path / "x.jpg"), Image(size=size)
    assert reader.read(path).shape == (1, *reader.facts(path)["shape"])


def test_an_image_is_turned_as_exif_says(tmp_path):
    exif = Pillow.Exif()
    exif[0x0112] = 6
    path = picture(tmp_path / "x.png", exif=exif)
    assert Image().facts(path)["shape"] == (9, 7) and Image().read(path).shape == (1, 9, 7)


# ---- what is wrong with a file ----


class Bomb:
    def __reduce__(self):
        return os.system, ("touch exploded",)


def holes(array=RAS):
    out = array.copy()
    out[2, 3, 1] = np.nan
    return out


def rotten(folder: Path) -> dict[str, tuple]:
    """name -> reader, path, what is said."""
    good, png = Path(nifti(folder / "good.nii")), Path(picture(folder / "good.png"))
    zipped, dcm = Path(nifti(folder / "good.nii.gz")), folder / "good.dcm"
    one_slice(dcm, RAS[:, :, 0], (0, 0, 0), "1.2.3")
    write = lambda name, content: ((folder / name).write_bytes(content) and str(folder / name)) or str(folder / name)  # noqa: E731
    colours = np.zeros((4, 4, 4), dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    header = bytearray(good.read_bytes())
    header[254:256], header[312:328] = b"\1\0", b"\0" * 16  # sform code 1, its third row all 0
    write("flat.nii", bytes(header))
    frames = [Pillow.new("L", (4, 4), c) for c in (1, 200)]
    frames[0].save(folder / "frames.png", save_all=True, append_images=frames[1:])
    Pillow.new("L", (1, 50), 3).save(folder / "line.png")
    Pillow.new("L", (5, 5), 3).save(folder / "constant.png")
    one_slice(folder / "colour.dcm", RAS[:, :, 0], (0, 0, 0), "1", PhotometricInterpretation="RGB", SamplesPerPixel=3)
    one_slice(folder / "frames.dcm", RAS[:, :, 0], (0, 0, 0), "1", NumberOfFrames=6)
    (folder / "folder.nii").mkdir()
    return {
        "empty": (Nifti, write("empty.nii", b""), "empty file"),
        "truncated": (Nifti, write("cut.nii", good.read_bytes()[:-50]), "cut.nii: "),
        "truncated header": (Nifti, write("head.nii", good.read_bytes()[:200]), "not a NIfTI"),
        "truncated gzip": (Nifti, write("cut.nii.gz", zipped.read_bytes()[:-60]), "cut.nii.gz: "),
        "no gzip": (Nifti, write("no.nii.gz", good.read_bytes()), "no.nii.gz: "),
        "wrong format": (Nifti, write("png.nii", png.read_bytes() * 9), "not a NIfTI"),
        "pickle": (Nifti, write("bomb.nii", pickle.dumps(Bomb()) + b"\0" * 600), "not a NIfTI"),
        "missing": (Nifti, str(folder / "none.nii"), "no such file"),
        "directory": (Nifti, str(folder / "folder.nii"), "is a directory"),
        "NaN": (Nifti, nifti(folder / "nan.nii", holes()), "1 of 240 values are NaN"),
        "constant": (Nifti, nifti(folder / "const.nii", np.full_like(RAS, 7)), "constant"),
        "one voxel": (Nifti, nifti(folder / "one.nii", RAS[:1, :1, :1]), "2 voxels or more"),
        "one slice": (Nifti, nifti(folder / "slice.nii", RAS[:, :, 0]), r"expected a volume"),
        "five axes": (Nifti, nifti(folder / "five.nii", RAS[..., None, None].repeat(2, 4)), "expected a volume"),
        "colours": (Nifti, nifti(folder / "rgb.nii", colours), "expected real numbers"),
        "complex": (Nifti, nifti(folder / "complex.nii", RAS.astype(np.complex64)), "expected real numbers"),
        "singular": (Nifti, str(folder / "flat.nii"), "lies in space"),
        "empty dicom": (Dicom, write("empty.dcm", b""), "empty file"),
        "truncated dicom": (Dicom, write("cut.dcm", dcm.read_bytes()[:-30]), "cut.dcm: "),
        "dicom header": (Dicom, write("head.dcm", dcm.read_bytes()[:160]), "head.dcm: "),
        "no dicom": (Dicom, write("no.dcm", good.read_bytes()), "no.dcm: "),
        "dicom pickle": (Dicom, write("bomb.dcm", pickle.dumps(Bomb()) + b"\0" * 600), "bomb.dcm: "),
        "dicom colours": (Dicom, str(folder / "colour.dcm"), "one grey value"),
        "dicom frames": (Dicom, str(folder / "frames.dcm"), "6 frames"),
        "no dicom there": (Dicom, str(folder / "none.dcm"), "no such file"),
        "empty folder": (Dicom, str(folder / "folder.nii"), "0 DICOM files"),
        "empty png": (Image, write("empty.png", b""), "empty file"),
        "truncated png": (Image, write("cut.png", png.read_bytes()[:-40]), "cut.png: "),
        "no png": (Image, write("no.png", good.read_bytes()), "no.png: "),
        "png pickle": (Image, write("bomb.png", pickle.dumps(Bomb())), "bomb.png: "),
        "png frames": (Image, str(folder / "frames.png"), "2 frames"),
        "one pixel wide": (Image, str(folder / "line.png"), "2 or more a side"),
        "constant png": (Image, str(folder / "constant.png"), "constant"),
        "png directory": (Image, str(folder / "folder.nii"), "is a directory"),
    }


def test_whatever_is_wrong_with_a_file_is_one_line_that_names_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for case, (reader, path, message) in rotten(tmp_path).items():
        with pytest.raises(DataError, match=message) as caught, reading(path):
            reader().read(path)
        assert "\n" not in str(caught.value) and Path(path).name in str(caught.value), case
    assert not (tmp_path / "exploded").exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_an_unreadable_file_is_named(tmp_path):
    path = nifti(tmp_path / "x.nii")
    os.chmod(path, 0)
    with pytest.raises(DataError, match="no permission"), reading(path):
        Nifti().read(path)


def test_a_size_that_cannot_fit_is_refused_from_the_header(tmp_path, monkeypatch):
    """A header that claims terabytes, in a file of a few bytes that unpack to nothing."""
    header = nibabel.Nifti1Header()
    header.set_data_shape((30000, 30000, 3000))
    header.set_sform(AFFINE, 1)
    header["magic"], header["vox_offset"] = b"n+1", 352
    path = tmp_path / "huge.nii.gz"
    path.write_bytes(gzip.compress(header.binaryblock + b"\0" * 4))
    for ask in (Nifti().facts, Nifti().read):
        with pytest.raises(DataError, match="too large"), reading(str(path)):
            ask(str(path))
    good, folder, png = nifti(tmp_path / "x.nii"), series(tmp_path / "s"), picture(tmp_path / "x.png")
    with pytest.raises(DataError, match="too large"), reading(good):
        Nifti(spacing=0.001).facts(good)
    for module in (volume_module, dicom_module, image_module):
        monkeypatch.setattr(module, "MAX_BYTES", 100)
    for reader, path in ((Nifti(), good), (Dicom(), folder), (Image(), png)):
        with pytest.raises(DataError), reading(path):
            reader.facts(path)


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: Nifti(spacing=0.0), "above 0"),
        (lambda: Nifti(size=(0, 4, 4)), "1 voxel or more"),
        (lambda: Dicom(window=(40, -40)), "low before high"),
        (lambda: Image(size=1), "2 pixels or more"),
    ],
)
def test_a_mistake_is_refused(make, message):
    with pytest.raises(ComponentError, match=message):
        make()
