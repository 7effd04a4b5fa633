"""Between regions and video models that edit: masks on the model's grid, a box cut out, and put back."""

from __future__ import annotations

from comfy_api.latest import io, ui
from torch import Tensor

from ..core.regions.crops import Crop, CropConfig, crop_frames, find_crop, paste_frames
from ..core.regions.model_grid import GRIDS, custom_grid, fit_frames, fit_masks
from ..core.types import InputError
from .host.frames import require_images
from .host.progress import NodeProgress
from .host.schema import ClipCrop, advanced, schema
from .previews import choose_shown

GRAY = 0.5
"""What masked pixels are replaced by: what Wan VACE and others take for unknown."""
SHOWN_FPS = 12.0
"""Speed of a preview."""
ASPECTS = {"free": 0.0, "as frames": -1.0, "1:1": 1.0, "4:3": 4 / 3, "3:4": 3 / 4, "16:9": 16 / 9, "9:16": 9 / 16}
CUSTOM_GRID = {
    "first": (1, 64, "Frames of the first latent frame."),
    "group": (4, 64, "Frames of each other latent frame."),
    "cell": (16, 256, "Pixels of a side of a cell."),
}
"""Widgets of a grid that is none of those known: default, most, and text of each."""
_CROP = CropConfig()


class FitMaskToModel(io.ComfyNode):
    """Mask -> mask on a video model's grid."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return schema(
            "masks",
            node_id="FitMaskToModel",
            display_name="Fit Mask to Video Model",
            description="Make masks and frames fit a video model, so that nothing of the old thing bleeds through: "
            "each latent cell that holds a masked pixel is masked, in space and time, and the number of frames is one "
            "that the model takes.",
            search_aliases=["vidseg", "wan vace mask", "ltx mask", "latent mask", "inpaint video", "mask bleeding"],
            inputs=[
                io.Image.Input("frames", tooltip="The clip, or the boxes of Crop Clip."),
                io.Mask.Input("mask", tooltip="One mask per frame, as from Regions to Mask; or one for all."),
                io.Combo.Input(
                    "video_model",
                    options=[*GRIDS, "custom"],
                    default="Wan, Hunyuan",
                    tooltip="Whose grid: latent frames of 4 (LTX: 8) frames after a first one, cells of 8 pixels "
                    "(LTX: 32, H3: 16). SD, per frame: each frame by itself. custom: see below.",
                ),
                io.Combo.Input(
                    "length",
                    options=["pad", "trim", "keep"],
                    default="pad",
                    tooltip="When the model does not take this number of frames. pad: repeat the last. trim: leave "
                    "out the last ones. keep: stop, and say which numbers it takes.",
                ),
                io.Combo.Input(
                    "unit",
                    options=["latent", "token"],
                    default="latent",
                    tooltip="latent: mask single latent cells. token: mask all cells that the model takes together.",
                ),
                *(
                    advanced(io.Int.Input(f"custom_{name}", default=default, min=1, max=most, tooltip=text))
                    for name, (default, most, text) in CUSTOM_GRID.items()
                ),
            ],
            outputs=[
                io.Image.Output("fitted_frames", display_name="frames"),
                io.Mask.Output("fitted", display_name="mask"),
                io.Image.Output("masked_frames", display_name="masked_frames"),
                io.Int.Output("width", display_name="width"),
                io.Int.Output("height", display_name="height"),
                io.Int.Output("count", display_name="length"),
                io.String.Output("report", display_name="report"),
            ],
        )

    @classmethod
    def execute(
        cls, frames: Tensor, mask: Tensor, video_model: str, length: str, unit: str,
        custom_first: int, custom_group: int, custom_cell: int,
    ) -> io.NodeOutput:  # fmt: skip
        """Fit frames and masks."""
        frames, masks = require_images(frames), match_masks(mask, frames)
        grid = GRIDS.get(video_model) or custom_grid(custom_first, custom_group, custom_cell)
        fitted = fit_masks(masks, grid, unit, length, NodeProgress(has_text=False))
        kept = fit_frames(frames, grid, length)
        shown = kept[..., :3].masked_fill(fitted.seen[..., None], GRAY)
        count, height, width = (int(size) for size in kept.shape[:3])
        report = _report(video_model, len(frames), count, fitted.cells)
        images = choose_shown(shown, SHOWN_FPS, cls)
        told = {**images.as_dict(), **ui.PreviewText(report).as_dict()}
        return io.NodeOutput(kept, fitted.masks, shown, width, height, count, report, ui=told)


def _report(video_model: str, before: int, after: int, cells: Tensor) -> str:
    """Return what was done, in words."""
    number, rows, columns = cells.shape
    change = f", of which the last {after - before} repeat one" if after > before else ""
    if after < before:
        change = f" of {before}, the last {before - after} left out"
    share = float(cells.float().mean())
    return (
        f"{video_model}: {after} frames{change}; {number} latent frames of {columns}x{rows} cells, {share:.0%} masked."
    )


def match_masks(mask: Tensor, frames: Tensor) -> Tensor:
    """Return a MASK as one mask ``(T,H,W)`` for each of ``frames`` ``(T,H,W,C)``."""
    masks = mask.reshape(-1, *mask.shape[-2:]).cpu()
    count, height, width = (int(size) for size in frames.shape[:3])
    if len(masks) == 1 < count:
        masks = masks.expand(count, -1, -1)
    if tuple(masks.shape) != (count, height, width):
        raise InputError(
            f"`mask` must have the number and size of `frames`, {count} of {width}x{height}, but got {len(masks)} of "
            f"{masks.shape[2]}x{masks.shape[1]}. Wire the mask of the same clip."
        )
    return masks


class CropClip(io.ComfyNode):
    """Cut a box around a mask out of a clip."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return schema(
            "masks",
            node_id="CropClip",
            display_name="Crop Clip",
            description="Cut the smallest box around a mask out of a clip, so that a video model works on few pixels. "
            "The box has one size, stands still or follows smoothly, and Paste Clip puts it back.",
            search_aliases=["vidseg", "inpaint crop", "crop and stitch", "crop by mask", "track crop"],
            inputs=[
                io.Image.Input("frames", tooltip="The clip that is to be edited."),
                io.Mask.Input("mask", tooltip="One mask per frame; what is to be edited."),
                io.Int.Input(
                    "margin", default=_CROP.margin, min=0, max=4096, tooltip="Pixels around the mask for context."
                ),
                io.Int.Input(
                    "multiple",
                    default=_CROP.multiple,
                    min=1,
                    max=256,
                    tooltip="Sides of the box are multiples of this: 16 for Wan, Hunyuan and VOID, 32 for LTX and H3.",
                ),
                io.Int.Input(
                    "follow",
                    default=_CROP.follow,
                    min=0,
                    max=512,
                    tooltip="Pixels by which the box may move from frame to frame; 0: it stands still. The more, the "
                    "smaller the box.",
                ),
                io.Combo.Input(
                    "aspect",
                    options=list(ASPECTS),
                    default="free",
                    tooltip="Extend the box to this width by height, as far as the frame goes.",
                ),
            ],
            outputs=[
                io.Image.Output("cropped", display_name="frames"),
                io.Mask.Output("cropped_mask", display_name="mask"),
                ClipCrop.Output("crop", display_name="crop"),
                io.Int.Output("width", display_name="width"),
                io.Int.Output("height", display_name="height"),
            ],
        )

    @classmethod
    def execute(
        cls, frames: Tensor, mask: Tensor, margin: int, multiple: int, follow: int, aspect: str
    ) -> io.NodeOutput:
        """Find the boxes and cut them out."""
        frames, masks = require_images(frames), match_masks(mask, frames)
        ratio = ASPECTS[aspect] if aspect != "as frames" else frames.shape[2] / frames.shape[1]
        crop = find_crop(masks, CropConfig(margin, multiple, follow, ratio))
        progress = NodeProgress(has_text=False)
        boxes, inside = crop_frames(frames, crop, progress), crop_frames(masks.float(), crop)
        height, width = crop.size
        return io.NodeOutput(boxes, inside, crop, width, height)


