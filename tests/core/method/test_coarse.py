"""The scan over windows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier
from vidseg.core.config.parts import ContextConfig, RefinementConfig, WindowConfig
from vidseg.core.config.settings import Settings, preset, replace_parts
from vidseg.core.method.clustering import name_clusters_by_number
from vidseg.core.method.coarse import CoarseScan, segment_coarse, start_context
from vidseg.core.method.context import NeighborMemory, SceneContext
from vidseg.core.method.correspondence import refine
from vidseg.core.method.pipeline import label_anchor
from vidseg.core.method.tokens import normalize_tokens
from vidseg.core.method.windows import split_windows
from vidseg.core.types import Features, Grid, InputError, InterruptedByUserError

from ...golden_data import golden_dir

GRID = Grid(4, 5)
OFF = RefinementConfig(enabled=False)
REFERENCE = preset("reference")


def random_features(num_frames=7, seed=0, drift=0.4):
    generator = torch.Generator().manual_seed(seed)
    frames = [torch.randn(GRID.num_tokens, 8, generator=generator)]
    for _ in range(num_frames - 1):
        frames.append(frames[-1] + drift * torch.randn(GRID.num_tokens, 8, generator=generator))
    queries = torch.stack(frames)
    latents = torch.zeros(num_frames, 4, 8, 10)
    return Features(queries, queries[..., :6], latents, latents, GRID, (64, 80))


def settings_of(window, context, refinement=RefinementConfig()):  # noqa: B008, immutable
    return Settings(window=window, context=context, refinement=refinement)


def random_anchor_labels(anchor=0, num_labels=4):
    labels = torch.randint(0, num_labels, GRID, generator=torch.Generator().manual_seed(5))
    return name_clusters_by_number(labels, anchor)


def test_scan_equals_scikit_learn_with_feedback():
    features, anchor_labels = random_features(), random_anchor_labels()
    tokens = normalize_tokens(features.queries).numpy()
    classifier = KNeighborsClassifier(4).fit(tokens[0], anchor_labels.cluster_map.flatten().numpy())
    expected = []
    for start, stop in ((0, 3), (3, 6), (6, 7)):
        window = tokens[start:stop].reshape(-1, 8)
        labels = classifier.predict(window)
        maps = torch.from_numpy(labels).reshape(-1, *GRID)
        maps = refine(maps, features.matching[start:stop], RefinementConfig())
        classifier = KNeighborsClassifier(4).fit(window, maps.flatten().numpy())
        expected.append(maps)
    result = segment_coarse(features, anchor_labels, settings_of(WindowConfig(3), ContextConfig(4)))
    assert torch.equal(result.maps, torch.cat(expected))
    assert result.regions == anchor_labels.regions


@pytest.mark.parametrize("memory", ["previous", "anchor+previous"])
@pytest.mark.parametrize(
    ("refinement", "variant"), [(OFF, "paper"), (RefinementConfig(), "paper"), (RefinementConfig(), "published")]
)
def test_streaming_and_resuming_equal_the_whole(memory, refinement, variant):
    features, anchor_labels, config = random_features(), random_anchor_labels(), ContextConfig(4, memory)
    settings = replace(settings_of(WindowConfig(3), config, refinement), variant=variant)
    whole = segment_coarse(features, anchor_labels, settings).maps
    context = None
    for frames in split_windows(7, WindowConfig(3)):
        scan = CoarseScan(anchor_labels, settings, context)
        maps = scan.step(features.window(frames.start, frames.stop)).maps
        assert torch.equal(maps, whole[frames.start : frames.stop])
        context = SceneContext.from_tensors(scan.context.to_tensors(), config)


def test_refined_labels_feed_the_next_window():
    features, anchor_labels = random_features(drift=0.9), random_anchor_labels()
    refined = segment_coarse(features, anchor_labels, settings_of(WindowConfig(3), ContextConfig(1))).maps
    plain = segment_coarse(features, anchor_labels, settings_of(WindowConfig(3), ContextConfig(1), OFF)).maps
    late = refine(plain[3:6], features.matching[3:6], RefinementConfig())
    assert not torch.equal(refined[3:6], late)


@pytest.mark.parametrize("memory", ["previous", "anchor+previous"])
@pytest.mark.parametrize("anchor", [0, 4])
def test_a_second_scan_searches_no_neighbors_again(memory, anchor, monkeypatch):
    features, anchor_labels = random_features(drift=0.9), random_anchor_labels()._replace(anchor=anchor)
    plain, refined = (
        settings_of(WindowConfig(3), ContextConfig(1, memory), each) for each in (OFF, RefinementConfig())
    )
    expected = segment_coarse(features, anchor_labels, refined).maps
    found = NeighborMemory()
    assert not torch.equal(segment_coarse(features, anchor_labels, plain, memory=found).maps, expected)
    assert found.num_bytes == 7 * features.grid.num_tokens * 4
    monkeypatch.setattr(SceneContext, "find_neighbors", lambda *_: pytest.fail("searched again"))
    assert torch.equal(segment_coarse(features, anchor_labels, refined, memory=found).maps, expected)


def test_refinement_reads_the_matching_features():
    features, anchor_labels = random_features(drift=0.9), random_anchor_labels()
    other = features._replace(matching=random_features(seed=9).matching)
    settings = (anchor_labels, settings_of(WindowConfig(7), ContextConfig(1)))
    assert not torch.equal(segment_coarse(features, *settings).maps, segment_coarse(other, *settings).maps)


def test_anchor_memory_brings_back_what_the_previous_window_lost():
    first, second = random_features(1).queries, random_features(1, seed=1).queries
    features = random_features(3)._replace(queries=torch.cat([first, second, first]))
    anchor_labels = random_anchor_labels()
    maps = {
        memory: segment_coarse(
            features, anchor_labels, settings_of(WindowConfig(1), ContextConfig(1, memory), OFF)
        ).maps
        for memory in ("previous", "anchor+previous")
    }
    assert torch.equal(maps["previous"][:2], maps["anchor+previous"][:2])
    assert not torch.equal(maps["previous"][2], anchor_labels.cluster_map)
    assert torch.equal(maps["anchor+previous"][2], anchor_labels.cluster_map)


def test_overlapping_windows_overwrite():
    features, anchor_labels = random_features(drift=0.9), random_anchor_labels()
    settings = replace(settings_of(WindowConfig(4), ContextConfig(4)), variant="published")
    maps = segment_coarse(features, anchor_labels, settings).maps
    scan = CoarseScan(anchor_labels, settings)
    first, second = scan.step(features.window(0, 4)).maps, scan.step(features.window(3, 7)).maps
    assert torch.equal(maps, torch.cat([first[:3], second]))


@pytest.mark.parametrize("variant", ["paper", "published"])
@pytest.mark.parametrize("num_frames", [1, 2, 3, 4, 6])
@pytest.mark.parametrize("length", [1, 3, 14])
def test_any_number_of_frames(num_frames, length, variant):
    features, anchor_labels = random_features(num_frames), random_anchor_labels()
    settings = replace(settings_of(WindowConfig(length), ContextConfig(1)), variant=variant)
    result = segment_coarse(features, anchor_labels, settings)
    assert result.maps.shape == (num_frames, *GRID)
    assert set(result.maps.unique().tolist()) <= {0, 1, 2, 3}
    if num_frames == 1:
        assert torch.equal(result.maps[0], anchor_labels.cluster_map)


def test_a_still_clip_keeps_the_map_of_the_anchor():
    features = random_features(1)
    still = features._replace(
        **{
            name: getattr(features, name).expand(7, *getattr(features, name).shape[1:])
            for name in ("queries", "matching", "latents", "noise")
        }
    )
    anchor_labels = random_anchor_labels()
    maps = segment_coarse(still, anchor_labels, settings_of(WindowConfig(3), ContextConfig(1))).maps
    assert torch.equal(maps, anchor_labels.cluster_map.expand(7, -1, -1))


def test_a_constant_seed_stays_constant():
    anchor_labels = name_clusters_by_number(torch.full(GRID, 6))
    maps = segment_coarse(random_features(), anchor_labels, settings_of(WindowConfig(3), ContextConfig())).maps
    assert maps.unique().tolist() == [6]


def test_rising_relabeling_commutes():
    features, anchor_labels, rising = random_features(), random_anchor_labels(), torch.tensor([3, 9, 10, 255])
    relabeled = name_clusters_by_number(rising[anchor_labels.cluster_map])
    settings = settings_of(WindowConfig(3), ContextConfig(4))
    plain = segment_coarse(features, anchor_labels, settings).maps
    assert torch.equal(segment_coarse(features, relabeled, settings).maps, rising[plain])


def test_anchor_in_a_later_frame_is_where_the_scan_starts_in_both_directions():
    features, anchor_labels = random_features(), random_anchor_labels(anchor=4)
    settings = settings_of(WindowConfig(3), ContextConfig(1))
    maps = segment_coarse(features, anchor_labels, settings).maps
    scan = CoarseScan(anchor_labels, settings, start_context(features, anchor_labels, settings))
    assert torch.equal(scan.step(features.window(3, 6)).maps, maps[3:6])
    middle = scan.context
    assert torch.equal(scan.step(features.window(6, 7)).maps, maps[6:])
    scan.context = middle
    assert torch.equal(scan.step(features.window(0, 3)).maps, maps[:3])
    with pytest.raises(InputError, match=r"`anchor_labels.anchor` must lie in \[0, 2\], but got 4"):
        CoarseScan(anchor_labels, settings).step(features.window(0, 3))


def test_an_anchor_in_the_middle_is_followed_to_both_ends():
    """What changes a little in every frame is known at the ends by what lies between."""
    features, anchor_labels = random_features(num_frames=11, drift=0.35), random_anchor_labels(anchor=5)
    maps = segment_coarse(features, anchor_labels, settings_of(WindowConfig(1), ContextConfig(1), OFF)).maps
    alone = start_context(features, anchor_labels, settings_of(WindowConfig(3), ContextConfig(1)))
    ends = normalize_tokens(features.queries[[0, -1]])
    truth = anchor_labels.cluster_map.expand(2, -1, -1)
    assert (maps[[0, -1]] == truth).sum() >= (alone.predict(ends).reshape(2, *GRID) == truth).sum()


def test_progress_counts_frames_and_may_stop_the_scan():
    calls = []
    features, anchor_labels = random_features(), random_anchor_labels()
    settings = (anchor_labels, settings_of(WindowConfig(3), ContextConfig(4), OFF))
    segment_coarse(features, *settings, progress=lambda *call: calls.append(call))
    assert calls == [("coarse maps", 3, 7), ("coarse maps", 6, 7), ("coarse maps", 7, 7)]

    def stop(*_call):
        raise InterruptedByUserError

    with pytest.raises(InterruptedByUserError):
        segment_coarse(features, *settings, progress=stop)


def test_refuses_bad_input():
    features, anchor_labels = random_features(), random_anchor_labels()
    settings = settings_of(WindowConfig(3), ContextConfig(4))
    for name in ("queries", "matching"):
        bad = getattr(features, name).clone()
        bad[1, 2, 3] = float("nan")
        with pytest.raises(InputError, match="must be finite, but got NaN"):
            segment_coarse(features._replace(**{name: bad}), anchor_labels, settings)
    with pytest.raises(InputError, match=r"`anchor_labels.anchor` must lie in \[0, 6\], but got 7"):
        segment_coarse(features, anchor_labels._replace(anchor=7), settings)
    with pytest.raises(
        InputError, match=r"`anchor_labels.cluster_map` must hold labels of `anchor_labels.regions`, but got \[3\]"
    ):
        segment_coarse(features, anchor_labels._replace(regions=anchor_labels.regions[:3]), settings)
    with pytest.raises(
        InputError, match=r"`anchor_labels` must be of the same frames as `features`, 4x5 cells, but got 5x4"
    ):
        segment_coarse(features, anchor_labels._replace(cluster_map=anchor_labels.cluster_map.T), settings)
    with pytest.raises(InputError, match=r"`features.queries` must have shape"):
        segment_coarse(features._replace(queries=features.queries[:, :9]), anchor_labels, settings)
    with pytest.raises(InputError, match=r"`context.num_neighbors` must lie in \[1, 20\]"):
        segment_coarse(features, anchor_labels, settings_of(WindowConfig(3), ContextConfig(21)))


def golden_window(index, name="sd_windows"):
    golden = np.load(golden_dir() / f"{name}_{index}.npz" if name == "sd_windows" else golden_dir() / f"{name}.npz")
    latents = torch.from_numpy(golden["latents_clean"])
    raw, matching = (
        torch.from_numpy(golden[key])[len(latents) :] for key in ("features_aggregated_raw", "q_block7_t24")
    )
    features = Features(raw, matching, latents, torch.from_numpy(golden["noise_eps"]), Grid(8, 16), (128, 256))
    return features, golden


def test_golden_scan_of_one_window_from_the_features_alone():
    features, golden = golden_window(0, "sd_default")
    anchor_labels = label_anchor(features, replace_parts(REFERENCE, cluster={"num_clusters": 5}))
    np.testing.assert_array_equal(CoarseScan(anchor_labels, REFERENCE).step(features).maps, golden["cbr_labels"])


def test_golden_scan_of_three_windows():
    """Windows [0,6) [6,12) [8,14): the tail overlaps, and carries its own noise, hence window by window."""
    assert split_windows(14, WindowConfig(6), REFERENCE.variant) == [range(6), range(6, 12), range(8, 14)]
    _, first = golden_window(0)
    anchor_labels = name_clusters_by_number(torch.from_numpy(first["knn_fit_y"]).reshape(8, 16))
    scan = CoarseScan(anchor_labels, REFERENCE)
    for index in range(3):
        features, golden = golden_window(index)
        if index:
            np.testing.assert_array_equal(scan.context.labels, golden["knn_fit_y"])
        np.testing.assert_array_equal(scan.step(features).maps, golden["cbr_labels"])


def test_distances_are_computed_where_the_features_say(monkeypatch):
    asked = []
    find = SceneContext.find_neighbors
    monkeypatch.setattr(
        SceneContext, "find_neighbors", lambda own, tokens, device: (asked.append(device), find(own, tokens, device))[1]
    )
    segment_coarse(random_features(3)._replace(device="cpu:0"), random_anchor_labels(), Settings())
    assert asked == ["cpu:0"]
