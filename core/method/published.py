"""What only the paper's published code does, faults included, for comparison: the variant ``published``.

The other files hold the paper's method, and turn here where `Settings.variant` says so. Of each function the first
sentence says what it does instead of its counterpart. Needs Pillow.
"""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import normalize, one_hot

from ..backbones.protocol import SIDE_MULTIPLE
from ..config.parts import DifferenceConfig
from ..types import Grid, LabelMaps, list_labels, require_finite
from .correspondence import match_features, measure_moves
from .differences import blur_maps, filter_maps

_TINY = 1e-5
"""Added to each maximum before dividing by it."""
_JPEG_QUALITY = 75
"""Pillow's default."""
_WEIGHT_ONE = 2048
"""OpenCV resizes with weights in units of 1/2048."""
_BLENDED_STEPS = 2
"""Steps of a modulated pass of an image model, from the modulated one on, after which latents are blended."""


def round_side(side: float) -> int:
    """Round a side in pixels down to a multiple of 64, not to the nearest."""
    return int(side) // SIDE_MULTIPLE * SIDE_MULTIPLE


def split_windows(num_frames: int, length: int) -> list[range]:
    """Return ``num_frames // length + 1`` windows, the last of which is shifted back to full length.

    It overlaps the one before, whose frames it overwrites; when the length divides the number of frames it repeats the
    whole last window. A clip shorter than a window, on which that code fails, is one short window.

    >>> split_windows(14, 6), split_windows(12, 6)
    ([range(0, 6), range(6, 12), range(8, 14)], [range(0, 6), range(6, 12), range(6, 12)])
    """
    whole = [range(start, start + length) for start in range(0, num_frames - length + 1, length)]
    return [*whole, range(max(0, num_frames - length), num_frames)]


