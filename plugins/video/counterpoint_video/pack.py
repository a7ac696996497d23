"""What the video pack contributes; nothing is imported before a recipe names it."""

from pathlib import Path

from counterpoint.hookspecs import hookimpl

COUNTERPOINT_API = 1


@hookimpl
def counterpoint_readers():
    return {"clip": "counterpoint_video.readers.clip:Clip"}


@hookimpl
def counterpoint_encoders():
    return {
        "r2plus1d": "counterpoint_video.encoders.r2plus1d:R2Plus1d",
        "r3d_18": "counterpoint_video.encoders.r3d:r3d_18",
        "videomae": "counterpoint_video.encoders.videomae:videomae",
        "pixels": "counterpoint_video.encoders.pixels:Pixels",
    }


@hookimpl
def counterpoint_view_generators():
    return {
        "clips": "counterpoint_video.views.clips:Clips",
        "crop_resize": "counterpoint_video.views.space:CropResize",
        "flip": "counterpoint_video.views.space:Flip",
        "blur": "counterpoint_video.views.space:Blur",
        "colour_jitter": "counterpoint_video.views.colour:ColourJitter",
        "grey": "counterpoint_video.views.colour:Grey",
        "gain": "counterpoint_video.views.colour:Gain",
        "normalise": "counterpoint_video.views.colour:Normalise",
        "difference": "counterpoint_video.views.colour:Difference",
    }


@hookimpl
def counterpoint_datasets():
    return {
        "games": "counterpoint_video.data.games:Games",
        "camera": "counterpoint_video.data.camera:Camera",
    }


@hookimpl
def counterpoint_recipes():
    return str(Path(__file__).parent / "recipes")
