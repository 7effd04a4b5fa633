"""Every hyperparameter in one place, each with its source; `config` puts them together and makes the presets.

Sources: "paper" is the hyperparameter table A.4 and the section named; "code" is the published reference code.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ..types import MAX_LABEL

ATTENTION_BLOCKS = tuple(range(3, 12))
"""Decoder blocks of SD 1.x/2.x and SVD that hold attention."""
MAX_AUTOMATIC_CLUSTERS = 64
"""Most clusters that are chosen automatically: more are no longer told apart by color (ours, chosen)."""
SHARED_PASS_MARGIN = 2
"""Cells between parts of different regions that share a modulated pass, at least (ours, chosen)."""
FEATURE_BLOCKS = (6, 7, 8)
"""Those of them whose queries lie on the coarse grid, with one number of channels (paper 4.1)."""


@dataclass(frozen=True)
class FrameConfig:
    """How frames are brought to a size that the model takes."""

    max_side: int = 0
    """Longer side in pixels that frames are reduced to before processing; 0 keeps them (code)."""
    rounding: Literal["nearest", "floor"] = "nearest"
    """How a side is rounded to a multiple of 64: ``floor`` is the code's."""


@dataclass(frozen=True)
class SamplingConfig:
    """Inversion by added noise and deterministic Euler sampling."""

    num_steps: int = 25
    """Sampling steps of the whole schedule (paper A.4)."""
    guidance_scale: float = 5.0
    """Classifier-free guidance scale (code; the paper does not mention it). With SVD that of a window's last frame;
    it rises linearly from 1 in the first."""
    seed: int = 1
    """Seed of noise and K-means (code)."""
    noise: Literal["frame", "window"] = "frame"
    """``frame``: noise depends on seed and frame number alone; ``window``: restarted in each window (code)."""
    posterior: Literal["mode", "sample"] = "mode"
    """Latent taken from the encoder's distribution; ``sample`` is the code's."""


@dataclass(frozen=True)
class FeatureConfig:
    """Where features are read (paper 4.1)."""

    step: int = 24
    """Step whose queries are the features: 25 in the paper's table, which counts from one."""
    blocks: tuple[int, ...] = (6, 7, 8)
    """Blocks of 6 to 8 whose queries are averaged (paper A.4); one block alone turns feature aggregation off."""
    matching_block: int = 7
    """Block of the correspondences, 6 to 8 (paper A.4)."""


@dataclass(frozen=True)
class WindowConfig:
    """Windows of frames between two updates of the scene context (the paper's "batches")."""

    length: int = 14
    """Frames of a window (paper 5.1)."""
    tail: Literal["short", "overlap"] = "short"
    """``short``: the last window holds the frames that remain; ``overlap``: shifted back, overwriting (code)."""


@dataclass(frozen=True)
class ClusterConfig:
    """K-means on the first window (paper 4.1)."""

    num_clusters: int = 20
    """Clusters K (paper A.3: VSPW and CamVid 20, Cityscapes 30); 0 chooses as many as `granularity` asks for."""
    num_restarts: int = 10
    """Runs of K-means of which the best is kept (code)."""
    fit_frames: Literal["anchor", "window"] = "window"
    """Frames K-means sees: the anchor frame (paper) or the whole first window (code)."""
    void_votes: bool = False
    """Whether void pixels of a reference label map vote on the name of a cluster (code)."""
    granularity: float = 0.55
    """With 0 clusters: share of the variance of the anchor's features that they explain, with as few as will do."""


@dataclass(frozen=True)
class ContextConfig:
    """The scene context: a nearest-neighbor classifier updated window by window (paper 4.1)."""

    num_neighbors: int = 4
    """Neighbors that vote (code)."""
    memory: Literal["previous", "anchor+previous"] = "previous"
    """Tokens it holds: the previous window (paper, code), or those and the anchor frame."""


@dataclass(frozen=True)
class RefinementConfig:
    """Correspondence-based refinement (paper 4.2, Eq. 3-4)."""

    enabled: bool = True
    """Off: the maps that the scene context predicts are kept."""
    spatial_threshold: int = 1
    """Cells that a match may move by between two frames (paper A.4)."""
    matching: Literal["pairwise", "anchored"] = "pairwise"
    """Consecutive frames (paper), or blended with the similarity to the window's first frame (code)."""
    one_sided: bool = False
    """Apply the threshold to moves down and right only (a fault of the code)."""
    bad_match: Literal["split", "drop"] = "split"
    """A match beyond the threshold ends the track there, or drops the whole track (code)."""
    voting: Literal["cell", "track"] = "cell"
    """``cell``: each cell takes the majority of all tracks through it; ``track``: tracks of the first frame overwrite
    cells in raster order (code)."""


@dataclass(frozen=True)
class ModulationConfig:
    """Masked modulation (paper 4.3, Eq. 2 and 5)."""

    enabled: bool = True
    """Off: coarse maps are enlarged bilinearly per label instead."""
    step: int = 22
    """Modulated step, at whose noise level sampling starts (code; the paper's table says 20)."""
    block: int = 7
    """Modulated block (paper A.4)."""
    attention: Literal["cross", "self"] = "cross"
    """Attention whose output is modulated (paper A.4)."""
    factor: float = 50.0
    """Modulation factor, lambda (paper A.4; 10 without latent blending, as in EmerDiff)."""
    inject: bool = True
    """Replace queries and keys of blocks 3..11 by those of the unmodulated pass (code)."""
    blending: Literal["all", "first", "none"] = "all"
    """Latent blending (Eq. 5) after each step (paper), the modulated one and the next (code), or none."""
    steps: Literal["all", "first"] = "all"
    """Steps of a modulated pass: all to the end (paper), or the modulated one, whose prediction of the clean latents is
    decoded (ours, quality `balanced`)."""
    shared: bool = False
    """Modulate parts of regions that lie apart in one pass (ours, quality `balanced`)."""


