"""What the ECG pack contributes; nothing is imported before a recipe names it."""

from pathlib import Path

from counterpoint.hookspecs import hookimpl

COUNTERPOINT_API = 1


@hookimpl
def counterpoint_encoders():
    return {
        "inception_time": "counterpoint_ecg.encoders.convolutions:inception_time",
        "xception_time": "counterpoint_ecg.encoders.convolutions:xception_time",
        "resnet": "counterpoint_ecg.encoders.convolutions:resnet",
        "patch_tst": "counterpoint_ecg.encoders.patch_tst:patch_tst",
        "resnet1d": "counterpoint_ecg.encoders.resnet1d:ResNet1d",
        "rfft": "counterpoint_ecg.encoders.rfft:Rfft",
    }


@hookimpl
def counterpoint_view_generators():
    return {
        "crop": "counterpoint.views.signal:Crop",
        "crop_resize": "counterpoint_ecg.views.windows:CropResize",
        "time_mask": "counterpoint.views.signal:TimeMask",
        "noise": "counterpoint.views.signal:Noise",
        "scale": "counterpoint_ecg.views.amplitude:Scale",
        "baseline_wander": "counterpoint_ecg.views.amplitude:BaselineWander",
        "magnitude_warp": "counterpoint_ecg.views.amplitude:MagnitudeWarp",
        "invert": "counterpoint_ecg.views.amplitude:Invert",
        "time_warp": "counterpoint_ecg.views.timing:TimeWarp",
        "time_reverse": "counterpoint_ecg.views.timing:TimeReverse",
        "permutation": "counterpoint_ecg.views.timing:Permutation",
        "lead_drop": "counterpoint_ecg.views.leads:LeadDrop",
        "lead_permutation": "counterpoint_ecg.views.leads:LeadPermutation",
    }


@hookimpl
def counterpoint_datasets():
    return {
        "pigcvp": "counterpoint_ecg.data.pigcvp:PigCVP",
        "arrays": "counterpoint_ecg.data.arrays:Arrays",
        "ptbxl": "counterpoint_ecg.data.ptbxl:ptbxl",
    }


@hookimpl
def counterpoint_readers():
    return {"signal": "counterpoint_ecg.readers.signal:Signal"}


@hookimpl
def counterpoint_recipes():
    return str(Path(__file__).parent / "recipes")