class PasteClip(io.ComfyNode):
    """Put an edited box back."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return schema(
            "masks",
            node_id="PasteClip",
            display_name="Paste Clip",
            description="Put what became of the box of Crop Clip back into the clip, with a soft seam inside the "
            "mask. Pixels outside the mask stay as they are, to the last bit.",
            search_aliases=["vidseg", "stitch", "inpaint stitch", "uncrop", "composite"],
            inputs=[
                io.Image.Input("frames", tooltip="The clip that went into Crop Clip."),
                io.Image.Input(
                    "edited", tooltip="The edited box, in any size; frames beyond those of the clip are left out."
                ),
                ClipCrop.Input("crop", tooltip="From Crop Clip."),
                io.Int.Input(
                    "feather",
                    default=8,
                    min=0,
                    max=512,
                    tooltip="Pixels over which the edit fades in, inside the mask.",
                ),
                io.Mask.Input(
                    "mask",
                    optional=True,
                    tooltip="What was edited, within the box, as from Fit Mask to Video Model. Not connected: the "
                    "mask of Crop Clip.",
                ),
            ],
            outputs=[io.Image.Output("pasted", display_name="frames")],
        )

    @classmethod
    def execute(
        cls, frames: Tensor, edited: Tensor, crop: Crop, feather: int, mask: Tensor | None = None
    ) -> io.NodeOutput:
        """Paste the frames."""
        frames, edited = require_images(frames), require_images(edited)
        masks = None if mask is None else mask.reshape(-1, *mask.shape[-2:])
        return io.NodeOutput(paste_frames(frames, edited, crop, masks, feather, NodeProgress(has_text=False)))
