"""Hyperparameters of what is done with results, and of baselines; each with its source.

What is done: corrections, instances, scene files. "measured" stands for the six DAVIS clips of
`benchmarks/corrections.py` with the bundled model, "chosen" for a value of ours that no measurement backs. How masks
are finished is what the user asks for: `masks.Finish`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from ..backbones.protocol import Backbone
from ..config.settings import Settings
from ..method.features import extract_window_features
from ..method.frames import FrameSource
from ..method.pipeline import WindowResult
from ..method.windows import split_spans
from ..regions.labels import list_regions
from ..types import VOID, Grid, InputError, LabelMaps, Progress, no_progress


@dataclass(frozen=True)
class LabelPropagationConfig:
    """Label propagation, a baseline, as DIFT (Tang et al. 2023): settings of its README for DAVIS, Stable Diffusion."""

    num_neighbors: int = 15
    """Source cells that vote on a cell."""
    num_recent: int = 28
    """Frames before the current one that are sources, beside the first frame."""
    radius: int = 15
    """Cells, along a side, that a source may lie away in frames other than the first."""
    temperature: float = 0.2
    """Divides cosine similarities before the softmax."""


def propagate_anchor(
    backbone: Backbone,
    source: FrameSource,
    settings: Settings,
    *,
    reference: Tensor | None,
    progress: Progress = no_progress,
) -> Iterator[WindowResult]:
    """Propagate the labels of the first frame: each cell takes the softmax-weighted labels of its most similar cells.

    The sources of a frame are the first frame, with its true labels, and the recent frames, with their soft labels.
    This baseline is given the true shapes of the first frame, the paper's protocol only their names. Features are the
    method's own, so that the two differ in how labels are propagated, not in what they see.

    Args:
        backbone: the diffusion model.
        source: the frames.
        settings: frame size, sampling, features and window length.
        reference: ``(H,W)`` labels of the first frame, 255 = void, which is not propagated.
        progress: called as ``("features", done, total)`` in frames.

    Yields:
        The label maps of each window, in order.

    Raises:
        InputError: no frames, or no labels of the first frame.
    """
    if reference is None or bool((reference == VOID).all()):
        raise InputError("`reference` must label the first frame, but it does not. Choose a clip with a first mask.")
    regions = list_regions(reference[reference != VOID])
    labels = torch.tensor([region.label for region in regions])
    memory: PropagationMemory | None = None
    for span in split_spans(source.num_frames, settings):
        features = extract_window_features(backbone, source, span, settings, progress).kept()
        maps = []
        for tokens in F.normalize(features.queries, dim=-1):
            if memory is None:
                soft = reduce_labels(reference, labels, features.grid)
                memory = PropagationMemory(tokens, soft, features.grid)
            else:
                soft = memory.propagate(tokens)
                memory.remember(tokens, soft)
            maps.append(labels[enlarge_shares(soft, features.grid, features.frame_size)].to(torch.uint8))
        yield WindowResult(span.kept, LabelMaps(torch.stack(maps), regions))


def reduce_labels(reference: Tensor, labels: Tensor, grid: Grid) -> Tensor:
    """Return the share ``(N,K)`` of each label in the pixels of each cell; void pixels count for no label."""
    masks = (reference[None] == labels[:, None, None]).float()
    return F.adaptive_avg_pool2d(masks, (grid.h, grid.w)).flatten(1).T  # (K,h,w) -> (N,K)


def enlarge_shares(shares: Tensor, grid: Grid, size: tuple[int, int]) -> Tensor:
    """Return the index ``(H,W)`` of the largest of shares ``(N,K)`` enlarged bilinearly; ties to the smallest."""
    planes = shares.T.reshape(1, -1, grid.h, grid.w)  # (N,K) -> (1,K,h,w)
    return F.interpolate(planes, size, mode="bilinear", align_corners=False)[0].argmax(0)


class PropagationMemory:
    """Unit tokens ``(N,C)`` and soft labels ``(N,K)`` of the first and the recent frames."""

    def __init__(
        self, tokens: Tensor, shares: Tensor, grid: Grid, config: LabelPropagationConfig | None = None
    ) -> None:
        self._first_tokens, self._first_shares = tokens, shares
        self._config = config or LabelPropagationConfig()
        self._recent: deque[tuple[Tensor, Tensor]] = deque(maxlen=self._config.num_recent)
        rows = torch.arange(grid.num_tokens) // grid.w
        columns = torch.arange(grid.num_tokens) % grid.w
        apart = torch.maximum((rows[:, None] - rows).abs(), (columns[:, None] - columns).abs())
        self._far = apart > self._config.radius

    def propagate(self, tokens: Tensor) -> Tensor:
        """Return soft labels ``(N,K)`` of a frame with unit tokens ``(N,C)``."""
        similar = [tokens @ self._first_tokens.T]
        similar += [(tokens @ other.T).masked_fill(self._far, -torch.inf) for other, _ in self._recent]
        shares = torch.cat([self._first_shares, *(soft for _, soft in self._recent)])
        best = torch.cat(similar, dim=1).topk(min(self._config.num_neighbors, len(shares)), dim=1)
        weights = (best.values / self._config.temperature).softmax(1)
        return (weights[..., None] * shares[best.indices]).sum(1)

    def remember(self, tokens: Tensor, shares: Tensor) -> None:
        """Add a frame; the oldest recent one leaves."""
        self._recent.append((tokens, shares))
