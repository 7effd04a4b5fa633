"""Example workflows that hand regions to the models that people edit video with."""

from __future__ import annotations

from typing import Any, NamedTuple

from workflow_examples import Model, checkpoint, video
from workflow_format import Graph, Node, Note, Socket
from workflow_notes import (
    H3_NOTE,
    LTX_NOTE,
    SCAIL_NOTE,
    SEGMENT_NOTE,
    TRACK_NOTE,
    VACE_NOTE,
    VOID_NOTE,
    VOID_REGIONS_NOTE,
)

SEGMENT, MASK, EDITOR, PROMPT, SAMPLE, RESULT = 360, 740, 1120, 1500, 1880, 2260
"""Left sides of the columns, pixels."""
ABOVE = -360
"""Top of notes, which stand above the columns, clear of the wires, pixels."""
TALL = (340, 250)
"""Size of a note, pixels."""
REPACKED = "https://huggingface.co/Comfy-Org"
WAN = f"{REPACKED}/Wan_2.1_ComfyUI_repackaged/resolve/main/split_files"


class Weights(NamedTuple):
    """A file that a loader of the host wants."""

    name: str
    directory: str
    link: str


TEXT = Weights("umt5_xxl_fp8_e4m3fn_scaled.safetensors", "text_encoders", f"{WAN}/text_encoders")
WAN_VAE = Weights("wan_2.1_vae.safetensors", "vae", f"{WAN}/vae")
VACE = Weights("wan2.1_vace_14B_fp16.safetensors", "diffusion_models", f"{WAN}/diffusion_models")
T5 = Weights(
    "t5xxl_fp16.safetensors", "text_encoders", "https://huggingface.co/comfyanonymous/flux_text_encoders/resolve/main"
)
VOID, SCAIL, H3 = (f"{REPACKED}/{name}/resolve/main" for name in ("void-model", "SCAIL-2", "MiniMax-H3"))
SIGHT = Weights("clip_vision_h.safetensors", "clip_vision", f"{WAN}/clip_vision")


class Editor(NamedTuple):
    """The model that edits."""

    model: Socket
    clip: Socket
    vae: Socket


def entry(weights: Weights) -> dict[str, Any]:
    """Return what makes the host offer to fetch a file."""
    url = f"{weights.link}/{weights.name}"
    return {"properties": {"models": [{"name": weights.name, "url": url, "directory": weights.directory}]}}


def editor(graph: Graph, unet: Weights, text: Weights, kind: str, vae: Weights) -> Editor:
    """Add the three loaders of a model that edits."""
    model = graph.add("UNETLoader", (EDITOR, 0), unet_name=unet.name, weight_dtype="default", **entry(unet))
    clip = graph.add("CLIPLoader", (EDITOR, 0), clip_name=text.name, type=kind, **entry(text))
    decoder = graph.add("VAELoader", (EDITOR, 0), vae_name=vae.name, **entry(vae))
    return Editor(model[0], clip[0], decoder[0])


def segmented(graph: Graph, frames: Socket, model: Model) -> Node:
    """Add the node that segments, and its preview."""
    labels = graph.add("SegmentVideo", (SEGMENT, 0), **model.inputs, frames=frames, max_side=768, wide=340)
    graph.add("PreviewRegions", (SEGMENT, 0), frames=frames, labels=labels[0], wide=340)
    graph.notes.append(Note(SEGMENT_NOTE, (SEGMENT, ABOVE), (340, 190)))
    return labels


def start(graph: Graph, *, width: int, height: int) -> tuple[Socket, Node]:
    """Add checkpoint, clip in a size that editors take, and regions; returns frames and labels."""
    model, frames = checkpoint(graph), video(graph)
    sized = graph.add("ImageScale", (0, 0), image=frames, upscale_method="lanczos", width=width, height=height,
                      crop="center")  # fmt: skip
    return sized[0], segmented(graph, sized[0], model)


def masked(graph: Graph, labels: Node, *, grow: int) -> Socket:
    """Add the mask of a region that is typed in, made larger."""
    mask = graph.add("RegionsToMask", (MASK, 0), labels=labels[0], regions="3", wide=340)
    return graph.add("FinishMask", (MASK, 0), mask=mask[0], grow=grow, smooth_frames=3, wide=340)[0]


def prompted(graph: Graph, clip: Socket, words: str) -> tuple[Node, Node]:
    """Add what to paint and what to avoid."""
    wanted = graph.add("CLIPTextEncode", (PROMPT, 0), clip=clip, text=words, title="What to paint", wide=340)
    avoid = graph.add("CLIPTextEncode", (PROMPT, 0), clip=clip, text="blurry, low quality, text", wide=340,
                      title="What to avoid")  # fmt: skip
    return wanted, avoid