def draw_window_noise(seed: int, shape: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Draw the noise of one window on a CPU: two draws of one generator, which is restarted in each window.

    Those of the autoencoder's posterior, which is sampled, and of the inversion, both float32 of ``shape``
    ``(T,4,H/8,W/8)``.
    """
    generator = torch.Generator().manual_seed(seed)
    posterior_noise = torch.randn(tuple(shape), generator=generator)
    return posterior_noise, torch.randn(tuple(shape), generator=generator)


def draw_video_window_noise(seed: int, shape: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
    """Draw the noise of one window of SVD: `draw_window_noise` with a draw between.

    That one, ``(3,H,W)``, is for the frame that conditions the window.
    """
    generator = torch.Generator().manual_seed(seed)
    posterior_noise = torch.randn(tuple(shape), generator=generator)
    image_noise = torch.randn((3, 8 * shape[-2], 8 * shape[-1]), generator=generator)
    return posterior_noise, image_noise, torch.randn(tuple(shape), generator=generator)


def match_anchored(matching: Tensor) -> Tensor:
    """Match cells of ``(T,N,C)`` by similarity to the next frame blended with that to the first, ``(T-1,N)`` int64.

    ``argmax_c j/(j+1) cos(f_j(p), f_{j+1}(c)) + 1/(j+1) cos(f_j(p), f_0(c))`` instead of Eq. 3, hence the first hop
    always stays where it is.
    """
    unit = normalize(matching, dim=-1)
    # cosine is linear in the target, so blend targets instead of cosines
    targets = [(step * target + unit[0]) / (step + 1) for step, target in enumerate(unit[1:])]
    return match_features(unit[:-1], targets)


def within_one_side(matches: Tensor, grid: Grid, threshold: int) -> Tensor:
    """Compare the signed moves of ``(T-1,N)`` matches, so that moves up and left of any length pass."""
    down, right = measure_moves(matches, grid)
    return torch.maximum(down, right) <= threshold


def follow_matches(matches: Tensor) -> Tensor:
    """Return for each track, named by its cell in the first frame, its cell in each frame, ``(T,N)`` int64."""
    cells = [torch.arange(matches.shape[1], device=matches.device)]
    for match in matches:
        cells.append(match[cells[-1]])
    return torch.stack(cells)


def find_starts(grid: Grid) -> Tensor:
    """Return which cells of the first frame start a track, ``(N,)`` bool: by rounding not all do.

    Rows and columns are computed as ``int((i / h) * h)`` in float32, which at some sizes is one less than ``i``: there
    the row (column) before starts its tracks twice, which changes nothing, and this one starts none.

    >>> find_starts(Grid(44, 1)).logical_not().nonzero().flatten().tolist()
    [13, 26]
    """
    rows, columns = (torch.zeros(size, dtype=torch.bool) for size in grid)
    for started in rows, columns:
        index = torch.arange(len(started), dtype=torch.float32)
        started[(index / len(started) * len(started)).long()] = True
    return (rows[:, None] & columns).flatten()


def vote_by_track(labels: Tensor, matching: Tensor, grid: Grid, threshold: int) -> Tensor:
    """Write the majority label of each track of the first frame on all its cells, later tracks over earlier ones.

    As `correspondence.vote_by_cell`: ``(T,N)`` labels, ``(T,N,C)`` features. A track with a bad match anywhere is
    dropped. Ties go to the label that the track meets first. Cells that no track reaches keep their label.
    """
    matches = match_anchored(matching).to(labels.device)
    cells = follow_matches(matches)  # (T,N)
    good = within_one_side(matches, grid, threshold).gather(1, cells[:-1]).all(0)
    votes = good & find_starts(grid).to(labels.device)  # (N,)
    met = labels.gather(1, cells)  # (T,N)
    support = one_hot(met).sum(0).gather(1, met.T)  # (N,T): votes for the label met in each frame
    majority = met.gather(0, support.argmax(1)[None]).squeeze(0)  # (N,)
    order = torch.arange(cells.shape[1], device=cells.device).masked_fill(~votes, -1).expand_as(cells)
    last = torch.full_like(cells, -1).scatter_reduce_(1, cells, order, "amax")
    return torch.where(last >= 0, majority[last.clamp(min=0)], labels)


def blends_after(index: int, *, is_video: bool) -> bool:
    """Return whether latents are blended after a step, counted from the modulated one: with SVD after every one."""
    return is_video or index < _BLENDED_STEPS


def score_labels(
    plus: Tensor, minus: Tensor, masks: Tensor, frame_size: tuple[int, int], config: DifferenceConfig
) -> Tensor:
    """Score each pixel of each element by 8-bit differences, ``(B,*frame_size)`` float64 on the CPU, 0 or more.

    Of decodes ``(B,H,W,3)`` nominally in [0, 1] and coarse masks ``(B,h,w)``. Decodes are truncated to 8 bit and
    enlarged before they are compared, squared differences wrap at 256, maps are truncated and pass through JPEG.
    """
    return score_jpeg_maps(compute_jpeg_maps(plus, minus, frame_size, config), masks, config)


def make_initial_maps(coarse: LabelMaps, frame_size: tuple[int, int]) -> Tensor:
    """Return ``(T,*frame_size)`` uint8 of the lowest label of all, whether it occurs in the frame or not."""
    return torch.full((len(coarse.maps), *frame_size), min(list_labels(coarse.regions)), dtype=torch.uint8)


def compute_jpeg_maps(plus: Tensor, minus: Tensor, frame_size: tuple[int, int], config: DifferenceConfig) -> Tensor:
    """Return difference maps of decodes ``(B,H,W,3)`` as they are stored, ``(B,*frame_size)`` uint8 on the CPU."""
    difference = resize(quantize(plus), frame_size) - resize(quantize(minus), frame_size)  # wraps at 256
    squares = difference * difference  # wraps as well
    maps = blur_maps(squares.sum(-1, dtype=torch.int64).double().sqrt(), config)  # at most sqrt(3 * 255)
    return torch.stack([_through_jpeg(levels) for levels in maps.to(torch.uint8)])


def score_jpeg_maps(maps: Tensor, masks: Tensor, config: DifferenceConfig) -> Tensor:
    """Return scores ``(B,H,W)`` float64 of stored maps ``(B,H,W)`` uint8 and coarse masks ``(B,h,w)`` (Eq. 6)."""
    size = (int(maps.shape[1]), int(maps.shape[2]))
    scores = maps.double()
    if config.normalize:
        scores = scores / (scores.amax((1, 2), keepdim=True) + _TINY)
    if config.filter_strength == 1:
        return scores
    return filter_maps(
        scores, torch.stack([_enlarge_lanczos(mask, size) for mask in masks.cpu()]), config.filter_strength
    )


def quantize(frames: Tensor) -> Tensor:
    """Return frames, nominally in [0, 1], clamped and truncated to uint8, on the CPU; a NaN is refused."""
    values = frames.detach().cpu().float()
    require_finite("modulated pictures", values)
    return (values.clamp(0, 1) * 255).to(torch.uint8)


def resize(frames: Tensor, size: tuple[int, int]) -> Tensor:
    """Return 8-bit frames ``(B,H,W,3)`` as ``(B,*size,3)``, bilinearly in the fixed-point arithmetic of OpenCV.

    Sixteen bits are dropped from the product of each row before the rows are added, as `cv2.resize` does.
    """
    height, width = size
    if tuple(frames.shape[1:3]) == (height, width):
        return frames
    upper, lower, upper_weight, lower_weight = _weights(int(frames.shape[1]), height, clip_weights=False)
    left, right, left_weight, right_weight = _weights(int(frames.shape[2]), width, clip_weights=True)
    values = frames.long()
    rows = (values[:, :, left] * left_weight[:, None] + values[:, :, right] * right_weight[:, None]) >> 4
    top = rows[:, upper] * upper_weight[:, None, None] >> 16
    bottom = rows[:, lower] * lower_weight[:, None, None] >> 16
    return (top + bottom + 2 >> 2).to(torch.uint8)


def _weights(old: int, new: int, *, clip_weights: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return for each of ``new`` places two indices into ``old`` ones and their weights, ``(new,)`` int64.

    Beyond the outermost pixels both indices are the same; OpenCV then gives all weight to one (``clip_weights``) along
    a row but not down a column.
    """
    centers = ((torch.arange(new, dtype=torch.float64) + 0.5) * (old / new) - 0.5).float()
    first = centers.floor()
    fraction = centers - first
    if clip_weights:
        fraction[(first < 0) | (first >= old - 1)] = 0
    first = first.long()
    before, after = (torch.round(part * _WEIGHT_ONE).long() for part in (1 - fraction, fraction))
    return first.clamp(0, old - 1), (first + 1).clamp(0, old - 1), before, after


def _through_jpeg(levels: Tensor) -> Tensor:
    """Return ``(H,W)`` uint8 after writing and reading it as JPEG."""
    buffer = io.BytesIO()
    Image.fromarray(levels.numpy()).save(buffer, "JPEG", quality=_JPEG_QUALITY)
    return torch.from_numpy(np.array(Image.open(buffer)))


def _enlarge_lanczos(mask: Tensor, size: tuple[int, int]) -> Tensor:
    """Return a mask ``(h,w)`` enlarged to ``size`` with 8-bit precision, float64 in [0, 1]."""
    picture = Image.fromarray(mask.to(torch.uint8).mul(255).numpy())
    enlarged = picture.resize((size[1], size[0]), Image.Resampling.LANCZOS)
    return torch.from_numpy(np.array(enlarged, dtype=np.float64)) / 255
