"""The scene context: a nearest-neighbor classifier that is updated window by window (paper 4.1)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..config.parts import ContextConfig
from ..types import InputError, SettingError, require_finite, require_shape

_CHUNK_ELEMENTS = 2**23
"""Distances held at once: 64 MiB in float64, whatever the number of frames."""


@dataclass(frozen=True)
class SceneContext:
    """Labeled tokens by which the next window is labeled. Immutable: an update returns a new context.

    Attributes:
        tokens: ``(M,C)`` float32, normalized as `clustering.normalize_tokens` does.
        labels: ``(M,)`` int64.
        config: number of neighbors, and what is remembered.
        num_anchor: how many tokens at the front are the anchor frame's and stay in every update.
    """

    tokens: Tensor
    labels: Tensor
    config: ContextConfig
    num_anchor: int = 0

    def __post_init__(self) -> None:
        """Check shapes, values and the number of neighbors."""
        num_tokens = require_shape("tokens", self.tokens, "M C")["M"]
        require_shape("labels", self.labels, "M", M=num_tokens)
        require_finite("tokens", self.tokens)
        if not 1 <= self.config.num_neighbors <= num_tokens:
            limit = f"lie in [1, {num_tokens}], the number of tokens of the scene context"
            remedy = "Choose fewer neighbors or larger frames"
            raise SettingError("context.num_neighbors", limit, self.config.num_neighbors, remedy)

    @classmethod
    def from_anchor(cls, tokens: Tensor, labels: Tensor, config: ContextConfig) -> SceneContext:
        """Start from the anchor frame: normalized tokens ``(N,C)`` float32, labels ``(N,)`` int64."""
        num_anchor = tokens.shape[0] if config.memory == "anchor+previous" else 0
        return cls(tokens, labels.to(tokens.device), config, num_anchor)

    def predict(self, tokens: Tensor) -> Tensor:
        """Label normalized tokens ``(T,N,C)`` by the majority of their nearest neighbors (Euclidean), ``(T,N)`` int64.

        Ties between labels go to the smallest label, ties between distances to the token that came first.
        Distances are float64; the result does not depend on how they are chunked.
        """
        size = require_shape("tokens", tokens, "T N C", C=self.tokens.shape[1])
        require_finite("tokens", tokens)
        context = _as_float64(self.tokens)
        norms = context.square().sum(1)
        present, compact = torch.unique(self.labels, sorted=True, return_inverse=True)
        chunk = max(1, _CHUNK_ELEMENTS // len(context))
        predicted = []
        for part in torch.split(tokens.flatten(0, 1), chunk):
            queries = _as_float64(part.to(self.tokens.device))
            distances = torch.addmm(norms, queries, context.T, alpha=-2)  # less the query's own norm
            neighbors = self._neighbors(distances, _rounding(queries, norms)).to(compact.device)
            votes = _count_labels(compact[neighbors], len(present))
            predicted.append(present[votes.argmax(1)])
        return torch.cat(predicted).reshape(size["T"], size["N"])

    def updated(self, tokens: Tensor, labels: Tensor) -> SceneContext:
        """Return the context for the next window: this window's tokens and labels, behind the anchor's if remembered.

        Tokens are ``(T,N,C)`` or ``(M,C)``.
        Reference code: the previous window alone (``memory="previous"``), so a label that is absent from a whole
        window is lost.
        """
        flat = tokens.reshape(-1, tokens.shape[-1]).to(self.tokens.device)
        flat_labels = labels.reshape(-1).to(self.labels.device)
        kept, kept_labels = self.tokens[: self.num_anchor], self.labels[: self.num_anchor]
        return SceneContext(
            torch.cat([kept, flat]), torch.cat([kept_labels, flat_labels]), self.config, self.num_anchor
        )

    def to_tensors(self) -> dict[str, Tensor]:
        """Return the content as tensors, to be stored; `from_tensors` takes them back."""
        return {"tokens": self.tokens, "labels": self.labels, "num_anchor": torch.tensor(self.num_anchor)}

    @classmethod
    def from_tensors(cls, tensors: dict[str, Tensor], config: ContextConfig) -> SceneContext:
        """Rebuild a context from `to_tensors`."""
        missing = sorted({"tokens", "labels", "num_anchor"} - tensors.keys())
        if missing:
            raise InputError(f"`tensors` must hold {', '.join(missing)}, but got {sorted(tensors)}. Start anew.")
        return cls(tensors["tokens"], tensors["labels"], config, int(tensors["num_anchor"]))

    def _neighbors(self, distances: Tensor, tolerance: float) -> Tensor:
        """Return ``(B,k)`` indices of the smallest of ``(B,M)``; those that tie at the k-th place by index."""
        k = self.config.num_neighbors
        nearest = distances.topk(min(k + 1, distances.shape[1]), dim=1, largest=False)
        indices, limit = nearest.indices[:, :k], nearest.values[:, k - 1 : k]
        tied = (nearest.values[:, k:] <= limit + tolerance).any(1).nonzero().squeeze(1)
        if len(tied):
            rows, limit = distances[tied], limit[tied]
            rank = (rows >= limit - tolerance).to(torch.int8) + (rows > limit + tolerance).to(torch.int8)
            indices[tied] = rank.sort(dim=1, stable=True).indices[:, :k]  # surely nearer, tied, farther
        return indices


def _as_float64(tokens: Tensor) -> Tensor:
    """Return ``tokens`` in float64; on the CPU where the device has no such type (MPS)."""
    return (tokens.cpu() if tokens.device.type == "mps" else tokens).double()


def _rounding(queries: Tensor, norms: Tensor) -> float:
    """Return by how much float64 rounding can change a distance, squared norms being ``norms``."""
    largest = max(float(queries.square().sum(1).max()), float(norms.max()))
    return 4 * queries.shape[1] * torch.finfo(torch.float64).eps * largest


def _count_labels(labels: Tensor, num_labels: int) -> Tensor:
    """Count each label in each row: ``(B,k)`` int64 to ``(B,num_labels)`` int64."""
    counts = labels.new_zeros(len(labels), num_labels)
    return counts.scatter_add_(1, labels, torch.ones_like(labels))
