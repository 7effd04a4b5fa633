"""Coarse maps enlarged without the model: nearest, bilinear, or along the edges of the picture (ours)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from ..backbones.memory import find_budget
from ..config.parts import EnlargingConfig
from ..regions.cutting import group_leaves
from ..types import MAX_LABEL, Features, InputError, LabelMaps, Progress, list_labels, no_progress
from .colors import ColorGuidedFilter
from .dense import find_dense_leaves, find_dense_winners
from .guided import GPU_BAND, BilinearFilter, GuidedFilter
from .neighbors import multiplies_exactly
from .patches import Patch, join_patches
from .winners import find_winners


def enlarge_maps(
    coarse: LabelMaps, features: Features, config: EnlargingConfig, progress: Progress = no_progress
) -> LabelMaps:
    """Return coarse maps enlarged without the model, and their leaves; ``features`` are of the same frames."""
    if config.method == "bilinear":
        return enlarge_bilinear(coarse, progress)
    make_filter, members = _guide(coarse, features, config), _list_members(coarse)
    maps = []
    for index in range(len(coarse.maps)):
        guided = make_filter(index)
        if _takes_all(guided):
            maps.append(_find_densely(coarse, index, guided, config.own_share))
        else:
            answers = list(_filter_frame(coarse, index, members, guided.filter_picture, config.own_share))
            maps.append(find_winners(answers, guided.size, guided.to_frame))
        progress("upsampling", index + 1, len(coarse.maps))
    if coarse.leaves is None:  # then each label is its only leaf
        return LabelMaps(torch.stack(maps), coarse.regions, coarse.frame_size)
    return group_leaves(torch.stack(maps), coarse.leaves.tree, coarse.leaves.owners, coarse.regions, coarse.frame_size)


def enlarge_bilinear(coarse: LabelMaps, progress: Progress = no_progress) -> LabelMaps:
    """Enlarge coarse maps, and their leaves: bilinear per label, the largest wins, ties to the smallest label.

    ``progress`` is called with stage ``upsampling`` in frames.
    """
    maps = torch.zeros(coarse.num_frames, *coarse.frame_size, dtype=torch.uint8)
    for number, (frame, chosen) in enumerate(zip(coarse.maps.cpu(), maps, strict=True), 1):
        best = torch.zeros(coarse.frame_size)
        for label in list_labels(coarse.regions):
            mask = (frame == label).float()[None, None]
            score = F.interpolate(mask, coarse.frame_size, mode="bilinear", align_corners=False)[0, 0]
            chosen[score > best] = label
            best = torch.maximum(best, score)
        progress("upsampling", number, len(maps))
    return add_leaves(LabelMaps(maps, coarse.regions), coarse)


def add_leaves(
    full: LabelMaps, coarse: LabelMaps, features: Features | None = None, config: EnlargingConfig | None = None
) -> LabelMaps:
    """Return full label maps with the leaves of the coarse ones, if these have any: the strongest of its region.

    Leaves are enlarged along the edges of the pictures that ``features`` hold, bilinearly without them.
    """
    if coarse.leaves is None:
        return full
    guide = _guide(coarse, features, config) if features and config else None
    interpolate, members, owners = _interpolate(coarse), _list_members(coarse), coarse.leaves.owners
    share = config.own_share if config else 1.0
    first = {owner: leaf for leaf, owner in reversed(list(enumerate(owners)))}
    table = torch.tensor([first.get(label, 0) for label in range(MAX_LABEL + 1)], dtype=torch.uint8)
    maps = []
    for index, labels in enumerate(full.maps):
        leaves, guided = table[labels.long()], guide(index) if guide else None
        if guided and _takes_all(guided):
            found = _find_densely(coarse, index, guided, share, labels)
            torch.where(torch.tensor(owners)[found.long()] == labels, found, leaves, out=leaves)
        else:
            enlarge = guided.filter if guided else interpolate
            for label, patches in _filter_frame(coarse, index, members, enlarge, share):
                area, which = join_patches(patches)
                torch.where(labels[area] == label, which, leaves[area], out=leaves[area])
        maps.append(leaves)
    made_of = coarse.leaves._replace(maps=torch.stack(maps), votes=None)
    return LabelMaps(full.maps, full.regions, full.frame_size, made_of)


def _takes_all(guided: GuidedFilter) -> bool:
    """Tell whether all answers are computed, as a GPU does best, and not only those that are not 0."""
    return guided.device.type != "cpu"


def _find_densely(
    coarse: LabelMaps, index: int, guided: GuidedFilter, own_share: float, labels: Tensor | None = None
) -> Tensor:
    """Return the strongest leaf of the strongest label at each pixel of a frame, or of the given one, ``(H,W)`` uint8.

    At pixels whose label has no leaf in the frame any leaf stands.
    """
    kinds, masks = _list_masks(coarse, index, own_share)
    answers = guided.answer(masks)
    listed = [coarse.leaves.owners[leaf] for leaf in kinds] if coarse.leaves else kinds
    owners = torch.tensor(listed, device=answers.device)
    if labels is None:
        labels = find_dense_winners(answers, owners, guided.to_frame)
    found = find_dense_leaves(answers, owners, labels.to(answers.device), guided.to_frame)
    return torch.tensor(kinds, dtype=torch.uint8)[found.cpu()]


def enlarge_nearest(cells: Tensor, size: tuple[int, int]) -> Tensor:
    """Return labels ``(...,h,w)`` enlarged to ``size`` without interpolation: each pixel has that of its cell."""
    rows, columns = (_find_nearest(*sides).to(cells.device) for sides in zip(cells.shape[-2:], size, strict=True))
    return cells.index_select(-2, rows).index_select(-1, columns)


def _find_nearest(size: int, new: int) -> Tensor:
    """Return for ``new`` points the nearest of ``size`` over the same length, ``(new,)`` int64."""
    return F.interpolate(torch.arange(size).double()[None, None], new, mode="nearest-exact")[0, 0].long()


Filter = Callable[[Tensor], list[Patch]]
"""Enlarges masks ``(n,h,w)`` of a frame, in [0, 1] and none 0 everywhere, to the size of the frame."""


def _guide(coarse: LabelMaps, features: Features, config: EnlargingConfig) -> Callable[[int], GuidedFilter]:
    """Return what makes the guided filter of each frame; leaves alone, not whole regions, have colors of their own."""
    pictures, grid = features.pictures, (features.grid.h, features.grid.w)
    if pictures is None:
        raise InputError("`features` must hold the pictures for guided upsampling. Extract the features again.")
    kind = ColorGuidedFilter if coarse.leaves and config.color_spread else GuidedFilter
    num_masks = len(coarse.leaves.owners if coarse.leaves else coarse.regions)
    device = _choose_device(torch.device(features.device), pictures.shape[1] * pictures.shape[2], num_masks)
    return lambda index: kind(pictures[index].to(device), grid, coarse.frame_size, config)


def _choose_device(gpu: torch.device, pixels: int, num_masks: int) -> torch.device:
    """Return the GPU where it computes in float32 and has memory for answers and what is made of them, else the CPU."""
    if gpu.type == "cpu" or not multiplies_exactly(gpu):
        return torch.device("cpu")
    needed = (3 * pixels * num_masks + 6 * GPU_BAND) * torch.float32.itemsize
    return gpu if find_budget(gpu) >= needed else torch.device("cpu")


def _interpolate(coarse: LabelMaps) -> Filter:
    """Return the bilinear filter of each frame, which is the same for all."""
    size = coarse.maps.shape[1:]
    return BilinearFilter((int(size[0]), int(size[1])), coarse.frame_size).filter


def _list_members(coarse: LabelMaps) -> dict[int, list[int]]:
    """Return the leaves of each label, or the label itself where there are none; the smallest label first."""
    if coarse.leaves is None:
        return {label: [label] for label in sorted(list_labels(coarse.regions))}
    members: dict[int, list[int]] = {label: [] for label in sorted(set(coarse.leaves.owners))}
    for leaf, owner in enumerate(coarse.leaves.owners):
        members[owner].append(leaf)
    return members


def _filter_frame(
    coarse: LabelMaps, index: int, members: Mapping[int, list[int]], enlarge: Filter, own_share: float
) -> Iterable[tuple[int, list[tuple[int, Patch]]]]:
    """Yield each label that a frame holds, and its leaves there with their answers."""
    kinds, masks = _list_masks(coarse, index, own_share)
    enlarged = dict(zip(kinds, enlarge(masks), strict=True))
    for label, leaves in members.items():
        patches = [(leaf, enlarged[leaf]) for leaf in leaves if leaf in enlarged]
        if patches:
            yield label, patches


def _list_masks(coarse: LabelMaps, index: int, own_share: float) -> tuple[list[int], Tensor]:
    """Return the leaves, or labels, of a frame, and how much each has of each cell, ``(n,h,w)`` float32.

    The leaf of the cell, which was refined, has ``own_share``; the votes for it, where they are known, have the rest:
    along the border of a region they say how near it is.
    """
    cells = (coarse.leaves.maps if coarse.leaves else coarse.maps)[index].cpu().long()
    kinds, number = torch.unique(cells, return_inverse=True)
    votes = None if coarse.leaves is None or coarse.leaves.votes is None else coarse.leaves.votes[index].cpu()
    if votes is None:
        return kinds.tolist(), F.one_hot(number).movedim(-1, 0).float()
    kinds, number = torch.unique(torch.cat([cells[..., None], votes], -1), return_inverse=True)
    shares = torch.zeros(len(kinds), *cells.shape)
    weight = torch.full(number.shape, (1 - own_share) / votes.shape[-1])
    weight[..., 0] = own_share
    shares.scatter_add_(0, number.movedim(-1, 0), weight.movedim(-1, 0).contiguous())
    there = shares.flatten(1).any(1)
    return kinds[there].tolist(), shares[there]
