"""Headers of `.safetensors` files, and what lies in a diffusers folder; neither loads weights, pickles are refused."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import SafetensorError, safe_open

from ..documents import DamageError, read_document, record
from ..types import InputError
from .foreign import REFINER, name_folder
from .sizes import SCALE_FACTOR, SD2_CONTEXT, SUPPORTED, ModelSizes, Shapes, UNetSizes, VAESizes

PICKLE_SUFFIXES = (".ckpt", ".pt", ".pth", ".bin", ".pkl")
PICKLE_STARTS = (b"PK", b"\x80\x02", b"\x80\x04")
V_PREDICTION_BIAS_STD = 0.09
"""A standard deviation of the last block's ``norm1.bias`` above this tells v-prediction from epsilon in SD 2.x."""
VIDEO_UNET = "UNetSpatioTemporalConditionModel"
"""Class of SVD's UNet in diffusers."""
XL_CONDITIONING = "text_time"
"""How SDXL is told more than the text in diffusers: pooled text and sizes."""
ENCODERS = ("text_encoder", "text_encoder_2", "image_encoder")
"""Sub-folders of what encodes the prompt (SD; SDXL has two) or the first frame of a window (SVD)."""
REFINER_CONTEXT = 1280
SCHEDULER = Path("scheduler", "scheduler_config.json")
PREDICTION_PROBE = "up_blocks.3.attentions.2.transformer_blocks.0.norm1.bias"


