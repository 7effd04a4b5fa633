"""What a file holds is read whole or refused, and what FFmpeg says is told as such."""

from __future__ import annotations

import io
import logging
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image
from vidseg.core.evaluation.bench.dataset import BenchClip
from vidseg.core.files.clip import open_clip
from vidseg.core.files.images import read_image
from vidseg.core.files.label_images import make_label_image, read_label_values, read_labels
from vidseg.core.files.video import require_encoder, write_id_video, write_video
from vidseg.core.regions.palette import PALETTE
from vidseg.core.types import InputError

QUICK = settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def levels(count: int) -> torch.Tensor:
    return (torch.arange(count, dtype=torch.uint8) * 20)[:, None, None, None].expand(count, 32, 48, 3).contiguous()


def pictures(count: int) -> list[Image.Image]:
    return [Image.fromarray(frame.numpy()) for frame in levels(count)]


@pytest.mark.parametrize("name", ["a.webp", "a.png", "a.tiff"])
def test_every_picture_of_an_animation_is_a_frame(tmp_path: Path, name: str) -> None:
    first, *others = pictures(12)
    lossless = {"lossless": True} if name == "a.webp" else {}
    first.save(tmp_path / name, save_all=True, append_images=others, duration=40, **lossless)
    with open_clip(tmp_path / name) as clip:
        assert clip.num_frames == 12
        assert clip.info.fps == (None if name == "a.tiff" else pytest.approx(25))
        assert (clip.info.times, clip.info.frame_names) == (None, None)
        assert torch.equal(clip.read(0, 12), levels(12).float() / 255)
        assert torch.equal(clip.read(5, 6), levels(12)[5:6].float() / 255)


def test_times_of_an_animation_are_kept(tmp_path: Path) -> None:
    first, *others = pictures(4)
    first.save(tmp_path / "a.png", save_all=True, append_images=others, duration=[40, 200, 40, 40])
    assert open_clip(tmp_path / "a.png").info.times == (0.0, 0.04, 0.24, 0.28)


def test_a_file_of_several_pictures_is_no_frame_and_no_mask(tmp_path: Path) -> None:
    first, *others = pictures(3)
    for name in ("a.tiff", "b.png"):
        first.save(tmp_path / name, save_all=True, append_images=others)
        for read in (read_image, lambda path: read_labels(path, "mask"), lambda path: read_label_values(path, "mask")):
            with pytest.raises(InputError, match=f"one picture in each file, but got {name}, which holds 3"):
                read(tmp_path / name)
    with pytest.raises(InputError, match="one picture in each file"):
        open_clip(tmp_path)


def test_a_thumbnail_is_no_page(tmp_path: Path) -> None:
    first, second, _ = pictures(3)
    small = second.resize((12, 8))
    small.encoderinfo = {"tiffinfo": {254: 1}}
    first.save(tmp_path / "a.tiff", save_all=True, append_images=[small])
    with open_clip(tmp_path / "a.tiff") as clip:
        assert clip.num_frames == 1
    assert read_image(tmp_path / "a.tiff").shape == (32, 48, 3)


def test_images_that_claim_to_be_huge_are_not_decoded(tmp_path: Path) -> None:
    Image.new("1", (8, 8)).save(tmp_path / "a.png")
    content = (tmp_path / "a.png").read_bytes()
    header = b"IHDR" + struct.pack(">II", 9_000, 9_000) + content[24:29]
    (tmp_path / "a.png").write_bytes(content[:12] + header + struct.pack(">I", zlib.crc32(header)) + content[33:])
    for read in (read_image, lambda path: read_labels(path, "mask")):
        with pytest.raises(InputError, match=r"must hold images of at most 64 megapixels, but got a\.png of 9000x"):
            read(tmp_path / "a.png")