@dataclass(frozen=True)
class DifferenceConfig:
    """Difference maps and their filtering (paper 4.3, Eq. 6)."""

    filter_strength: float = 0.7
    """Weight of the difference outside the mask (paper A.4); 1 turns filtering off."""
    precision: Literal["float", "8bit"] = "float"
    """``float``: exact differences; ``8bit``: squares wrap at 256, maps pass through JPEG (faults of the code)."""
    normalize: bool = True
    """Divide each map by its maximum (code)."""
    blur_size: int = 5
    """Gaussian kernel size, pixels (code)."""
    blur_sigma: float = 3.0
    """Gaussian standard deviation, pixels (code)."""


@dataclass(frozen=True)
class SceneConfig:
    """What the anchor frame lacks: unseen things and scene cuts (ours; failure cases of the paper, A.5).

    Similarities are cosines of the bundled model's features, measured on eleven clips and their combinations.
    """

    new_regions: bool = False
    """Whether things that enter later become regions."""
    cuts: bool = False
    """Whether the scene context starts anew at a cut; known names carry over."""
    new_similarity: float = 0.78
    """Below it, cells resemble nothing known: entering things have 0.70 to 0.77, others hardly ever less than 0.80."""
    new_margin: float = 0.03
    """What is added to it for cells beside such ones."""
    sure_similarity: float = 0.86
    """From it on a cell is surely known, and is compared with in the next frame."""
    min_cells: int = 4
    """Cells of a new thing in a frame, at least."""
    min_frames: int = 3
    """Frames of a window in which it has them, at least."""
    cut_similarity: float = 0.81
    """Median below which a frame begins another scene: 0.83 and more within clips, up to 0.79 from clip to clip."""
    known_similarity: float = 0.81
    """Median from which on a cluster after a cut is something known."""
    remembered_tokens: int = 64
    """Tokens of each label from before a cut that stay in the scene context."""


@dataclass(frozen=True)
class EnlargingConfig:
    """Enlarging of coarse maps where modulation is off (ours)."""

    method: Literal["bilinear", "guided"] = "bilinear"
    """``bilinear`` per region, or pulled to the edges of the picture by a guided filter (He et al. 2013)."""
    guided_radius: int = 16
    """Radius of the guided filter, pixels: a coarse cell."""
    guided_epsilon: float = 1e-4
    """Variance of colors in [0, 1] that counts as an edge."""
    guided_subsample: int = 4
    """Factor by which the filter's coefficients are computed smaller (He & Sun 2015)."""


@dataclass(frozen=True)
class VideoConfig:
    """What Stable Video Diffusion has and an image model has not."""

    frames: int = 0
    """Frames that a video model sees as one sample: 14 for SVD, 25 for SVD-XT; 0 for image models."""
    fps_id: int = 14
    """Frames per second less one, as SVD is told (code)."""
    motion_bucket: int = 127
    """How much moves, as SVD is told (code)."""
    augmentation: float = 0.02
    """Noise on the frame that conditions a window, in units of half the range of a pixel (code)."""
    query_layer: Literal["spatial", "temporal"] = "spatial"
    """Self-attention whose queries are the features; ``temporal`` ones are unstable (paper 1, A.6), to look at only."""
    injected: Literal["all", "temporal"] = "all"
    """Self-attentions with injected queries and keys: spatial and temporal (paper A.4), or the latter (code)."""


LIMITS: dict[str, tuple[float, float]] = {
    "frame.max_side": (0, 16_384),
    "sampling.num_steps": (1, 1000),
    "sampling.guidance_scale": (0, 1000),
    "sampling.seed": (0, 2**32 - 1),
    "window.length": (1, 10_000),
    "cluster.num_clusters": (0, MAX_LABEL),
    "cluster.num_restarts": (1, 1000),
    "cluster.granularity": (0, 1),
    "context.num_neighbors": (1, 1000),
    "refinement.spatial_threshold": (0, 1000),
    "modulation.factor": (0, 10_000),
    "difference.filter_strength": (0, 1),
    "difference.blur_size": (1, 99),
    "difference.blur_sigma": (0.01, 1000),
    "scene.new_similarity": (-1, 1),
    "scene.new_margin": (0, 2),
    "scene.sure_similarity": (-1, 1),
    "scene.min_cells": (1, 100_000),
    "scene.min_frames": (1, 10_000),
    "scene.cut_similarity": (-1, 1),
    "scene.known_similarity": (-1, 1),
    "scene.remembered_tokens": (1, 100_000),
    "enlarging.guided_radius": (1, 1000),
    "enlarging.guided_epsilon": (1e-8, 1),
    "enlarging.guided_subsample": (1, 16),
    "video.frames": (0, 1000),
    "video.fps_id": (0, 1000),
    "video.motion_bucket": (0, 1000),
    "video.augmentation": (0, 10),
}
"""Both ends belong to the range. Those of steps and blocks depend on more and are checked in `config.Settings`."""