class TensorInfo(NamedTuple):
    """Type, such as ``F16``, and shape of a stored tensor."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """Number of values."""
        return math.prod(self.shape)


class Header(NamedTuple):
    """What a `.safetensors` file holds, without its values."""

    path: Path
    tensors: dict[str, TensorInfo]
    metadata: dict[str, str]

    @property
    def shapes(self) -> Shapes:
        """Shapes by tensor name."""
        return {name: info.shape for name, info in self.tensors.items()}

    def tell_prediction(self, probe: str) -> str:
        """Tell v-prediction from epsilon in SD 2.x by the spread of the bias called ``probe``."""
        is_plain = self.tensors[probe].dtype in {"F16", "F32"}  # others are torch's alone, which takes long to import
        with safe_open(self.path, framework="np" if is_plain else "pt") as file:
            values = file.get_tensor(probe)
        spread = float((values if is_plain else values.float()).std())
        return "v_prediction" if spread > V_PREDICTION_BIAS_STD else "epsilon"


def read_header(path: Path) -> Header:
    """Read the header of a `.safetensors` file; pickles, other files and incomplete ones are refused."""
    with path.open("rb") as stream:
        start = stream.read(9)  # the length of the header, and its first character
    if path.suffix.lower() in PICKLE_SUFFIXES or (start.startswith(PICKLE_STARTS) and start[8:] != b"{"):
        raise InputError(
            f"`model` must be a .safetensors file, but {path.name} is a pickle, which could run code. Convert it where "
            "you trust it: `safetensors.torch.save_file({k: v.contiguous() for k, v in torch.load(FILE, "
            'weights_only=True)["state_dict"].items()}, OUT)`.'
        )
    if start[8:] != b"{":
        raise InputError(f"`model` must be a .safetensors file, but {path.name} is not one. Supported are {SUPPORTED}.")
    try:
        with safe_open(path, framework="np") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 - not a dictionary
            tensors = {name: TensorInfo(part.get_dtype(), tuple(part.get_shape())) for name, part in slices.items()}
            return Header(path, tensors, dict(file.metadata() or {}))
    except SafetensorError:
        raise InputError(
            f"`model` must be a complete .safetensors file, but {path.name} ends after {path.stat().st_size} bytes, "
            "before its last tensor, or has a damaged header. Download or copy it again."
        ) from None


def find_common_dtype(infos: Iterable[TensorInfo]) -> str:
    """Return the type of most values, such as ``F16``."""
    counts: Counter[str] = Counter()
    for info in infos:
        counts[info.dtype] += info.size
    return counts.most_common(1)[0][0] if counts else ""


class Folder(NamedTuple):
    """A diffusers folder.

    Attributes:
        sizes: of the model.
        headers: of each part's files.
        num_frames: frames seen together, 0 where it is not told.
        zero_prompt: whether zeros stand for the empty prompt, as SDXL says of itself.
    """

    sizes: ModelSizes
    headers: dict[str, list[Header]]
    num_frames: int
    zero_prompt: bool


def read_folder(folder: Path) -> Folder:
    """Read configuration and headers of the pipeline of Stable Diffusion 1.x/2.x, SDXL or SVD in ``folder``."""
    if not (folder / "unet" / "config.json").is_file() and (what := name_folder(folder, read_config)):
        raise InputError(f"`model` must be a Stable Diffusion model, but {folder.name} is {what}. Use {SUPPORTED}.")
    unet, vae = (read_config(folder / part / "config.json") for part in ("unet", "vae"))
    is_video = unet.get("_class_name") == VIDEO_UNET
    _check_class(folder, unet, VIDEO_UNET if is_video else "UNet2DConditionModel")
    _check_class(folder, vae, "AutoencoderKLTemporalDecoder" if is_video else "AutoencoderKL")
    parts = ["unet", "vae", *(part for part in ENCODERS if (folder / part / "config.json").is_file())]
    headers = {part.replace("_", " "): [read_header(file) for file in list_part_files(folder / part)] for part in parts}
    prediction = "v_prediction" if is_video else _prediction(folder, unet, headers["unet"])
    zero_snr = bool(_read_optional(folder / SCHEDULER).get("rescale_betas_zero_snr", False))
    try:
        scale_factor = vae.get("scaling_factor", SCALE_FACTOR)
        sizes = ModelSizes(_unet_sizes(unet), _vae_sizes(vae), scale_factor, prediction, zero_snr)
    except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        raise InputError(
            f"`model` must have complete configuration files, but those of {folder.name} cannot be used ({error!r}). "
            "Save the pipeline again with `save_pretrained`."
        ) from None
    num_frames = unet.get("num_frames") if is_video else 0
    index = _read_optional(folder / "model_index.json")
    zero_prompt = sizes.unet.kind == "sdxl" and bool(index.get("force_zeros_for_empty_prompt", True))
    return Folder(sizes, headers, num_frames if isinstance(num_frames, int) and num_frames > 0 else 0, zero_prompt)


def list_part_files(part: Path) -> list[Path]:
    """Return the weight files of one part of a diffusers folder, in order; plain ones before ``model.fp16``."""
    files = sorted(part.glob("*.safetensors"))
    plain = [file for file in files if file.name.count(".") == 1]
    if not files:
        raise InputError(
            f"`model` must hold its weights as .safetensors, but {part} has no such file. "
            "Save the pipeline again with `save_pretrained(folder, safe_serialization=True)`."
        )
    if plain:
        return plain
    variant = files[0].name.split(".")[-2].split("-")[0]
    return [file for file in files if file.name.split(".")[-2].split("-")[0] == variant]


def read_config(path: Path) -> dict[str, Any]:
    """Return a configuration file of a diffusers folder."""
    try:
        values: dict[str, Any] = read_document(path, record({}))
    except OSError:
        raise InputError(
            f"`model` must be a .safetensors file or a diffusers folder, but {path} does not exist. Supported are "
            f"{SUPPORTED}, or the folder that holds unet/ and vae/."
        ) from None
    except DamageError as error:
        raise InputError(
            f"`model` must have readable configuration files, but {path} {error}. Copy the model again."
        ) from None
    return values


def _read_optional(path: Path) -> dict[str, Any]:
    """Return a configuration file that may be missing."""
    return read_config(path) if path.is_file() else {}


def _check_class(folder: Path, config: Mapping[str, Any], wanted: str) -> None:
    got = config.get("_class_name", wanted)
    told = config.get("addition_embed_type") or config.get("class_embed_type")
    problem = ""
    if got != wanted:
        problem = got
    elif told == XL_CONDITIONING and config.get("cross_attention_dim") == REFINER_CONTEXT:
        problem = REFINER
    elif told == XL_CONDITIONING and not config.get("projection_class_embeddings_input_dim"):
        problem = "one that is told sizes, but is no SDXL"
    elif told and told != XL_CONDITIONING:
        problem = f"one with extra conditioning ({told})"
    if problem:
        raise InputError(
            f"`model` must be a pipeline of Stable Diffusion with a plain {wanted}, but {folder.name} holds {problem}. "
            f"Use {SUPPORTED}."
        )


def _unet_sizes(config: Mapping[str, Any]) -> UNetSizes:
    """Translate diffusers' names. ``attention_head_dim`` is the number of heads there, not their width."""
    channels = tuple(config["block_out_channels"])
    heads = config.get("num_attention_heads") or config.get("attention_head_dim", 8)
    counts = [heads] * len(channels) if isinstance(heads, int) else list(heads)
    widths = {width // count for width, count in zip(channels, counts, strict=True)}
    is_count_constant = len(set(counts)) == 1
    if not is_count_constant and len(widths) != 1:
        raise ValueError(f"neither number nor width of heads is constant: {counts}")
    attended = [2**level for level, kind in enumerate(config["down_block_types"]) if "CrossAttn" in kind]
    told = config.get("transformer_layers_per_block", 1)
    layers = [told] * len(channels) if isinstance(told, int) else list(told)
    depths = tuple(count if 2**level in attended else 0 for level, count in enumerate(layers))
    equal = set(depths) - {0}
    return UNetSizes(
        model_channels=channels[0],
        channel_mult=tuple(width // channels[0] for width in channels),
        num_res_blocks=config.get("layers_per_block", 2),
        attention_resolutions=tuple(reversed(attended)),
        num_head_channels=None if is_count_constant else widths.pop(),
        num_heads=counts[0] if is_count_constant else None,
        context_dim=config["cross_attention_dim"],
        use_linear_in_transformer=config.get("_class_name") == VIDEO_UNET or config.get("use_linear_projection", False),
        transformer_depth=equal.pop() if len(equal) == 1 else depths,
        in_channels=config.get("in_channels", 4),
        out_channels=config.get("out_channels", 4),
        adm_in_channels=config.get("projection_class_embeddings_input_dim") or 0,
    )


def _vae_sizes(config: Mapping[str, Any]) -> VAESizes:
    channels = tuple(config["block_out_channels"])
    return VAESizes(
        ch=channels[0],
        ch_mult=tuple(width // channels[0] for width in channels),
        num_res_blocks=config.get("layers_per_block", 2),
        z_channels=config.get("latent_channels", 4),
    )


def _prediction(folder: Path, unet: Mapping[str, Any], headers: Iterable[Header]) -> str:
    """Return the prediction type that the scheduler names, or that the weights tell."""
    scheduler = folder / SCHEDULER
    if scheduler.is_file():
        return str(read_config(scheduler).get("prediction_type", "epsilon"))
    if unet.get("cross_attention_dim") != SD2_CONTEXT:
        return "epsilon"
    return next((h.tell_prediction(PREDICTION_PROBE) for h in headers if PREDICTION_PROBE in h.tensors), "epsilon")
