from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image
from vidseg.core.files.clip import CHECK_STAGE, open_clip, reopen_clip
from vidseg.core.files.images import natural_key, read_image
from vidseg.core.files.video import require_encoder, write_video
from vidseg.core.types import InputError


def frames(count: int = 6, height: int = 48, width: int = 64) -> torch.Tensor:
    """Frames ``(T,H,W,3)`` uint8 whose brightness rises by 30 a frame."""
    levels = torch.arange(count, dtype=torch.uint8)[:, None, None, None] * 30
    return levels.expand(count, height, width, 3).contiguous()


def write_images(folder: Path, values: torch.Tensor, pattern: str = "{:05d}.png") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number, frame in enumerate(values):
        Image.fromarray(frame.numpy()).save(folder / pattern.format(number))


def noisy_video(path: Path, codec: str, options: dict[str, str] | None = None) -> None:
    """Write a video that needs many bytes, so that damage hits pictures."""
    base = np.random.default_rng(0).integers(0, 255, (104, 136, 3), dtype=np.uint8)
    with av.open(str(path), "w", options=options or {}) as container:
        stream = container.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        for shift in range(20):
            part = np.ascontiguousarray(base[shift : shift + 64, shift : shift + 96])
            container.mux(stream.encode(av.VideoFrame.from_ndarray(part, format="rgb24")))
        container.mux(stream.encode())


def test_reads_a_folder_in_natural_order(tmp_path: Path) -> None:
    write_images(tmp_path, frames(12), "f{}.png")
    (tmp_path / "notes.txt").write_text("no frame")
    (tmp_path / "._f0.png").write_text("what macOS leaves")
    with open_clip(tmp_path) as clip:
        assert clip.info.num_frames == 12
        assert clip.info.frame_size == (48, 64)
        assert clip.info.fps is None
        assert clip.info.frame_names == tuple(f"f{number}" for number in range(12))
        assert torch.equal(clip.read(0, 12), frames(12).float() / 255)
        assert torch.equal(clip.read(3, 5), frames(12)[3:5].float() / 255)
        assert torch.equal(clip.read(5, 6), frames(12)[5:6].float() / 255)


def test_natural_order_is_total() -> None:
    names = ["f10", "f9", "F1", "f01", "10", "9", "a1b10", "a1b9", "f"]
    assert len({natural_key(name) for name in names}) == len(names)
    assert sorted(names, key=natural_key)[:3] == ["9", "10", "a1b9"]
    assert sorted(["10", "9", "1"], key=natural_key) == ["1", "9", "10"]
    assert sorted(["a1b10", "a1b9"], key=natural_key) == ["a1b9", "a1b10"]


def test_a_folder_called_frames_is_found_inside(tmp_path: Path) -> None:
    write_images(tmp_path / "frames", frames(2))
    write_images(tmp_path / "masks", frames(5))
    assert open_clip(tmp_path).num_frames == 2


def test_one_image_is_a_clip_of_one_frame(tmp_path: Path) -> None:
    write_images(tmp_path, frames(1))
    assert open_clip(tmp_path / "00000.png").read(0, 1).shape == (1, 48, 64, 3)


