"""All settings of a segmentation, presets, the quality dial, and settings as text; the parts are in `parts`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, get_type_hints

from ..types import InputError, SettingError
from .fields import Part, describe_fields, setting
from .frame import FrameConfig
from .parts import (
    ClusterConfig,
    ContextConfig,
    DifferenceConfig,
    EnlargingConfig,
    FeatureConfig,
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
        variant: ``paper``, or ``published`` for what only the published code does.
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

    preset: str = setting(
        "default", "default: what measures best. paper: as the paper writes it. reference: as its published code does "
        "it, faults included. emerdiff: each frame labeled from the one before, not refined. Each has its own values "
        "for Stable Video Diffusion",
    )  # fmt: skip
    quality: str = setting(
        "exact", "exact: the paper's method, every region modulated by itself; slowest. balanced: regions that lie "
        "apart share a modulated pass of one step. fast: no modulation, borders follow the edges of the picture. "
        "draft: likewise, with plainer borders",
    )  # fmt: skip
    variant: Literal["paper", "published"] = setting(
        "paper", "paper: what the paper describes. published: what only its published code does, faults included, for "
        "comparison; the preset reference has it",
    )  # fmt: skip
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
        """Check every value before any long computation."""
        for info in describe_fields(Settings, ""):
            info.check(getattr(self, info.key))
        for part in PARTS:
            getattr(self, part).check()
        last = self.sampling.num_steps - 1
        for key, step in (("feature.step", self.feature.step), ("modulation.step", self.modulation.step)):
            if step > last:
                remedy = "Lower it, or raise {0}"
                raise SettingError(key, f"lie in [0, {last}]", step, remedy, "sampling.num_steps")
        self._check_sharing()
        if self.video.frames or "patch" in self.feature.layers:
            self.frame.require_whole()

    def _check_sharing(self) -> None:
        """Check that regions share a modulated pass only where they can."""
        if self.modulation.shared and self.variant == "published":
            limit, remedy = "be off with the published code's differences", "Use the quality 'exact' with them"
            raise SettingError("modulation.shared", limit, "on", remedy)
        if self.modulation.shared and self.video.frames:
            limit = "be off with a video model, whose temporal layers mix regions"
            raise SettingError("modulation.shared", limit, "on", "Set it to false")

    @property
    def start_step(self) -> int:
        """Step whose noise level the latents get: the earlier of the modulated and the feature step."""
        return min(self.modulation.step, self.feature.step)

    @property
    def steps_to_features(self) -> int:
        """Steps that denoise the latents before features are read: none where they have no noise."""
        return 0 if self.sampling.noise == "none" else self.feature.step - self.start_step

    @classmethod
    def of(
        cls, preset_name: str = "default", quality: str = "exact", *, kind: str = "sd", **changes: object
    ) -> Settings:
        """Return the settings of a preset and a quality, with changes.

        Args:
            preset_name: ``default``, ``paper``, ``reference`` or ``emerdiff``.
            quality: ``exact``, ``balanced``, ``fast`` or ``draft``.
            kind: of the model they are for: ``sd`` (image), ``svd`` (video), ``sdxl`` or ``vision``.
            **changes: settings by name, as `segment` takes them: ``num_clusters=12``, ``modulation__enabled=False``.

        Returns:
            The settings, which cannot be changed; `dataclasses.replace` makes others of them.

        Raises:
            InputError: no such preset, quality or setting, or a value that a setting does not take.

        >>> Settings.of("paper", max_side=448).frame.max_side
        448
        """
        from .keywords import with_changes  # noqa: PLC0415, it builds on this file

        return with_changes(with_quality(preset(preset_name, kind), quality), changes)

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as plain nested dictionaries, for JSON."""
        return asdict(self)


PARTS: dict[str, type[Part]] = {
    name: kind for name, kind in get_type_hints(Settings).items() if isinstance(kind, type) and issubclass(kind, Part)
}
"""The parts by name."""
SETTINGS = {info.key: info for part in PARTS.values() for info in part.describe()}
"""What is known of each setting, by its key such as ``window.length``."""
OWN = {info.key: info for info in describe_fields(Settings, "")}
"""The same of `preset` and `quality`, which set many of them, and of `variant`."""
_DEFAULT = Settings()
_NOISED = replace(_DEFAULT, sampling=SamplingConfig(noise="frame"))
"""For the models of which it was not measured whether they do without noise: all but Stable Diffusion 1.x and 2.x."""
_AS_PAPER = ClusterConfig(method="kmeans", place=0.0, motion=0.0)
_PAPER = replace(
    _NOISED,
    preset="paper",
    modulation=ModulationConfig(step=20),
    cluster=replace(_AS_PAPER, fit_frames="anchor"),
    difference=DifferenceConfig(normalize=False),
)
_REFERENCE = Settings("reference", variant="published", sampling=SamplingConfig(noise="window"), cluster=_AS_PAPER)
_EMERDIFF = replace(
    _NOISED,
    preset="emerdiff",
    feature=FeatureConfig(blocks=(7,)),
    window=WindowConfig(length=1),
    cluster=_AS_PAPER,
    refinement=RefinementConfig(enabled=False),
    modulation=ModulationConfig(factor=10.0, blending="none"),
    difference=DifferenceConfig(filter_strength=1.0),
)
PRESETS = {settings.preset: settings for settings in (_DEFAULT, _PAPER, _REFERENCE, _EMERDIFF)}
"""Presets by name. ``reference`` repeats the published code, faults included, for comparison only."""


