"""All settings of a segmentation, and the presets; the hyperparameters with their sources are in `config_parts`."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import Any

from .config_parts import (
    ATTENTION_BLOCKS,
    ClusterConfig,
    ContextConfig,
    DifferenceConfig,
    EnlargingConfig,
    FeatureConfig,
    FrameConfig,
    ModulationConfig,
    RefinementConfig,
    SamplingConfig,
    SceneConfig,
    VideoConfig,
    WindowConfig,
)
from .types import MAX_LABEL, InputError

__all__ = [
    "ATTENTION_BLOCKS",
    "PRESETS",
    "SVD_PRESETS",
    "ClusterConfig",
    "ContextConfig",
    "DifferenceConfig",
    "EnlargingConfig",
    "FeatureConfig",
    "FrameConfig",
    "ModulationConfig",
    "RefinementConfig",
    "SamplingConfig",
    "SceneConfig",
    "Settings",
    "VideoConfig",
    "WindowConfig",
    "changed",
    "preset",
]


@dataclass(frozen=True)
class Settings:
    """Everything that decides a segmentation, besides model and frames."""

    preset: str = "default"
    quality: str = "exact"  # see quality.py
    frame: FrameConfig = field(default_factory=FrameConfig)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    feature: FeatureConfig = field(default_factory=FeatureConfig)
    window: WindowConfig = field(default_factory=WindowConfig)
    cluster: ClusterConfig = field(default_factory=ClusterConfig)
    context: ContextConfig = field(default_factory=ContextConfig)
    scene: SceneConfig = field(default_factory=SceneConfig)
    refinement: RefinementConfig = field(default_factory=RefinementConfig)
    modulation: ModulationConfig = field(default_factory=ModulationConfig)
    difference: DifferenceConfig = field(default_factory=DifferenceConfig)
    enlarging: EnlargingConfig = field(default_factory=EnlargingConfig)
    video: VideoConfig = field(default_factory=VideoConfig)

    def __post_init__(self) -> None:
        """Check every limit before any long computation."""
        last = self.sampling.num_steps - 1
        checks: tuple[tuple[str, float, float, float], ...] = (
            ("sampling.num_steps", self.sampling.num_steps, 1, 1000),
            ("sampling.seed", self.sampling.seed, 0, 2**32 - 1),
            ("feature.step", self.feature.step, 0, last),
            ("modulation.step", self.modulation.step, 0, last),
            ("window.length", self.window.length, 1, 10_000),
            ("cluster.num_clusters", self.cluster.num_clusters, 0, MAX_LABEL),
            ("cluster.granularity", self.cluster.granularity, 0, 1),
            ("cluster.num_restarts", self.cluster.num_restarts, 1, 1000),
            ("context.num_neighbors", self.context.num_neighbors, 1, 1000),
            ("refinement.spatial_threshold", self.refinement.spatial_threshold, 0, 1000),
            ("difference.filter_strength", self.difference.filter_strength, 0, 1),
            ("difference.blur_size", self.difference.blur_size, 1, 99),
            ("frame.max_side", self.frame.max_side, 0, 16_384),
            ("enlarging.guided_radius", self.enlarging.guided_radius, 1, 1000),
            ("enlarging.guided_epsilon", self.enlarging.guided_epsilon, 1e-8, 1),
            ("enlarging.guided_subsample", self.enlarging.guided_subsample, 1, 16),
            ("video.frames", self.video.frames, 0, 1000),
            ("video.augmentation", self.video.augmentation, 0, 10),
        )
        for name, value, low, high in checks:
            if not low <= value <= high:
                remedy = "Lower it with the number of steps" if name.endswith(".step") else "Choose a value within"
                raise InputError(f"`{name}` must lie in [{low}, {high}], but got {value}. {remedy}.")
        if self.modulation.shared and self.difference.precision == "8bit":
            raise InputError(
                "`modulation.shared` must be off with 8-bit differences, but is on. Use the quality 'exact' with them."
            )
        if self.modulation.shared and self.video.frames:
            raise InputError(
                "`modulation.shared` must be off with a video model, whose temporal layers mix regions, but is on. Set "
                "it to false."
            )
        for name, blocks in (
            ("feature.blocks", self.feature.blocks),
            ("feature.matching_block", (self.feature.matching_block,)),
            ("modulation.block", (self.modulation.block,)),
        ):
            unknown = [block for block in blocks if block not in ATTENTION_BLOCKS]
            if unknown or not blocks:
                raise InputError(f"`{name}` must name blocks of {ATTENTION_BLOCKS}, but got {tuple(blocks)}.")

    @property
    def start_step(self) -> int:
        """Step whose noise level the latents get: the earlier of the modulated and the feature step."""
        return min(self.modulation.step, self.feature.step)

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as plain nested dictionaries, for JSON."""
        return asdict(self)


