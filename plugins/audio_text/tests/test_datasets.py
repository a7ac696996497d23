"""The pack's data sets on small trees of the published layouts, written by the test."""

import csv
import gzip
import shutil

import numpy as np
import pytest
import soundfile

from counterpoint.data.collate import collate
from counterpoint.data.text import Text
from counterpoint.errors import ComponentError, DataError
from counterpoint_audio_text.data.asterisk import DOCUMENTS, SOUNDS, VOICES, asterisk, transcripts, words
from counterpoint_audio_text.data.captions import audiocaps, clotho
from counterpoint_audio_text.readers.sound import Sound


def write_sound(path, seconds: float = 0.3, rate: int = 8000):
    path.parent.mkdir(parents=True, exist_ok=True)
    samples = round(seconds * rate)
    soundfile.write(path, 0.1 * np.sin(np.arange(samples) * 0.3), rate)


def write_table(path, rows):
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)


# ---- Asterisk ----

LINES = """\ufeff; Core Asterisk Sounds

added: Added.
again: added.
beep: [this is a beep]
number: The number is:  two
missing: Nothing was recorded
empty:
"""


@pytest.fixture
def prompts(tmp_path, monkeypatch):
    """What the packages unpack, for two languages."""
    monkeypatch.setenv("COUNTERPOINT_DATA", str(tmp_path))
    for language, extra in (("en", ""), ("ru", "russian: Активировано\n")):
        package = f"asterisk-core-sounds-{language}"
        document = tmp_path / "debian" / package / DOCUMENTS / package / f"core-sounds-{language}.txt.gz"
        document.parent.mkdir(parents=True)
        many = "".join(f"digits/{i}: number {i}\n" for i in range(40))
        document.write_bytes(gzip.compress((LINES + many + extra).encode()))
        sounds = tmp_path / "debian" / f"{package}-wav" / SOUNDS / VOICES[language]
        for name in ("added", "again", "beep", "number", "empty", "russian", *(f"digits/{i}" for i in range(40))):
            write_sound(sounds / f"{name}.wav", 0.1 + 0.01 * len(name))
    return tmp_path


def test_asterisk_has_the_prompts_that_have_words_of_their_own(prompts):
    train, test = (asterisk(languages=("en", "ru"), split=split) for split in ("train", "test"))
    assert len(train) + len(test) == 42 + 43 and train.spec.splits == ("train", "test")
    assert train.spec.groups == {"language": 2, "pace": 8}
    assert train.spec.modalities["audio"] == {"channels": 1, "rate": 8000, "length": None}
    texts = [data[i].fields["text"] for data in (train, test) for i in range(len(data))]
    assert "the number is: two" in texts and "активировано" in texts and texts.count("added.") == 2
    batch = collate([(i, train[i]) for i in range(4)])
    assert batch.inputs["audio"].data.ndim == 3 and batch.inputs["text"].data.ndim == 2


def test_asterisk_holds_out_sentences_in_every_language(prompts):
    said = [
        {words(data[i].fields["text"]) for i in range(len(data))}
        for data in (asterisk(languages=("en", "ru"), split=s) for s in ("train", "test"))
    ]
    assert said[0] and said[1] and not said[0] & said[1]


def test_asterisk_takes_languages_seconds_and_a_reader(prompts):
    data = asterisk(languages=("en",), seconds=0.1, text=Text(tokenizer="bpe", vocabulary=300))
    assert data[0].inputs["audio"].shape == (1, 800) and data.spec.groups["language"] == 1
    assert data.spec.modalities["text"]["vocabulary"] <= 300
    with pytest.raises(ComponentError, match=r"no language .de.; (did you mean|valid: en, es, fr, it, ru)"):
        asterisk(languages=("de",))


def test_asterisk_says_how_to_fetch_what_is_missing(prompts):
    shutil.rmtree(prompts / "debian" / "asterisk-core-sounds-ru-wav")
    with pytest.raises(DataError, match="counterpoint data asterisk-core-sounds-ru-wav"):
        asterisk(languages=("ru",))
    assert len(asterisk.sources) == 10


def test_damaged_transcripts_are_named(tmp_path):
    path = tmp_path / "core-sounds-en.txt.gz"
    for content in (b"added: Added.", gzip.compress(LINES.encode())[:-20]):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"core-sounds-en\.txt\.gz"):
            list(transcripts(path))
    path.write_bytes(gzip.compress(b"one: caf\xe9\ntwo: b\n"))  # not UTF-8: read as far as it can be
    assert [text for _, text in transcripts(path)] == ["caf\ufffd", "b"]