def saved(graph: Graph, images: Socket, name: str) -> None:
    """Add the file of the result."""
    graph.add("SaveAnimatedWEBP", (RESULT, 0), images=images, filename_prefix=f"vidseg/{name}", fps=8.0, lossless=False,
              wide=420)  # fmt: skip


def repaint_with_vace() -> Graph:
    """(j) A box around a region, repainted by Wan VACE."""
    graph = Graph("Repaint a region with Wan VACE")
    frames, labels = start(graph, width=832, height=480)
    mask = masked(graph, labels, grow=12)
    crop = graph.add("CropClip", (MASK, 0), frames=frames, mask=mask, margin=64, aspect="as frames", wide=340)
    fit = graph.add("FitMaskToModel", (MASK, 0), frames=crop[0], mask=crop[1], wide=340)
    vace = editor(graph, VACE, TEXT, "wan", WAN_VAE)
    shifted = graph.add("ModelSamplingSD3", (EDITOR, 0), model=vace.model, shift=5.0)
    graph.notes.append(Note(VACE_NOTE, (EDITOR, ABOVE), TALL))
    wanted, avoid = prompted(graph, vace.clip, "a rabbit of white marble, detailed, natural light")
    told = graph.add("WanVaceToVideo", (PROMPT, 0), positive=wanted[0], negative=avoid[0], vae=vace.vae, width=fit[3],
                     height=fit[4], length=fit[5], control_video=fit[2], control_masks=fit[1], wide=340)  # fmt: skip
    sampled = graph.add("KSampler", (SAMPLE, 0), model=shifted[0], positive=told[0], negative=told[1],
                        latent_image=told[2], seed=1, steps=20, cfg=6.0, sampler_name="uni_pc", scheduler="simple",
                        denoise=1.0)  # fmt: skip
    trimmed = graph.add("TrimVideoLatent", (SAMPLE, 0), samples=sampled[0], trim_amount=told[3])
    decoded = graph.add("VAEDecode", (SAMPLE, 0), samples=trimmed[0], vae=vace.vae)
    pasted = graph.add("PasteClip", (RESULT, 0), frames=frames, edited=decoded[0], crop=crop[2], mask=fit[1], wide=420)
    saved(graph, pasted[0], "vace")
    return graph


def remove_with_void() -> Graph:
    """(k) A thing and what it acts on, removed by VOID."""
    graph = Graph("Remove a thing with VOID")
    frames, labels = start(graph, width=672, height=384)
    quad = graph.add("RegionsToQuadmask", (MASK, 0), labels=labels[0], remove="3", affected="", wide=340)
    read = graph.add("VOIDQuadmaskPreprocess", (MASK, 0), mask=quad[0], dilate_width=0, wide=340)
    graph.add("MaskPreview", (MASK, 0), mask=read[0], wide=340)
    graph.notes.append(Note(VOID_REGIONS_NOTE, (MASK, ABOVE), TALL))
    void = editor(
        graph,
        Weights("void_pass1.safetensors", "diffusion_models", f"{VOID}/diffusion_models"),
        T5,
        "cogvideox",
        Weights("cogvideox_vae.safetensors", "vae", f"{VOID}/vae"),
    )
    graph.notes.append(Note(VOID_NOTE, (EDITOR, ABOVE), TALL))
    wanted, avoid = prompted(graph, void.clip, "a sunny meadow with trees, nobody is there")
    size = graph.add("GetImageSize", (PROMPT, 0), image=frames, wide=340)
    sizes = {"width": size[0], "height": size[1], "length": size[2]}
    told = graph.add("VOIDInpaintConditioning", (PROMPT, 0), positive=wanted[0], negative=avoid[0], vae=void.vae,
                     video=frames, quadmask=read[0], **sizes, wide=340)  # fmt: skip
    guider = graph.add("CFGGuider", (SAMPLE, 0), model=void.model, positive=told[0], negative=told[1], cfg=6.0)
    noise = graph.add("RandomNoise", (SAMPLE, 0), noise_seed=43)
    sampler = graph.add("VOIDSampler", (SAMPLE, 0))
    sigmas = graph.add("BasicScheduler", (SAMPLE, 0), model=void.model, scheduler="simple", steps=30, denoise=1.0)
    sampled = graph.add("SamplerCustomAdvanced", (SAMPLE, 0), noise=noise[0], guider=guider[0], sampler=sampler[0],
                        sigmas=sigmas[0], latent_image=told[2])  # fmt: skip
    decoded = graph.add("VAEDecode", (RESULT, 0), samples=sampled[0], vae=void.vae, wide=420)
    saved(graph, decoded[0], "void")
    return graph


