"""The spoken prompts of the telephone exchange Asterisk, in five languages: real recordings with real transcripts.

They are packages of Debian: `asterisk-core-sounds-xx` has the transcripts, `asterisk-core-sounds-xx-wav` the sounds
(8 kHz, one channel). Licence CC BY-SA 3.0, the Russian ones CC BY 3.0.
"""

from __future__ import annotations

import gzip
import re
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple

import soundfile

from counterpoint.data.files import Files, from_columns
from counterpoint.data.guard import MAX_BYTES, check_file, reading
from counterpoint.data.sources import Debian
from counterpoint.data.text import Text
from counterpoint.errors import ComponentError, DataError, suggest
from counterpoint.markers import Reader
from counterpoint_audio_text.readers.sound import Sound

VOICES = {
    "en": "en_US_f_Allison",
    "es": "es_MX_f_Allison",
    "fr": "fr_CA_f_June",
    "it": "it_IT_m_Carlo",
    "ru": "ru_RU_f_IvrvoiceRU",
}
SOUNDS = "usr/share/asterisk/sounds"
DOCUMENTS = "usr/share/doc"
SPLITS = ("train", "test")

TRANSCRIPTS = {
    language: Debian(
        f"asterisk-core-sounds-{language}",
        holds=f"{DOCUMENTS}/asterisk-core-sounds-{language}/core-sounds-{language}.txt.gz",
    )
    for language in VOICES
}
RECORDINGS = {
    language: Debian(f"asterisk-core-sounds-{language}-wav", holds=f"{SOUNDS}/{voice}")
    for language, voice in VOICES.items()
}


class Prompt(NamedTuple):
    """One recording: its file, what is said in it, and in which language."""

    file: str
    text: str
    language: str


def asterisk(
    *,
    languages: tuple[str, ...] = ("en", "es", "fr", "it", "ru"),
    seconds: float | None = 6.0,
    text: Reader | None = None,
    split: Literal["train", "test"] = "train",
    holdout: float = 0.2,
) -> Files:
    """2,596 spoken prompts with their transcripts in small letters: "audio" float32 (1, samples) at 8 kHz, "text" token ids.

    Sounds that are described instead of transcribed, `[tone]`, are left out, and so is a transcript that a language has
    already had. languages: of en, es, fr, it, ru; seconds: what is read of a prompt, from its beginning; text: the
    reader of the transcripts (default: their bytes). Group "language", for retrieval within one; group "pace": language
    and quarter of its durations, for batches of recordings that are alike. About `holdout` of the different sentences
    are in "test", by a hash of their words without punctuation, so that no sentence is in both splits in any language.
    Raises DataError when the packages are not there, with the command that fetches them.
    Source: Digium's core sounds 1.6.1; spoken by Allison Smith, June Wallack, Carlo Flora and ivrvoice.ru.
    """
    for language in languages:
        if language not in VOICES:
            raise ComponentError(f"data 'audio_text.asterisk': no language {language!r}{suggest(language, VOICES)}")
    prompts = [prompt for language in dict.fromkeys(languages) for prompt in _prompts(language)]
    column = [prompt.language for prompt in prompts]
    return from_columns(
        cells={"audio": [prompt.file for prompt in prompts], "text": [prompt.text for prompt in prompts]},
        readers={"audio": Sound(rate=8000, seconds=seconds, window="start"), "text": text or Text(tokenizer="bytes")},
        groups={"language": column, "pace": _paces(prompts)},
        split=split,
        by=[words(prompt.text) for prompt in prompts],
        holdout=holdout,
        where="data 'audio_text.asterisk'",
    )


asterisk.sources = (*TRANSCRIPTS.values(), *RECORDINGS.values())


def words(text: str) -> str:
    """A sentence without case, punctuation and spacing: what must not be in both splits."""
    return " ".join(re.sub(r"[\W_]+", " ", _plain(text)).split()) or text


def _plain(text: str) -> str:
    """A transcript in small letters, each accented one a single character, with single spaces."""
    return " ".join(unicodedata.normalize("NFC", text).casefold().split())


def _prompts(language: str) -> list[Prompt]:
    """The prompts of one language that have a recording and a transcript of their own."""
    folder = RECORDINGS[language].find() / SOUNDS / VOICES[language]
    found: dict[str, Prompt] = {}
    for name, text in transcripts(TRANSCRIPTS[language].find() / TRANSCRIPTS[language].holds):
        file = folder / f"{name}.wav"
        if text and not re.search(r"\[.*\]", text) and file.is_file():
            found.setdefault(plain := _plain(text), Prompt(str(file), plain, language))
    if not found:
        raise DataError(f"data 'audio_text.asterisk': {folder} has no recording that a transcript names")
    return list(found.values())


def transcripts(path: Path) -> Iterator[tuple[str, str]]:
    """(name, text) of every line `name: text`; a line that begins with a semicolon is a remark."""
    check_file(path)
    with reading(path), gzip.open(path) as file:
        lines = file.read(MAX_BYTES).decode("utf-8-sig", errors="replace").splitlines()
    for line in lines:
        name, colon, text = line.partition(":")
        if colon and not line.startswith(";"):
            yield name.strip(), text.strip()


def _paces(prompts: list[Prompt]) -> list[str]:
    """Language and quarter of its durations, as `en 2`."""
    durations: dict[str, list[tuple[float, int]]] = {}
    for i, prompt in enumerate(prompts):
        with reading(prompt.file, i):
            durations.setdefault(prompt.language, []).append((soundfile.info(prompt.file).duration, i))
    column = [""] * len(prompts)
    for language, timed in durations.items():
        for rank, (_, i) in enumerate(sorted(timed)):
            column[i] = f"{language} {4 * rank // len(timed)}"
    return column
