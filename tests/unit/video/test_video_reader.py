"""Reading: every frame once, in order, upright, at its time; and what is said of files that are not whole."""

from __future__ import annotations

import threading
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from video_files import cut, make_sound, make_video, number_of, picture, rotate

from scrfdkit.errors import VideoError
from scrfdkit.video import Frame, frames, probe

IRREGULAR = [Fraction(t, 1000) for t in (0, 33, 50, 200, 201, 500, 1000, 1040, 1041, 1500, 1533, 3000)]


def read(path: Path) -> tuple[list[Frame], VideoError | None]:
    """What could be read, and the error that came after it."""
    got: list[Frame] = []
    try:
        got.extend(frames(path))  # extend keeps what came before an error
    except VideoError as error:
        return got, error
    return got, None


@pytest.mark.parametrize("name", ["a.mp4", "a.mov", "a.mkv", "a.ts"])
def test_every_frame_comes_once_in_order_with_b_frames(tmp_path: Path, name: str) -> None:
    path = make_video(tmp_path / name, 50, b_frames=3)
    with av.open(str(path)) as container:
        assert container.streams.video[0].codec_context.max_b_frames or container.streams.video[0].has_b_frames

    got, error = read(path)

    assert error is None
    assert [f.index for f in got] == [number_of(f.image) for f in got] == list(range(50))
    assert [f.time - got[0].time for f in got] == pytest.approx([i / 30 for i in range(50)], abs=0.001)


def test_times_of_irregular_frames_are_exact(tmp_path: Path) -> None:
    path = make_video(tmp_path / "a.mp4", IRREGULAR, time_base=Fraction(1, 90_000))
    got, error = read(path)
    assert error is None
    assert [f.time for f in got] == [float(t) for t in IRREGULAR]
    assert [number_of(f.image) for f in got] == list(range(len(IRREGULAR)))


def test_time_zero_is_the_start_of_the_recording(tmp_path: Path) -> None:
    """MPEG-TS starts its clock anywhere; a player's clock starts at 0."""
    path = make_video(tmp_path / "a.ts", [Fraction(100) + Fraction(i, 30) for i in range(10)])
    assert probe(path).start >= 100
    assert [f.time for f in frames(path)] == pytest.approx([i / 30 for i in range(10)], abs=1e-4)


def test_a_bare_stream_without_a_clock_gets_its_nominal_rate(tmp_path: Path) -> None:
    path = make_video(tmp_path / "a.h264", 10, b_frames=0)
    times = [f.time for f in frames(path)]
    assert len(times) == 10
    assert times[0] == 0
    assert np.diff(times) == pytest.approx([times[1]] * 9)
    assert times[1] > 0


@pytest.mark.parametrize(("name", "codec", "pix_fmt"), [("a.webm", "libvpx-vp9", "yuv420p"), ("a.gif", "gif", "rgb8")])
def test_other_formats(tmp_path: Path, name: str, codec: str, pix_fmt: str) -> None:
    path = make_video(
        tmp_path / name, [i / 10 for i in range(12)], codec=codec, pix_fmt=pix_fmt, time_base=Fraction(1, 100)
    )
    got, error = read(path)
    assert error is None
    assert [number_of(f.image) for f in got] == list(range(12))
    assert [f.time for f in got] == pytest.approx([i / 10 for i in range(12)], abs=0.001)


def test_colours_are_those_of_the_source(tmp_path: Path) -> None:
    path = make_video(tmp_path / "a.mp4", 1)
    (frame,) = frames(path)
    wrong = np.abs(frame.image[..., ::-1].astype(int) - picture(0, 160, 120)).mean()
    assert wrong < 6


