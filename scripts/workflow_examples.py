"""The example workflows, node by node."""

from __future__ import annotations

from typing import Any, NamedTuple

from workflow_format import BYPASSED, Graph, Node, Note, Socket
from workflow_notes import (
    CHECKPOINT,
    CHECKPOINT_LINK,
    CHOOSE_NOTE,
    COMPARE_NOTE,
    DEMO_NOTE,
    MODEL_NOTE,
    NAME_NOTE,
    ONE_BOX_NOTE,
    PAINTING_NOTE,
    SWAP_NOTE,
    TEMPORAL_NOTE,
    VIDEO_CHECKPOINT,
    VIDEO_CHECKPOINT_LINK,
    VIDEO_MODEL_NOTE,
    VIDEO_NOTE,
)

DEMO_SIZE = {"max_side": 448, "clusters": 8}
DEMO_SEED, DEMO_MOTION = 16, 0.15
"""The demonstration's, see `core.command.commands`."""
"""Size and number of regions for the demo model: seconds on a CPU."""
NOTES = -380
"""Left side of the column of notes, where no wire runs, pixels."""
ROW = 888
"""Top of what stands below the frame around the five stages, pixels."""
STAGES = (
    "ExtractDiffusionFeatures", "KMeansInit", "SceneContextKNN", "CorrespondenceRefine", "MaskedModulationUpsample",
)  # fmt: skip


class Model(NamedTuple):
    """Where a graph gets its model from."""

    model: Socket
    vae: Socket
    positive: Socket
    negative: Socket
    clip: Socket | None

    @property
    def inputs(self) -> dict[str, Socket]:
        """Return the inputs of nodes that run it."""
        return {"model": self.model, "vae": self.vae, "positive": self.positive, "negative": self.negative}


def checkpoint(graph: Graph, *, paints: bool = False) -> Model:
    """Add a checkpoint with the empty prompt and zeros; its note tells whether the graph paints with it too."""
    entry = {"name": CHECKPOINT, "url": CHECKPOINT_LINK, "directory": "checkpoints"}
    graph.notes.append(Note(MODEL_NOTE + PAINTING_NOTE * paints, (NOTES, 0), (340, 400)))
    return _loaded(graph, properties={"models": [entry]})


def _loaded(graph: Graph, **looks: Any) -> Model:  # noqa: ANN401
    """Add a checkpoint's loader, the empty prompt and zeros."""
    own = {name: looks[name] for name in ("state",) if name in looks}
    loader = graph.add("CheckpointLoaderSimple", (0, 0), ckpt_name=CHECKPOINT, **looks)
    prompt = graph.add("CLIPTextEncode", (0, 160), clip=loader[1], text="", title="Empty prompt", **own)
    zeros = graph.add("ConditioningZeroOut", (0, 320), conditioning=prompt[0], **own)
    return Model(loader[0], loader[2], prompt[0], zeros[0], loader[1])


def demo(graph: Graph, text: str) -> tuple[Model, Socket]:
    """Add the demo model, and a checkpoint beside it to swap it for; returns model and frames. ``text`` is a note."""
    loader = graph.add("LoadDemoModel", (0, 0))
    _loaded(graph, state=BYPASSED)
    graph.notes.append(Note(text, (NOTES, 0), (340, 330)))
    graph.notes.append(Note(SWAP_NOTE, (NOTES, 0), (340, 330)))
    return Model(loader[0], loader[1], loader[2], loader[3], None), loader[4]


def video(graph: Graph) -> Socket:
    """Add the bundled clip, where a video of one's own can take its place; returns the frames."""
    clip = graph.add("LoadDemoModel", (0, 400), title="Demo clip")
    made = graph.add("CreateVideo", (0, 600), images=clip[4], fps=8.0)
    frames = graph.add("GetVideoComponents", (0, 720), video=made[0])
    graph.notes.append(Note(VIDEO_NOTE, (NOTES, 0), (340, 220)))
    return frames[0]


