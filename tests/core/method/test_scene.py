"""A scene carries regions and names to another clip, and a damaged file is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from vidseg.core.config.parts import WindowConfig
from vidseg.core.config.settings import Settings, replace_parts
from vidseg.core.method.scene import Scene, SceneFileConfig, choose_scene, label_by_scene
from vidseg.core.types import Features, Grid, InputError, LabelMaps, Region

GRID = Grid(6, 8)
REGIONS = (Region(0, "ground"), Region(4, "Großer Hund 🐕"), Region(9, "never seen"))
SETTINGS = Settings(window=WindowConfig(3))


def clip(seed: int, frames: int = 5, column: int = 1) -> tuple[Features, LabelMaps]:
    """A thing of 3x3 cells on a ground; the same kinds of features whatever the seed."""
    kinds = torch.randn(2, 16, generator=torch.Generator().manual_seed(7)) * 3
    maps = torch.zeros(frames, *GRID, dtype=torch.int64)
    maps[:, 1:4, column : column + 3] = 1
    noise = torch.randn(frames, GRID.num_tokens, 16, generator=torch.Generator().manual_seed(seed))
    queries = kinds[maps.flatten(1)] + 0.3 * noise
    nothing = torch.empty(frames, 0)
    return Features(queries, queries, nothing, nothing, GRID, (96, 128)), LabelMaps(maps * 4, REGIONS)


def test_another_clip_gets_the_regions(tmp_path: Path) -> None:
    (tmp_path / "a.safetensors").write_bytes(choose_scene(*clip(1)).to_bytes())
    features, truth = clip(2, frames=7, column=5)
    result, _ = label_by_scene(Scene.load(tmp_path / "a.safetensors"), features, SETTINGS)
    assert torch.equal(result.maps, truth.maps)
    assert result.regions == REGIONS


def test_a_region_that_was_away_for_a_window_comes_back() -> None:
    features, truth = clip(2, frames=9)
    queries, maps = features.queries.clone(), truth.maps.clone()
    queries[:6, maps[0].flatten() == 4], maps[:6] = queries[:6, :9], 0  # the first row is ground
    changed = features._replace(queries=queries, matching=queries)
    result, _ = label_by_scene(choose_scene(*clip(1)), changed, SETTINGS)
    assert torch.equal(result.maps, maps)


@pytest.mark.parametrize("settings", [SETTINGS, replace_parts(SETTINGS, scene={"new_regions": True, "cuts": True})])
def test_parts_of_whole_windows_get_the_labels_of_the_whole_clip(tmp_path: Path, settings: Settings) -> None:
    features, _ = clip(2, frames=10, column=4)
    queries = features.queries.clone()
    queries[4:, :6] = 3 * torch.eye(16)[3]  # a thing that enters, and leaves the window in which it did
    features, scene = features._replace(queries=queries, matching=queries), choose_scene(*clip(1))
    whole, after = label_by_scene(scene, features, settings)
    parts = []
    for start, stop in ((0, 3), (3, 9), (9, 10)):
        part, scene = label_by_scene(scene, features.window(start, stop), settings)
        parts.append(part.maps)
    assert torch.equal(torch.cat(parts), whole.maps)
    assert scene.regions == after.regions == whole.regions
    assert torch.equal(scene.tokens, after.tokens)
    assert len(scene.labels) - scene.recent == len(choose_scene(*clip(1)).labels)
    (tmp_path / "a.safetensors").write_bytes(scene.to_bytes())
    assert Scene.load(tmp_path / "a.safetensors").recent == scene.recent > 0


def test_a_file_gives_back_what_was_written(tmp_path: Path) -> None:
    scene = choose_scene(*clip(1), SceneFileConfig(tokens_per_region=10))
    (tmp_path / "a.safetensors").write_bytes(scene.to_bytes())
    read = Scene.load(tmp_path / "a.safetensors")
    assert torch.equal(read.tokens, scene.tokens)
    assert torch.equal(read.labels, scene.labels)
    assert read.regions == REGIONS
    assert torch.bincount(read.labels).tolist() == [10, 0, 0, 0, 10]
    assert [path.name for path in tmp_path.iterdir()] == ["a.safetensors"]


def test_label_maps_in_full_resolution_give_the_same_scene() -> None:
    features, labels = clip(1)
    full = labels.maps.repeat_interleave(16, 1).repeat_interleave(16, 2).to(torch.uint8)
    assert torch.equal(choose_scene(features, LabelMaps(full, REGIONS)).tokens, choose_scene(features, labels).tokens)


def test_damaged_and_foreign_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    with pytest.raises(InputError, match="must be a scene file"):
        Scene.load(path)
    path.write_bytes(choose_scene(*clip(1)).to_bytes())
    whole = path.read_bytes()
    for content in (b"", whole[: len(whole) // 2], b"\x00" * 100, b"no scene at all"):
        path.write_bytes(content)
        with pytest.raises(InputError, match="must be a scene file"):
            Scene.load(path)
    save_file({"tokens": torch.zeros(2, 3)}, path)
    with pytest.raises(InputError, match="must be a scene file"):
        Scene.load(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": torch.tensor([0, 4, 5])}, "labels without region"),
        ({"labels": torch.tensor([0, 4])}, "tokens of shape"),
        ({"tokens": torch.full((3, 16), torch.nan)}, "not finite"),
        ({"recent": 3}, "3 recent tokens of 3"),
    ],
)
def test_contents_that_do_not_fit_are_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    scene = Scene(torch.zeros(3, 16), torch.tensor([0, 4, 4]), REGIONS)._replace(**change)
    (tmp_path / "a.safetensors").write_bytes(scene.to_bytes())
    with pytest.raises(InputError, match=message):
        Scene.load(tmp_path / "a.safetensors")


def test_other_models_and_clips_are_refused() -> None:
    features, labels = clip(1)
    scene = choose_scene(features, labels)
    with pytest.raises(InputError, match="a model with 8 channels"):
        label_by_scene(scene, features._replace(queries=features.queries[..., :8]), SETTINGS)
    with pytest.raises(InputError, match="as many frames"):
        choose_scene(features, LabelMaps(labels.maps[:2], REGIONS))
