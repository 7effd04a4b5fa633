"""Nearest neighbors: float32 products find a short list, float64 decides where rounding could matter."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

CHUNK_ELEMENTS = 2**24
"""Distances held at once: 64 MiB in float32, whatever the number of frames; half as many in float64."""
_SPARE = 12
"""Tokens of a short list beyond the neighbors that are asked for: more often than not one is enough."""
_GROUPS = 64
"""Distances of a row of which the least is taken first."""


class NeighborSearch:
    """Finds the ``k`` nearest of ``(M,C)`` float32 tokens; of those that tie at the last place, the first.

    Two distances tie when float64 rounding could have changed their order. The result is that of a search in float64
    alone, and depends neither on chunks nor on how a device sums.

    A float32 product of C terms, summed in any order, differs from the true one by at most ``g = n u / (1 - n u)``
    times the product of the norms, with ``n = C + 3`` roundings of ``u = 2**-24`` each (Higham, Accuracy and Stability
    of Numerical Algorithms, 3.1). So a distance ``|c|^2 - 2 q c`` is off by at most ``E = g (|c|^2 + 2 |q| |c|)``. Let
    ``a`` be the k-th smallest as computed: k true distances are at most ``a + E``, and a token whose computed distance
    is above ``a + 2 E`` is truly farther than they. A row whose next token is that far has its neighbors; a row whose
    short list reaches that far finds them there, in float64; any other row is searched in float64 as a whole.
    """

    def __init__(self, tokens: Tensor, k: int) -> None:
        self._tokens, self._k = tokens, k
        exact = _as_float64(tokens)
        self._norms = exact.square().sum(1)
        self._largest = float(self._norms.max())
        self._listed = min(k + _SPARE, len(tokens))
        self._columns = -(-len(tokens) // _GROUPS) if len(tokens) > 2 * _GROUPS * self._listed else 0
        missing = self._columns * _GROUPS - len(tokens) if self._columns else 0
        self._padded = F.pad(tokens.float(), (0, 0, 0, missing))
        self._padded_norms = F.pad(self._norms.float().to(tokens.device), (0, missing), value=torch.inf)

    def find(self, queries: Tensor) -> Tensor:
        """Return the indices ``(B,k)`` int32, in no order, of the nearest tokens of ``(B,C)`` queries."""
        parts = torch.split(queries.to(self._tokens), max(1, CHUNK_ELEMENTS // len(self._padded)))
        return torch.cat([self._find(part).int() for part in parts])

    def _find(self, queries: Tensor) -> Tensor:
        if not _multiplies_exactly(queries.device):
            return self._search(queries)
        computed = torch.addmm(self._padded_norms, queries, self._padded.T, alpha=-2)
        values, indices = self._list_least(computed)
        k, found = self._k, indices[:, : self._k].clone()
        if values.shape[1] == k:  # all of them
            return found
        far = values[:, k - 1] + self._slack(queries)
        doubtful = ~(values[:, k] > far)  # also true for NaN
        reaches = values[:, -1] > far if self._listed < len(self._tokens) else torch.isfinite(far)
        rows = (doubtful & reaches).nonzero().squeeze(1)
        if len(rows):
            found[rows] = self._decide(queries[rows], indices[rows].sort(1).values)
        rows = (doubtful & ~reaches).nonzero().squeeze(1)
        if len(rows):
            found[rows] = self._search(queries[rows])
        return found

    def _list_least(self, distances: Tensor) -> tuple[Tensor, Tensor]:
        """Return the least of each row of ``(B,M)`` in rising order, and where they are.

        They lie in those groups whose own least values are the least.
        """
        if not self._columns:
            least = distances.topk(self._listed, largest=False)
            return least.values, least.indices
        groups = distances.view(-1, _GROUPS, self._columns)
        columns = groups.amin(1).topk(self._listed, largest=False, sorted=False).indices  # (B,L)
        chosen = groups.gather(2, columns[:, None].expand(-1, _GROUPS, -1)).flatten(1)
        least = chosen.topk(self._listed, largest=False)
        group, place = least.indices // self._listed, least.indices % self._listed
        return least.values, group * self._columns + columns.gather(1, place)

    def _slack(self, queries: Tensor) -> Tensor:
        """Return ``2 E`` of each query, and what float64 rounding adds, ``(B,)`` float32."""
        terms, unit = queries.shape[1] + 3, torch.finfo(torch.float32).eps / 2
        share = terms * unit / (1 - terms * unit)
        size: Tensor = self._largest + 2 * queries.norm(dim=1) * self._largest**0.5
        return 2.01 * share * size + 4 * torch.finfo(torch.float32).tiny * terms  # the excess covers this sum's own

    def _decide(self, queries: Tensor, listed: Tensor) -> Tensor:
        """Return the nearest among ``(B,L)`` indices in rising order, by float64 distances."""
        rows = []
        for part, indices in zip(*(torch.split(each, 256) for each in (queries, listed)), strict=True):
            exact = _as_float64(part)
            candidates = _as_float64(self._tokens[indices])
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
            rows.append(self._nearest(torch.addmm(self._norms, exact, context.T, alpha=-2), exact))
        return torch.cat(rows).to(queries.device)

    def _nearest(self, distances: Tensor, queries: Tensor) -> Tensor:
        """Return ``(B,k)`` indices of the smallest of ``(B,M)`` float64; those that tie at the k-th place by index."""
        k, tolerance = self._k, self._rounding(queries)
        nearest = distances.topk(min(k + 1, distances.shape[1]), dim=1, largest=False)
        indices, limit = nearest.indices[:, :k], nearest.values[:, k - 1 : k]
        tied = (nearest.values[:, k:] <= limit + tolerance).any(1).nonzero().squeeze(1)
        if len(tied):
            rows, limit = distances[tied], limit[tied]
            rank = (rows >= limit - tolerance).to(torch.int8) + (rows > limit + tolerance).to(torch.int8)
            indices[tied] = rank.sort(dim=1, stable=True).indices[:, :k]  # surely nearer, tied, farther
        return indices

    def _rounding(self, queries: Tensor) -> float:
        """Return by how much float64 rounding can change a distance."""
        largest = max(float(queries.square().sum(1).max()), self._largest)
        return 4 * queries.shape[1] * torch.finfo(torch.float64).eps * largest


def _as_float64(tokens: Tensor) -> Tensor:
    """Return ``tokens`` in float64; on the CPU where the device has no such type (MPS)."""
    return (tokens.cpu() if tokens.device.type == "mps" else tokens).double()


def _multiplies_exactly(device: torch.device) -> bool:
    """Tell whether float32 products are computed in float32, and not in a shorter type for speed."""
    try:
        shortened = device.type == "cuda" and torch.backends.cuda.matmul.allow_tf32
        return not shortened and torch.get_float32_matmul_precision() == "highest"
    except RuntimeError:  # set in torch's newer way, which the older cannot tell
        return False
