"""Every hyperparameter in one place, each with its range, its text and its source; `settings` puts them together.

Sources: "paper" is the hyperparameter table A.4 and the section named; "code" is the published reference code; "ours"
is neither. Widgets, help, tables and errors are made of what stands here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from ..types import MAX_LABEL, SettingError
from .fields import Part, setting

Variant = Literal["paper", "published"]
"""Whose method it is: that of the paper's text, or that of its published code."""
ATTENTION_BLOCKS = tuple(range(3, 12))
"""Decoder blocks of SD 1.x/2.x and SVD that hold attention."""
LAYER_KINDS = ("query", "key", "cross_query", "output")
"""What a layer's name may end with: what of a transformer block is read."""
LAYER_NAME = rf"\d{{1,2}}\.\d{{1,2}}\.(?:{'|'.join(LAYER_KINDS)})|patch"
"""Names of layers; ``patch`` is what a vision model says of each of its patches."""
MAX_AUTOMATIC_CLUSTERS = 64
"""Most clusters that are chosen automatically: more are no longer told apart by color (ours, chosen)."""
SHARED_PASS_MARGIN = 2
"""Cells between parts of different regions that share a modulated pass, at least (ours, chosen)."""
FEATURE_BLOCKS = (6, 7, 8)
"""Those of them whose queries lie on the coarse grid, with one number of channels (paper 4.1)."""
XL_ATTENTION_BLOCKS = tuple(range(6))
"""Decoder blocks of SDXL that hold attention: 0..2 on cells of 32 pixels, 3..5 on cells of 16."""


@dataclass(frozen=True)
class SamplingConfig(Part):
    """Inversion by added noise and deterministic Euler sampling."""

    num_steps: int = setting(
        25, "Sampling steps of the whole schedule, of which only the last few run", "paper A.4", low=1, high=1000
    )
    guidance_scale: float = setting(
        5.0, "Classifier-free guidance between the prompt and none; with Stable Video Diffusion that of a window's "
        "last frame, to which it rises from 1 in the first", "code; the paper does not mention it", low=0, high=1000,
    )  # fmt: skip
    seed: int = setting(1, "Seed of noise and K-means", "code", low=0, high=2**32 - 1)
    noise: Literal["frame", "window", "shared", "none"] = setting(
        "none", "Noise that latents get before features are read: none, so that one call reads them; a map for each "
        "frame of the clip; the same maps in every window, as in the published code; or one map for all frames. "
        "Modulation has a map for each frame where it is none", "ours; frame in the paper",
    )  # fmt: skip


@dataclass(frozen=True)
class FeatureConfig(Part):
    """Where features are read (paper 4.1)."""

    step: int = setting(
        24, "Step at which features are read, counted from 0; the last one is best",
        "25 in paper A.4, which counts from 1", low=0, high=999,
    )  # fmt: skip
    blocks: tuple[int, ...] = setting(
        FEATURE_BLOCKS, "Decoder blocks whose features are averaged; one alone turns feature aggregation off",
        "paper A.4", low=FEATURE_BLOCKS[0], high=FEATURE_BLOCKS[-1],
        why="the blocks whose queries lie on the coarse grid",
    )  # fmt: skip
    matching_block: int = setting(
        7, "Decoder block whose features find the same spot in the next frame",
        "paper A.4", low=FEATURE_BLOCKS[0], high=FEATURE_BLOCKS[-1],
        why="the blocks whose queries lie on the coarse grid",
    )  # fmt: skip
    layers: tuple[str, ...] = setting(
        (), "Instead of blocks, layers whose features are joined, by name: 3.0.query is the self-attention's query of "
        "transformer block 0 of decoder block 3; other ends are key, cross_query and output. Only models whose layers "
        "have names take them, such as SDXL", "generic-diffusion-feature for SDXL: outputs of 0.5 and 0.7, cross-query "
        "of 3.0 at 1024 pixels",
    )  # fmt: skip
    matching_layers: tuple[str, ...] = setting(
        (), "Likewise instead of matching_block", "ours: those of SDXL's that lie on cells of 16 pixels"
    )

    def check(self) -> None:
        """Check each value, and that layers are named as layers are."""
        super().check()
        for key in ("layers", "matching_layers"):
            wrong = [name for name in getattr(self, key) if not re.fullmatch(LAYER_NAME, name)]
            if wrong or bool(self.layers) != bool(self.matching_layers):
                limit = f"name layers such as 3.0.query, whose ends are {', '.join(LAYER_KINDS)}"
                got = wrong or "layers without matching layers, or the reverse"
                raise SettingError(f"feature.{key}", limit, got, "Correct it")


@dataclass(frozen=True)
class WindowConfig(Part):
    """Windows of frames between two updates of the scene context (the paper's "batches")."""

    length: int = setting(
        14, "Frames that are labeled together before the memory moves on; with Stable Video Diffusion those that it "
        "sees together, 25 for SVD-XT", "paper 5.1", low=1, high=10_000,
    )  # fmt: skip