@pytest.mark.parametrize(("width", "height", "matrix"), [(320, 240, "ITU601"), (1280, 720, "ITU709")])
def test_an_unnamed_yuv_matrix_is_the_usual_one_for_the_size(
    tmp_path: Path, width: int, height: int, matrix: str
) -> None:
    """Players take BT.601 for small and BT.709 for large video; the wrong one shifts skin by ten levels."""
    path = tmp_path / "a.mp4"
    red = np.full((height, width, 3), (200, 60, 40), np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        frame = av.VideoFrame.from_ndarray(red, format="rgb24")
        container.mux(stream.encode(frame.reformat(format="yuv420p", dst_colorspace=matrix)))
        container.mux(stream.encode(None))
    with av.open(str(path)) as container:
        assert next(container.decode(video=0)).colorspace == 2, "the file must not name its matrix"
    (got,) = frames(path)
    assert got.image[height // 2, width // 2].tolist() == pytest.approx([40, 60, 200], abs=4)


TURNS = {
    (0, False): lambda i: i,
    (90, False): lambda i: cv2.rotate(i, cv2.ROTATE_90_CLOCKWISE),
    (180, False): lambda i: cv2.rotate(i, cv2.ROTATE_180),
    (270, False): lambda i: cv2.rotate(i, cv2.ROTATE_90_COUNTERCLOCKWISE),
    (0, True): lambda i: i[:, ::-1],
    (90, True): lambda i: cv2.rotate(i, cv2.ROTATE_90_CLOCKWISE)[:, ::-1],
    (180, True): lambda i: cv2.rotate(i, cv2.ROTATE_180)[:, ::-1],
    (270, True): lambda i: cv2.rotate(i, cv2.ROTATE_90_COUNTERCLOCKWISE)[:, ::-1],
}


@pytest.mark.parametrize(("degrees", "mirror"), TURNS)
def test_the_turn_in_the_header_is_applied(tmp_path: Path, degrees: int, mirror: bool) -> None:
    path = make_video(tmp_path / "a.mp4", 3)
    (plain, *_) = frames(path)
    rotate(path, degrees, mirror=mirror)

    info = probe(path)
    got = [f.image for f in frames(path)]

    assert np.array_equal(got[0], TURNS[degrees, mirror](plain.image))
    assert got[0].flags.c_contiguous
    assert (info.width, info.height) == ((120, 160) if degrees in (90, 270) else (160, 120))
    assert info.mirrored == mirror
    if not mirror:
        assert info.rotation == degrees


def test_the_turn_agrees_with_what_pyav_writes(tmp_path: Path) -> None:
    """PyAV counts anticlockwise, as FFmpeg does."""
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30)
        if not hasattr(stream, "set_display_rotation"):
            pytest.skip("this PyAV cannot write a display matrix")
        stream.width, stream.height, stream.pix_fmt = 160, 120, "yuv420p"
        stream.set_display_rotation(90)
        container.mux(stream.encode(av.VideoFrame.from_ndarray(picture(0, 160, 120), format="rgb24")))
        container.mux(stream.encode(None))
    assert probe(path).rotation == 270


def test_probe(tmp_path: Path) -> None:
    info = probe(make_video(tmp_path / "a.mp4", 45, size=(158, 90), audio="aac"))
    assert (info.width, info.height, info.num_frames, info.has_audio, info.codec) == (158, 90, 45, True, "h264")
    assert info.rate == 30
    assert info.duration == pytest.approx(1.5, abs=0.05)
    assert info.sample_aspect == 1
    assert not probe(make_video(tmp_path / "b.mkv", 3)).has_audio


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.avi", "a.webm"])
@pytest.mark.parametrize("part", [0.5, 0.93])
def test_a_file_cut_off_gives_its_front_and_then_an_error(tmp_path: Path, name: str, part: float) -> None:
    codec = {".avi": "mpeg4", ".webm": "libvpx-vp9"}.get(Path(name).suffix, "libx264")
    options = {"movflags": "faststart"} if name == "a.mp4" else {}
    whole = make_video(tmp_path / name, 90, codec=codec, options=options, time_base=Fraction(1, 30))
    assert read(whole)[1] is None

    short = cut(whole, part, tmp_path / f"cut_{name}")
    with av.open(str(whole)) as container:
        # Matroska's position is that of the block, whose header is up to 16 bytes long.
        there = sum(p.pos + p.size + 16 <= short.stat().st_size for p in container.demux(video=0) if p.size)

    got, error = read(short)

    assert there <= len(got) <= min(90, there + 2), "every whole packet, and perhaps the one that was cut"
    assert [f.index for f in got] == list(range(len(got)))
    assert [number_of(f.image) for f in got[:-2]] == list(range(len(got) - 2))
    assert error is not None
    message = str(error)
    assert f"cut_{name}: {len(got)} frames up to {got[-1].time:.3f} s were read" in message
    assert "cut off" in message


def test_one_missing_byte_is_noticed(tmp_path: Path) -> None:
    whole = make_video(tmp_path / "a.mkv", 20)
    shorter = tmp_path / "b.mkv"
    shorter.write_bytes(whole.read_bytes()[:-1])
    got, error = read(shorter)
    assert len(got) == 20
    assert error is not None


def test_damage_in_the_middle_costs_only_the_frames_it_hit(tmp_path: Path) -> None:
    path = make_video(tmp_path / "a.mp4", 90, b_frames=0, options={"movflags": "faststart"})
    with av.open(str(path)) as container:
        packets = [(p.pos, p.size) for p in container.demux(video=0) if p.size]
    data = bytearray(path.read_bytes())
    position, size = packets[40]
    data[position : position + size] = b"\xff" * size
    path.write_bytes(data)

    got, error = read(path)

    assert len(got) >= 80
    assert got[-1].time == pytest.approx(89 / 30, abs=1e-3)
    assert error is not None
    assert "could not be decoded" in str(error)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("empty.mp4", b"", "zero bytes"),
        ("text.mp4", b"this is no video at all, but some words" * 20, "not a video"),
        ("half.mp4", b"\x00\x00\x00\x18ftypmp42\x00\x00\x00\x00mp42isom", "not a video"),
        (":weird: name.mp4", b"x" * 100, "not a video"),
    ],
)
def test_what_is_no_video_says_so(tmp_path: Path, name: str, content: bytes, words: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    for call in (probe, lambda p: next(frames(p))):
        with pytest.raises(VideoError, match=words) as caught:
            call(path)
        assert str(path) in str(caught.value)


def test_missing_files_folders_and_sound_only(tmp_path: Path) -> None:
    with pytest.raises(VideoError, match=r"nothing\.mp4: No such file"):
        probe(tmp_path / "nothing.mp4")
    with pytest.raises(VideoError, match="a folder"):
        probe(tmp_path)
    with pytest.raises(VideoError, match="no video in it, only audio"):
        probe(make_sound(tmp_path / "a.m4a"))


def test_a_cover_picture_is_no_video(tmp_path: Path) -> None:
    path = tmp_path / "song.mp3"
    with av.open(str(path), "w") as container:
        sound = container.add_stream("mp3", rate=48000)
        sound.layout = "mono"
        cover = container.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = 64, 64, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        container.mux(cover.encode(av.VideoFrame.from_ndarray(picture(0, 64, 64), format="rgb24")))
        container.mux(cover.encode(None))
        wave = av.AudioFrame.from_ndarray(np.zeros((1, 48000), np.int16), format="s16p", layout="mono")
        wave.sample_rate, wave.pts = 48000, 0
        container.mux(sound.encode(wave))
        container.mux(sound.encode(None))
    with av.open(str(path)) as container:
        assert len(container.streams.video) == 1
    with pytest.raises(VideoError, match="no video in it"):
        probe(path)


def test_an_address_in_a_play_list_is_not_fetched(tmp_path: Path) -> None:
    path = tmp_path / "list.m3u8"
    path.write_text("#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nhttp://127.0.0.1:9/a.ts\n#EXT-X-ENDLIST\n")
    with pytest.raises(VideoError):
        probe(path)


def test_frames_over_the_limit_are_refused(tmp_path: Path) -> None:
    path = make_video(tmp_path / "a.mp4", 3)
    with pytest.raises(VideoError, match="160 x 120 pixels are over the limit of 10000"):
        next(frames(path, max_pixels=10_000))
    assert len(list(frames(path, max_pixels=160 * 120))) == 3


def test_an_absent_camera_says_so() -> None:
    if Path("/dev/video63").exists():
        pytest.skip("this machine has a camera 63")
    with pytest.raises(VideoError, match="camera 63: /dev/video63"):
        next(frames(63))


def test_names_with_colons_are_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """FFmpeg would take what is before a colon for a protocol."""
    path = make_video(tmp_path / "a.mp4", 3)
    path.rename(tmp_path / "12:30 clip.mp4")
    monkeypatch.chdir(tmp_path)
    assert len(list(frames("12:30 clip.mp4"))) == 3


def test_closing_early_leaves_nothing_open(tmp_path: Path) -> None:
    path = make_video(tmp_path / "a.mp4", 30)
    before = set(threading.enumerate())
    reading = frames(path)
    next(reading)
    reading.close()
    assert set(threading.enumerate()) == before
    opened = [p.resolve() for p in Path("/proc/self/fd").iterdir() if p.exists()]
    assert path.resolve() not in opened
