"""Motion against the camera, and what it tells apart."""

from __future__ import annotations

import pytest
import torch
from vidseg.core.config.parts import ClusterConfig
from vidseg.core.config.settings import Settings, preset, replace_parts
from vidseg.core.leaves import TokenScales
from vidseg.core.method.clustering import gather_tokens
from vidseg.core.method.coarse import CoarseScan, segment_coarse
from vidseg.core.method.flow import measure_flow, warp
from vidseg.core.method.motion import FEWEST_FRAMES, measure_motion
from vidseg.core.method.pipeline import ScanState, label_anchor
from vidseg.core.method.tokens import add_place, make_tokens, measure_scales, normalize_tokens, without_flow
from vidseg.core.types import AnchorLabels, Features

from .moving import GRID, as_bytes, rolling_pictures, rolling_stone, texture, where_it_is


def motion_of(pictures: torch.Tensor) -> torch.Tensor:
    return measure_motion(measure_flow(pictures, GRID), GRID).reshape(-1, *GRID)


@pytest.mark.parametrize("camera", [0, 3])
def test_what_moves_against_the_camera_moves(camera: int) -> None:
    motion = motion_of(rolling_pictures(camera=camera))
    for frame, moves in enumerate(motion):
        thing = where_it_is(frame)
        assert float(moves[thing == 1].median()) > 0.9
        assert float(moves[thing == 0].median()) < 0.1
    assert motion.min() >= 0
    assert motion.max() == 1


def test_a_camera_alone_moves_nothing() -> None:
    """It turns, comes closer and goes past."""
    whole = texture(128, 224).movedim(-1, 0)[None]
    rows, columns = torch.meshgrid(torch.linspace(-1, 1, 128), torch.linspace(-1, 1, 224), indexing="ij")
    way = torch.stack([2.0 + 1.5 * columns - 0.5 * rows, 1.5 * rows + 0.5 * columns])[None]
    pictures = torch.stack([as_bytes(warp(whole, frame * way)[0].movedim(0, -1)) for frame in range(8)])
    assert float(motion_of(pictures)[:, 1:-1, 1:-1].median()) < 0.1
    assert not motion_of(pictures[:1].expand(6, -1, -1, -1)).any()


def test_a_longer_window_gives_no_more_motion() -> None:
    short, long = (motion_of(rolling_pictures(frames))[0] for frames in (5, 9))
    assert float((short - long).abs().median()) < 0.05


def test_motion_is_unknown_in_few_frames_and_not_measured_across_cuts() -> None:
    assert motion_of(rolling_pictures(FEWEST_FRAMES - 1)).isnan().all()
    pictures = rolling_pictures(6)
    motion = motion_of(torch.cat([pictures, 255 - pictures[:2], pictures]))
    assert motion[6:8].isnan().all()
    torch.testing.assert_close(motion[:6], motion_of(pictures))
    torch.testing.assert_close(motion[8:], motion_of(pictures))


def test_motion_is_unknown_where_a_frame_is_too_far_from_the_one_before() -> None:
    flow = measure_flow(rolling_pictures(8), GRID)
    flow[3, 0] = flow[4, 1] = torch.nan
    assert measure_motion(flow, GRID).isnan().all()
    assert measure_motion(flow[4:], GRID).isfinite().all()


def test_tokens_are_looks_motion_and_place() -> None:
    features = rolling_stone()
    tokens = make_tokens(features, TokenScales(place=14.0, motion=3.0))
    looks = normalize_tokens(features.queries)
    assert features.flow is not None
    assert torch.equal(tokens[..., :16], looks)
    assert torch.equal(tokens[..., 16], 3 * measure_motion(features.flow, GRID))
    square = tokens[0, :, 17:].reshape(*GRID, 2)
    assert torch.equal(square[1, 0] - square[0, 0], torch.tensor([1.0, 0.0]))  # a step is as long down as to the right
    assert torch.equal(square[0, 1] - square[0, 0], torch.tensor([0.0, 1.0]))
    assert torch.equal(make_tokens(features, TokenScales()), looks)
    assert not make_tokens(without_flow(features), TokenScales(motion=3.0))[..., 16].any()
    assert torch.equal(make_tokens(features._replace(flow=None), TokenScales(motion=3.0))[..., 16], tokens[..., 16])


def test_scales_give_shares_of_the_variance() -> None:
    features = rolling_stone()
    looks = normalize_tokens(features.queries)
    scales = measure_scales(looks, GRID, ClusterConfig(place=0.3, motion=0.2))
    both = add_place(looks, GRID, scales.place).flatten(0, 1).var(0, unbiased=False)
    assert float(both[-2:].sum() / both.sum()) == pytest.approx(0.3, abs=1e-5)
    moving = 0.1 * scales.motion**2  # the variance of motion in clips in which things move
    assert moving / (moving + float(both[:-2].sum())) == pytest.approx(0.2, abs=1e-5)
    assert measure_scales(looks, GRID, ClusterConfig(place=0, motion=0)) == TokenScales()