@dataclass(frozen=True)
class ClusterConfig(Part):
    """Regions of the anchor frame: K-means on the first window (paper 4.1), or a tree of smaller clusters (ours)."""

    num_clusters: int = setting(
        20, "Number of regions: few for a subject before a background, 20 for a whole scene; 0 chooses it by "
        "granularity", "K of paper A.3: VSPW and CamVid 20, Cityscapes 30", low=0, high=MAX_LABEL,
    )  # fmt: skip
    num_restarts: int = setting(
        10, "Only with the method kmeans: runs of K-means of which the best is kept", "code", low=1, high=1000
    )
    fit_frames: Literal["window", "anchor", "clip"] = setting(
        "window", "Frames that K-means looks at: all of the anchor frame's window, as in the published code, the "
        "anchor frame alone, as in the paper, or as many as a window has, spread over the clip, so that things that "
        "come later are regions too (clip, only with the method tree)",
    )  # fmt: skip
    granularity: float = setting(
        0.55, "Only with 0 clusters: share of the variety of the anchor frame that regions must explain. More gives "
        "more and smaller regions", "ours", low=0, high=1,
    )  # fmt: skip
    method: Literal["tree", "kmeans"] = setting(
        "tree", "tree: many small clusters, merged to as many regions as asked for, which can be changed after the "
        "run. kmeans: as many clusters as regions, as in the paper", "ours",
    )  # fmt: skip
    num_leaves: int = setting(
        100, "Only with the method tree: small clusters that are followed through the clip", "ours",
        low=1, high=MAX_LABEL - 1,
    )  # fmt: skip
    place: float = setting(
        0.3, "Weight of where a cell lies beside what it looks like, a share of the variance: 0 is the paper's, more "
        "makes regions compact", "ours", low=0, high=0.9,
    )  # fmt: skip
    motion: float = setting(
        0.0, "Weight of how much a cell moves against the camera in the anchor's window, likewise: 0.15 parts what "
        "moves from what it touches, even if both look alike; not with fit_frames clip", "ours", low=0, high=0.9,
    )  # fmt: skip
    named: Literal["leaves", "regions"] = setting(
        "leaves", "What a mask of the anchor frame names: each small cluster, which follows the mask closely, or each "
        "region, as the paper's tables do", "ours",
    )  # fmt: skip

    def check(self) -> None:
        """Check each value, and that only leaves are fitted on the clip: clusters that an anchor lacks have no name."""
        super().check()
        if self.fit_frames == "clip" and self.method != "tree":
            limit = f"be window or anchor with the method {self.method}"
            raise SettingError("cluster.fit_frames", limit, "clip", "Choose one of them, or the method tree")


@dataclass(frozen=True)
class ContextConfig(Part):
    """The scene context: a nearest-neighbor classifier updated window by window (paper 4.1)."""

    num_neighbors: int = setting(4, "Remembered cells that vote on the label of a cell", "code", low=1, high=1000)
    memory: Literal["previous", "anchor+previous"] = setting(
        "previous", "What is remembered: the window before, as in the paper, or that and the anchor frame, which "
        "brings back regions that were hidden for a while",
    )  # fmt: skip


@dataclass(frozen=True)
class RefinementConfig(Part):
    """Correspondence-based refinement (paper 4.2, Eq. 3-4)."""

    enabled: bool = setting(
        True, "Follow each cell through the frames of its window and let the majority decide its label, which removes "
        "flicker; off keeps what the scene context predicts", "paper 4.2",
    )  # fmt: skip
    spatial_threshold: int = setting(
        1, "Cells (of 16 pixels) that something may move by from frame to frame; more for fast motion", "paper A.4",
        low=0, high=1000,
    )  # fmt: skip


@dataclass(frozen=True)
class ModulationConfig(Part):
    """Masked modulation (paper 4.3, Eq. 2 and 5)."""

    enabled: bool = setting(
        True, "Find the pixels of regions by masked modulation; off enlarges the coarse maps instead", "paper 4.3"
    )
    step: int = setting(
        22, "Step at which regions are modulated and at whose noise level sampling starts, counted from 0; earlier is "
        "slower", "code; paper A.4 says 20", low=0, high=999,
    )  # fmt: skip
    block: int = setting(
        7, "Decoder block that is modulated", "paper A.4", low=ATTENTION_BLOCKS[0], high=ATTENTION_BLOCKS[-1],
        why="the blocks which hold attention",
    )  # fmt: skip
    factor: float = setting(
        50.0, "How strongly a region is modulated (lambda of the paper)",
        "paper A.4; 10 without latent blending, as in EmerDiff", low=0, high=10_000,
    )  # fmt: skip
    inject: bool = setting(True, "Replace queries and keys of attention by those of the unmodulated pass", "code")
    blending: Literal["all", "encoded", "none"] = setting(
        "all",
        "Restore the picture outside the region (Eq. 5) after every step: all takes that of the unmodulated "
        "pass, as in the paper, encoded the frame's own latents with the step's noise (ours); or none, never",
    )
    steps: Literal["all", "first"] = setting(
        "all", "Steps of a modulated pass: all to the end, as in the paper, or the first alone, whose prediction of "
        "the clean latents is decoded (ours, quality balanced)",
    )  # fmt: skip
    shared: bool = setting(False, "Modulate parts of regions that lie apart in one pass", "ours, quality balanced")


