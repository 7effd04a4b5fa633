"""All settings of a segmentation, the presets, and the quality dial; the parts with their sources are in `parts`."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import Any

from ..types import InputError
from .parts import (
    ATTENTION_BLOCKS,
    FEATURE_BLOCKS,
    LIMITS,
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


@dataclass(frozen=True)
class Settings:
    """Everything that decides a segmentation, besides model and frames; make it with `of`.

    Attributes:
        preset: name of the preset that it started from.
        quality: ``exact``, ``balanced``, ``fast`` or ``draft``.
        frame: size of the frames as the model sees them.
        sampling: noise and denoising steps.
        feature: where features are read.
        window: frames that are labeled together.
        cluster: K-means on the first window.
        context: the classifier that labels the next window.
        scene: things that enter later, and cuts.
        refinement: votes along correspondences.
        modulation: masked modulation, which makes full resolution.
        difference: filtering of what modulation changes.
        enlarging: enlarging where modulation is off.
        video: what Stable Video Diffusion has and an image model has not.
    """

    preset: str = "default"
    quality: str = "exact"  # a word of `QUALITIES`
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
        for name, (low, high) in {**LIMITS, "feature.step": (0, last), "modulation.step": (0, last)}.items():
            part, number = name.split(".")
            value = getattr(getattr(self, part), number)
            if not low <= value <= high:  # NaN is in no range
                remedy = (
                    "Lower it, or raise `sampling.num_steps`" if name.endswith(".step") else "Choose a value within"
                )
                raise InputError(f"`{name}` must lie in [{low}, {high}], but got {value}. {remedy}.")
        if self.difference.blur_size % 2 == 0:
            raise InputError(f"`difference.blur_size` must be odd, but got {self.difference.blur_size}. Add 1.")
        self._check_blocks()
        self._check_sharing()

    def _check_blocks(self) -> None:
        """Check that blocks have what is asked of them."""
        on_grid = "whose queries lie on the coarse grid"
        for name, blocks, known, what in (
            ("feature.blocks", self.feature.blocks, FEATURE_BLOCKS, on_grid),
            ("feature.matching_block", (self.feature.matching_block,), FEATURE_BLOCKS, on_grid),
            ("modulation.block", (self.modulation.block,), ATTENTION_BLOCKS, "which hold attention"),
        ):
            if not blocks or not set(blocks) <= set(known):
                raise InputError(
                    f"`{name}` must name blocks of {known}, {what}, but got {tuple(blocks)}. Choose among them."
                )

    def _check_sharing(self) -> None:
        """Check that regions share a modulated pass only where they can."""
        if self.modulation.shared and self.difference.precision == "8bit":
            raise InputError(
                "`modulation.shared` must be off with 8-bit differences, but is on. Use the quality 'exact' with them."
            )
        if self.modulation.shared and self.video.frames:
            raise InputError(
                "`modulation.shared` must be off with a video model, whose temporal layers mix regions, but is on. Set "
                "it to false."
            )

    @property
    def start_step(self) -> int:
        """Step whose noise level the latents get: the earlier of the modulated and the feature step."""
        return min(self.modulation.step, self.feature.step)

    @classmethod
    def of(
        cls, preset_name: str = "default", quality: str = "exact", *, kind: str = "sd", **changes: object
    ) -> Settings:
        """Return the settings of a preset and a quality, with changes.

        Args:
            preset_name: ``default``, ``paper``, ``reference`` or ``emerdiff``.
            quality: ``exact``, ``balanced``, ``fast`` or ``draft``.
            kind: of the model they are for: ``sd`` (image) or ``svd`` (video).
            **changes: settings by name, as `segment` takes them: ``num_clusters=12``, ``modulation__enabled=False``.

        Returns:
            The settings, which cannot be changed; `dataclasses.replace` makes others of them.

        Raises:
            InputError: no such preset, quality or setting, or a value that a setting does not take.

        >>> Settings.of("paper", max_side=448).frame.max_side
        448
        """
        from .overrides import with_changes  # noqa: PLC0415, it builds on this file

        return with_changes(with_quality(preset(preset_name, kind), quality), changes)

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as plain nested dictionaries, for JSON."""
        return asdict(self)


