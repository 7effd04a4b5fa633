"""What the host's nodes for models that edit make of our masks, up to the sampler; stand-ins for weights."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from vidseg.core.regions.model_grid import GRIDS

from ..core.regions.test_model_grid import random_masks, touched
from .graphs import call
from .test_in_host_edit_clips import Autoencoder, fitted, host_node
from .test_in_host_tracks import scene

PROMPT = [[torch.zeros(1, 4, 8), {}]]


class Reference(Autoencoder):
    """Stands for MiniMax's VAE: 24 channels at a sixteenth of the size."""

    def encode(self, pixels: Tensor) -> Tensor:
        self.seen.append(pixels)
        count, height, width, _ = pixels.shape
        return torch.zeros(1, 24, 2 if count == 5 else 1, height // 16, width // 16)


class LtxAutoencoder(Autoencoder):
    """Stands for LTX's VAE: 128 channels at a thirty-second of the size, a frame of eight."""

    def encode(self, pixels: Tensor) -> Tensor:
        self.seen.append(pixels)
        count, height, width, _ = pixels.shape
        return torch.randn(1, 128, (count - 1) // 8 + 1, height // 32, width // 32)


class TextEncoder:
    """Stands for MiniMax's text encoder."""

    items: list[dict[str, Any]]

    def tokenize(self, _text: str, minimax_ref_items: list[dict[str, Any]]) -> None:
        self.items = minimax_ref_items

    def encode_from_tokens_scheduled(self, _tokens: None) -> Any:
        return [[torch.zeros(1, 4, 8), {}]]


def test_void_is_shown_the_clip_without_the_thing() -> None:
    conditioning = host_node("nodes_void", "VOIDInpaintConditioning")
    labels, frames, autoencoder = scene(64), torch.rand(4, 30, 64, 3), Autoencoder()
    labels.maps.resize_(5, 32, 64).zero_()[:, 8:24, 16:40] = 2
    frames = torch.rand(5, 32, 64, 3)
    quad = call("RegionsToQuadmask", labels=labels, remove="left", grow_object=0)
    read = host_node("nodes_void", "VOIDQuadmaskPreprocess").execute(quad, 0).args[0]
    positive, _, latent = conditioning.execute(PROMPT, PROMPT, autoencoder, frames, read, 64, 32, 5, 1).args
    assert tuple(positive[0][1]["concat_latent_image"].shape) == (1, 32, 2, 4, 8)
    assert tuple(latent["samples"].shape) == (1, 16, 2, 4, 8)
    mask, masked = autoencoder.seen
    away = labels.maps == 2
    assert bool((masked[away] == 0).all())
    assert torch.equal(masked[~away], frames[~away])
    assert torch.equal(mask[..., 0], (~away).float())


def test_ltx_keeps_what_is_outside_the_touched_cells() -> None:
    """The graph of the example: what a sampler that paints all over gives is decoded from these latents."""
    from comfy.sampler_helpers import prepare_mask  # noqa: PLC0415

    from nodes import SetLatentNoiseMask, VAEEncode  # noqa: PLC0415

    autoencoder, masks = LtxAutoencoder(), random_masks(20, GRIDS["LTX"], 3)
    out = fitted(torch.rand(*masks.shape, 3), masks.float(), video_model="LTX")
    told = host_node("nodes_lt", "LTXVConditioning").execute(PROMPT, PROMPT, 24.0).args
    assert told[0][0][1]["frame_rate"] == 24
    (latent,) = VAEEncode().encode(autoencoder, out["fitted_frames"])
    assert len(autoencoder.seen[0]) == out["count"] == 25
    (holed,) = SetLatentNoiseMask().set_mask(latent, out["fitted"])
    sigmas = host_node("nodes_lt", "LTXVScheduler").execute(30, 2.05, 0.95, True, 0.1, holed).args[0]
    assert (len(sigmas), float(sigmas[0]), float(sigmas[-1])) == (31, 1, 0)
    samples = holed["samples"]
    mask = prepare_mask(holed["noise_mask"], samples.shape, samples.device)
    cells = touched(torch.cat([masks, masks[-1:].expand(5, -1, -1)]), GRIDS["LTX"])
    assert 0 < int(cells.sum()) < cells.numel()
    painted = torch.zeros_like(samples) * mask + samples * (1 - mask)  # as the host's sampler blends each step
    assert bool((painted[:, :, cells] == 0).all())
    assert torch.equal(painted[:, :, ~cells], samples[:, :, ~cells])


def test_scail_is_told_which_pixels_are_the_character() -> None:
    node, colored = host_node("nodes_scail", "WanSCAILToVideo"), host_node("nodes_scail", "SCAIL2ColoredMask")
    labels = scene(64)
    labels.maps.resize_(5, 32, 64).zero_()[:, 8:24, 16:48] = 2
    track, _ = call("RegionsToTrack", labels=labels, regions="left")
    mask = call("RegionsToMask", labels=labels, regions="left")
    driving, reference = colored.execute(track, "", "none", True, mask[:1]).args
    frames = torch.rand(5, 32, 64, 3)
    positive = node.execute(
        PROMPT, PROMPT, Autoencoder(), 64, 32, 5, 1, 1.0, 0.0, 1.0, 0, 5, True, frames[:1], None, frames, driving,
        reference,
    ).args[0]  # fmt: skip
    told = positive[0][1]["driving_mask_28ch"]  # (1,T,4*7,h,w) at half the size
    blue = told.reshape(1, 2, 4, 7, 2, 4)[0, :, :, 3]
    assert torch.equal(blue, torch.nn.functional.avg_pool2d(mask, 16).expand(2, 4, -1, -1, -1)[:, :, 0])
    assert "ref_mask_28ch" in positive[0][1]


def test_h3_is_shown_the_region_and_the_clip_without_it() -> None:
    node, frames = host_node("nodes_minimax_h3", "MiniMaxH3ReferenceToVideo"), torch.rand(5, 64, 96, 3)
    mask = torch.zeros(5, 64, 96)
    mask[:, 20:40, 40:60] = 1
    out = fitted(frames, mask, video_model="MiniMax H3", unit="token")
    text, autoencoder = TextEncoder(), Reference()
    references = {"ref_images": {"ref_image_0": frames[:1]}, "ref_videos": {"ref_video_0": out["masked_frames"]}}
    sizes = {"width": out["width"], "height": out["height"], "length": out["count"]}
    positive, latent = node.execute(text, autoencoder, None, "<Picture 1>", **sizes, **references).args
    assert [block["kind"] for block in positive[0][1]["minimax_refs"]] == ["image", "video"]
    assert latent["samples"].tensors[0].shape[-2:] == (4, 6)
    assert [item["type"] for item in text.items] == ["image", "video"]
    assert (autoencoder.seen[1][:, 32:64, 32:64] - 0.5).abs().max() < 0.05