def background_with_ltx() -> Graph:
    """(l) Another background by LTX, in the latent of the clip."""
    graph = Graph("Change the background with LTX")
    frames, labels = start(graph, width=768, height=448)
    mask = masked(graph, labels, grow=4)
    fit = graph.add("FitMaskToModel", (MASK, 0), frames=frames, mask=mask, video_model="LTX", wide=340)
    name = "ltx-video-2b-v0.9.5.safetensors"
    file = Weights(name, "checkpoints", "https://huggingface.co/Lightricks/LTX-Video/resolve/main")
    ltx = graph.add("CheckpointLoaderSimple", (EDITOR, 0), ckpt_name=name, **entry(file))
    clip = graph.add("CLIPLoader", (EDITOR, 0), clip_name=T5.name, type="ltxv", **entry(T5))
    graph.notes.append(Note(LTX_NOTE, (EDITOR, ABOVE), TALL))
    wanted, avoid = prompted(graph, clip[0], "a snowy mountain range under a clear blue sky behind a cartoon rabbit")
    told = graph.add("LTXVConditioning", (PROMPT, 0), positive=wanted[0], negative=avoid[0], frame_rate=24.0, wide=340)
    latent = graph.add("VAEEncode", (PROMPT, 0), pixels=fit[0], vae=ltx[2], wide=340)
    holed = graph.add("SetLatentNoiseMask", (PROMPT, 0), samples=latent[0], mask=fit[1], wide=340)
    sigmas = graph.add("LTXVScheduler", (SAMPLE, 0), latent=holed[0], steps=30)
    sampler = graph.add("KSamplerSelect", (SAMPLE, 0), sampler_name="euler")
    sampled = graph.add("SamplerCustom", (SAMPLE, 0), model=ltx[0], add_noise=True, noise_seed=1, cfg=3.0,
                        positive=told[0], negative=told[1], sampler=sampler[0], sigmas=sigmas[0],
                        latent_image=holed[0])  # fmt: skip
    decoded = graph.add("VAEDecode", (RESULT, 0), samples=sampled[0], vae=ltx[2], wide=420)
    whole = graph.add("ImageCompositeMasked", (RESULT, 0), destination=fit[0], source=decoded[0], mask=fit[1],
                      wide=420)  # fmt: skip
    saved(graph, whole[0], "ltx")
    return graph


def character_for_scail() -> Graph:
    """(m) Colored masks of characters for SCAIL-2, without SAM."""
    graph = Graph("Replace a character with SCAIL-2")
    frames, labels = start(graph, width=832, height=480)
    track = graph.add("RegionsToTrack", (MASK, 0), labels=labels[0], regions="3", wide=340)
    first = graph.add("ImageFromBatch", (MASK, 0), image=frames, batch_index=0, length=1, wide=340,
                      title="New character (put your picture here)")  # fmt: skip
    subject = graph.add("RegionsToMask", (MASK, 0), labels=labels[0], regions="3", wide=340,
                        title="Mask of the new character")  # fmt: skip
    colored = graph.add("SCAIL2ColoredMask", (MASK, 0), driving_track_data=track[0], ref_track_data=subject[0],
                        sort_by="none", replacement_mode=True, wide=340)  # fmt: skip
    graph.add("PreviewImage", (MASK, 0), images=colored[0], wide=340)
    graph.notes.append(Note(TRACK_NOTE, (MASK, ABOVE), TALL))
    weights = Weights("wan2.1_14B_SCAIL_2_fp16.safetensors", "diffusion_models", f"{SCAIL}/diffusion_models")
    scail = editor(graph, weights, TEXT, "wan", WAN_VAE)
    shifted = graph.add("ModelSamplingSD3", (EDITOR, 0), model=scail.model, shift=5.0)
    sight = graph.add("CLIPVisionLoader", (EDITOR, 0), clip_name=SIGHT.name, **entry(SIGHT))
    seen = graph.add("CLIPVisionEncode", (EDITOR, 0), clip_vision=sight[0], image=first[0], crop="none")
    graph.notes.append(Note(SCAIL_NOTE, (EDITOR, ABOVE), TALL))
    wanted, avoid = prompted(graph, scail.clip, "a rabbit in a red jacket dances in a meadow")
    size = graph.add("GetImageSize", (PROMPT, 0), image=frames, wide=340)
    told = graph.add("WanSCAILToVideo", (PROMPT, 0), positive=wanted[0], negative=avoid[0], vae=scail.vae,
                     width=size[0], height=size[1], length=size[2], pose_video=frames, pose_video_mask=colored[0],
                     replacement_mode=True, reference_image=first[0], reference_image_mask=colored[1],
                     clip_vision_output=seen[0], wide=340)  # fmt: skip
    sampled = graph.add("KSampler", (SAMPLE, 0), model=shifted[0], positive=told[0], negative=told[1],
                        latent_image=told[2], seed=1, steps=40, cfg=5.0, sampler_name="euler", scheduler="simple",
                        denoise=1.0)  # fmt: skip
    decoded = graph.add("VAEDecode", (SAMPLE, 0), samples=sampled[0], vae=scail.vae)
    saved(graph, decoded[0], "scail")
    return graph


