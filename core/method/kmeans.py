"""K-means of many tokens: scikit-learn's method and draws, with starts that share their passes over the tokens."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from operator import attrgetter
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..types import Progress

MAX_ITERATIONS, TOLERANCE = 300, 1e-4
"""Of Lloyd's algorithm, as scikit-learn has them; the tolerance is a share of the mean variance."""


class Run(NamedTuple):
    """What a run of Lloyd's algorithm ends with: ``(K,C)`` centers, summed squared distances, iterations."""

    centers: np.ndarray
    inertia: float
    num_iterations: int


def fit_centers(
    points: Tensor, num_clusters: int, num_restarts: int, seed: int, progress: Progress, device: torch.device
) -> Tensor:
    """Return the centers ``(K,C)`` of the best of some runs on ``(M,C)`` float32 points, on the CPU.

    Runs on the CPU go side by side, each on one thread: more threads would sum the centers in the order in which they
    finish, so that results would differ from run to run. On a GPU they follow each other.
    """
    from sklearn.exceptions import ConvergenceWarning  # noqa: PLC0415, takes most of a second
    from threadpoolctl import threadpool_limits  # noqa: PLC0415, a dependency of scikit-learn

    held = points.detach().float().cpu().numpy()
    mean = held.mean(axis=0)
    held = held - mean  # as scikit-learn does, for exact distances
    workers = ThreadPoolExecutor(min(num_restarts, os.cpu_count() or 1), initializer=_use_one_thread)
    on_gpu = device.type == "cuda"
    with warnings.catch_warnings(), threadpool_limits(limits=1), workers:
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer distinct tokens than clusters
        advance = partial(_report_starts, progress, num_clusters, num_restarts)
        starts = [held[chosen] for chosen in draw_starts(held, num_clusters, num_restarts, seed, advance)]
        run = partial(run_lloyd_on, torch.from_numpy(held).to(device)) if on_gpu else partial(_run_lloyd, held)
        runs: list[Run] = []
        for ended in map(run, starts) if on_gpu else workers.map(run, starts):
            runs.append(ended)
            progress("K-means runs", (num_restarts + len(runs) + 1) // 2, num_restarts)
    best = min(runs, key=attrgetter("inertia"))  # the first of equals
    return torch.from_numpy(best.centers + mean)


def _report_starts(progress: Progress, num_clusters: int, num_restarts: int, drawn: int) -> None:
    """Report how many clusters of each start are drawn; a start counts as half of a run."""
    progress("K-means runs", max(1, (num_restarts * drawn // num_clusters + 1) // 2), num_restarts)


def _use_one_thread() -> None:
    """Limit the calling thread for as long as it lives; OpenMP counts per thread."""
    from threadpoolctl import threadpool_limits  # noqa: PLC0415, a dependency of scikit-learn

    threadpool_limits(limits=1, user_api="openmp")


def _run_lloyd(points: np.ndarray, start: np.ndarray) -> Run:
    from sklearn.cluster import KMeans  # noqa: PLC0415, takes most of a second

    found = KMeans(len(start), init=start, n_init=1).fit(points)
    return Run(found.cluster_centers_, float(found.inertia_), int(found.n_iter_))


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


def run_lloyd_on(points: Tensor, start: np.ndarray) -> Run:
    """Run Lloyd's algorithm where the ``(M,C)`` float32 points are, with the rules of scikit-learn.

    It ends when no label changes, or when the centers move less than the tolerance. A cluster that loses all points
    takes the point that is farthest from its center.
    """
    centers = torch.from_numpy(start).to(points)
    tolerance = TOLERANCE * float(points.var(0, unbiased=False).mean())
    labels = torch.full((len(points),), -1, device=points.device)
    done = 0
    while done < MAX_ITERATIONS:
        done += 1
        earlier, labels = labels, _nearest(points, centers)
        before, centers = centers, _average(points, labels, centers)
        if torch.equal(labels, earlier):
            break
        if float((centers - before).square().sum()) <= tolerance:
            labels = _nearest(points, centers)
            break
    inertia = float((points - centers[labels]).square().sum(dtype=torch.float64))
    return Run(centers.cpu().numpy(), inertia, done)


def _nearest(points: Tensor, centers: Tensor) -> Tensor:
    """Return the nearest of ``(K,C)`` centers for each of ``(M,C)`` points; ties: the first."""
    return torch.addmm(centers.square().sum(1), points, centers.T, alpha=-2).argmin(1)


def _average(points: Tensor, labels: Tensor, centers: Tensor) -> Tensor:
    """Return the means of the points of each label; products with one-hot rows sum them in an order that is fixed."""
    marks = torch.nn.functional.one_hot(labels, len(centers)).to(points)
    counts = marks.sum(0)
    sums = marks.T @ points
    empty = (counts == 0).nonzero().squeeze(1).tolist()
    if empty:
        far = (points - centers[labels]).square().sum(1).topk(len(empty)).indices.tolist()
        for cluster, point in zip(empty, far, strict=True):
            sums[labels[point]] -= points[point]
            counts[labels[point]] -= 1
            sums[cluster], counts[cluster] = points[point], 1
    return torch.where(counts[:, None] > 0, sums / counts.clamp(min=1)[:, None], centers)
