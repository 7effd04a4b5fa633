"""Regions that share a modulated pass lie apart, and every cell is modulated once."""

from __future__ import annotations

import doctest
from typing import NamedTuple

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from vidseg.core.config.settings import Settings, replace_parts
from vidseg.core.method import modulation_jobs as module
from vidseg.core.method.modulation_jobs import plan_jobs

SHARED = replace_parts(Settings(), modulation={"shared": True})


def smooth_map(seed: int, h: int, w: int, labels: int) -> Tensor:
    """Voronoi cells of random points: regions of several parts, as real maps have."""
    generator = torch.Generator().manual_seed(seed)
    points = torch.rand(3 * labels, 2, generator=generator) * torch.tensor([h, w])
    owner = torch.randint(0, labels, (3 * labels,), generator=generator)
    cells = torch.cartesian_prod(torch.arange(h), torch.arange(w)).float()
    return owner[torch.cdist(cells, points).argmin(1)].reshape(h, w)


class Job(NamedTuple):
    mask: Tensor
    owner: Tensor

    @property
    def labels(self) -> tuple[int, ...]:
        return tuple(self.owner.unique().tolist())


def jobs_of(cells: Tensor, settings: Settings = SHARED) -> list[Job]:
    return [Job(job.mask[0], job.owner[0]) for job in plan_jobs(cells[None], settings)]


@given(st.integers(0, 10**6), st.integers(1, 14), st.integers(1, 18), st.integers(1, 12))
def test_shared_jobs_cover_every_cell_once_and_keep_regions_apart(seed: int, h: int, w: int, labels: int) -> None:
    cells = smooth_map(seed, h, w, labels)
    if len(cells.unique()) == 1:
        assert not jobs_of(cells)  # nothing to tell apart
        return
    jobs = jobs_of(cells)
    assert torch.equal(torch.stack([job.mask for job in jobs]).sum(0), torch.ones(h, w, dtype=torch.int64))
    assert len(jobs) <= len(cells.unique())
    for job in jobs:
        assert torch.equal(job.owner[job.mask], cells[job.mask])
        places = job.mask.nonzero()
        gaps = (places[:, None] - places[None]).abs().amax(-1)
        apart = job.owner[job.mask][:, None] != job.owner[job.mask][None]
        assert not bool((apart & (gaps <= 2)).any())  # two cells between them


@given(st.integers(0, 10**6))
def test_the_owner_is_the_nearest_modulated_label(seed: int) -> None:
    cells = smooth_map(seed, 9, 12, 8)
    for job in jobs_of(cells):
        places = job.mask.nonzero().double()
        everywhere = torch.cartesian_prod(torch.arange(9), torch.arange(12)).double()
        distances = torch.cdist(everywhere, places)
        owners = cells[job.mask][None].expand(len(everywhere), -1)
        nearest = distances <= distances.min(1, keepdim=True).values + 1e-9
        allowed = torch.where(nearest, owners, -1)
        assert bool((allowed == job.owner.flatten()[:, None]).any(1).all())


def test_sharing_saves_passes_where_regions_lie_apart() -> None:
    cells = torch.arange(24)[None].expand(8, 24) // 4  # six stripes of four cells: every other one can share
    assert {job.labels for job in jobs_of(cells)} == {(0, 2, 4), (1, 3, 5)}
    assert len(jobs_of(cells, Settings())) == 6


def test_parts_of_a_region_share_a_pass_however_near_they_are() -> None:
    cells = torch.arange(24)[None].expand(8, 24) // 2 % 2  # stripes of two cells, two cells apart
    cells = torch.cat([cells[:, :14], torch.tensor([2, 3]).repeat_interleave(4).expand(8, 8)], 1)
    assert {job.labels for job in jobs_of(cells)} == {(0, 3), (1, 2)}


def test_few_passes_are_found_where_taking_the_largest_part_first_needs_more() -> None:
    """The crown graph, in which each part is near to all of the other row but the one across."""
    conflicts = np.kron(np.array([[0, 1], [1, 0]]), 1 - np.eye(5)).astype(bool) | np.eye(10, dtype=bool)
    in_pairs = np.arange(10).reshape(2, 5).T.flatten()
    numbers = module._color_graph(conflicts[in_pairs][:, in_pairs])
    assert len(set(numbers)) == 2


def test_two_regions_in_many_parts_are_modulated_one_by_one() -> None:
    cells = (torch.arange(12)[None] // 2 + torch.arange(12)[:, None] // 2) % 2
    jobs = jobs_of(cells)
    assert [job.labels for job in jobs] == [(0,), (1,)]


def test_doctests() -> None:
    assert doctest.testmod(module).failed == 0
