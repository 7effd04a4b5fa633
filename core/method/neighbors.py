"""Nearest neighbors: float32 products find a short list, float64 decides where rounding could matter."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from .sketch import Sketch, can_measure_pairs, measure_pairs, shorten

CHUNK_ELEMENTS = 2**22
"""Distances held at once: 16 MiB, so that they stay in a processor's cache, whatever the number of frames."""
_SPARE = 12
"""Tokens of a short list beyond the neighbors that are asked for: more often than not one is enough."""
_GUESSED = 4
"""Tokens beyond the neighbors among which neighbors are guessed."""
_GROUP = 32
"""Distances of a row of which the least is taken first."""
_ROUNDINGS = 40
"""Roundings of a distance beyond one for each component: of centering, of a sketch, of the sum."""
_MEASURED = 2**11
"""Tokens that are measured at once in float64."""
_UNKNOWN = -1
"""Index that stands for no token."""
_SKETCHED, _CANDIDATES = 4, 16
"""Of so many tokens one may be a candidate after a first and a second look: of more, all distances are computed."""


class _Rows(NamedTuple):
    """Queries ``(B,C)``, the same centered in float32, and how much float64 rounding can change a distance ``(B,)``."""

    queries: Tensor
    centered: Tensor
    rounding: Tensor

    def take(self, some: Tensor) -> _Rows:
        return _Rows(*(part[some] for part in self))


