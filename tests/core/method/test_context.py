"""Windows and the scene context."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier
from vidseg.core.config.parts import ContextConfig, WindowConfig
from vidseg.core.method import context as context_module
from vidseg.core.method import neighbors
from vidseg.core.method.context import SceneContext
from vidseg.core.method.sketch import Sketch
from vidseg.core.method.windows import split_windows
from vidseg.core.types import InputError

from ...golden_data import golden_dir


def random_tokens(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def random_labels(*shape, num_labels=5, seed=0):
    return torch.randint(0, num_labels, shape, generator=torch.Generator().manual_seed(seed))


def slow_predict(context, tokens):
    """Sort all distances per token, first by distance, then by index; then count."""
    result = torch.empty(tokens.shape[:2], dtype=torch.int64)
    for frame, cell in np.ndindex(*tokens.shape[:2]):
        distances = (context.tokens.double() - tokens[frame, cell].double()).square().sum(1)
        order = sorted(range(len(distances)), key=lambda index: (float(distances[index]), index))
        counts: dict[int, int] = {}
        for index in order[: context.config.num_neighbors]:
            label = int(context.labels[index])
            counts[label] = counts.get(label, 0) + 1
        result[frame, cell] = min(counts, key=lambda label: (-counts[label], label))
    return result


@pytest.mark.parametrize("num_frames", range(1, 16))
@pytest.mark.parametrize("length", [1, 2, 5, 14])
def test_short_windows_partition_the_frames(num_frames, length):
    spans = split_windows(num_frames, WindowConfig(length))
    assert [frame for span in spans for frame in span] == list(range(num_frames))
    assert all(len(span) == length for span in spans[:-1])
    assert 1 <= len(spans[-1]) <= length


@pytest.mark.parametrize("num_frames", range(1, 16))
@pytest.mark.parametrize("length", [1, 2, 5, 14])
def test_overlapping_windows_follow_the_reference(num_frames, length):
    expected = []
    for index in range(num_frames // length + 1):
        start, end = index * length, min((index + 1) * length, num_frames)
        if end == num_frames:
            start = max(0, num_frames - length)
        expected.append(range(start, end))
    assert split_windows(num_frames, WindowConfig(length), "published") == expected


def test_windows_of_the_specification():
    assert split_windows(20, WindowConfig(14), "published") == [range(14), range(6, 20)]
    assert split_windows(14, WindowConfig(14), "published") == [range(14), range(14)]
    assert split_windows(14, WindowConfig(6), "published") == [range(6), range(6, 12), range(8, 14)]
    assert split_windows(15, WindowConfig(14)) == [range(14), range(14, 15)]


def test_windows_refuse_no_frames_and_no_length():
    with pytest.raises(InputError, match="`num_frames` must be at least 1, but got 0"):
        split_windows(0, WindowConfig())
    with pytest.raises(InputError, match=r"`window.length` must lie in \[1, 10000\], but got 0"):
        split_windows(3, WindowConfig(0))


@pytest.mark.parametrize("num_neighbors", [1, 2, 3, 4, 7, 60])
@pytest.mark.parametrize("num_channels", [2, 40])
def test_predict_equals_scikit_learn_and_a_loop(num_neighbors, num_channels):
    tokens, labels = random_tokens(60, num_channels), random_labels(60)
    queries = random_tokens(3, 20, num_channels, seed=1)
    context = SceneContext(tokens, labels, ContextConfig(num_neighbors))
    classifier = KNeighborsClassifier(num_neighbors).fit(tokens.numpy(), labels.numpy())
    predicted = context.predict(queries)
    np.testing.assert_array_equal(predicted.flatten(), classifier.predict(queries.flatten(0, 1).numpy()))
    assert torch.equal(predicted, slow_predict(context, queries))


def test_tied_labels_go_to_the_smallest():
    tokens = torch.tensor([[0.0], [1.0], [2.0], [3.0]])
    context = SceneContext(tokens, torch.tensor([9, 4, 4, 9]), ContextConfig(4))
    assert context.predict(torch.tensor([[[0.1], [2.9]]])).tolist() == [[4, 4]]


def test_tied_distances_go_to_the_first_token():
    queries = random_tokens(1, 40, 6, seed=2)
    tokens = queries[0, :10].repeat(6, 1)[torch.randperm(60, generator=torch.Generator().manual_seed(0))]
    context = SceneContext(tokens, random_labels(60), ContextConfig(4))
    assert torch.equal(context.predict(queries), slow_predict(context, queries))


def test_equal_tokens_take_the_first_neighbors():
    context = SceneContext(torch.ones(50, 8), torch.tensor([3, 3, 3, 1] + [1] * 46), ContextConfig(4))
    assert context.predict(torch.ones(2, 7, 8)).unique().tolist() == [3]


@pytest.mark.parametrize("elements", [1, 60, 190, 10**6])
def test_chunks_do_not_change_labels(monkeypatch, elements):
    context = SceneContext(random_tokens(60, 33).repeat(2, 1), random_labels(120), ContextConfig(5))
    queries = torch.cat([random_tokens(2, 25, 33, seed=1), context.tokens[None, :25]])
    expected = context.predict(queries)
    monkeypatch.setattr(neighbors, "CHUNK_ELEMENTS", elements)
    assert torch.equal(context.predict(queries), expected)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3, 1e25])
@pytest.mark.parametrize("num_tokens", [40, 3000])  # 3000: the least are first taken of groups
def test_short_lists_decide_as_a_search_in_float64_alone(monkeypatch, scale, num_tokens):
    """Tokens far from the origin, a rounding step of float32 apart: their products say nothing."""
    tokens = random_tokens(num_tokens, 24) * 1e-6
    tokens[: num_tokens // 2] = tokens[-(num_tokens // 2) :]  # true ties
    tokens, labels = (tokens + 1) * scale, random_labels(num_tokens)
    queries = torch.cat([tokens[:40], tokens[:40] * (1 + 1e-7), (random_tokens(40, 24, seed=1) * 0.1 + 1) * scale])
    context = SceneContext(tokens, labels, ContextConfig(4))
    found = context.find_neighbors(queries[None])[0].sort(1).values
    monkeypatch.setattr(neighbors, "multiplies_exactly", lambda _device: False)
    expected = context.find_neighbors(queries[None])[0].sort(1).values
    other = (found != expected).any(1)  # where the difference is about what counts as a tie
    assert int(other.sum()) <= 4
    exact = tokens.double()
    assert torch.allclose(measure(queries, exact, found), measure(queries, exact, expected), rtol=0.05, atol=0)


def measure(queries, tokens, found):
    """Return squared distances of float64 tokens to their neighbors, in rising order."""
    return (queries.double()[:, None] - tokens[found.long()]).square().sum(2).sort(1).values


def make_alike(count, components, seed=0):
    """Return tokens along few directions, with a little of all others."""
    directions = random_tokens(12, components, seed=9)
    return random_tokens(count, 12, seed=seed) @ directions + 0.3 * random_tokens(count, components, seed=seed + 1)


@pytest.mark.parametrize("offset", [0.0, 1e3])
def test_a_sketch_leaves_out_no_neighbor(monkeypatch, offset):
    tokens = make_alike(4100, 256) + offset
    tokens[:40] = tokens[100:140]  # true ties
    queries = torch.cat([make_alike(60, 256, seed=5) + offset, tokens[90:120], random_tokens(9, 256) * 9])
    search = neighbors.NeighborSearch(tokens, 4)
    compared = []
    by_products = neighbors.NeighborSearch._find_by_products
    monkeypatch.setattr(
        neighbors.NeighborSearch,
        "_find_by_products",
        lambda own, rows: (compared.append(len(rows.queries)), by_products(own, rows))[1],
    )
    found = search.find(queries).sort(1).values
    assert sum(compared) <= 9  # those that are near nothing
    monkeypatch.setattr(neighbors, "multiplies_exactly", lambda _device: False)
    assert torch.equal(found, search.find(queries).sort(1).values)


def test_sketched_distances_are_below_the_true_ones():
    tokens = make_alike(4100, 256)
    drawn = Sketch.of(tokens).draw(tokens).double()
    low, true = torch.cdist(drawn[:50], drawn), torch.cdist(tokens[:50].double(), tokens.double())
    assert bool((low <= true + 1e-4).all())
    assert float((low / true.clamp(min=1e-9)).median()) > 0.7
    assert torch.allclose(drawn.norm(dim=1), tokens.double().norm(dim=1), rtol=1e-6)


def test_few_rows_need_more_than_float32(monkeypatch):
    context = SceneContext(random_tokens(4000, 64), random_labels(4000), ContextConfig(4))
    searched, decided = [], []
    search, decide = neighbors.NeighborSearch._search, neighbors.NeighborSearch._decide
    monkeypatch.setattr(
        neighbors.NeighborSearch, "_search", lambda own, rows: (searched.append(len(rows)), search(own, rows))[1]
    )
    monkeypatch.setattr(
        neighbors.NeighborSearch, "_decide", lambda own, rows, at: (decided.append(len(rows)), decide(own, rows, at))[1]
    )
    context.predict(random_tokens(1, 500, 64, seed=1))
    assert sum(searched) == 0
    assert sum(decided) < 50


def test_what_is_remembered_of_a_window_is_bounded(monkeypatch):
    monkeypatch.setattr(context_module, "MAX_TOKENS", 25)
    first, window, labels = random_tokens(20, 3), random_tokens(2, 20, 3, seed=1), random_labels(2, 20, seed=1)
    context = SceneContext.from_anchor(first, random_labels(20), ContextConfig(4, "anchor+previous"))
    updated = context.updated(window, labels)
    assert torch.equal(updated.tokens, torch.cat([first, window.flatten(0, 1)[-25:]]))
    assert torch.equal(updated.labels[20:], labels.flatten()[-25:])


def test_one_neighbor_on_its_own_tokens_returns_the_labels():
    tokens, labels = random_tokens(30, 6), random_labels(30)
    context = SceneContext.from_anchor(tokens, labels, ContextConfig(1))
    assert torch.equal(context.predict(tokens[None])[0], labels)


def test_relabeling_commutes_with_predicting():
    tokens, labels, queries = random_tokens(60, 6), random_labels(60), random_tokens(2, 9, 6, seed=1)
    rising = torch.tensor([2, 3, 30, 31, 255])  # keeps the order, by which ties are broken
    plain = SceneContext(tokens, labels, ContextConfig(4)).predict(queries)
    assert torch.equal(SceneContext(tokens, rising[labels], ContextConfig(4)).predict(queries), rising[plain])
    any_order = torch.tensor([9, 0, 200, 3, 7])
    nearest = SceneContext(tokens, labels, ContextConfig(1)).predict(queries)
    assert torch.equal(SceneContext(tokens, any_order[labels], ContextConfig(1)).predict(queries), any_order[nearest])


def test_a_constant_context_predicts_its_label():
    context = SceneContext(random_tokens(20, 3), torch.full((20,), 7), ContextConfig(4))
    assert context.predict(random_tokens(2, 5, 3, seed=1)).unique().tolist() == [7]


def test_update_with_previous_memory_forgets_all_else():
    first, second = random_tokens(20, 3), random_tokens(2, 20, 3, seed=1)
    start = SceneContext.from_anchor(first, torch.zeros(20, dtype=torch.int64), ContextConfig(4))
    labels = random_labels(2, 4, 5)
    updated = start.updated(second, labels)
    assert torch.equal(updated.tokens, second.flatten(0, 1))
    assert torch.equal(updated.labels, labels.flatten())
    assert torch.equal(start.tokens, first)


def test_update_with_anchor_memory_keeps_the_anchor_alone():
    config = ContextConfig(4, "anchor+previous")
    anchor, anchor_labels = random_tokens(20, 3), random_labels(20)
    context = SceneContext.from_anchor(anchor, anchor_labels, config)
    for seed in (1, 2):
        window, labels = random_tokens(2, 20, 3, seed=seed), random_labels(2, 20, seed=seed)
        context = context.updated(window, labels)
    assert torch.equal(context.tokens, torch.cat([anchor, window.flatten(0, 1)]))
    assert torch.equal(context.labels, torch.cat([anchor_labels, labels.flatten()]))


@pytest.mark.parametrize("memory", ["previous", "anchor+previous"])
def test_a_stored_context_continues_alike(memory):
    config = ContextConfig(4, memory)
    context = SceneContext.from_anchor(random_tokens(20, 3), random_labels(20), config)
    context = context.updated(random_tokens(2, 20, 3, seed=1), random_labels(2, 20, seed=1))
    restored = SceneContext.from_tensors(context.to_tensors(), config)
    window, labels = random_tokens(3, 20, 3, seed=2), random_labels(3, 20, seed=2)
    assert torch.equal(restored.predict(window), context.predict(window))
    after, restored_after = context.updated(window, labels), restored.updated(window, labels)
    assert torch.equal(restored_after.tokens, after.tokens)
    assert torch.equal(restored_after.labels, after.labels)
    with pytest.raises(InputError, match="`tensors` must hold labels, but got"):
        SceneContext.from_tensors({"tokens": window, "num_anchor": labels}, config)


def test_refuses_bad_input():
    tokens, labels = random_tokens(6, 3), random_labels(6)
    bad = tokens.clone()
    bad[1, 1] = float("nan")
    context = SceneContext(tokens, labels, ContextConfig(2))
    with pytest.raises(InputError, match=r"`context.num_neighbors` must lie in \[1, 6\], .* but got 7"):
        SceneContext(tokens, labels, ContextConfig(7))
    with pytest.raises(InputError, match="`labels` must have shape"):
        SceneContext(tokens, labels[:5], ContextConfig(2))
    with pytest.raises(InputError, match="`tokens` must be finite"):
        SceneContext.from_anchor(bad, labels, ContextConfig(2))
    with pytest.raises(InputError, match="`tokens` must be finite"):
        context.predict(bad[None])
    with pytest.raises(InputError, match="`tokens` must be finite"):
        context.updated(bad, labels)
    with pytest.raises(InputError, match="`tokens` must have shape"):
        context.predict(random_tokens(1, 6, 4))


@pytest.mark.parametrize("name", ["sd_default", "sd_windows_0"])
def test_golden_labels_from_the_anchor(name):
    golden = np.load(golden_dir() / f"{name}.npz")
    tokens = torch.from_numpy(golden["features_aggregated_normalised"])
    context = SceneContext.from_anchor(tokens[0], torch.from_numpy(golden["knn_fit_y"]), ContextConfig(4))
    np.testing.assert_array_equal(context.predict(tokens).reshape(golden["knn_labels"].shape), golden["knn_labels"])