def test_the_fingerprint_is_of_the_content(tmp_path: Path) -> None:
    write_images(tmp_path / "a", frames(3))
    write_images(tmp_path / "b", frames(3), "other{}.png")
    write_images(tmp_path / "c", frames(3).flip(0))
    first, second, third = (open_clip(tmp_path / name).info.fingerprint for name in "abc")
    assert first == second != third


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "avi"])
def test_reads_a_video_anywhere(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"clip.{suffix}"
    if suffix == "mp4":
        write_video(path, frames(), fps=10)
    else:
        noisy_video(path, "mpeg4")
    calls: list[tuple[str, int, int]] = []
    with open_clip(path, lambda *call: calls.append(call)) as clip:
        count = clip.num_frames
        assert clip.info.times is None
        assert calls[-1] == (CHECK_STAGE, count, count)
        whole = clip.read(0, count)
        assert whole.dtype == torch.float32
        assert torch.equal(clip.read(2, 4), whole[2:4])
        assert torch.equal(clip.read(4, 6), whole[4:6])
        assert torch.equal(clip.read(0, 1), whole[:1])
    if suffix == "mp4":
        assert clip.info.fps == pytest.approx(10)
        assert torch.allclose(whole, frames().float() / 255, atol=0.03)


def test_a_variable_rate_keeps_its_times(tmp_path: Path) -> None:
    times = (0.0, 0.033, 0.066, 0.2, 0.233, 1.0)
    write_video(tmp_path / "a.mp4", frames(), times=times)
    info = open_clip(tmp_path / "a.mp4").info
    assert info.times == pytest.approx(times, abs=1e-3)
    assert info.fps is not None


def test_an_odd_size_is_extended(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", frames(2, 33, 35))
    assert open_clip(tmp_path / "a.mp4").info.frame_size == (34, 36)


def test_the_fallback_codec_writes_a_video(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vidseg.core.files.video.CODECS", ("none-such", "mpeg4"))
    write_video(tmp_path / "a.mp4", frames())
    with av.open(str(tmp_path / "a.mp4")) as container:
        assert container.streams.video[0].codec_context.name == "mpeg4"
        assert container.streams.video[0].average_rate == Fraction(24)
    monkeypatch.setattr("vidseg.core.files.video.CODECS", ("none-such",))
    with pytest.raises(InputError, match="encoders none-such"):
        require_encoder("b.mp4", (16, 16))


def refused(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        open_clip(path)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith("`input` must ")
    return message


def test_refuses_what_is_not_there(tmp_path: Path) -> None:
    assert "does not exist" in refused(tmp_path / "none.mp4")
    assert "no image in" in refused(tmp_path)


@pytest.mark.parametrize("name", ["a.txt", "a.mp4", "a", "a.png"])
def test_refuses_text(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("this is no video\n" * 50)
    assert "a" in refused(tmp_path / name)


@pytest.mark.parametrize("name", ["a.mp4", "a.jpg"])
def test_refuses_an_empty_file(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"")
    refused(tmp_path / name)


def test_refuses_sound_alone(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "a.wav"), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
        sound.sample_rate = 8000
        container.mux(stream.encode(sound))
    assert "no video stream" in refused(tmp_path / "a.wav")


def test_refuses_frames_of_different_sizes(tmp_path: Path) -> None:
    write_images(tmp_path, frames(3))
    Image.new("RGB", (32, 48)).save(tmp_path / "00001.png")
    message = refused(tmp_path)
    assert "00000.png of 64x48 and 00001.png of 32x48" in message


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_refuses_one_corrupt_image_and_names_it(tmp_path: Path, suffix: str) -> None:
    noise = torch.from_numpy(np.random.default_rng(0).integers(0, 255, (4, 64, 64, 3), dtype=np.uint8))
    write_images(tmp_path, noise, "{:05d}." + suffix)
    path = tmp_path / f"00002.{suffix}"
    path.write_bytes(path.read_bytes()[:-1500])
    assert f"00002.{suffix}, which is damaged" in refused(tmp_path)


@pytest.mark.parametrize("codec", ["libx264", "mpeg4"])
def test_refuses_a_video_with_a_corrupt_frame(tmp_path: Path, codec: str) -> None:
    path = tmp_path / "a.mp4"
    noisy_video(path, codec)
    content = bytearray(path.read_bytes())
    content[8000:8400] = np.random.default_rng(1).integers(0, 256, 400, dtype=np.uint8).tobytes()
    path.write_bytes(bytes(content))
    assert "is damaged near frame" in refused(path)


@pytest.mark.parametrize("codec", ["libx264", "mpeg4"])
@pytest.mark.parametrize("share", [0.3, 0.5, 0.8, 0.97])
def test_refuses_a_video_that_was_cut_off(tmp_path: Path, codec: str, share: float) -> None:
    path = tmp_path / "a.mp4"
    noisy_video(path, codec, {"movflags": "faststart"})
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    refused(path)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1.5, -0.5])
def test_refuses_values_that_are_no_colors(tmp_path: Path, value: float) -> None:
    write_images(tmp_path, frames(2))
    bad = np.zeros((48, 64), np.float32)
    bad[5, 7] = value
    Image.fromarray(bad).save(tmp_path / "00002.tiff")
    assert "00002.tiff, which holds NaN or values beyond" in refused(tmp_path)


def test_refuses_files_that_change_during_the_run(tmp_path: Path) -> None:
    write_images(tmp_path, frames(3))
    clip = open_clip(tmp_path)
    Image.new("RGB", (32, 48)).save(tmp_path / "00001.png")
    with pytest.raises(InputError, match="stay as it is"):
        clip.read(0, 3)
    with pytest.raises(InputError, match="stay as it is"):
        list(clip.show())


@pytest.mark.parametrize("span", [(2, 2), (-1, 1), (0, 4)])
def test_refuses_a_range_beyond_the_clip(tmp_path: Path, span: tuple[int, int]) -> None:
    write_images(tmp_path, frames(3))
    with pytest.raises(InputError, match=r"\[0, 3\]"):
        open_clip(tmp_path).read(*span)


def test_reads_every_kind_of_image(tmp_path: Path) -> None:
    gray = np.linspace(0, 65535, 12).reshape(3, 4).astype(np.uint16)
    Image.fromarray(gray).save(tmp_path / "deep.png")
    assert np.allclose(read_image(tmp_path / "deep.png")[..., 1], gray / 65535, atol=1e-6)
    Image.fromarray(np.full((3, 4), 0.25, np.float32)).save(tmp_path / "float.tiff")
    assert np.all(read_image(tmp_path / "float.tiff") == 0.25)
    for mode in ("RGBA", "L", "P", "1", "CMYK"):
        suffix = "jpg" if mode == "CMYK" else "png"
        Image.new(mode, (4, 3)).save(tmp_path / f"{mode}.{suffix}")
        assert read_image(tmp_path / f"{mode}.{suffix}").shape == (3, 4, 3)


@pytest.mark.parametrize("kind", ["video", "images", "animation"])
def test_a_reopened_clip_skips_forward_to_the_same_frames(kind: str, tmp_path: Path) -> None:
    frames = torch.arange(6, dtype=torch.uint8)[:, None, None, None].expand(6, 64, 64, 3).contiguous() * 40
    path = tmp_path / {"video": "clip.mp4", "images": "clip", "animation": "clip.webp"}[kind]
    pictures = [Image.fromarray(frame.numpy()) for frame in frames]
    if kind == "video":
        write_video(path, frames)
    elif kind == "images":
        path.mkdir()
        for number, picture in enumerate(pictures):
            picture.save(path / f"{number}.png")
    else:
        pictures[0].save(path, save_all=True, append_images=pictures[1:], lossless=True)
    with open_clip(path) as clip, reopen_clip(path, clip.info) as again:
        whole = clip.read(0, 6)
        for start, stop in ((1, 2), (4, 6), (0, 1), (3, 4), (2, 3)):
            assert torch.equal(again.read(start, stop), whole[start:stop]), (start, stop)
        shown = torch.stack(list(again.show()))
    assert shown.dtype == torch.uint8
    assert float((shown / 255 - whole).abs().max()) < 2.5 / 255