@dataclass(frozen=True)
class DifferenceConfig(Part):
    """Difference maps and their filtering (paper 4.3, Eq. 6)."""

    filter_strength: float = setting(
        0.7, "Weight of the difference outside a region's coarse cells: smaller keeps closer to the cells, 1 turns the "
        "filter off", "paper A.4", low=0, high=1,
    )  # fmt: skip
    normalize: bool = setting(
        True, "Scale each region's response to its own maximum, which helps faint regions", "code"
    )
    blur_size: int = setting(5, "Size of the Gaussian kernel in pixels, an odd number", "code", low=1, high=99)
    blur_sigma: float = setting(3.0, "Standard deviation of the Gaussian in pixels", "code", low=0.01, high=1000)

    def check(self) -> None:
        """Check each value, and that the kernel has a center."""
        super().check()
        if self.blur_size % 2 == 0:
            raise SettingError("difference.blur_size", "be odd", self.blur_size, "Add 1")


@dataclass(frozen=True)
class SceneConfig(Part):
    """What the anchor frame lacks: unseen things and scene cuts (ours; failure cases of the paper, A.5).

    Similarities are cosines of the bundled model's features, measured on eleven clips and their combinations.
    """

    new_regions: bool = setting(
        False, "Things that enter later, and resemble nothing known, become regions called new 7 and the like", "ours"
    )
    cuts: bool = setting(
        False, "At a cut the frame is divided anew; what looks like a known region keeps its name", "ours"
    )
    new_similarity: float = setting(
        0.78, "Below it, cells resemble nothing known: entering things have 0.70 to 0.77, others hardly ever less than "
        "0.80", "ours", low=-1, high=1,
    )  # fmt: skip
    new_margin: float = setting(0.03, "What is added to it for cells beside such ones", "ours", low=0, high=2)
    sure_similarity: float = setting(
        0.86, "From it on a cell is surely known, and is compared with in the next frame", "ours", low=-1, high=1
    )
    min_cells: int = setting(4, "Cells of a new thing in a frame, at least", "ours", low=1, high=100_000)
    min_frames: int = setting(3, "Frames of a window in which it has them, at least", "ours", low=1, high=10_000)
    cut_similarity: float = setting(
        0.81, "Median below which a frame begins another scene: 0.83 and more within clips, up to 0.79 from clip to "
        "clip", "ours", low=-1, high=1,
    )  # fmt: skip
    known_similarity: float = setting(0.81, "Median from which a cluster after a cut is known", "ours", low=-1, high=1)
    remembered_tokens: int = setting(
        64, "Tokens of each label from before a cut that stay in the scene context", "ours", low=1, high=100_000
    )


@dataclass(frozen=True)
class EnlargingConfig(Part):
    """Enlarging of coarse maps where modulation is off (ours)."""

    method: Literal["bilinear", "guided"] = setting(
        "bilinear", "bilinear per region, or pulled to the edges of the picture by a guided filter (He et al. 2013)"
    )
    guided_radius: int = setting(16, "Radius of the guided filter in pixels: a coarse cell", "ours", low=1, high=1000)
    guided_epsilon: float = setting(1e-4, "Variance of colors in [0, 1] that is an edge", "ours", low=1e-8, high=1)
    guided_subsample: int = setting(
        4, "Factor by which the filter's coefficients are computed smaller", "He & Sun 2015", low=1, high=16
    )
    own_share: float = setting(
        0.5, "Share of a coarse cell that its own leaf has in the guided filter; its neighbors' votes have the rest",
        "ours", low=0, high=1,
    )  # fmt: skip
    color_spread: float = setting(
        0.03, "Only with the method tree: least standard deviation, in [0, 1], of the colors of a small cluster, whose "
        "pixels must fit them too; 0 lets the guided filter decide alone", "ours", low=0, high=1,
    )  # fmt: skip


@dataclass(frozen=True)
class VideoConfig(Part):
    """What Stable Video Diffusion has and an image model has not."""

    frames: int = setting(
        0, "Frames that a video model sees together: 14 for SVD, 25 for SVD-XT; 0 for image models", low=0, high=1000
    )
    fps_id: int = setting(14, "Frames per second less one, as SVD is told", "code", low=0, high=1000)
    motion_bucket: int = setting(127, "How much moves, as SVD is told", "code", low=0, high=1000)
    augmentation: float = setting(
        0.02, "Noise on the frame that conditions a window, in units of half the range of a pixel", "code",
        low=0, high=10,
    )  # fmt: skip
    query_layer: Literal["spatial", "temporal"] = setting(
        "spatial", "Attention of a video model whose queries are the features: spatial makes good ones, temporal ones "
        "change from frame to frame and are there to look at only", "paper 1, A.6",
    )  # fmt: skip