def song(path: Path, *, videos: int) -> None:
    """Write sound and a cover, and ``videos`` video streams after them."""
    with av.open(str(path), "w") as container:
        sound = container.add_stream("aac", rate=16000)
        cover = container.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = 16, 16, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        streams = [container.add_stream("mpeg4", rate=10) for _ in range(videos)]
        for stream in streams:
            stream.width, stream.height, stream.pix_fmt = 48, 32, "yuv420p"
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 16000), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 16000
        picture = av.VideoFrame.from_ndarray(np.zeros((16, 16, 3), np.uint8), format="rgb24")
        container.mux([*cover.encode(picture.reformat(format="yuvj420p")), *cover.encode()])
        container.mux([*sound.encode(frame), *sound.encode()])
        for stream in streams:
            for pixels in levels(4):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels.numpy(), format="rgb24")))
            container.mux(stream.encode())


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("videos", [0, 1, 2])
def test_a_cover_is_no_video_and_a_second_stream_is_told(
    tmp_path: Path, videos: int, caplog: pytest.LogCaptureFixture
) -> None:
    song(tmp_path / "song.mp4", videos=videos)
    if videos == 0:
        with pytest.raises(InputError, match="holds no video stream"):
            open_clip(tmp_path / "song.mp4")
        return
    with caplog.at_level(logging.WARNING), open_clip(tmp_path / "song.mp4") as clip:
        assert (clip.num_frames, clip.info.frame_size) == (4, (32, 48))
    assert ("holds 2 video streams" in caplog.text) == (videos == 2)


def split_units(content: bytes) -> list[bytes]:
    return [part.rstrip(b"\0") for part in content.split(b"\0\0\1")[1:]]


