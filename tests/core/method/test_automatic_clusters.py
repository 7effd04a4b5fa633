"""The number of clusters that is chosen fits the tokens and grows with the granularity."""

from __future__ import annotations

import pytest
import torch
from vidseg.core.config.parts import ClusterConfig
from vidseg.core.config.settings import preset, replace_parts
from vidseg.core.method.clustering import choose_num_clusters, cluster_anchor, gather_tokens
from vidseg.core.method.tokens import normalize_tokens
from vidseg.core.types import Features, Grid, InputError


def blobs(count: int, spread: float = 0.02) -> torch.Tensor:
    """240 tokens around ``count`` centers."""
    generator = torch.Generator().manual_seed(count)
    centers = torch.randn(count, 12, generator=generator)
    return normalize_tokens(centers[torch.arange(240) % count] + spread * torch.randn(240, 12, generator=generator))


@pytest.mark.parametrize("count", [2, 5, 9])
def test_separate_groups_are_counted(count: int) -> None:
    assert choose_num_clusters(blobs(count), 0.97, seed=1) == count


def test_finer_is_never_fewer() -> None:
    tokens = blobs(12, spread=0.5)
    counts = [choose_num_clusters(tokens, share / 10, seed=1) for share in range(11)]
    assert counts == sorted(counts)
    assert counts[0] == 2
    assert counts[-1] == 64
    assert len(set(counts)) > 4


def test_few_and_equal_tokens() -> None:
    assert choose_num_clusters(torch.ones(1, 4), 0.5, seed=1) == 1
    assert choose_num_clusters(torch.ones(30, 4), 0.5, seed=1) == 2


def test_zero_clusters_ask_for_the_choice() -> None:
    tokens = blobs(5)
    nothing = torch.empty(1, 0)
    features = Features(tokens[None], tokens[None], nothing, nothing, Grid(12, 20), (192, 320))
    seen = gather_tokens(features, ClusterConfig(place=0), 0, 14)
    chosen = cluster_anchor(seen, features.grid, ClusterConfig(0, granularity=0.97), seed=1)
    assert len(chosen.unique()) == 5
    assert torch.equal(chosen, cluster_anchor(seen, features.grid, ClusterConfig(5), seed=1))


def test_limits() -> None:
    with pytest.raises(InputError, match=r"cluster\.granularity"):
        replace_parts(preset("default"), cluster={"granularity": 1.5})
    with pytest.raises(InputError, match=r"cluster\.num_clusters"):
        replace_parts(preset("default"), cluster={"num_clusters": -1})