_DEFAULT = Settings()
_PAPER = Settings(
    preset="paper",
    modulation=ModulationConfig(step=20),
    cluster=ClusterConfig(fit_frames="anchor"),
    difference=DifferenceConfig(normalize=False),
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


def replace_parts(settings: Settings, **parts: dict[str, Any]) -> Settings:
    """Return ``settings`` with fields of its parts replaced: ``replace_parts(s, cluster={"num_clusters": 8})``."""
    return replace(settings, **{part: replace(getattr(settings, part), **values) for part, values in parts.items()})


def with_window_frames(settings: Settings, num_frames: int) -> Settings:
    """Return ``settings`` of a video model for one that sees ``num_frames`` together: 25 for SVD-XT.

    Windows of the scene context grow with it where they were as long. Zero, and an image model, change nothing.

    >>> with_window_frames(preset("default", "svd"), 25).window.length
    25
    """
    if not settings.video.frames or not num_frames:
        return settings
    windows = {"length": num_frames} if settings.window.length == settings.video.frames else {}
    return replace_parts(settings, video={"frames": num_frames}, window=windows)


def _for_svd(settings: Settings, name: str, **parts: dict[str, Any]) -> Settings:
    """Return ``settings`` with what differs for SVD in all presets (paper A.4, code), and ``parts``."""
    modulation = {"step": 17, "block": 8, "attention": "self", **parts.pop("modulation", {})}
    parts = {"sampling": {"guidance_scale": 2.5}, "modulation": modulation, "video": {"frames": 14}, **parts}
    return replace(replace_parts(settings, **parts), preset=name)


SVD_PRESETS = {
    "default": _for_svd(_DEFAULT, "svd"),
    "paper": _for_svd(_PAPER, "svd-paper", feature={"matching_block": 8}),
    "reference": _for_svd(
        _REFERENCE, "svd-reference", modulation={"blending": "all"}, video={"frames": 14, "injected": "temporal"}
    ),
    "emerdiff": _for_svd(_EMERDIFF, "svd-emerdiff", feature={"blocks": (8,)}),
}
"""The same presets for Stable Video Diffusion, taken when the model is one."""
QUALITIES: dict[str, dict[str, dict[str, Any]]] = {
    "exact": {},
    "balanced": {"modulation": {"steps": "first", "shared": True}},
    "fast": {"modulation": {"enabled": False}, "enlarging": {"method": "guided"}},
    "draft": {"modulation": {"enabled": False}, "enlarging": {"method": "guided"}},
}
"""What each quality changes, the most exact first.

- ``exact``: the paper's method; every saving in it is exact.
- ``balanced``: regions that lie apart share a modulated pass, and a pass has one step, whose prediction of the clean
  latents is decoded. With a video model regions share no pass, since temporal layers would mix them.
- ``fast``: no modulated passes; coarse maps are pulled to the edges of the picture by a guided filter.
- ``draft``: likewise, and the features are read in the first UNet call, without denoising before it.
"""


def with_quality(settings: Settings, quality: str) -> Settings:
    """Return ``settings`` with what ``quality`` changes.

    Raises:
        InputError: there is no such quality, or the settings do not allow it.

    >>> with_quality(Settings(), "fast").modulation.enabled
    False
    """
    if quality not in QUALITIES:
        raise InputError(f"`quality` must be one of {', '.join(QUALITIES)}, but got {quality!r}.")
    if not settings.modulation.enabled and quality != "exact":
        # Asked for coarse regions: what else the quality changes would bring fine ones back.
        return replace(settings, quality=quality)
    parts = dict(QUALITIES[quality])
    if quality == "balanced" and settings.video.frames:
        parts["modulation"] = {**parts["modulation"], "shared": False}
    if quality == "draft":
        parts["modulation"] = {**parts["modulation"], "step": settings.feature.step}
    return replace(replace_parts(settings, **parts), quality=quality)
