"""K-means on tokens and the anchor_labels made of its clusters."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans, kmeans_plusplus
from vidseg.core.config.parts import ClusterConfig
from vidseg.core.method import kmeans
from vidseg.core.method.clustering import (
    cluster_anchor,
    cluster_tokens,
    find_nearest_centers,
    gather_tokens,
    name_clusters_by_number,
)
from vidseg.core.method.tokens import normalize_tokens
from vidseg.core.types import Features, Grid, InputError, InterruptedByUserError, Region

from ...golden_data import golden_dir

GRID = Grid(3, 4)


def random_tokens(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def random_features(num_frames=6, seed=0):
    latents = torch.zeros(num_frames, 4, 6, 8)
    queries = random_tokens(num_frames, GRID.num_tokens, 8, seed=seed)
    return Features(queries, queries, latents, latents, GRID, (48, 64))


def clusters_of(features, config, seed=1, *, anchor=0, window_length=14):
    tokens = gather_tokens(features, config, anchor, window_length)
    return cluster_anchor(tokens, features.grid, config, seed)


def test_normalized_equals_a_loop_and_keeps_signs():
    tokens = random_tokens(2, 5, 7)
    result = normalize_tokens(tokens)
    for frame in range(2):
        for cell in range(5):
            largest = max(abs(float(value)) for value in tokens[frame, cell])
            torch.testing.assert_close(result[frame, cell], tokens[frame, cell] / largest)
    assert torch.equal(result.sign(), tokens.sign())
    assert torch.equal(normalize_tokens(result), result)


def test_normalized_keeps_zeros():
    assert torch.equal(normalize_tokens(torch.zeros(2, 3)), torch.zeros(2, 3))


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("function", [normalize_tokens, lambda tokens: cluster_tokens(tokens, ClusterConfig(2), 0)])
def test_refuses_tokens_that_are_not_finite(function, bad):
    tokens = random_tokens(4, 3)
    tokens[2, 1] = bad
    with pytest.raises(InputError, match="`tokens` must be finite"):
        function(tokens)


def test_cluster_tokens_equals_scikit_learn():
    tokens = random_tokens(200, 8)
    kmeans = KMeans(7, n_init=10, random_state=5).fit(tokens.numpy())
    centers = cluster_tokens(tokens, ClusterConfig(7), 5)
    np.testing.assert_allclose(centers, kmeans.cluster_centers_, atol=1e-6)
    np.testing.assert_array_equal(find_nearest_centers(tokens, centers), kmeans.labels_)


@pytest.mark.parametrize(("num_tokens", "num_clusters"), [(300, 7), (60, 1), (40, 40)])
def test_starts_are_those_that_scikit_learn_draws(num_tokens, num_clusters):
    points, random = random_tokens(num_tokens, 8).numpy(), np.random.RandomState(3)
    expected = [kmeans_plusplus(points, num_clusters, random_state=random)[1] for _ in range(4)]
    np.testing.assert_array_equal(kmeans.draw_starts(points, num_clusters, 4, 3), expected)


@pytest.mark.parametrize("lost", [False, True])
def test_lloyd_ends_as_scikit_learn(lost):
    points = torch.cat([random_tokens(80, 6, seed=seed) + 4 * seed for seed in range(3)])
    start = points[[0, 1, 100, 200]].numpy()
    if lost:
        start[1] = 1e3  # nearest to no point
    found = kmeans.run_lloyd(points, torch.from_numpy(start)[None])[0]
    expected = KMeans(4, init=start, n_init=1).fit(points.numpy())
    np.testing.assert_allclose(found.centers, expected.cluster_centers_, atol=1e-5)
    assert found.inertia == pytest.approx(expected.inertia_, rel=1e-5)
    assert found.num_iterations == expected.n_iter_


def test_cluster_tokens_repeats_and_depends_on_the_seed():
    tokens = random_tokens(100, 8)
    config = ClusterConfig(8, num_restarts=1)
    assert torch.equal(cluster_tokens(tokens, config, 1), cluster_tokens(tokens, config, 1))
    assert not torch.equal(cluster_tokens(tokens, config, 1), cluster_tokens(tokens, config, 2))


def test_an_interrupt_stops_the_runs_that_wait(monkeypatch):
    begun, lloyd = [], kmeans.run_lloyd

    def interrupt(_stage, done, total):
        if done > total // 2:
            raise InterruptedByUserError

    monkeypatch.setattr(kmeans, "run_lloyd", lambda *args: (begun.append(1), lloyd(*args))[1])
    with pytest.raises(InterruptedByUserError):
        cluster_tokens(random_tokens(300, 8), ClusterConfig(7, num_restarts=200), 1, progress=interrupt)
    assert 0 < len(begun) < 200 / kmeans._TOGETHER


def test_cluster_tokens_leaves_global_generators_alone():
    before, before_numpy = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002, what is looked at
    cluster_tokens(random_tokens(20, 3), ClusterConfig(4), 1)
    assert torch.equal(torch.get_rng_state(), before)
    np.testing.assert_array_equal(np.random.get_state()[1], before_numpy)  # noqa: NPY002


def test_as_many_clusters_as_tokens_separates_them_and_one_more_is_refused():
    tokens = random_tokens(12, 4)
    labels = find_nearest_centers(tokens, cluster_tokens(tokens, ClusterConfig(12), 1))
    assert len(labels.unique()) == 12
    with pytest.raises(InputError, match=r"`cluster.num_clusters` must be at most the number of tokens, 12, .* 13"):
        cluster_tokens(tokens, ClusterConfig(13), 1)


def test_constant_tokens_are_one_cluster_without_a_warning():
    tokens = torch.ones(9, 4)
    assert len(find_nearest_centers(tokens, cluster_tokens(tokens, ClusterConfig(3), 1)).unique()) == 1


def test_nearest_center_equals_a_loop_with_ties_to_the_smallest():
    centers = torch.tensor([[0.0, 0.0], [2.0, 0.0], [0.0, 0.0]])
    tokens = torch.tensor([[[1.0, 0.0], [1.5, 1.0]], [[-1.0, 3.0], [2.0, 0.0]]])
    assert find_nearest_centers(tokens, centers).tolist() == [[0, 1], [0, 1]]


@pytest.mark.parametrize(
    ("fit_frames", "anchor", "seen"),
    [
        ("anchor", 0, [0]),
        ("window", 0, [0, 1, 2, 3]),
        ("anchor", 5, [5]),
        ("window", 5, [4, 5]),
        ("window", 2, [0, 1, 2, 3]),
    ],
)
def test_cluster_anchor_sees_the_frames_it_says(fit_frames, anchor, seen):
    features = random_features()
    config = ClusterConfig(4, fit_frames=fit_frames, place=0)
    tokens = normalize_tokens(features.queries)
    kmeans = KMeans(4, n_init=10, random_state=1).fit(tokens[seen].flatten(0, 1).numpy())
    result = clusters_of(features, config, anchor=anchor, window_length=4)
    assert result.dtype == torch.int64
    np.testing.assert_array_equal(result, kmeans.predict(tokens[anchor].numpy()).reshape(GRID))


def test_cluster_anchor_ignores_the_length_of_tokens():
    features = random_features()
    louder = features._replace(queries=features.queries * torch.rand(6, 12, 1).add(0.5))
    assert torch.equal(clusters_of(features, ClusterConfig(3)), clusters_of(louder, ClusterConfig(3)))


@pytest.mark.parametrize("anchor", [-1, 6])
def test_cluster_anchor_refuses_an_anchor_outside_the_clip(anchor):
    with pytest.raises(InputError, match=r"`anchor` must lie in \[0, 5\], but got"):
        clusters_of(random_features(), ClusterConfig(3), anchor=anchor)


def test_cluster_anchor_refuses_a_wrong_grid():
    with pytest.raises(InputError, match=r"`features.queries` must have shape"):
        clusters_of(random_features()._replace(grid=Grid(4, 4)), ClusterConfig(3))


def test_seeds_from_clusters_names_what_occurs():
    anchor_labels = name_clusters_by_number(torch.tensor([[3, 0], [3, 7]]), 2)
    assert anchor_labels.anchor == 2
    assert anchor_labels.regions == (Region(0, "region 0"), Region(3, "region 3"), Region(7, "region 7"))
    with pytest.raises(InputError, match="`cluster_map` must have shape"):
        name_clusters_by_number(torch.zeros(4, dtype=torch.int64))


@pytest.mark.parametrize("name", ["sd_default", "sd_windows_0"])
def test_golden_clusters(name):
    golden = np.load(golden_dir() / f"{name}.npz")
    num_frames, num_clusters = len(golden["latents_clean"]), len(golden["kmeans_centers"])
    raw = torch.from_numpy(golden["features_aggregated_raw"])[num_frames:]
    np.testing.assert_array_equal(normalize_tokens(raw), golden["features_aggregated_normalised"])
    centers = cluster_tokens(normalize_tokens(raw).flatten(0, 1), ClusterConfig(num_clusters), 1)
    np.testing.assert_allclose(centers, golden["kmeans_centers"], atol=2e-6)
    latents = torch.from_numpy(golden["latents_clean"])
    features = Features(raw, raw, latents, latents, Grid(8, 16), (128, 256))
    labels = clusters_of(features, ClusterConfig(num_clusters, place=0))
    np.testing.assert_array_equal(labels.flatten(), golden["kmeans_labels_first_frame"])