def coarse(
    graph: Graph, model: Model, frames: Socket, *, max_side: int, clusters: int, motion: float = 0.0, **seed: int
) -> tuple[Node, Node]:
    """Add the first four stages; returns features and refined labels."""
    features = graph.add("ExtractDiffusionFeatures", (340, 0), **model.inputs, frames=frames, max_side=max_side, **seed)
    anchor_labels = graph.add(
        "KMeansInit", (680, 0), features=features[0], num_clusters=clusters, motion=motion, **seed
    )
    labels = graph.add("SceneContextKNN", (680, 260), features=features[0], anchor_labels=anchor_labels[0])
    return features, graph.add("CorrespondenceRefine", (680, 500), labels=labels[0])


def fine(graph: Graph, model: Model, features: Node, labels: Node, *, quality: str = "exact") -> Node:
    """Add the last stage."""
    last = graph.add("MaskedModulationUpsample", (1020, 0), **model.inputs, features=features[0], labels=labels[0],
                     quality=quality)  # fmt: skip
    stages = [node for node in graph.nodes if node.kind in STAGES]
    graph.groups["VidSeg: the five stages"] = stages
    return last


def segment_a_video() -> Graph:
    """(a) The five nodes."""
    graph = Graph("Segment a video")
    model, frames = checkpoint(graph), video(graph)
    features, refined = coarse(graph, model, frames, max_side=768, clusters=20)
    labels = fine(graph, model, features, refined)
    preview = graph.add("PreviewRegions", (1360, 0), frames=frames, labels=labels[0], wide=560)
    graph.add("SaveRegions", (1020, ROW), labels=labels[0])
    graph.add("SaveAnimatedWEBP", (1360, 520), images=preview[0], filename_prefix="vidseg/overlay", fps=8.0,
              lossless=False, wide=560)  # fmt: skip
    return graph


Places = tuple[tuple[int, int], tuple[int, int]]


def repainted(graph: Graph, model: Model, frames: Socket, mask: Socket, *, words: str, places: Places) -> None:
    """Add what paints ``words`` under a mask, in two columns; the checkpoint that segments also paints."""
    prompts, place = places
    source = model.clip if model.clip else model.positive
    wanted = graph.add("CLIPTextEncode", prompts, clip=source, text=words, title="What to paint")
    avoid = graph.add("CLIPTextEncode", prompts, clip=source, text="blurry, text", title="What to avoid")
    latent = graph.add("VAEEncode", place, pixels=frames, vae=model.vae)
    masked = graph.add("SetLatentNoiseMask", place, samples=latent[0], mask=mask)
    sampled = graph.add("KSampler", place, model=model.model, positive=wanted[0], negative=avoid[0],
                        latent_image=masked[0], seed=1, steps=20, cfg=7.0, sampler_name="euler", scheduler="normal",
                        denoise=0.7)  # fmt: skip
    decoded = graph.add("VAEDecode", place, samples=sampled[0], vae=model.vae)
    result = graph.add("ImageCompositeMasked", place, destination=frames, source=decoded[0], mask=mask)
    graph.add("SaveAnimatedWEBP", place, images=result[0], filename_prefix="vidseg/repainted", fps=8.0, lossless=False)


def repaint_one_region() -> Graph:
    """(b) Inpainting of a region."""
    graph = Graph("Repaint one region")
    model, frames = checkpoint(graph, paints=True), video(graph)
    sized = graph.add("ImageScale", (0, ROW), image=frames, upscale_method="lanczos", width=512, height=320,
                      crop="center")  # fmt: skip
    features, refined = coarse(graph, model, sized[0], max_side=0, clusters=8)
    labels = fine(graph, model, features, refined)
    graph.add("PreviewRegions", (1020, ROW), frames=sized[0], labels=labels[0], wide=320)
    mask = graph.add("RegionsToMask", (1360, 0), labels=labels[0], regions="3")
    grown = graph.add("GrowMask", (1360, 0), mask=mask[0], expand=6)
    repainted(graph, model, sized[0], grown[0], words="a statue of white marble, detailed",
              places=((1360, 0), (1720, 0)))  # fmt: skip
    graph.notes.append(Note(CHOOSE_NOTE, (NOTES, 0), (340, 150)))
    return graph


