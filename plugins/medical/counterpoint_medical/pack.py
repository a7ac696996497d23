"""What the medical pack contributes; nothing is imported before a recipe names it."""

from pathlib import Path

from counterpoint.hookspecs import hookimpl

COUNTERPOINT_API = 1


@hookimpl
def counterpoint_encoders():
    return {
        "resnet": "counterpoint_medical.encoders.resnet:resnet",
        "unet": "counterpoint_medical.encoders.unet:unet",
        "vit": "counterpoint_medical.encoders.vit:vit",
        "grid": "counterpoint_medical.encoders.grid:Grid",
    }


@hookimpl
def counterpoint_view_generators():
    return {
        "crop": "counterpoint_medical.views.place:Crop",
        "flip": "counterpoint_medical.views.place:Flip",
        "affine": "counterpoint_medical.views.turning:Affine",
        "rotate": "counterpoint_medical.views.turning:Rotate",
        "scale": "counterpoint_medical.views.turning:Scale",
        "normalise": "counterpoint_medical.views.intensity:Normalise",
        "intensity": "counterpoint_medical.views.intensity:Intensity",
        "gamma": "counterpoint_medical.views.intensity:Gamma",
        "noise": "counterpoint_medical.views.intensity:Noise",
        "blur": "counterpoint_medical.views.detail:Blur",
        "cut_out": "counterpoint_medical.views.detail:CutOut",
    }


@hookimpl
def counterpoint_readers():
    return {
        "nifti": "counterpoint_medical.readers.nifti:Nifti",
        "dicom": "counterpoint_medical.readers.dicom:Dicom",
        "image": "counterpoint_medical.readers.image:Image",
    }


@hookimpl
def counterpoint_datasets():
    return {
        "colin27": "counterpoint_medical.data.colin27:Colin27",
        "medmnist": "counterpoint_medical.data.medmnist:MedMNIST",
        "chexpert": "counterpoint_medical.data.chexpert:chexpert",
    }


@hookimpl
def counterpoint_recipes():
    return str(Path(__file__).parent / "recipes")