@pytest.mark.parametrize("method", ["tree", "kmeans"])
def test_things_of_one_look_part_where_one_of_them_moves(method: str) -> None:
    features = rolling_stone()

    def labels_of(number: int, motion: float) -> tuple[torch.Tensor, torch.Tensor]:
        given = {"num_clusters": number, "num_leaves": 12, "place": 0, "motion": motion}
        settings = Settings.of(cluster__method=method, **given)
        maps = segment_coarse(features, label_anchor(features, settings), settings).maps
        return maps, maps[:, 2:6, :3].flatten(1).mode(1).values

    maps, stands = labels_of(2, 0.0)
    things = [maps[frame][where_it_is(frame) == 1] for frame in range(8)]
    assert all((thing == stand).float().mean() > 0.9 for thing, stand in zip(things, stands, strict=True))
    maps, stands = labels_of(3, 0.3)
    things = [maps[frame][where_it_is(frame) == 1] for frame in range(8)]
    assert all((thing != stand).float().mean() > 0.9 for thing, stand in zip(things, stands, strict=True))


def maps_of(features: Features, anchor_labels: AnchorLabels, settings: Settings) -> torch.Tensor:
    """Return the leaves of the second window before refinement."""
    plain = replace_parts(settings, refinement={"enabled": False})
    first = CoarseScan(anchor_labels, settings)
    first.step(features.window(0, 8))
    second = CoarseScan(anchor_labels, plain, first.context).step(features.window(8, 16))
    assert second.leaves is not None
    return second.leaves.maps.long()


def test_motion_counts_in_the_window_of_the_anchor_alone() -> None:
    """Later windows are labeled by how the window before looks and lies, whatever moves in them."""
    features, settings = rolling_stone(16), Settings.of(num_clusters=3, window__length=8, num_leaves=12, motion=0.3)
    anchor_labels = label_anchor(features, settings)
    maps = segment_coarse(features, anchor_labels, settings)
    scan = CoarseScan(anchor_labels, settings)
    scan.step(features.window(0, 8))
    assert scan.context is not None
    assert not scan.context.tokens[:, 16].any()
    still = make_tokens(without_flow(features.window(8, 16)), anchor_labels.scales)
    assert not still[..., 16].any()
    assert maps.leaves is not None
    assert torch.equal(scan.context.predict(still).reshape(8, *GRID), maps_of(features, anchor_labels, settings))
    thing = [int(maps.maps[frame][where_it_is(frame) == 1].mode().values) for frame in range(16)]
    assert len(set(thing)) == 1
    assert all(int(maps.maps[frame, 2:6, :3].flatten().mode().values) != thing[0] for frame in range(16))


def test_nothing_moves_in_a_window_of_which_some_is_unknown() -> None:
    features = rolling_stone(10)
    assert not make_tokens(features.window(8, 10), TokenScales(motion=1.0))[..., 16].any()
    assert make_tokens(features.window(0, 8), TokenScales(motion=1.0))[..., 16].any()


def test_frames_far_apart_and_features_without_flow_have_no_motion() -> None:
    features = rolling_stone()
    for given, fit in ((features, "clip"), (without_flow(features), "window")):
        tokens = gather_tokens(given, ClusterConfig(fit_frames=fit, place=0, motion=0.2), 0, 14)
        assert tokens.scales == TokenScales()
        assert tokens.seen.shape[1] == tokens.num_looks == 16
    window = gather_tokens(features, ClusterConfig(motion=0.2), 3, 14)
    anchor = gather_tokens(features, ClusterConfig(fit_frames="anchor", motion=0.2), 3, 14)
    assert torch.equal(anchor.seen, anchor.shown)
    alike = anchor.shown[:, 16] / anchor.scales.motion, window.shown[:, 16] / window.scales.motion
    torch.testing.assert_close(*alike)


def test_a_stored_scan_knows_its_scales(tmp_path: object) -> None:
    features, settings = rolling_stone(), Settings.of(num_clusters=3, window__length=4, motion=0.3)
    anchor_labels = label_anchor(features, settings)
    scan = CoarseScan(anchor_labels, settings)
    scan.step(features.window(0, 4))
    assert scan.context is not None
    path = tmp_path / "state"  # type: ignore[operator]
    path.write_bytes(ScanState(1, scan.anchor_labels, scan.context).to_bytes())
    again = ScanState.load(path, settings.context)
    assert again.anchor_labels.scales == anchor_labels.scales
    later = features.window(4, 8)
    assert torch.equal(CoarseScan(again.anchor_labels, settings, again.context).step(later).maps, scan.step(later).maps)


def test_presets_know_no_motion() -> None:
    assert all(preset(name).cluster.motion == 0 for name in ("default", "paper", "reference", "emerdiff"))