@pytest.mark.slow
def test_the_real_prompts():
    train, test = asterisk(), asterisk(split="test")
    assert (len(train), len(test)) == (2063, 533)
    assert train.spec.groups == {"language": 5, "pace": 20}


# ---- Clotho and AudioCaps ----


@pytest.fixture
def clotho_folder(tmp_path):
    header = ["file_name", *(f"caption_{i}" for i in range(1, 6))]
    for part, count in (("development", 6), ("evaluation", 3)):
        rows = [header]
        for i in range(count):
            name = f"{part} sound, {i}.wav"
            write_sound(tmp_path / part / name, 0.2 + 0.05 * i, 44100)
            rows.append([name, *(f"{part} {i} caption {k}, it rains" for k in range(5))])
        write_table(tmp_path / f"clotho_captions_{part}.csv", rows)
    return tmp_path


def test_clotho_has_every_caption_of_a_recording(clotho_folder):
    train, test = (clotho(path=str(clotho_folder), split=split) for split in ("train", "test"))
    assert (len(train), len(test)) == (6, 3) and train.spec.splits == ("train", "test")
    assert train.spec.modalities["audio"]["rate"] == 32000
    sample = train[2]
    assert len(sample.inputs["text"]) == 5 and sample.inputs["audio"].shape == (1, 9600)
    assert sample.fields["text"][4] == "development 2 caption 4, it rains"
    batch = collate([(i, train[i]) for i in range(3)])
    assert batch.inputs["text"].row.tolist() == [0] * 5 + [1] * 5 + [2] * 5
    assert batch.inputs["audio"].row.tolist() == [0, 1, 2]


def test_clotho_takes_readers(clotho_folder):
    data = clotho(path=str(clotho_folder), audio=Sound(rate=16000, seconds=0.1), text=Text(tokenizer="bytes"))
    assert data[0].inputs["audio"].shape == (1, 1600) and data.spec.modalities["text"]["vocabulary"] == 259


def test_what_is_wrong_with_clothos_table_is_said_at_once(clotho_folder):
    write_table(
        clotho_folder / "clotho_captions_development.csv",
        [["file_name", "caption_1"], ["a.wav", "a dog"], ["", "a cat"], ["b.wav", ""], ["a.wav", "again"]],
    )
    with pytest.raises(DataError) as caught:
        clotho(path=str(clotho_folder))
    told = str(caught.value)
    assert all(part in told for part in (":3: file_name is empty", ":4: no caption", ":5: 'a.wav' is also on line 2"))
    write_table(clotho_folder / "clotho_captions_development.csv", [["file", "caption_1"], ["a.wav", "a dog"]])
    with pytest.raises(DataError, match="no column 'file_name'"):
        clotho(path=str(clotho_folder))


def test_a_missing_recording_is_named_when_it_is_read(clotho_folder):
    (clotho_folder / "development" / "development sound, 1.wav").unlink()
    data = clotho(path=str(clotho_folder))
    with pytest.raises(DataError, match=r"sample 1 .*development sound, 1\.wav: no such file"):
        data[1]


@pytest.mark.parametrize("make", [clotho, audiocaps])
def test_a_folder_without_tables(tmp_path, make):
    with pytest.raises(DataError, match="found none"):
        make(path=str(tmp_path))


def test_audiocaps_joins_the_captions_of_a_clip_and_leaves_out_lost_ones(tmp_path):
    header = ["audiocap_id", "youtube_id", "start_time", "caption"]
    write_table(
        tmp_path / "train.csv", [header, [1, "abc", 30, "a dog"], [2, "-d_e", 0, "rain"], [3, "lost", 5, "wind"]]
    )
    write_table(tmp_path / "test.csv", [header, [4, "xyz", 10, "one"], [5, "xyz", 10, "two"], [6, "xyz", 10, "three"]])
    for name in ("train/abc_30.wav", "train/-d_e.wav", "test/xyz_10.wav"):
        write_sound(tmp_path / name, 0.2)
    train, test = (audiocaps(path=str(tmp_path), split=split) for split in ("train", "test"))
    assert (len(train), len(test)) == (2, 1)
    assert [train[i].fields["text"] for i in range(2)] == ["a dog", "rain"]
    assert len(test[0].inputs["text"]) == 3 and test[0].fields["text"] == ["one", "two", "three"]
    with pytest.raises(DataError, match="no clip of its tables"):
        audiocaps(path=str(tmp_path), suffix=".flac")
