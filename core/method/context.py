"""The scene context: a nearest-neighbor classifier that is updated window by window (paper 4.1)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..config.parts import ContextConfig
from ..leaves import LaterCells
from ..types import InputError, SettingError, require_finite, require_shape
from .neighbors import NeighborSearch

MAX_TOKENS = 2**17
"""Tokens of a window that are remembered at most, so that the time of a frame grows with its size, not its square.

A window of 14 frames has 20 384 at 832x448, and 114 240 at 1920x1088.
"""
_VOTERS = 2**15
"""Cells whose votes are counted at once."""


@dataclass(frozen=True)
class SceneContext:
    """Labeled tokens by which the next window is labeled. Immutable: an update returns a new context.

    Attributes:
        tokens: ``(M,C)`` float32, normalized as `tokens.make_tokens` does.
        labels: ``(M,)`` int64.
        config: number of neighbors, and what is remembered.
        num_anchor: how many tokens at the front stay in every update: cells of leaves that the anchor frame lacks, and
            the anchor frame's own if it is remembered.
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
    def from_anchor(
        cls, tokens: Tensor, labels: Tensor, config: ContextConfig, later: LaterCells | None = None
    ) -> SceneContext:
        """Start from the anchor frame: normalized tokens ``(N,C)`` float32, labels ``(N,)`` int64.

        ``later`` are cells of leaves that it lacks: they stay whatever is remembered, since nothing else tells of them
        before they come.
        """
        num_anchor = 0
        if later is not None:
            num_anchor = len(later.leaves)
            tokens, labels = torch.cat([later.tokens.to(tokens), tokens]), torch.cat([later.leaves, labels])
        if config.memory == "anchor+previous":
            num_anchor = len(tokens)
        return cls(tokens, labels.to(tokens.device), config, num_anchor)

    def predict(self, tokens: Tensor) -> Tensor:
        """Label normalized tokens ``(T,N,C)`` by the majority of their nearest neighbors (Euclidean), ``(T,N)`` int64.

        Ties between labels go to the smallest label, ties between distances to the token that came first.
        The result is that of float64 distances, however they are chunked.
        """
        return self.vote(self.find_neighbors(tokens))

    def find_neighbors(self, tokens: Tensor, device: str | None = None) -> Tensor:
        """Return for normalized tokens ``(T,N,C)`` their nearest neighbors, ``(T,N,k)`` int32, whatever the labels.

        ``device`` is where distances are computed, if not where the tokens of the context are.
        """
        size = require_shape("tokens", tokens, "T N C", C=self.tokens.shape[1])
        require_finite("tokens", tokens)
        search = NeighborSearch(self.tokens.to(device or self.tokens.device), self.config.num_neighbors)
        return search.find(tokens.flatten(0, 1)).reshape(size["T"], size["N"], -1).to(self.labels.device)

    def show_votes(self, neighbors: Tensor) -> Tensor:
        """Return the labels of the neighbors ``(T,N,k)`` that `find_neighbors` found, ``(T,N,k)`` uint8."""
        return self.labels.to(torch.uint8)[neighbors.long()]

    def vote(self, neighbors: Tensor) -> Tensor:
        """Return the label of most of the neighbors ``(T,N,k)`` that `find_neighbors` found, ``(T,N)`` int64."""
        present, compact = torch.unique(self.labels, sorted=True, return_inverse=True)
        predicted = [
            present[_count_labels(compact[part.long()], len(present)).argmax(1)]
            for part in torch.split(neighbors.flatten(0, 1), _VOTERS)
        ]
        return torch.cat(predicted).reshape(neighbors.shape[:2])

    def updated(self, tokens: Tensor, labels: Tensor) -> SceneContext:
        """Return the context for the next window: this window's tokens and labels, behind those that stay.

        Tokens are ``(T,N,C)`` or ``(M,C)``; of more than `MAX_TOKENS` the last ones are remembered.
        Reference code: the previous window alone (``memory="previous"``), so a label that is absent from a whole
        window is lost.
        """
        flat = tokens.reshape(-1, tokens.shape[-1])[-MAX_TOKENS:].to(self.tokens.device)
        flat_labels = labels.reshape(-1)[-MAX_TOKENS:].to(self.labels.device)
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


class NeighborMemory:
    """What scans over one clip find, kept for the next: labels decide nothing about which tokens are neighbors.

    It serves scans with the same windows and the same tokens in their contexts, one after the other.
    """

    def __init__(self) -> None:
        self._found: dict[int, Tensor] = {}

    def find(self, step: int, context: SceneContext, tokens: Tensor, device: str) -> Tensor:
        """Return what ``context.find_neighbors(tokens, device)`` gives at this step of every scan."""
        if step not in self._found:
            self._found[step] = context.find_neighbors(tokens, device)
        return self._found[step]

    @property
    def num_bytes(self) -> int:
        """Size of what is kept."""
        return sum(found.nbytes for found in self._found.values())


def _count_labels(labels: Tensor, num_labels: int) -> Tensor:
    """Count each label in each row: ``(B,k)`` int64 to ``(B,num_labels)`` int64."""
    counts = labels.new_zeros(len(labels), num_labels)
    return counts.scatter_add_(1, labels, torch.ones_like(labels))
