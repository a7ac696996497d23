"""What the audio-text pack contributes; nothing is imported before a recipe names it."""

from pathlib import Path

from counterpoint.hookspecs import hookimpl

COUNTERPOINT_API = 1


@hookimpl
def counterpoint_readers():
    return {"sound": "counterpoint_audio_text.readers.sound:Sound"}


@hookimpl
def counterpoint_encoders():
    return {
        "cnn": "counterpoint_audio_text.encoders.convolutions:audio_cnn",
        "text_cnn": "counterpoint_audio_text.encoders.convolutions:text_cnn",
        "ast": "counterpoint_audio_text.encoders.ast:ast",
    }


@hookimpl
def counterpoint_view_generators():
    return {
        "log_mel": "counterpoint_audio_text.views.log_mel:LogMel",
        "gain": "counterpoint_audio_text.views.gain:Gain",
        "speed": "counterpoint_audio_text.views.speed:Speed",
        "crop": "counterpoint.views.signal:Crop",
        "noise": "counterpoint.views.signal:Noise",
        "time_mask": "counterpoint_audio_text.views.spec_augment:TimeMask",
        "frequency_mask": "counterpoint_audio_text.views.spec_augment:FrequencyMask",
    }


@hookimpl
def counterpoint_datasets():
    return {
        "asterisk": "counterpoint_audio_text.data.asterisk:asterisk",
        "clotho": "counterpoint_audio_text.data.captions:clotho",
        "audiocaps": "counterpoint_audio_text.data.captions:audiocaps",
    }


@hookimpl
def counterpoint_recipes():
    return str(Path(__file__).parent / "recipes")