def reference_for_h3() -> Graph:
    """(n) A region as reference picture, and the clip without it as reference video, for MiniMax H3."""
    graph = Graph("Use a region as reference for MiniMax H3")
    frames, labels = start(graph, width=768, height=448)
    mask = masked(graph, labels, grow=2)
    fit = graph.add("FitMaskToModel", (MASK, 0), frames=frames, mask=mask, video_model="MiniMax H3", wide=340)
    outside = graph.add("InvertMask", (MASK, 0), mask=mask, wide=340)
    white = graph.add("EmptyImage", (MASK, 0), width=768, height=448, color=0xFFFFFF, wide=340, title="White")
    alone = graph.add("ImageCompositeMasked", (MASK, 0), destination=frames, source=white[0], mask=outside[0],
                      resize_source=True, wide=340, title="The region alone")  # fmt: skip
    picture = graph.add("ImageFromBatch", (MASK, 0), image=alone[0], batch_index=0, length=1, wide=340)
    graph.add("PreviewImage", (MASK, 0), images=picture[0], wide=340)
    h3 = editor(
        graph,
        Weights("minimax_h3_ref2va_pruned_int8_convrot.safetensors", "diffusion_models", f"{H3}/diffusion_models"),
        Weights("qwen3vl_32b_minimax_h3_nvfp4_awq.safetensors", "text_encoders", f"{H3}/text_encoders"),
        "minimax",
        Weights("minimax_h3_video_vae_fp16.safetensors", "vae", f"{H3}/vae"),
    )
    voice = Weights("minimax_h3_audio_vae_fp32.safetensors", "vae", f"{H3}/vae")
    sound = graph.add("VAELoader", (EDITOR, 0), vae_name=voice.name, title="Load VAE (sound)", **entry(voice))
    graph.notes.append(Note(H3_NOTE, (EDITOR, ABOVE), TALL))
    told = graph.add("MiniMaxH3ReferenceToVideo", (PROMPT, 0), clip=h3.clip, vae=h3.vae, audio_vae=sound[0],
                     prompt="<Picture 1> sits in a sunny kitchen; what is gray in <Video 1> is where it was",
                     width=fit[3], height=fit[4], length=fit[5], wide=340,
                     **{"ref_images.ref_image_0": picture[0], "ref_videos.ref_video_0": fit[2]})  # fmt: skip
    guider = graph.add("BasicGuider", (SAMPLE, 0), model=h3.model, conditioning=told[0])
    noise = graph.add("RandomNoise", (SAMPLE, 0), noise_seed=1)
    sampler = graph.add("KSamplerSelect", (SAMPLE, 0), sampler_name="res_multistep")
    sigmas = graph.add("BasicScheduler", (SAMPLE, 0), model=h3.model, scheduler="simple", steps=20, denoise=1.0)
    sampled = graph.add("SamplerCustomAdvanced", (SAMPLE, 0), noise=noise[0], guider=guider[0], sampler=sampler[0],
                        sigmas=sigmas[0], latent_image=told[1])  # fmt: skip
    parts = graph.add("LTXVSeparateAVLatent", (SAMPLE, 0), av_latent=sampled[0], title="Separate picture and sound")
    decoded = graph.add("VAEDecode", (RESULT, 0), samples=parts[0], vae=h3.vae, wide=420)
    saved(graph, decoded[0], "h3")
    return graph


EDITING: dict[str, Any] = {
    "10 Repaint a region with Wan VACE": repaint_with_vace,
    "11 Remove a thing with VOID": remove_with_void,
    "12 Change the background with LTX": background_with_ltx,
    "13 Replace a character with SCAIL-2": character_for_scail,
    "14 Use a region as reference for MiniMax H3": reference_for_h3,
}
"""By file name."""