def replace_the_background() -> Graph:
    """(c) Background."""
    graph = Graph("Remove or replace the background")
    model, frames = checkpoint(graph), video(graph)
    features, refined = coarse(graph, model, frames, max_side=512, clusters=8)
    labels = fine(graph, model, features, refined)
    graph.add("PreviewRegions", (1020, ROW), frames=frames, labels=labels[0], wide=340)
    named = graph.add("NameRegions", (1360, 0), labels=labels[0], names="background: 4")
    mask = graph.add("RegionsToMask", (1360, 0), labels=named[0], regions="background")
    color = graph.add("EmptyImage", (1360, 0), color=0x2E8B57, title="New background (or any image)")
    replaced = graph.add("ImageCompositeMasked", (1360, 0), destination=frames, source=color[0], mask=mask[0],
                         resize_source=True)  # fmt: skip
    graph.add("SaveAnimatedWEBP", (1760, 0), images=replaced[0], filename_prefix="vidseg/replaced", fps=8.0,
              lossless=False, wide=380)  # fmt: skip
    cut = graph.add("JoinImageWithAlpha", (1360, 0), image=frames, alpha=mask[0])
    graph.add("SaveAnimatedWEBP", (1760, 0), images=cut[0], filename_prefix="vidseg/cut_out", fps=8.0, lossless=False,
              wide=380, title="Without the background")  # fmt: skip
    graph.notes.append(Note(NAME_NOTE, (NOTES, 0), (340, 260)))
    return graph


def one_box() -> Graph:
    """(d) The whole chain in one node."""
    graph = Graph("Segment a video in one box")
    model, frames = demo(graph, ONE_BOX_NOTE)
    labels = graph.add("SegmentVideo", (340, 0), **model.inputs, frames=frames, max_side=DEMO_SIZE["max_side"],
                       num_clusters=DEMO_SIZE["clusters"], quality="fast", seed=DEMO_SEED,
                       motion=DEMO_MOTION)  # fmt: skip
    graph.add("PreviewRegions", (680, 0), frames=frames, labels=labels[0], wide=560)
    mask = graph.add("RegionsToMask", (340, 420), labels=labels[0], regions="7")
    picture = graph.add("MaskToImage", (340, 580), mask=mask[0])
    graph.add("PreviewImage", (680, 520), images=picture[0], wide=560)
    return graph


def compare_two_settings() -> Graph:
    """(e) Two settings side by side."""
    graph = Graph("Compare two settings")
    model, frames = demo(graph, COMPARE_NOTE)
    features = graph.add("ExtractDiffusionFeatures", (340, 0), **model.inputs, frames=frames,
                         max_side=DEMO_SIZE["max_side"], seed=DEMO_SEED)  # fmt: skip
    anchor_labels = graph.add("KMeansInit", (340, 0), features=features[0], num_clusters=DEMO_SIZE["clusters"],
                              motion=DEMO_MOTION, seed=DEMO_SEED)  # fmt: skip
    sides = []
    for row, (name, window) in enumerate((("A: windows of one frame", 1), ("B: windows of 14 frames, refined", 14))):
        top = 480 * row
        labels = graph.add("SceneContextKNN", (680, top), features=features[0], anchor_labels=anchor_labels[0],
                           window_length=window,
                           title=name)  # fmt: skip
        refined = labels if row == 0 else graph.add("CorrespondenceRefine", (680, top), labels=labels[0])
        preview = graph.add("PreviewRegions", (1020, top), frames=frames, labels=refined[0], wide=360)
        score = graph.add("ScoreRegions", (1400, top), labels=refined[0], wide=260)
        graph.add("PreviewAny", (1400, top), source=score[0], title="How steady the regions are", wide=260)
        sides.append(preview)
    both = graph.add("ImageStitch", (1700, 0), image1=sides[0][0], image2=sides[1][0], wide=280)
    graph.add("SaveAnimatedWEBP", (1700, 0), images=both[0], filename_prefix="vidseg/compared", fps=8.0,
              lossless=False, wide=280)  # fmt: skip
    return graph