def test_damage_beside_the_pictures_is_no_damage(tmp_path: Path) -> None:
    """A message (SEI) that claims more bytes than it has, before each picture; ffmpeg decodes all 12."""
    write_video(tmp_path / "a.mp4", levels(12), 10)
    with av.open(str(tmp_path / "a.mp4")) as source, av.open(str(tmp_path / "a.h264"), "w") as target:
        if source.streams.video[0].codec_context.name != "h264":
            pytest.skip("no encoder of H.264")
        copy = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream = copy
                target.mux(packet)
    bad = bytes([6, 1, 200, 1, 128])
    units = [unit for unit in split_units((tmp_path / "a.h264").read_bytes()) if unit[0] & 31 != 6]
    units = [part for unit in units for part in ((bad, unit) if unit[0] & 31 in (1, 5) else (unit,))]
    (tmp_path / "b.h264").write_bytes(b"".join(b"\0\0\0\1" + unit for unit in units))
    with open_clip(tmp_path / "b.h264") as clip:
        assert clip.num_frames == 12
        assert torch.allclose(clip.read(0, 12), levels(12).float() / 255, atol=0.03)
    cut = next(index for index, unit in enumerate(units) if unit[0] & 31 == 5)
    units[cut] = units[cut][: len(units[cut]) // 2]
    (tmp_path / "c.h264").write_bytes(b"".join(b"\0\0\0\1" + unit for unit in units))
    with pytest.raises(InputError, match="is damaged near frame"):
        open_clip(tmp_path / "c.h264")


def test_frames_less_than_a_millisecond_apart_stay_apart(tmp_path: Path) -> None:
    times = (0.0, 0.0333, 0.0337, 0.0667, 0.1, 0.1, 0.1333)
    write_video(tmp_path / "a.mp4", levels(7), times=times)
    written = open_clip(tmp_path / "a.mp4").info
    assert written.num_frames == 7
    assert written.times == pytest.approx(times, abs=1e-4)


@pytest.mark.parametrize("codec", ["libx264", "mpeg4"])
def test_the_rate_is_that_of_the_frames(tmp_path: Path, codec: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vidseg.core.files.video.CODECS", (codec,))
    write_video(tmp_path / "a.mp4", levels(7), 24, times=[number / 10 for number in range(7)])
    info = open_clip(tmp_path / "a.mp4").info
    assert info.fps == pytest.approx(10, rel=0.01)


@pytest.mark.parametrize("folder", ["take:1", "http:", "a%03d", "pipe:1"])
def test_a_path_is_no_address(tmp_path: Path, folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / folder).mkdir()
    monkeypatch.chdir(tmp_path)
    write_video(Path(folder) / "a.mp4", levels(2))
    write_id_video(Path(folder) / "b.mkv", levels(2)[..., 0], 10)
    assert open_clip(Path(folder) / "a.mp4").num_frames == open_clip(Path(folder) / "b.mkv").num_frames == 2


def test_what_ffmpeg_refuses_is_told_as_such(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"`av` must encode a.mp4, but FFmpeg said"):
        write_video(tmp_path / "a.mp4", torch.zeros(1, 2, 40_000, 3, dtype=torch.uint8))
    with pytest.raises(InputError, match=r"encode a.mp4, but FFmpeg said: .* Make the frames smaller"):
        require_encoder("a.mp4", (2, 40_000))
    require_encoder("a.mp4", (33, 35))
    with pytest.raises(OSError, match="No such file"):
        write_video(tmp_path / "none" / "a.mp4", levels(1))


def test_black_and_white_masks_of_a_data_set_are_no_void(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    values = np.zeros((32, 48), np.uint8)
    Image.fromarray(values).save(tmp_path / "0.png")
    values[8:20, 10:30] = 255
    Image.fromarray(values).convert("RGB").save(tmp_path / "1.png")
    masks = {0: tmp_path / "0.png", 1: tmp_path / "1.png"}
    clip = BenchClip("a", (), masks, None, "plain", {})
    assert torch.equal(clip.read_mask(1), torch.from_numpy(values // 255))
    assert [mask.unique().tolist() for mask in clip.read_masks([0, 1])] == [[0], [0, 1]]
    assert "255 (white) is read as class 1" in caplog.text
    Image.fromarray(np.stack([values, values // 2, values], -1)).save(tmp_path / "1.png")
    with pytest.raises(InputError, match="has other colors"):
        clip.read_mask(1)


@given(st.data())
@QUICK
def test_labels_survive_every_order_of_the_palette(tmp_path: Path, data: st.DataObject) -> None:
    labels = data.draw(st.lists(st.integers(0, 255), min_size=1, max_size=6, unique=True))
    picks = data.draw(st.lists(st.sampled_from(labels), min_size=12, max_size=12))
    order = data.draw(st.permutations(sorted(set(labels) | {0, 1, 2})))
    truth = torch.tensor(picks, dtype=torch.uint8).reshape(3, 4)
    moved = Image.fromarray(np.vectorize(order.index)(truth.numpy()).astype(np.uint8))
    moved.putpalette(PALETTE[order].flatten().tolist())
    for image in (moved, make_label_image(truth), moved.convert("RGB")):
        image.save(tmp_path / "a.png")
        assert torch.equal(read_label_values(tmp_path / "a.png", "x"), truth)


def assert_told(read: Callable[[Path], object], path: Path) -> None:
    """Read a file; only an error of one line may come."""
    try:
        read(path)
    except InputError as error:
        assert "\n" not in str(error)


def start_of(kind: str) -> bytes:
    """Return a small image file."""
    first, *others = pictures(3)
    more = {"save_all": True, "append_images": others} if kind in ("TIFF", "WEBP") else {}
    first.save(file := io.BytesIO(), kind, **more)
    return file.getvalue()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("kind", "suffix"), [("PNG", "png"), ("TIFF", "tiff"), ("WEBP", "webp"), ("JPEG", "jpg")])
@given(st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, 255)), max_size=6), st.floats(0, 1))
@QUICK
def test_damaged_images_are_refused_in_one_line(
    tmp_path: Path, kind: str, suffix: str, hits: list[tuple[float, int]], end: float
) -> None:
    content = bytearray(start_of(kind))
    for place, value in hits:
        content[int(place * len(content))] = value
    path = tmp_path / f"a.{suffix}"
    path.write_bytes(content[: max(1, int(end * len(content)))])
    assert_told(open_clip, path)
    assert_told(lambda path: read_labels(path, "mask"), path)


@pytest.mark.filterwarnings("ignore")
@given(st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, 255)), max_size=6), st.floats(0.1, 1))
@example([(0.015625, 128)], 1)  # a name of the container that is no UTF-8
@QUICK
def test_damaged_videos_are_refused_in_one_line(tmp_path: Path, hits: list[tuple[float, int]], end: float) -> None:
    write_video(tmp_path / "a.mp4", levels(3))
    content = bytearray((tmp_path / "a.mp4").read_bytes())
    for place, value in hits:
        content[int(place * len(content))] = value
    (tmp_path / "b.mp4").write_bytes(content[: int(end * len(content))])
    assert_told(open_clip, tmp_path / "b.mp4")