_DEFAULT = Settings()
_PAPER = Settings(
    preset="paper",
    modulation=ModulationConfig(step=20),
    cluster=ClusterConfig(fit_frames="anchor"),
    difference=DifferenceConfig(normalise=False),
)
_REFERENCE = Settings(
    preset="reference",
    frame=FrameConfig(rounding="floor"),
    sampling=SamplingConfig(noise="window", posterior="sample"),
    window=WindowConfig(tail="overlap"),
    cluster=ClusterConfig(void_votes=True),
    refinement=RefinementConfig(matching="anchored", one_sided=True, bad_match="drop", voting="track"),
    modulation=ModulationConfig(blending="first"),
    difference=DifferenceConfig(precision="8bit"),
)
_EMERDIFF = Settings(
    preset="emerdiff",
    feature=FeatureConfig(blocks=(7,)),
    window=WindowConfig(length=1),
    refinement=RefinementConfig(enabled=False),
    modulation=ModulationConfig(factor=10.0, blending="none"),
    difference=DifferenceConfig(filter_strength=1.0),
)
PRESETS = {settings.preset: settings for settings in (_DEFAULT, _PAPER, _REFERENCE, _EMERDIFF)}
"""Presets by name. ``reference`` repeats the published code, faults included, for comparison only."""


def preset(name: str, kind: str = "sd") -> Settings:
    """Return the settings called ``name`` for a kind of model: ``sd`` (image) or ``svd`` (video).

    Raises:
        InputError: there is no such preset.

    >>> preset("default", "svd").preset
    'svd'
    """
    if name not in PRESETS:
        raise InputError(f"`preset` must be one of {', '.join(PRESETS)}, but got {name!r}.")
    return PRESETS[name] if kind == "sd" else SVD_PRESETS[name]


def changed(settings: Settings, **parts: dict[str, Any]) -> Settings:
    """Return ``settings`` with fields of its parts replaced: ``changed(s, cluster={"num_clusters": 8})``."""
    return replace(settings, **{part: replace(getattr(settings, part), **values) for part, values in parts.items()})


def seen_together(settings: Settings, num_frames: int) -> Settings:
    """Return ``settings`` of a video model for one that sees ``num_frames`` together: 25 for SVD-XT.

    Windows of the scene context grow with it where they were as long. Zero, and an image model, change nothing.

    >>> seen_together(preset("default", "svd"), 25).window.length
    25
    """
    if not settings.video.frames or not num_frames:
        return settings
    windows = {"length": num_frames} if settings.window.length == settings.video.frames else {}
    return changed(settings, video={"frames": num_frames}, window=windows)


def _for_svd(settings: Settings, name: str, **parts: dict[str, Any]) -> Settings:
    """Return ``settings`` with what differs for SVD in all presets (paper A.4, code), and ``parts``."""
    modulation = {"step": 17, "block": 8, "attention": "self", **parts.pop("modulation", {})}
    parts = {"sampling": {"guidance_scale": 2.5}, "modulation": modulation, "video": {"frames": 14}, **parts}
    return replace(changed(settings, **parts), preset=name)


SVD_PRESETS = {
    "default": _for_svd(_DEFAULT, "svd"),
    "paper": _for_svd(_PAPER, "svd-paper", feature={"matching_block": 8}),
    "reference": _for_svd(
        _REFERENCE, "svd-reference", modulation={"blending": "all"}, video={"frames": 14, "injected": "temporal"}
    ),
    "emerdiff": _for_svd(_EMERDIFF, "svd-emerdiff", feature={"blocks": (8,)}),
}
"""The same presets for Stable Video Diffusion, taken when the model is one."""
