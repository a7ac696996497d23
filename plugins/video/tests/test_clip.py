"""The reader of video files: every format, every place, every way a file can be bad."""

import os
import random
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from filming import CODECS, numbers, write

from counterpoint.data.guard import reading
from counterpoint.errors import ComponentError, DataError
from counterpoint_video.readers.clip import Clip

every = pytest.mark.parametrize("suffix", CODECS)


def error_of(path, how: str = "read", reader=None) -> str:
    """What a user is told, through the guard."""
    with pytest.raises(DataError) as caught, reading(path):
        getattr(reader or Clip(frames=4, size=16), how)(str(path))
    told = str(caught.value)
    assert "\n" not in told and os.path.basename(str(path))[:5] in told
    return told


@every
def test_a_clip_has_the_size_and_the_facts_that_are_asked_for(tmp_path, suffix):
    path = write(tmp_path / f"film{suffix}")
    reader = Clip(frames=8, stride=2, size=(20, 32))
    clip, facts = reader.read(path), reader.facts(path)
    assert clip.dtype == torch.uint8 and clip.shape == (3, 8, 20, 32)
    assert facts == {"channels": 3, "length": 8, "height": 20, "width": 32, "rate": pytest.approx(12.5)}


@every
def test_any_place_gives_what_decoding_from_the_start_gives(tmp_path, suffix):
    """Seeking to a key frame and decoding forward is a short cut, nothing else."""
    path = write(tmp_path / f"film{suffix}")
    whole = Clip(frames=40, size=16).read(path)
    starts = set()
    for seed in range(12):
        random.seed(seed)
        clip = Clip(frames=6, stride=3, size=16).read(path)
        first = numbers(clip)[0]
        starts.add(first)
        assert numbers(clip) == list(range(first, first + 18, 3))
        assert torch.equal(clip, whole[:, first : first + 18 : 3])
    assert len(starts) > 5 and max(starts) <= 40 - 16


def test_the_center_is_in_the_middle_and_not_random(tmp_path):
    path = write(tmp_path / "film.mp4")
    read = lambda: Clip(frames=10, size=16, window="center").read(path)  # noqa: E731
    assert numbers(read()) == list(range(15, 25)) and torch.equal(read(), read())


def test_a_short_video_begins_again(tmp_path):
    path = write(tmp_path / "film.mp4", count=5)
    assert numbers(Clip(frames=12, size=16).read(path)) == [i % 5 for i in range(12)]


