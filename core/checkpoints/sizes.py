"""Sizes of a Stable Diffusion UNet and autoencoder, written in a file's metadata or read off its tensors' shapes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from ..documents import anything, flag, number, parse_document, record, table, text
from ..types import InputError, quote

METADATA_KEY = "vidseg.config"
"""Metadata entry of a `.safetensors` file that holds `ModelSizes` as JSON; needed for models of unusual width."""
UNET_PREFIX = "model.diffusion_model."
VAE_PREFIX = "first_stage_model."
SUPPORTED = (
    "Stable Diffusion 1.x or 2.x, SDXL or Stable Video Diffusion checkpoints, for example "
    "v2-1_512-ema-pruned.safetensors, sd_xl_base_1.0.safetensors or svd.safetensors"
)
SD1_CONTEXT, SD2_CONTEXT, XL_CONTEXT = 768, 1024, 2048
SD1_HEADS, SD2_HEAD_CHANNELS = 8, 64
SCALE_FACTOR, XL_SCALE_FACTOR = 0.18215, 0.13025
"""Latents times this have about unit variance (SD 1.x and 2.x; SDXL)."""
NORM_GROUPS = 32
NUM_RES_BLOCKS, ATTENTION_RESOLUTIONS = 2, (4, 2, 1)
NUMBER_CHANNELS = 256
"""Channels into which each number is embedded that a model is told beside the text."""
VIDEO_NUMBERS, XL_NUMBERS = 3, 6
"""Numbers that SVD is told about a window, and SDXL about a picture, beside its pooled text."""
Shapes = Mapping[str, tuple[int, ...]]
_HEADER = record(
    {"unet": table(anything), "vae": table(anything)},
    scale_factor=number(1e-6, 1e6),
    prediction_type=text(),
    zero_snr=flag,
)
_TITLES = {"sd": "Stable Diffusion", "svd": "Stable Video Diffusion", "sdxl": "SDXL"}
_FACTS: dict[str, dict[str, Any]] = {
    "sd": {"levels": 4, "attention": {4, 2, 1}, "depth": 1, "in": 4},
    "svd": {"levels": 4, "attention": {4, 2, 1}, "depth": 1, "in": 8},
    "sdxl": {"levels": 3, "attention": {4, 2}, "depth": (0, 2, 10), "in": 4},
}
"""What the UNets of a kind have in common."""


@dataclass(frozen=True)
class UNetSizes:
    """Sizes of the UNet under the names of the original configuration files.

    Exactly one of ``num_head_channels`` (SD 2.x, SDXL, SVD) and ``num_heads`` (SD 1.x) is set. ``transformer_depth``
    is one for all levels, or one for each, finest first. ``adm_in_channels`` is the width of what a model is told
    beside the text: SVD's embedded numbers, SDXL's pooled text and embedded numbers, 0 for SD.
    """

    model_channels: int
    channel_mult: tuple[int, ...] = (1, 2, 4, 4)
    num_res_blocks: int = NUM_RES_BLOCKS
    attention_resolutions: tuple[int, ...] = ATTENTION_RESOLUTIONS
    num_head_channels: int | None = None
    num_heads: int | None = None
    context_dim: int = SD2_CONTEXT
    use_linear_in_transformer: bool = True
    transformer_depth: int | tuple[int, ...] = 1
    in_channels: int = 4
    out_channels: int = 4
    adm_in_channels: int = 0

    @property
    def kind(self) -> str:
        """``svd`` (told numbers about a window), ``sdxl`` (told more: pooled text and numbers) or ``sd``."""
        if self.adm_in_channels > XL_NUMBERS * NUMBER_CHANNELS:
            return "sdxl"
        return "svd" if self.adm_in_channels else "sd"

    @property
    def is_video(self) -> bool:
        """Whether it has temporal layers and is told numbers about a window, as SVD."""
        return self.kind == "svd"

    @property
    def pooled_dim(self) -> int:
        """Channels of SDXL's pooled text."""
        return self.adm_in_channels - XL_NUMBERS * NUMBER_CHANNELS

    @property
    def depths(self) -> tuple[int, ...]:
        """Transformer blocks of each layer of attention, by level, finest first."""
        depth = self.transformer_depth
        return depth if isinstance(depth, tuple) else (depth,) * len(self.channel_mult)

    @property
    def channels(self) -> tuple[int, ...]:
        """Channels of each level, finest first."""
        return tuple(self.model_channels * mult for mult in self.channel_mult)

    @property
    def heads(self) -> tuple[int, ...]:
        """Attention heads of each level, finest first."""
        if self.num_head_channels is None:
            return (self.num_heads or SD1_HEADS,) * len(self.channels)
        return tuple(channels // self.num_head_channels for channels in self.channels)


@dataclass(frozen=True)
class VAESizes:
    """Sizes of the autoencoder under the names of the original configuration files."""

    ch: int = 128
    ch_mult: tuple[int, ...] = (1, 2, 4, 4)
    num_res_blocks: int = 2
    z_channels: int = 4
    double_z: bool = True
    in_channels: int = 3
    out_ch: int = 3
    resolution: int = 256
    attn_resolutions: tuple[int, ...] = ()
    dropout: float = 0.0

    @property
    def channels(self) -> tuple[int, ...]:
        """Channels of each level, finest first."""
        return tuple(self.ch * mult for mult in self.ch_mult)


@dataclass(frozen=True)
class ModelSizes:
    """Everything about a model that is not a weight.

    ``prediction_type`` is ``epsilon`` or ``v_prediction``. With ``zero_snr`` the training schedule ends in pure noise.
    """

    unet: UNetSizes
    vae: VAESizes
    scale_factor: float = SCALE_FACTOR
    prediction_type: str = "epsilon"
    zero_snr: bool = False

    def to_metadata(self) -> dict[str, str]:
        """Return the metadata of a `.safetensors` file with these sizes."""
        return {METADATA_KEY: json.dumps(asdict(self)), "format": "pt"}

    @classmethod
    def from_metadata(cls, content: str) -> ModelSizes:
        """Read the JSON that `to_metadata` wrote.

        Raises:
            InputError: it is not such JSON, or an entry is unknown or missing.
        """
        try:
            values: dict[str, Any] = parse_document(content, _HEADER)
            sizes = cls(
                unet=UNetSizes(**_known(UNetSizes, values["unet"])),
                vae=VAESizes(**_known(VAESizes, values["vae"])),
                scale_factor=float(values.get("scale_factor", SCALE_FACTOR)),
                prediction_type=str(values.get("prediction_type", "epsilon")),
                zero_snr=bool(values.get("zero_snr", False)),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InputError(
                f"`{METADATA_KEY}` in the model's metadata must be the JSON of its sizes, but got {quote(content)} "
                f"({error}). Save the model again with `ModelSizes.to_metadata`."
            ) from None
        return sizes

    @classmethod
    def from_shapes(cls, shapes: Shapes, prediction_type: str = "epsilon", *, zero_snr: bool = False) -> ModelSizes:
        """Infer the sizes from the shapes of the tensors of a single file, by the rules of SD, SDXL and SVD.

        Raises:
            InputError: the width of the context tells none of them apart.
        """
        unet = _unet_sizes(shapes)
        scale_factor = XL_SCALE_FACTOR if unet.kind == "sdxl" else SCALE_FACTOR
        return cls(unet, _vae_sizes(shapes), scale_factor, prediction_type, zero_snr)

    def check(self, name: str) -> None:
        """Check that the UNet is arranged as those of SD, SDXL or SVD, and that the channels are theirs.

        Raises:
            InputError: they are not.
        """
        unet, wanted_of = self.unet, _FACTS[self.unet.kind]
        adm = VIDEO_NUMBERS * NUMBER_CHANNELS if unet.is_video else unet.adm_in_channels
        facts = {
            "number of levels": (len(unet.channel_mult), wanted_of["levels"]),
            "residual blocks per level": (unet.num_res_blocks, NUM_RES_BLOCKS),
            "levels with attention": (set(unet.attention_resolutions), wanted_of["attention"]),
            "transformer depth": (unet.transformer_depth, wanted_of["depth"]),
            "input channels": (unet.in_channels, wanted_of["in"]),
            "channels of numbers about the window": (unet.adm_in_channels, adm),
            "output channels": (unet.out_channels, 4),
            "latent channels": (self.vae.z_channels, 4),
            "levels of the autoencoder": (len(self.vae.ch_mult), 4),
        }
        for fact, (value, wanted) in facts.items():
            if value != wanted:
                raise InputError(
                    f"`model` must be shaped like {_TITLES[unet.kind]}, with {fact} {wanted}, but {name} has {value}. "
                    f"Supported are {SUPPORTED}."
                )
        self._check_divisible(name)
        if self.prediction_type not in ("epsilon", "v_prediction"):
            raise InputError(
                f"`prediction_type` of the model must be epsilon or v_prediction, but got {self.prediction_type!r}."
            )

    def _check_divisible(self, name: str) -> None:
        """Check that group norms and heads divide the channels."""
        unet = self.unet
        head_channels = unet.num_head_channels or 0
        wrong = [width for width in (*unet.channels, *self.vae.channels) if width < 1 or width % NORM_GROUPS]
        wrong += [width for width in unet.channels if head_channels and width % head_channels]
        wrong += [width for width in unet.channels if not head_channels and width % (unet.num_heads or SD1_HEADS)]
        if wrong:
            raise InputError(
                f"`model` must have channels that are multiples of {NORM_GROUPS} and of its attention heads, but "
                f"{name} has {wrong[0]}. Correct the sizes in its metadata."
            )


def _known(kind: type, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``values`` with lists as tuples; unknown names raise when the dataclass is made."""
    names = {field.name for field in fields(kind)}
    unknown = set(values) - names
    if unknown:
        raise ValueError(f"unknown sizes: {', '.join(sorted(unknown))}")
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}


def _unet_sizes(shapes: Shapes) -> UNetSizes:
    """Read the UNet's sizes off its tensors' shapes."""
    first = shapes[f"{UNET_PREFIX}input_blocks.0.0.weight"]
    channels, num_res_blocks = _level_channels(shapes)
    layers = [f"{UNET_PREFIX}input_blocks.{1 + level * (num_res_blocks + 1)}.1." for level in range(len(channels))]
    attended = [level for level, layer in enumerate(layers) if f"{layer}norm.weight" in shapes]
    attention = layers[attended[0]] if attended else ""
    context_dim = shapes.get(f"{attention}transformer_blocks.0.attn2.to_k.weight", (0, 0))[1]
    if context_dim not in (SD1_CONTEXT, SD2_CONTEXT, XL_CONTEXT):
        raise InputError(
            f"`model` must have a context of {SD1_CONTEXT} (SD 1.x), {SD2_CONTEXT} (SD 2.x) or {XL_CONTEXT} (SDXL) "
            f"channels, but got {context_dim}. Supported are {SUPPORTED}; a model of other sizes must name them in its "
            f"metadata under {METADATA_KEY}."
        )
    depths = tuple(
        sum(f"{layer}transformer_blocks.{index}.norm1.weight" in shapes for index in range(100)) for layer in layers
    )
    depth: set[int] = {depths[level] for level in attended}
    is_sd1 = context_dim == SD1_CONTEXT
    return UNetSizes(
        model_channels=first[0],
        channel_mult=tuple(width // first[0] for width in channels),
        num_res_blocks=num_res_blocks,
        attention_resolutions=tuple(2**level for level in reversed(attended)),
        num_heads=SD1_HEADS if is_sd1 else None,
        num_head_channels=None if is_sd1 else SD2_HEAD_CHANNELS,
        context_dim=context_dim,
        use_linear_in_transformer=len(shapes[f"{attention}proj_in.weight"]) == 2,
        transformer_depth=depth.pop() if len(depth) == 1 else depths,
        in_channels=first[1],
        out_channels=shapes[f"{UNET_PREFIX}out.2.weight"][0],
        adm_in_channels=shapes.get(f"{UNET_PREFIX}label_emb.0.0.weight", (0, 0))[1],
    )


def _level_channels(shapes: Shapes) -> tuple[list[int], int]:
    """Return the channels of each level of the UNet, and the number of residual blocks of a level."""
    channels: list[int] = []
    run, num_res_blocks, index = 0, 0, 1
    while True:
        block = f"{UNET_PREFIX}input_blocks.{index}.0."
        if f"{block}op.weight" in shapes:
            num_res_blocks, run = run, 0
        elif f"{block}out_layers.3.weight" in shapes:
            if run == 0:
                channels.append(shapes[f"{block}out_layers.3.weight"][0])
            run += 1
        else:
            return channels, num_res_blocks or run
        index += 1


def _vae_sizes(shapes: Shapes) -> VAESizes:
    """Read the autoencoder's sizes off its tensors' shapes."""
    encoder, decoder = f"{VAE_PREFIX}encoder.", f"{VAE_PREFIX}decoder."
    first = shapes[f"{encoder}conv_in.weight"]
    channels: list[int] = []
    while (name := f"{encoder}down.{len(channels)}.block.0.conv2.weight") in shapes:
        channels.append(shapes[name][0])
    blocks = sum(f"{encoder}down.0.block.{index}.conv2.weight" in shapes for index in range(100))
    return VAESizes(
        ch=first[0],
        ch_mult=tuple(width // first[0] for width in channels),
        num_res_blocks=blocks,
        z_channels=shapes[f"{decoder}conv_in.weight"][1],
        in_channels=first[1],
        out_ch=shapes[f"{decoder}conv_out.weight"][0],
    )