class NeighborSearch:
    """Finds the ``k`` nearest of ``(M,C)`` float32 tokens; of those that tie at the last place, the first.

    Two distances tie when float64 rounding could have changed their order. The result is that of a search in float64
    alone, and depends neither on chunks nor on how a device sums.

    Tokens are centered first, which changes no distance but for one rounding of each component. A float32 product of C
    terms, summed in any order, differs from the true one by at most ``g = n u / (1 - n u)`` times the product of the
    norms, with ``n`` roundings of ``u = 2**-24`` each (Higham, Accuracy and Stability of Numerical Algorithms, 3.1).
    So a distance ``|c|^2 - 2 q c`` is off by at most ``E = g (|q| + |c|)^2`` with ``n = C + 40``. Let ``a`` be the
    k-th smallest as computed: k true distances are at most ``a + E``, and a token whose computed distance is above
    ``a + 2 E`` is truly farther than they. A row whose next token is that far has its neighbors; a row whose short
    list reaches that far finds them there, in float64; any other row is searched in float64 as a whole.

    Where there are many tokens, their `sketch.Sketch` is compared first, in few dimensions with all, in more with those
    that are left: its distances are below the true ones, but for the like rounding, so that tokens beyond ``a + 2 E``
    in a sketch need no distance of their own.
    """

    def __init__(self, tokens: Tensor, k: int) -> None:
        self._tokens, self._k = tokens, k
        self._listed = min(k + _SPARE, len(tokens))
        self._grouped = len(tokens) > 2 * _GROUP * self._listed
        spare = (-len(tokens) % _GROUP if self._grouped else 0) + 1  # points that stand for no token
        exact_norms = _measure_norms(tokens)
        self._largest = float(exact_norms.max())
        self._norms = F.pad(exact_norms, (0, spare), value=torch.inf)
        self._mean = tokens.float().mean(0)
        centered = tokens.float() - self._mean
        norms = _measure_norms(centered).float().to(tokens.device)
        self._longest = float(norms.max()) ** 0.5
        self._points = _make_points(centered, norms, spare)
        pays = self._grouped and multiplies_exactly(tokens.device) and can_measure_pairs()
        self._sketch = Sketch.of(centered) if pays else None
        self._chunk = max(1, CHUNK_ELEMENTS // len(self._points))
        if self._sketch:
            self._low = torch.empty(self._chunk, len(self._points) - 1)  # fresh memory would cost more than the product
            drawn = self._sketch.draw(centered)
            self._sketched, self._shortened = (_make_points(each, norms, spare) for each in (drawn, shorten(drawn)))

    def find(self, queries: Tensor) -> Tensor:
        """Return the indices ``(B,k)`` int32, in no order, of the nearest tokens of ``(B,C)`` queries."""
        queries = queries.to(self._tokens)
        if not multiplies_exactly(queries.device):
            return self._search(queries).int()
        parts = torch.split(queries, self._chunk)
        found = torch.cat([self._find(part).int() for part in parts])
        rows = (found[:, 0] < 0).nonzero().squeeze(1)
        if len(rows):
            found[rows] = self._search(queries[rows]).int()
        return found

    def _find(self, queries: Tensor) -> Tensor:
        """Return the nearest tokens ``(B,k)``, or `_UNKNOWN` for rows that float64 alone can tell."""
        rows = _Rows(queries, queries.float() - self._mean, self._rounding(queries))
        if self._sketch is None:
            return self._find_by_products(rows)
        found, settled = self._find_by_sketch(self._sketch, rows)
        others = (~settled).nonzero().squeeze(1)
        if len(others):
            found[others] = self._find_by_products(rows.take(others))
        return found

    def _find_by_products(self, rows: _Rows) -> Tensor:
        """Return the nearest tokens by the distances to all."""
        values, indices = self._list_least(_compare(rows.centered) @ self._points[:-1].T)
        return self._settle(rows, values, indices)

    def _find_by_sketch(self, sketch: Sketch, rows: _Rows) -> tuple[Tensor, Tensor]:
        """Return the nearest tokens ``(B,k)``, and which rows have theirs: those with few candidates."""
        compared, drawn, count = _compare(rows.centered), sketch.draw(rows.centered), len(rows.queries)
        low = torch.mm(_compare(shorten(drawn)), self._shortened[:-1].T, out=self._low[:count]).view(count, -1, _GROUP)
        least = low.amin(2)
        few = _least_of_groups(low, least, self._k + _GUESSED)
        ends = torch.arange(count + 1) * few.shape[1]
        first = measure_pairs(compared, self._points, ends, few.flatten()).view(few.shape)
        bound = first.kthvalue(self._k, dim=1).values + self._slack(rows, rows.centered)
        limit = bound + self._slack(rows, drawn)
        groups = _find_within(least, limit[:, None])
        row = groups // least.shape[1]
        inside = _find_within(low.view(-1, _GROUP).index_select(0, groups), limit[row, None])
        row, column = row[inside // _GROUP], groups[inside // _GROUP] % least.shape[1] * _GROUP + inside % _GROUP
        row, column, ends, settled = self._keep_few(row, column, count, _SKETCHED)
        near = measure_pairs(_compare(drawn), self._sketched, ends, column) <= limit[row]
        row, column, ends, enough = self._keep_few(row[near], column[near], count, _CANDIDATES)
        values = measure_pairs(compared, self._points, ends, column)
        near = values <= bound[row]
        row, column, values = row[near], column[near], values[near]
        counts = torch.bincount(row, minlength=count)
        settled &= enough & (counts >= self._k)
        place = torch.arange(len(row)) - (counts.cumsum(0) - counts)[row]
        lists = torch.full((count, max(self._listed, int(counts.max()))), len(self._points) - 1)
        distances = torch.full(lists.shape, torch.inf)
        lists[row, place], distances[row, place] = column, values
        found, chosen = torch.zeros(count, self._k, dtype=torch.int64), settled.nonzero().squeeze(1)
        if len(chosen):
            lists, nearest = lists[chosen], distances[chosen].topk(self._listed, largest=False)
            found[chosen] = self._settle(rows.take(chosen), nearest.values, lists.gather(1, nearest.indices), lists)
        return found, settled

    def _keep_few(self, row: Tensor, column: Tensor, count: int, rare: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return candidates of those of ``count`` rows that have enough and few, where each row ends, and which do."""
        counts = torch.bincount(row, minlength=count)
        settled = (counts >= self._k) & (counts <= len(self._tokens) // rare)
        if not bool(settled.all()):
            row, column = (each[settled[row]] for each in (row, column))
        return row, column, F.pad(torch.where(settled, counts, 0).cumsum(0), (1, 0)), settled

    def _settle(self, rows: _Rows, values: Tensor, indices: Tensor, lists: Tensor | None = None) -> Tensor:
        """Return the nearest ``(B,k)``, from the least distances of each row, and where they are.

        ``lists`` are all tokens that may be near, if those are known; without them some rows stay unknown.
        """
        k, found = self._k, indices[:, : self._k].clone()
        if values.shape[1] == k:  # all of them
            return found
        far = values[:, k - 1] + self._slack(rows, rows.centered)
        doubtful = ~(values[:, k] > far)  # also true for NaN
        reaches = values[:, -1] > far if self._listed < len(self._tokens) else torch.isfinite(far)
        some = (doubtful & reaches).nonzero().squeeze(1)
        if len(some):
            width = int((~(values[some] > far[some, None]).all(0)).nonzero()[-1]) + 1
            found[some] = self._decide(rows.queries[some], indices[some, :width].sort(1).values)
        some = (doubtful & ~reaches).nonzero().squeeze(1)
        if len(some):
            found[some] = _UNKNOWN if lists is None else self._decide(rows.queries[some], lists[some])
        return found

    def _list_least(self, distances: Tensor) -> tuple[Tensor, Tensor]:
        """Return the least of each row of ``(B,M)`` in rising order, and where they are.

        They lie in those groups whose own least values are the least.
        """
        if not self._grouped:
            least = distances.topk(self._listed, largest=False)
            return least.values, least.indices
        groups = distances.view(len(distances), -1, _GROUP)
        chosen = groups.amin(2).topk(self._listed, largest=False, sorted=False).indices  # (B,L)
        values = groups.gather(1, chosen[:, :, None].expand(-1, -1, _GROUP)).flatten(1)
        least = values.topk(self._listed, largest=False)
        group, place = least.indices // _GROUP, least.indices % _GROUP
        return least.values, chosen.gather(1, group) * _GROUP + place

    def _slack(self, rows: _Rows, compared: Tensor) -> Tensor:
        """Return ``2 E`` of each query as it is compared, and what float64 rounding adds, ``(B,)`` float32."""
        terms, unit = compared.shape[1] + _ROUNDINGS, torch.finfo(torch.float32).eps / 2
        share = terms * unit / (1 - terms * unit)
        size: Tensor = (compared.norm(dim=1) + self._longest).square()
        excess = 4 * torch.finfo(torch.float32).tiny * terms + 2 * rows.rounding.to(size)
        return 2.01 * share * size + excess

    def _decide(self, queries: Tensor, listed: Tensor) -> Tensor:
        """Return the nearest among ``(B,L)`` indices in rising order, by float64 distances."""
        rows = []
        for part, indices in zip(*(torch.split(each, 256) for each in (queries, listed)), strict=True):
            exact = _as_float64(part)
            candidates = _as_float64(self._tokens[indices.clamp(max=len(self._tokens) - 1)])
            products = torch.bmm(candidates, exact[:, :, None]).squeeze(2)
            indices = indices.to(exact.device)  # noqa: PLW2901
            nearest = self._nearest(self._norms[indices] - 2 * products, exact)
            rows.append(indices.gather(1, nearest))
        return torch.cat(rows).to(listed.device)

    def _search(self, queries: Tensor) -> Tensor:
        """Return the nearest of all tokens, by float64 distances."""
        context = _as_float64(self._tokens)
        rows = []
        for part in torch.split(queries, max(1, CHUNK_ELEMENTS // 2 // len(context))):
            exact = _as_float64(part)
            rows.append(self._nearest(torch.addmm(self._norms[: len(context)], exact, context.T, alpha=-2), exact))
        return torch.cat(rows).to(queries.device)

    def _nearest(self, distances: Tensor, queries: Tensor) -> Tensor:
        """Return ``(B,k)`` indices of the smallest of ``(B,M)`` float64; those that tie at the k-th place by index."""
        k, tolerance = self._k, self._rounding(queries)[:, None]
        nearest = distances.topk(min(k + 1, distances.shape[1]), dim=1, largest=False)
        indices, limit = nearest.indices[:, :k], nearest.values[:, k - 1 : k]
        tied = (nearest.values[:, k:] <= limit + tolerance).any(1).nonzero().squeeze(1)
        if len(tied):
            rows, limit, tolerance = distances[tied], limit[tied], tolerance[tied]
            rank = (rows >= limit - tolerance).to(torch.int8) + (rows > limit + tolerance).to(torch.int8)
            indices[tied] = rank.sort(dim=1, stable=True).indices[:, :k]  # surely nearer, tied, farther
        return indices

    def _rounding(self, queries: Tensor) -> Tensor:
        """Return by how much float64 rounding can change a distance of each row."""
        largest = _measure_norms(queries).clamp(min=self._largest)
        return 4 * queries.shape[1] * torch.finfo(torch.float64).eps * largest


def _least_of_groups(distances: Tensor, least: Tensor, count: int) -> Tensor:
    """Return where ``count`` small ones of distances ``(B,G,g)`` are: those that are the ``least`` of their groups."""
    chosen = least.topk(count, largest=False, sorted=False).indices
    places = distances.gather(1, chosen[:, :, None].expand(-1, -1, distances.shape[2])).argmin(2)
    return chosen * distances.shape[2] + places


def _find_within(values: Tensor, limit: Tensor) -> Tensor:
    """Return which of ``values``, as they lie in memory, are at most ``limit``: much faster than torch's own."""
    return torch.from_numpy(np.flatnonzero(values.numpy() <= limit.numpy()))


def _make_points(tokens: Tensor, norms: Tensor, spare: int) -> Tensor:
    """Return tokens ``(M,C)`` with squared norms as one more component, and points that are near nothing behind them.

    The product with a row of `_compare` is a squared distance, less the square of the query.
    """
    points = tokens.new_zeros(len(tokens) + spare, tokens.shape[1] + 1)
    points[: len(tokens), :-1], points[: len(tokens), -1], points[len(tokens) :, -1] = tokens, norms, torch.inf
    return points


def _compare(queries: Tensor) -> Tensor:
    """Return queries ``(B,C)`` as they are multiplied with points, ``(B,C+1)``."""
    return F.pad(-2 * queries, (0, 1), value=1.0)


def _measure_norms(tokens: Tensor) -> Tensor:
    """Return squared norms of ``(M,C)``, float64; on the CPU where the device has no such type (MPS)."""
    return torch.cat([_as_float64(part).square().sum(1) for part in torch.split(tokens, _MEASURED)])


def _as_float64(tokens: Tensor) -> Tensor:
    """Return ``tokens`` in float64; on the CPU where the device has no such type (MPS)."""
    return (tokens.cpu() if tokens.device.type == "mps" else tokens).double()


def multiplies_exactly(device: torch.device) -> bool:
    """Tell whether float32 products are computed in float32, and not in a shorter type for speed."""
    try:
        shortened = device.type == "cuda" and torch.backends.cuda.matmul.allow_tf32
        return not shortened and torch.get_float32_matmul_precision() == "highest"
    except RuntimeError:  # set in torch's newer way, which the older cannot tell
        return False
