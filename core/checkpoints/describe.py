"""Recognize a model file or folder before anything is loaded: sizes, what is refused, fingerprint."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from ..config.parts import ATTENTION_BLOCKS, XL_ATTENTION_BLOCKS
from ..config.settings import list_qualities
from ..types import InputError
from .files import Header, find_common_dtype, read_folder, read_header
from .foreign import is_video, refuse_foreign_file
from .sizes import METADATA_KEY, SD2_CONTEXT, UNET_PREFIX, VAE_PREFIX, ModelSizes

CONDITIONING_KEY = "conditioning.positive"
"""Tensor of a file with the embedding of the empty prompt, ``(77, context)``; for SVD of a frame, ``(1, context)``."""
POOLED_KEY = "conditioning.pooled"
"""Tensor beside it with SDXL's pooled text ``(C,)``."""
VELOCITY_KEY, ZERO_SNR_KEY = "v_pred", "ztsnr"
"""Tensors by which a file of SDXL's kind says that it predicts velocity, and that its schedule ends in pure noise."""
TEXT_PREFIX = "cond_stage_model."
XL_TEXT_PREFIX = "conditioner.embedders."
IMAGE_PREFIX = "conditioner.embedders.0.open_clip.model.visual."
FRAME_ENCODER_PREFIX = "conditioner.embedders.3.encoder."
"""Autoencoder of SVD files that encodes the frame which conditions a window."""
_ENCODERS = {
    "sd": ("text encoder", TEXT_PREFIX),
    "svd": ("image encoder", IMAGE_PREFIX),
    "sdxl": ("text encoder", XL_TEXT_PREFIX),
}
XT_NAME, XT_FRAMES = re.compile(r"(?<![a-z])(svd)?xt(?![a-z])", re.IGNORECASE), 25
"""What tells a file of SVD-XT, whose tensors are those of SVD, and the frames that it sees together (model card)."""
PREDICTION_PROBE = f"{UNET_PREFIX}output_blocks.11.1.transformer_blocks.0.norm1.bias"


class BlockInfo(NamedTuple):
    """Decoder block with attention: pixels of the frame per cell of its grid along a side, and its channels."""

    block: int
    grid_divisor: int
    channels: int


@dataclass(frozen=True)
class ModelDescription:
    """What a model file or folder holds, read once for a run.

    Attributes:
        path: the file or folder.
        layout: ``file`` (original layout) or ``folder`` (diffusers).
        files: all weight files, in order.
        sizes: widths, prediction type and scale.
        conditioning: where the embedding of the empty prompt, or that of a frame for SVD, comes from: ``tensor``,
            ``text encoder``, ``image encoder``, ``zeros`` (SDXL, which was trained with them) or ``none``.
        num_parameters: of ``unet``, ``vae``, ``text encoder`` and ``image encoder``, those that there are.
        dtype: most frequent type of the UNet's values, such as ``F16``.
        num_frames: frames that a video model sees together, where the folder's configuration or the file's name tells;
            0 where neither does, and for image models.
    """

    path: Path
    layout: str
    files: tuple[Path, ...]
    sizes: ModelSizes
    conditioning: str
    num_parameters: dict[str, int]
    dtype: str
    num_frames: int = 0

    @property
    def kind(self) -> str:
        """``svd`` for Stable Video Diffusion, ``sdxl`` for SDXL, else ``sd``."""
        return self.sizes.unet.kind

    @property
    def family(self) -> str:
        """Name of the family, by the width of the context and the form of the projections."""
        if self.kind != "sd":
            return self.kind.upper()
        return "SD 2.x" if self.sizes.unet.use_linear_in_transformer else "SD 1.x"

    @property
    def qualities(self) -> tuple[str, ...]:
        """The qualities that it serves."""
        return list_qualities(self.kind)

    @property
    def num_bytes(self) -> int:
        """Size of the files."""
        return sum(file.stat().st_size for file in self.files)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the weight files, one after the other, hexadecimal; the first use reads them."""
        return hash_files(self.files)

    @property
    def blocks(self) -> tuple[BlockInfo, ...]:
        """Decoder blocks with attention: the paper's 3..11, or SDXL's 0..5."""
        channels = self.sizes.unet.channels
        numbers = XL_ATTENTION_BLOCKS if self.kind == "sdxl" else ATTENTION_BLOCKS
        levels = [(block, len(channels) - 1 - block // 3) for block in numbers]
        return tuple(BlockInfo(block, 8 * 2**level, channels[level]) for block, level in levels)


def hash_files(files: Iterable[Path]) -> str:
    """Return the SHA-256 of files, one after the other, hexadecimal."""
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as stream:
            while chunk := stream.read(1 << 22):
                digest.update(chunk)
    return digest.hexdigest()


def describe_model(path: str | Path) -> ModelDescription:
    """Describe a `.safetensors` file in the original layout, or a diffusers folder, without loading its weights.

    Raises:
        InputError: missing, unreadable, truncated or not a model of `SUPPORTED`.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"`model` must be an existing file or folder, but {path} does not exist. Check the path.")
    description = _describe_folder(path) if path.is_dir() else _describe_file(path)
    description.sizes.check(path.name)
    return description


def _describe_file(path: Path) -> ModelDescription:
    header = read_header(path)
    refuse_foreign_file(path.name, header.shapes)
    if METADATA_KEY in header.metadata:
        sizes = ModelSizes.from_metadata(header.metadata[METADATA_KEY])
    else:
        sizes = ModelSizes.from_shapes(header.shapes, _prediction(header), zero_snr=ZERO_SNR_KEY in header.tensors)
    encoder, prefix = _ENCODERS[sizes.unet.kind]
    has_encoder = any(name.startswith(prefix) for name in header.tensors)
    found = "zeros" if sizes.unet.kind == "sdxl" else encoder if has_encoder else "none"
    conditioning = "tensor" if CONDITIONING_KEY in header.tensors else found
    counts = {
        part: sum(info.size for name, info in header.tensors.items() if name.startswith(start))
        for part, start in (("unet", UNET_PREFIX), ("vae", VAE_PREFIX), (encoder, prefix))
    }
    dtype = find_common_dtype(info for name, info in header.tensors.items() if name.startswith(UNET_PREFIX))
    num_frames = XT_FRAMES if sizes.unet.is_video and XT_NAME.search(path.stem) else 0
    return ModelDescription(path, "file", (path,), sizes, conditioning, counts, dtype, num_frames)


def _describe_folder(path: Path) -> ModelDescription:
    folder = read_folder(path)
    files = tuple(header.path for headers in folder.headers.values() for header in headers)
    counts = {
        part: sum(t.size for h in headers for t in h.tensors.values()) for part, headers in folder.headers.items()
    }
    dtype = find_common_dtype(info for header in folder.headers["unet"] for info in header.tensors.values())
    encoders = [part for part in ("text encoder", "image encoder") if part in folder.headers]
    conditioning = "zeros" if folder.zero_prompt else encoders[0] if encoders else "none"
    return ModelDescription(path, "folder", files, folder.sizes, conditioning, counts, dtype, folder.num_frames)


def _prediction(header: Header) -> str:
    """Return the prediction type of a single file: SVD predicts velocity, SDXL tells, SD 2.x is told by a bias."""
    shapes = header.shapes
    if is_video(shapes) or VELOCITY_KEY in shapes:
        return "v_prediction"
    context = shapes.get(f"{UNET_PREFIX}input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight", (0, 0))[1]
    is_told = context == SD2_CONTEXT and PREDICTION_PROBE in shapes
    return header.tell_prediction(PREDICTION_PROBE) if is_told else "epsilon"