def preset(name: str, kind: str = "sd") -> Settings:
    """Return the settings called ``name`` for a kind of model: ``sd``, ``svd`` (video), ``sdxl`` or ``vision``.

    >>> preset("default", "svd").preset
    'svd'
    """
    if name not in PRESETS:
        raise InputError(f"`preset` must be one of {', '.join(PRESETS)}, but got {name!r}.")
    return {"sd": PRESETS, **_PRESETS_OF}[kind][name]


def replace_parts(settings: Settings, **parts: dict[str, Any]) -> Settings:
    """Return ``settings`` with fields of its parts replaced: ``replace_parts(s, cluster={"num_clusters": 8})``."""
    return replace(settings, **{part: replace(getattr(settings, part), **values) for part, values in parts.items()})


def replace_values(settings: Settings, values: Mapping[str, Any]) -> Settings:
    """Return ``settings`` with values replaced by key, all at once: ``{"cluster.num_clusters": 8}``."""
    parts: dict[str, dict[str, Any]] = {}
    for key, value in values.items():
        part, _, name = key.partition(".")
        parts.setdefault(part, {})[name] = value
    return replace_parts(settings, **parts)


def read_setting(settings: Settings, key: str) -> Any:  # noqa: ANN401
    """Return the value of a setting by its key."""
    part, _, name = key.partition(".")
    return getattr(getattr(settings, part), name) if name else getattr(settings, part)


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
    modulation = {"step": 17, "block": 8, **parts.pop("modulation", {})}
    parts = {"sampling": {"guidance_scale": 2.5}, "modulation": modulation, "video": {"frames": 14}, **parts}
    return replace(replace_parts(settings, **parts), preset=name)


SVD_PRESETS = {
    "default": _for_svd(_NOISED, "svd"),
    "paper": _for_svd(_PAPER, "svd-paper", feature={"matching_block": 8}),
    "reference": _for_svd(_REFERENCE, "svd-reference"),
    "emerdiff": _for_svd(_EMERDIFF, "svd-emerdiff", feature={"blocks": (8,)}),
}
"""The same presets for Stable Video Diffusion, taken when the model is one."""


def _for_layers(kind: str, *, layers: tuple[str, ...], matching: tuple[str, ...], **parts: Any) -> dict[str, Settings]:  # noqa: ANN401
    """Return the presets of a model that gives features of named layers alone."""
    feature = {"layers": layers, "matching_layers": matching, **parts.pop("feature", {})}
    names = {name: kind if name == "default" else f"{kind}-{name}" for name in PRESETS}
    bases = {**PRESETS, "default": _NOISED}
    return {
        name: replace(replace_parts(base, feature=feature, **parts), preset=names[name]) for name, base in bases.items()
    }


_XL_STEP = 19
"""Of 20 steps: step 49 of training, which is the noise that generic-diffusion-feature adds."""
XL_PRESETS = _for_layers(
    "sdxl",
    layers=("0.5.output", "0.7.output", "3.0.cross_query"),
    matching=("3.0.cross_query",),
    sampling={"num_steps": _XL_STEP + 1},
    feature={"step": _XL_STEP},
    modulation={"step": _XL_STEP},
)
"""The same presets for SDXL, whose features are read in one call, as generic-diffusion-feature does."""
VISION_PRESETS = _for_layers("vision", layers=("patch",), matching=("patch",))
"""The same presets for a vision model, which has no noise and no steps."""
NAMED_KINDS = ("sdxl", "vision")
"""Kinds of models whose layers have names."""
_PRESETS_OF = {"svd": SVD_PRESETS, "sdxl": XL_PRESETS, "vision": VISION_PRESETS}
_PLAIN_FILTER = {"method": "guided", "own_share": 1.0, "color_spread": 0.0}
QUALITIES: dict[str, dict[str, dict[str, Any]]] = {
    "exact": {},
    "balanced": {"modulation": {"steps": "first", "shared": True}},
    "fast": {"modulation": {"enabled": False}, "enlarging": {"method": "guided"}},
    "draft": {"modulation": {"enabled": False}, "enlarging": _PLAIN_FILTER},
}
"""What each quality changes, the most exact first; the text of `Settings.quality` says what that means."""


def list_qualities(kind: str) -> tuple[str, ...]:
    """Return the qualities that a kind of model serves: one that gives features alone cannot be modulated.

    >>> list_qualities("sdxl")
    ('fast', 'draft')
    """
    modulates = kind in {"sd", "svd"}
    return tuple(name for name, changed in QUALITIES.items() if modulates or "enabled" in changed.get("modulation", {}))


def require_served(settings: Settings, kind: str, name: str) -> None:
    """Check that a model of some kind, called ``name``, can do what ``settings`` ask for."""
    served = list_qualities(kind)
    if settings.modulation.enabled and "exact" not in served:
        limit = f"be {' or '.join(served)} with {name}, which gives features and cannot be modulated"
        raise SettingError("quality", limit, settings.quality, "Choose one of them")


def with_quality(settings: Settings, quality: str) -> Settings:
    """Return ``settings`` with what ``quality`` changes.

    >>> with_quality(Settings(), "fast").modulation.enabled
    False
    """
    if quality not in QUALITIES:
        raise InputError(f"`quality` must be one of {', '.join(QUALITIES)}, but got {quality!r}.")
    if not settings.modulation.enabled and quality != "exact":
        # Asked for coarse regions: what else the quality changes would bring fine ones back.
        return replace(settings, quality=quality)
    parts = dict(QUALITIES[quality])
    if quality == "balanced" and settings.video.frames:  # temporal layers would mix regions that share a pass
        parts["modulation"] = {**parts["modulation"], "shared": False}
    if quality == "draft":
        parts["modulation"] = {**parts["modulation"], "step": settings.feature.step}
    return replace(replace_parts(settings, **parts), quality=quality)
