"""K-means of many tokens: scikit-learn's method and draws, with starts that share their passes over the tokens."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import Tensor

from ..types import Progress

MAX_ITERATIONS, TOLERANCE = 300, 1e-4
"""Of Lloyd's algorithm, as scikit-learn has them; the tolerance is a share of the mean variance."""


_TOGETHER = 16
"""Runs that share their passes over the points."""
_MEASURED = 4096
"""Points whose distances to all centers are computed at once."""


def fit_centers(
    points: Tensor, num_clusters: int, num_restarts: int, seed: int, progress: Progress, device: torch.device
) -> Tensor:
    """Return the centers ``(K,C)`` of the best of some runs on ``(M,C)`` float32 points, on the CPU."""
    from threadpoolctl import threadpool_limits  # noqa: PLC0415, a dependency of scikit-learn

    held = points.detach().float().cpu().numpy()
    mean = held.mean(axis=0)
    held = held - mean  # as scikit-learn does, for exact distances
    with threadpool_limits(limits=1):  # draws must not depend on how many threads sum
        advance = partial(_report_starts, progress, num_clusters, num_restarts)
        drawn = draw_starts(held, num_clusters, num_restarts, seed, advance)
    there = torch.from_numpy(held).to(device)
    runs: list[Run] = []
    for group in torch.split(torch.from_numpy(drawn).to(device), _TOGETHER):
        runs += run_lloyd(there, there[group])
        progress("K-means runs", (num_restarts + len(runs) + 1) // 2, num_restarts)
    best = min(runs, key=lambda run: np.float32(run.inertia))  # the first of equals
    return best.centers.cpu() + torch.from_numpy(mean)


def _report_starts(progress: Progress, num_clusters: int, num_restarts: int, drawn: int) -> None:
    """Report how many clusters of each start are drawn; a start counts as half of a run."""
    progress("K-means runs", max(1, (num_restarts * drawn // num_clusters + 1) // 2), num_restarts)


def draw_starts(
    points: np.ndarray,
    num_clusters: int,
    num_restarts: int,
    seed: int,
    advance: Callable[[int], None] = lambda _drawn: None,
) -> np.ndarray:
    """Choose starts by greedy k-means++: numbers ``(R,K)`` of rows of ``(M,C)`` float32 points.

    They are those that scikit-learn draws for ``n_init`` runs from the same seed. A start takes a known count of random
    numbers, so that all starts grow together, and each pass over the points serves all of them. Distances are float64
    sums rounded to float32, as in scikit-learn.
    """
    trials = 2 + int(np.log(num_clusters))
    random = np.random.RandomState(seed)
    draws = [(random.random_sample(), random.random_sample((num_clusters - 1, trials))) for _ in range(num_restarts)]
    growing = [_Start(first, following, len(points)) for first, following in draws]
    exact = points.astype(np.float64)
    norms = np.einsum("mc,mc->m", exact, exact)
    distances = _measure(exact, norms, np.array([start.chosen[0] for start in growing]))
    for start, row in zip(growing, distances, strict=True):
        start.take(row)
    advance(1)
    for drawn in range(2, num_clusters + 1):
        candidates = [start.draw() for start in growing]
        distances = _measure(exact, norms, np.concatenate(candidates))
        for start, chosen, rows in zip(growing, candidates, np.split(distances, len(growing)), strict=True):
            start.choose(chosen, rows)
        advance(drawn)
    return np.array([start.chosen for start in growing])


class _Start:
    """A start that grows: rows chosen so far, and squared distances of all points to the nearest of them."""

    def __init__(self, first: float, draws: np.ndarray, num_points: int) -> None:
        self._weight = np.ones(num_points, np.float32)
        shares = np.cumsum((self._weight / self._weight.sum()).astype(np.float64))
        self.chosen = [int(np.searchsorted(shares / shares[-1], first, side="right"))]  # as `RandomState.choice`
        self._draws = iter(draws)
        self._nearest: np.ndarray = self._weight
        self._total = np.float32(0)

    def take(self, distances: np.ndarray) -> None:
        """Note the distances ``(M,)`` to the first."""
        self._nearest, self._total = distances, np.float32(distances @ self._weight)

    def draw(self) -> np.ndarray:
        """Return candidates for the next row, drawn by squared distance."""
        drawn = next(self._draws) * self._total
        found: np.ndarray = np.searchsorted(np.cumsum(self._nearest), drawn).clip(max=len(self._nearest) - 1)
        return found

    def choose(self, candidates: np.ndarray, distances: np.ndarray) -> None:
        """Add the candidate whose distances ``(trials,M)`` leave the least sum."""
        np.minimum(self._nearest, distances, out=distances)
        totals = distances @ self._weight[:, None]
        best = int(np.argmin(totals))
        self._total, self._nearest = totals[best, 0], distances[best]
        self.chosen.append(int(candidates[best]))


def _measure(points: np.ndarray, norms: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Return squared distances of some rows to all of ``(M,C)`` float64 points, float32."""
    distances: np.ndarray = -2 * (points[rows] @ points.T)
    distances += norms[rows][:, None]
    distances += norms
    return distances.astype(np.float32).clip(min=0)


class Run:
    """A run of Lloyd's algorithm on ``(M,C)`` float32 points, by the rules of scikit-learn.

    It ends when no label changes, or when the centers move less than a tolerance. A cluster that loses all points
    takes the point that is farthest from its center. Sums are kept, and changed by the points whose label changes.
    """

    def __init__(self, points: Tensor, start: Tensor) -> None:
        self.centers, self.num_iterations, self.ended = start, 0, False
        self._points, self.labels = points, torch.full((len(points),), -1, device=points.device)
        self._sums = torch.zeros(start.shape, dtype=torch.float64, device=points.device)
        self._counts = self._sums[:, 0].clone()

    def step(self, labels: Tensor, tolerance: float) -> None:
        """Move the centers to the means of the points that have each label ``(M,)`` int64."""
        changed = (labels != self.labels).nonzero()[:, 0]
        rows = self._points[changed] if self.num_iterations else self._points
        clusters = torch.arange(len(self.centers), device=labels.device)[:, None]
        marks = (labels[changed] == clusters).to(rows) - (self.labels[changed] == clusters).to(rows)  # (K,P)
        self._sums += marks @ rows
        self._counts += marks.sum(1)
        self.labels = labels
        before, self.centers = self.centers, self._average()
        self.num_iterations += 1
        self.ended = not len(changed) or self.num_iterations == MAX_ITERATIONS
        if len(changed) and (self.ended or float((self.centers - before).square().sum()) <= tolerance):
            self.labels, self.ended = find_nearest(self._points, self.centers[None])[0], True

    def _average(self) -> Tensor:
        sums, counts = self._sums, self._counts
        empty = (counts == 0).nonzero()[:, 0].tolist()
        if empty:
            sums, counts = sums.clone(), counts.clone()
            far = (self._points - self.centers[self.labels]).square().sum(1).topk(len(empty)).indices.tolist()
            for cluster, point in zip(empty, far, strict=True):
                sums[self.labels[point]] -= self._points[point]
                counts[self.labels[point]] -= 1
                sums[cluster], counts[cluster] = self._points[point], 1
        return torch.where(counts[:, None] > 0, sums / counts.clamp(min=1)[:, None], self.centers).to(self.centers)

    @property
    def inertia(self) -> float:
        """Summed squared distances of the points to their centers."""
        parts = zip(*(torch.split(each, _MEASURED) for each in (self._points, self.labels)), strict=True)
        return sum(float((part - self.centers[own]).square().sum(dtype=torch.float64)) for part, own in parts)


def run_lloyd(points: Tensor, starts: Tensor) -> list[Run]:
    """Return runs on ``(M,C)`` float32 points, wherever they are, from starts ``(R,K,C)``; they go side by side."""
    tolerance = TOLERANCE * float(points.var(0, unbiased=False).mean())
    runs = [Run(points, start) for start in starts]
    while going := [run for run in runs if not run.ended]:
        for run, labels in zip(going, find_nearest(points, torch.stack([run.centers for run in going])), strict=True):
            run.step(labels, tolerance)
    return runs


def find_nearest(points: Tensor, centers: Tensor) -> Tensor:
    """Return the nearest of centers ``(R,K,C)`` for each of ``(M,C)`` points, ``(R,M)`` int64; ties: the first."""
    flat, norms = centers.flatten(0, 1), centers.square().sum(2).flatten()[:, None]
    rank = torch.arange(centers.shape[1], 0, -1, dtype=torch.int16, device=points.device)[:, None]
    nearest = []
    for part in torch.split(points, _MEASURED):
        distances = torch.addmm(norms, flat, part.T, alpha=-2).view(*centers.shape[:2], -1)
        least = distances == distances.amin(1, keepdim=True)  # with ranks much quicker than `argmin`
        nearest.append(centers.shape[1] - (least * rank).amax(1).long())
    return torch.cat(nearest, 1)
