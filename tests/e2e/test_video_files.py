"""Whole videos through `process`: files in, faces by frame and files out, read back with PyAV."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from video_files import (
    audio_packets,
    cut,
    make_sound,
    make_video,
    number_of,
    photograph,
    rotate,
)

from scrfdkit.errors import MissingExtraError, VideoError
from scrfdkit.types import Detections, Image
from scrfdkit.video import frames, probe, process

IRREGULAR = [Fraction(t, 1000) for t in (0, 33, 50, 200, 201, 500, 1000, 1040, 1041, 1500, 1533, 3000)]


@pytest.fixture(autouse=True)
def no_thread_and_no_partial_file_is_left(tmp_path: Path) -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) == before
    assert not list(tmp_path.glob(".*"))


def nobody(image: Image) -> Detections:
    return Detections.empty(5)


def box_of(number: int) -> list[float]:
    return [20 + number, 30, 50 + number, 70]


def numbered(image: Image) -> Detections:
    """A face whose place tells which frame was looked at."""
    return Detections(np.array([box_of(number_of(image))], np.float32), np.array([0.8], np.float32))


def black(image: Image, detections: Detections) -> Image:
    out = image.copy()
    for x1, y1, x2, y2 in detections.boxes.astype(int):
        out[max(0, y1) : y2, max(0, x1) : x2] = 0
    return out


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".mov"])
@pytest.mark.parametrize("audio", ["aac", None])
def test_time_stamps_survive_also_irregular_ones(tmp_path: Path, suffix: str, audio: str | None) -> None:
    source = make_video(tmp_path / f"a{suffix}", IRREGULAR, audio=audio, time_base=Fraction(1, 90_000))
    output = tmp_path / f"out{suffix}"
    results = list(process(source, nobody, output=output))

    times = [f.time for f in frames(source)]
    again = list(frames(output))
    assert [r.time for r in results] == times
    assert [f.time for f in again] == times
    assert [number_of(f.image) for f in again] == list(range(len(IRREGULAR)))


def test_output_is_h264_even_upright_and_has_its_index_in_front(tmp_path: Path) -> None:
    source = rotate(make_video(tmp_path / "a.mp4", 12), 90)
    output = tmp_path / "out.mp4"
    for _ in process(source, nobody, output=output):
        pass
    info = probe(output)
    assert (info.codec, info.width, info.height, info.rotation, info.num_frames) == ("h264", 120, 160, 0, 12)
    before, after = next(frames(source)).image, next(frames(output)).image
    assert np.abs(before.astype(int) - after).mean() < 4
    data = output.read_bytes()
    assert 0 < data.index(b"moov") < data.index(b"mdat")
    with av.open(str(output)) as container:
        assert container.streams.video[0].codec_context.pix_fmt == "yuv420p"


@pytest.mark.parametrize("size", [(160, 120), (1280, 500)])
def test_colours_survive(tmp_path: Path, size: tuple[int, int]) -> None:
    width, height = size
    source = tmp_path / "a.mp4"
    with av.open(str(source), "w") as container:
        stream = container.add_stream("libx264", rate=30)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        patches = np.zeros((height, width, 3), np.uint8)
        for i, color in enumerate([(220, 170, 140), (90, 60, 40), (20, 20, 200), (250, 250, 250)]):
            patches[:, i * width // 4 : (i + 1) * width // 4] = color
        container.mux(stream.encode(av.VideoFrame.from_ndarray(patches, format="rgb24")))
        container.mux(stream.encode(None))
    output = tmp_path / "out.mp4"
    list(process(source, nobody, output=output, crf=10))
    before, after = next(frames(source)).image, next(frames(output)).image
    middles = [(height // 2, width // 8 + i * width // 4) for i in range(4)]
    for y, x in middles:
        assert after[y, x].tolist() == pytest.approx(before[y, x].tolist(), abs=4)


def test_odd_sides_are_made_even_by_doubling_the_last_line(tmp_path: Path) -> None:
    source = make_video(tmp_path / "a.mkv", 5, size=(161, 121), codec="ffv1", pix_fmt="bgr0")
    assert (probe(source).width, probe(source).height) == (161, 121)
    output = tmp_path / "out.mp4"
    list(process(source, nobody, output=output))
    before, after = next(frames(source)).image, next(frames(output)).image
    assert after.shape == (122, 162, 3)
    assert np.abs(before.astype(int) - after[:121, :161]).mean() < 5
    assert [number_of(f.image) for f in frames(output)] == list(range(5))


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
@pytest.mark.parametrize("out", ["out.mp4", "out.mkv", "out.mov"])
def test_sound_is_copied_packet_by_packet(tmp_path: Path, name: str, out: str) -> None:
    source = make_video(tmp_path / name, 60, audio="aac")
    output = tmp_path / out
    list(process(source, nobody, output=output))
    # Matroska has no time before 0, where the encoder's run-in lies: that one silent packet is left out.
    skipped = 1 if (name, out) == ("a.mp4", "out.mkv") else 0
    assert audio_packets(output) == audio_packets(source)[skipped:]
    with av.open(str(source)) as a, av.open(str(output)) as b:
        heard = [[float(p.pts * p.time_base) for p in c.demux(audio=0) if p.size] for c in (a, b)]
    assert heard[1] == pytest.approx(heard[0][skipped:], abs=0.0011)
    assert [f.time for f in frames(output)] == pytest.approx([f.time for f in frames(source)], abs=0.0006)


def test_sound_stays_with_the_pictures_where_the_clock_starts_late(tmp_path: Path) -> None:
    source = make_video(tmp_path / "a.ts", [Fraction(50) + Fraction(i, 30) for i in range(60)], audio="aac")
    output = tmp_path / "out.mkv"
    list(process(source, nobody, output=output))

    def first(path: Path) -> list[float]:
        with av.open(str(path)) as one, av.open(str(path)) as two:
            both = next(one.decode(video=0)), next(two.decode(audio=0))
            return [float(f.pts * f.time_base) for f in both]

    (video, sound), (video_out, sound_out) = first(source), first(output)
    assert video_out - sound_out == pytest.approx(video - sound, abs=0.002)
    assert video_out < 1


def test_sound_the_container_cannot_hold_is_encoded_anew_and_said(tmp_path: Path) -> None:
    source = make_video(tmp_path / "a.avi", 60, codec="mpeg4", audio="pcm_mulaw", time_base=Fraction(1, 30))
    output = tmp_path / "out.mp4"
    with pytest.warns(RuntimeWarning, match="pcm_mulaw audio does not fit into mp4"):
        list(process(source, nobody, output=output))
    with av.open(str(output)) as container:
        assert container.streams.audio[0].codec_context.codec.canonical_name == "aac"
        wave = np.concatenate([f.to_ndarray()[0] for f in container.decode(audio=0)])
    assert len(wave) / 48000 == pytest.approx(2.0, abs=0.15)
    spectrum = np.abs(np.fft.rfft(wave[4800:52800]))
    assert np.argmax(spectrum) * 48000 / 48000 == pytest.approx(440, abs=3)


def test_sound_a_container_only_claims_to_hold(tmp_path: Path) -> None:
    source = make_video(tmp_path / "a.mkv", 30, audio="libopus")
    with pytest.warns(RuntimeWarning, match="opus audio does not fit into mov"):
        list(process(source, nobody, output=tmp_path / "out.mov"))
    list(process(source, nobody, output=tmp_path / "out.mp4"))
    assert audio_packets(tmp_path / "out.mp4") == audio_packets(source)
    with av.open(str(tmp_path / "out.mov")) as container:
        assert sum(f.samples for f in container.decode(audio=0)) == pytest.approx(48_000, abs=2000)


def test_sound_of_a_source_without_any(tmp_path: Path) -> None:
    output = tmp_path / "out.mp4"
    list(process(make_video(tmp_path / "a.mp4", 5), nobody, output=output))
    assert not probe(output).has_audio


@pytest.mark.parametrize("every", [1, 2, 5])
def test_every_nth_frame_is_looked_at_and_none_goes_uncovered(tmp_path: Path, every: int) -> None:
    source = make_video(tmp_path / "a.mp4", 23)
    looked = []

    def detect(image: Image) -> Detections:
        looked.append(number_of(image))
        return numbered(image)

    results = list(process(source, detect, every=every))
    assert looked == list(range(0, 23, every))
    assert [r.index for r in results] == list(range(23))
    assert [r.detected for r in results] == [i % every == 0 for i in range(23)]
    for r in results:
        sides = {r.index // every * every, -(-r.index // every) * every} & set(looked)
        assert sorted(r.detections.boxes.tolist()) == sorted(box_of(n) for n in sides)
        assert r.bridged.tolist() == [not r.detected] * len(r.detections)


def test_tracked_faces_move_on_between_the_frames_looked_at(tmp_path: Path) -> None:
    source = make_video(tmp_path / "a.mp4", 21)
    results = list(process(source, numbered, every=4, track=True))
    for r in results:
        assert r.detections.ids is not None
        assert r.detections.ids.tolist() == [1]
        assert r.detections.boxes[0].tolist() == pytest.approx(box_of(r.index))


def flickering(image: Image) -> Detections:
    number = number_of(image)
    return Detections.empty() if number % 7 in (2, 3, 4) else numbered(image)


def test_bridged_faces_are_covered_in_the_output_so_that_nothing_flickers(tmp_path: Path) -> None:
    source = make_video(tmp_path / "a.mp4", 30)

    def uncovered(track: bool) -> list[int]:
        output = tmp_path / "out.mp4"
        list(process(source, flickering, track=track, output=output, render=black))
        return [f.index for f in frames(output) if f.image[45:55, 35 + f.index : 40 + f.index].mean() > 20]

    assert uncovered(track=False) == [i for i in range(30) if i % 7 in (2, 3, 4)]
    assert uncovered(track=True) == []


def test_results_without_output_are_those_with_it(tmp_path: Path) -> None:
    source = make_video(tmp_path / "a.mp4", 30)
    options = {"every": 2, "track": True, "hold": 2}
    one = [r.detections.to_dict() for r in process(source, flickering, **options)]
    two = [r.detections.to_dict() for r in process(source, flickering, **options, output=tmp_path / "out.mkv")]
    assert one == two


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_the_readable_part_of_a_broken_file_is_finished_then_the_error_comes(tmp_path: Path, suffix: str) -> None:
    options = {"movflags": "faststart"} if suffix == ".mp4" else {}
    source = cut(make_video(tmp_path / f"a{suffix}", 90, audio="aac", options=options), 0.6, tmp_path / f"cut{suffix}")
    output = tmp_path / "out.mp4"
    results = []
    with pytest.raises(VideoError, match=r"frames up to .* s were read, then it broke off \(the file is cut off"):
        for r in process(source, numbered, output=output, track=True):
            results.append(r)  # noqa: PERF402
    again = list(frames(output))
    assert 20 < len(again) == len(results) < 90
    with av.open(str(output)) as container:
        sound = [p.pts * p.time_base for p in container.demux(audio=0) if p.size]
    assert float(sound[-1]) == pytest.approx(again[-1].time, abs=0.3)


def fail_at(number: int, error: BaseException) -> Callable[[Image], Detections]:
    def detect(image: Image) -> Detections:
        if number_of(image) == number:
            raise error
        return numbered(image)

    return detect


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("out of memory")])
def test_an_error_of_the_detector_leaves_no_file(tmp_path: Path, error: BaseException) -> None:
    source = make_video(tmp_path / "a.mp4", 60, audio="aac")
    output = tmp_path / "out.mp4"
    output.write_bytes(b"what was there before")
    with pytest.raises(type(error)):
        list(process(source, fail_at(40, error), output=output))
    assert output.read_bytes() == b"what was there before"


def test_an_error_of_the_renderer_reaches_the_caller_and_leaves_no_file(tmp_path: Path) -> None:
    def render(image: Image, detections: Detections) -> Image:
        raise RuntimeError("cannot draw")

    with pytest.raises(RuntimeError, match="cannot draw"):
        list(process(make_video(tmp_path / "a.mp4", 60), nobody, output=tmp_path / "out.mp4", render=render))
    assert not (tmp_path / "out.mp4").exists()


@pytest.mark.parametrize("taken", [0, 1, 30])
def test_closing_early_leaves_no_file(tmp_path: Path, taken: int) -> None:
    running = process(
        make_video(tmp_path / "a.mp4", 60, audio="aac"), numbered, output=tmp_path / "out.mp4", track=True
    )
    for _ in range(taken):
        next(running)
    assert taken < 30 or list(tmp_path.glob(".out.partial.mp4"))
    running.close()
    assert not (tmp_path / "out.mp4").exists()


def test_what_cannot_work_is_said_before_any_work(tmp_path: Path) -> None:
    source = make_video(tmp_path / "a.mp4", 3)
    cases: list[tuple[object, dict[str, object], type[Exception], str]] = [
        (source, {"output": tmp_path / "out.avi"}, VideoError, r"\.mp4, \.m4v, \.mov, \.mkv"),
        (source, {"output": tmp_path / "no" / "out.mp4"}, VideoError, "does not exist"),
        (source, {"output": source}, VideoError, "is the source itself"),
        (source, {"every": 0}, ValueError, "every"),
        (source, {"max_pixels": 100}, VideoError, "over the limit"),
        (tmp_path / "none.mp4", {}, VideoError, "No such file"),
        (make_sound(tmp_path / "a.m4a"), {}, VideoError, "no video"),
    ]
    for given, options, kind, words in cases:
        with pytest.raises(kind, match=words):
            process(given, nobody, **options)  # type: ignore[arg-type]
    assert source.stat().st_size > 0


def test_pyav_missing_names_its_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = make_video(tmp_path / "a.mp4", 3)
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(MissingExtraError, match=r"scrfdkit\[video\]"):
        process(source, nobody)


def test_a_stream_that_changes_its_size_is_written_in_its_first_size(tmp_path: Path) -> None:
    small = make_video(tmp_path / "a.ts", 10, size=(160, 120), b_frames=0)
    large = make_video(tmp_path / "b.ts", [Fraction(10 + i, 30) for i in range(10)], size=(320, 240), b_frames=0)
    both = tmp_path / "both.ts"
    both.write_bytes(small.read_bytes() + large.read_bytes())
    assert {f.image.shape for f in frames(both)} == {(120, 160, 3), (240, 320, 3)}
    output = tmp_path / "out.mp4"
    list(process(both, nobody, output=output))
    assert {f.image.shape for f in frames(output)} == {(120, 160, 3)}
    assert len(list(frames(output))) == 20


def test_pictures_and_places_of_the_source_are_not_carried_over(tmp_path: Path) -> None:
    source = tmp_path / "a.mp4"
    make_video(source, 5)
    with av.open(str(source)) as container, av.open(str(tmp_path / "b.mp4"), "w") as tagged:
        tagged.metadata["title"] = "Jane at home"
        stream = tagged.add_stream_from_template(container.streams.video[0])
        for packet in container.demux(video=0):
            if packet.size:
                packet.stream = stream
                tagged.mux(packet)
    output = tmp_path / "out.mp4"
    list(process(tmp_path / "b.mp4", nobody, output=output))
    assert b"Jane" in (tmp_path / "b.mp4").read_bytes()
    assert b"Jane" not in output.read_bytes()


def test_a_real_detector_follows_a_real_face(tmp_path: Path, shared: Path) -> None:
    """The astronaut's face moves through the picture; found in each frame, with one id, where it really is."""
    from scrfdkit.detector import Detector

    path = tmp_path / "a.mp4"
    full = photograph()
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 320, 320, "yuv420p"
        for i in range(24):
            left = 40 + 4 * i
            window = np.ascontiguousarray(full[0:320, left : left + 320])
            container.mux(stream.encode(av.VideoFrame.from_ndarray(window, format="rgb24")))
        container.mux(stream.encode(None))
    detector = Detector.open(shared / "weights" / "official" / "scrfd_500m_kps.onnx")

    x1, y1, x2, y2 = detector.detect(np.ascontiguousarray(full[:320, 80:400, ::-1])).boxes[0]
    middle = ((x1 + x2) / 2 + 80, (y1 + y2) / 2)
    assert middle == pytest.approx((222, 112), abs=20)

    results = list(process(path, detector.detect, every=3, track=True, output=tmp_path / "out.mp4", render=black))

    for r in results:
        assert r.detections.ids is not None
        assert r.detections.ids.tolist() == [1]
        x1, y1, x2, y2 = r.detections.boxes[0]
        late = max(0, r.index - 21)  # after the last frame looked at the face is held where it was
        center = ((x1 + x2) / 2 + 40 + 4 * (r.index - late), (y1 + y2) / 2)  # back in the photograph
        assert center == pytest.approx(middle, abs=5)
    found = [len(detector.detect(f.image)) for f in frames(tmp_path / "out.mp4")]
    assert found == [0] * 24