def with_stable_video_diffusion() -> Graph:
    """(g) The five nodes with a video model, and its temporal features to look at."""
    graph = Graph("Segment a video with Stable Video Diffusion")
    entry = {"name": VIDEO_CHECKPOINT, "url": VIDEO_CHECKPOINT_LINK, "directory": "checkpoints"}
    loader = graph.add("ImageOnlyCheckpointLoader", (0, 0), ckpt_name=VIDEO_CHECKPOINT, properties={"models": [entry]},
                       title="Load Checkpoint (image to video)")  # fmt: skip
    graph.notes.append(Note(VIDEO_MODEL_NOTE, (NOTES, 0), (340, 330)))
    frames = video(graph)
    model = {"model": loader[0], "vae": loader[2]}
    features = graph.add("ExtractDiffusionFeatures", (340, 0), **model, frames=frames, clip_vision=loader[1],
                         max_side=448)  # fmt: skip
    anchor_labels = graph.add("KMeansInit", (680, 0), features=features[0], num_clusters=8)
    labels = graph.add("SceneContextKNN", (680, 260), features=features[0], anchor_labels=anchor_labels[0])
    refined = graph.add("CorrespondenceRefine", (680, 500), labels=labels[0])
    last = graph.add("MaskedModulationUpsample", (1020, 0), **model, features=features[0], labels=refined[0])
    graph.groups["VidSeg: the five stages"] = [node for node in graph.nodes if node.kind in STAGES]
    graph.add("PreviewRegions", (1360, 0), frames=frames, labels=last[0], wide=560)
    graph.add("PreviewFeatures", (1020, ROW), features=features[0], wide=320, title="Spatial features")
    over_time = graph.add("ExtractDiffusionFeatures", (1360, 520), **model, frames=frames, clip_vision=loader[1],
                          max_side=448, layer="temporal", title="Temporal features (to look at only)")  # fmt: skip
    graph.add("PreviewFeatures", (1720, 520), features=over_time[0], wide=320, title="Temporal features")
    graph.notes.append(Note(TEMPORAL_NOTE, (NOTES, 0), (340, 190)))
    return graph


def demo_of_everything() -> Graph:
    """(f) All with the demo model."""
    graph = Graph("Demo without a download")
    model, frames = demo(graph, DEMO_NOTE)
    features, refined = coarse(graph, model, frames, **DEMO_SIZE, motion=DEMO_MOTION, seed=DEMO_SEED)
    graph.add("PreviewFeatures", (340, ROW), features=features[0])
    graph.add("PreviewRegions", (680, ROW), frames=frames, labels=refined[0], title="Coarse regions",
              wide=250)  # fmt: skip
    labels = fine(graph, model, features, refined, quality="fast")
    graph.add("SaveRegions", (1020, ROW), labels=labels[0])
    graph.add("PreviewRegions", (1360, 0), frames=frames, labels=labels[0], wide=580)
    mask = graph.add("RegionsToMask", (1360, 0), labels=labels[0], regions="1", wide=280)
    color = graph.add("EmptyImage", (1360, 0), color=0xE9A178, title="A color (or any image)", wide=280)
    painted = graph.add("ImageCompositeMasked", (1360, 0), destination=frames, source=color[0], mask=mask[0],
                        resize_source=True, wide=280)  # fmt: skip
    graph.add("SaveAnimatedWEBP", (1660, 580), images=painted[0], filename_prefix="vidseg/painted", fps=8.0,
              lossless=False, wide=280)  # fmt: skip
    return graph


EXAMPLES: dict[str, Any] = {
    "01 Demo without a download": demo_of_everything,
    "02 Segment a video": segment_a_video,
    "03 Segment a video in one box": one_box,
    "04 Repaint one region": repaint_one_region,
    "05 Remove or replace the background": replace_the_background,
    "06 Compare two settings": compare_two_settings,
    "07 Segment a video with Stable Video Diffusion": with_stable_video_diffusion,
}
"""By file name, in the order in which people should meet them."""