def test_a_rate_is_a_second_in_every_file(tmp_path):
    for rate in (10, 50):
        path = write(tmp_path / f"film{rate}.mp4", count=2 * rate, rate=rate)
        reader = Clip(frames=10, rate=5, size=16)
        assert reader.facts(path)["rate"] == 5
        assert numbers(reader.read(path)) == [i * rate // 5 % 55 for i in range(10)]


def test_a_varying_rate_shows_what_is_shown_at_each_time(tmp_path):
    times = [0, 100, 200, 300, 1000, 1100, 1200, 1300, 1400, 1500]  # a picture stands still for 0.7 s
    path = write(tmp_path / "film.mkv", count=10, times=times)
    shown = numbers(Clip(frames=60, rate=10, size=16).read(path))  # longer than the file: all of it
    assert shown[:15] == [0, 1, 2, 3, 3, 3, 3, 3, 3, 3, 4, 5, 6, 7, 8]


@pytest.mark.parametrize("size", [(33, 47), (16, 200), (200, 16), (18, 18)])
def test_odd_sizes_are_covered_and_cut_in_the_centre(tmp_path, size):
    path = write(tmp_path / "film.avi", size=(size[0] // 2 * 2, size[1] // 2 * 2))
    clip = Clip(frames=3, size=24).read(path)
    assert clip.shape == (3, 3, 24, 24)


@pytest.mark.parametrize("degrees, side", [(90, "left"), (-90, "right"), (180, "down")])
def test_a_rotation_mark_is_honoured(tmp_path, degrees, side):
    """The stored picture's upper part is white; a display rotation turns it counterclockwise."""
    clip = Clip(frames=2, size=32).read(write(tmp_path / "film.mp4", size=(64, 64), rotate=degrees))[:, 0].float()
    parts = {"left": clip[:, :, :4], "right": clip[:, :, -4:], "down": clip[:, -4:], "up": clip[:, :4]}
    assert max(parts, key=lambda part: parts[part].mean()) == side


def test_missing_empty_wrong_and_damaged_files(tmp_path):
    film = tmp_path / "film.mp4"
    whole = Path(write(film)).read_bytes()
    assert "no such file" in error_of(tmp_path / "nofile.mp4")
    (tmp_path / "empty.mp4").write_bytes(b"")
    (tmp_path / "words.mp4").write_text("these are words\n" * 100)
    (tmp_path / "noise.avi").write_bytes(np.random.default_rng(0).bytes(20_000))
    (tmp_path / "half.mp4").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "folder.mp4").mkdir()
    assert "empty file" in error_of(tmp_path / "empty.mp4")
    assert "is a directory" in error_of(tmp_path / "folder.mp4")
    for name in ("words.mp4", "noise.avi", "half.mp4"):
        for how in ("read", "facts"):
            assert "truncated or damaged" in error_of(tmp_path / name, how)


def test_a_truncated_avi_is_refused(tmp_path):
    path = tmp_path / "film.avi"
    whole = Path(write(path)).read_bytes()
    path.write_bytes(whole[: int(0.9 * len(whole))])
    assert "truncated" in error_of(path) and "truncated" in error_of(path, "facts")


@pytest.mark.parametrize("suffix", [".webm", ".mkv"])
def test_a_file_that_ends_long_before_its_header_says_is_refused(tmp_path, suffix):
    path = tmp_path / f"film{suffix}"
    whole = Path(write(path, count=250)).read_bytes()
    (tmp_path / f"short{suffix}").write_bytes(whole[: len(whole) // 3])
    assert "truncated" in error_of(tmp_path / f"short{suffix}", reader=Clip(frames=250, size=16))


def test_a_file_without_pictures_is_refused(tmp_path):
    with av.open(str(tmp_path / "sound.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=16000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 16000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    with av.open(str(tmp_path / "nothing.avi"), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        container.start_encoding()
    assert "no video stream" in error_of(tmp_path / "sound.mp4")
    assert "damaged" in (told := error_of(tmp_path / "nothing.avi")) or "no picture" in told


def test_a_single_picture_is_no_video(tmp_path):
    assert "one picture" in error_of(write(tmp_path / "one.mp4", count=1))


def test_a_header_that_claims_much_costs_nothing(tmp_path):
    """An AVI header with two thousand million frames: only what is there is read, and nothing is allocated for the rest."""
    path = tmp_path / "film.avi"
    data = bytearray(Path(write(path)).read_bytes())
    for mark, offset in ((b"avih", 8 + 16), (b"strh", 8 + 32)):
        place = data.index(mark) + offset
        data[place : place + 4] = (2_000_000_000).to_bytes(4, "little")
    path.write_bytes(data)
    random.seed(0)
    try:
        with reading(path):
            assert Clip(frames=4, size=16).read(str(path)).shape == (3, 4, 16, 16)
    except DataError as error:
        assert "damaged" in str(error)


def test_a_playlist_opens_no_other_file(tmp_path):
    secret = write(tmp_path / "secret.ts", codec="mpeg2video")
    (tmp_path / "list.mp4").write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:1.6,\n{secret}\n#EXT-X-ENDLIST\n")
    assert "no video" in error_of(tmp_path / "list.mp4")


def test_names_of_any_letters(tmp_path):
    path = write(tmp_path / "фильм 映画.mp4")
    assert Clip(frames=2, size=8).read(path).shape == (3, 2, 8, 8)


@pytest.mark.parametrize("wrong", [{"frames": 0}, {"stride": 0}, {"size": 0}, {"rate": -1.0}, {"frames": 10**6}])
def test_a_mistake_is_refused(wrong):
    with pytest.raises(ComponentError, match=r"reader 'video\.clip'"):
        Clip(**wrong)
