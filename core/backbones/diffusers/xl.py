"""Adapter over diffusers: SDXL from a file or a folder, for features alone; the example of how a model is added."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ...checkpoints.describe import CONDITIONING_KEY, POOLED_KEY, ModelDescription
from ...checkpoints.sizes import XL_NUMBERS
from ...config.parts import XL_ATTENTION_BLOCKS
from ...types import InputError, require_shape
from ..layers import XL_DEPTHS, AllRead, LayerReader, NamedLayer, parse_layers
from ..protocol import PIXELS_PER_LATENT, FeatureDenoiser, Layer, Prediction, Result, require_latents
from ..schedule import make_training_sigmas
from .backbone import DiffusersFeatures
from .encoders import NUM_TOKENS
from .guided import GuidedUNet
from .unet import (
    embed_timestep,
    list_decoder_blocks,
    run_attention,
    run_block,
    run_encoder,
    run_head,
    run_resnet,
    upsample_latents,
)
from .weights import read_tensors
from .xl_text import embed_empty_xl_prompt

FEATURE_CHANNELS = 4 * 1280
"""Channels of the features that are held of each cell, at most: those of four layers."""


class DiffusersXl(DiffusersFeatures):
    """SDXL as a `FeatureBackbone`. Use `load_diffusers` to make one."""

    def __init__(
        self,
        description: ModelDescription,
        prompt: tuple[Tensor, Tensor],
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        """Load the parts; ``prompt`` are embeddings ``(2,77,C)`` and pooled texts ``(2,C)``, negative first."""
        super().__init__(description, prompt[0], dtype, device)
        self._pooled = prompt[1].to(device, dtype)
        self._vae.decoder = None  # never used, and half of the autoencoder
        self._training_sigmas = make_training_sigmas(zero_snr=description.sizes.zero_snr)

    def run(
        self, job: Callable[[FeatureDenoiser], Result], guidance_scale: float, latent_shape: Sequence[int]
    ) -> Result:
        """Call ``job`` with a denoiser; see `FeatureBackbone.run`."""
        return job(
            XlDenoiser(
                self._unet,
                self._conditioning,
                self._pooled,
                guidance_scale,
                self._training_sigmas,
                self.description.sizes.prediction_type,
                self._compute_batch(latent_shape[-3:]),
            )
        )

    def _cache_bytes(self, latent_shape: Sequence[int]) -> int:
        """Return what the features of one latent take: nothing else is kept."""
        return int(latent_shape[-1]) * int(latent_shape[-2]) // 4 * FEATURE_CHANNELS * 4


class XlDenoiser(GuidedUNet):
    """`FeatureDenoiser` of diffusers' UNet of SDXL, which is told pooled texts ``(2,C)`` and the picture's size."""

    def __init__(self, unet: Any, conditioning: Tensor, pooled: Tensor, guidance_scale: float, *rest: Any) -> None:  # noqa: ANN401
        super().__init__(unet, conditioning, guidance_scale, *rest)
        self._pooled = pooled
        self._blocks = list_decoder_blocks(unet, XL_ATTENTION_BLOCKS)

    @torch.no_grad()
    def predict(self, latents: Tensor, sigma: float) -> Prediction:
        """Call the UNet on ``latents`` ``(T,4,H/8,W/8)``; see `FeatureDenoiser.predict`."""
        require_latents(latents)

        def run(size: int) -> Tensor:
            return torch.cat([self._predict(part, sigma) for part in torch.split(latents, size)])

        return Prediction(self._in_chunks(run, len(latents)), None)

    @torch.no_grad()
    def queries(self, latents: Tensor, sigma: float, blocks: Sequence[Layer]) -> tuple[Tensor, ...]:
        """Return what named layers of the conditional half hold; see `FeatureDenoiser.queries`."""
        require_latents(latents)
        wanted = parse_layers(blocks, XL_DEPTHS)

        def run(size: int) -> list[tuple[Tensor, ...]]:
            return [self._read(part, sigma, wanted) for part in torch.split(latents, size)]

        return tuple(torch.cat(parts) for parts in zip(*self._in_chunks(run, len(latents)), strict=True))

    def _predict(self, latents: Tensor, sigma: float) -> Tensor:
        latents, model_input, time, context = self._inputs(latents, sigma, self._context)
        hidden, skips = run_encoder(self._unet, model_input, time, context)
        for block, skip in zip(self._blocks, skips, strict=True):
            hidden, _ = run_block(block, hidden, skip, time, context)
            hidden = upsample_latents(block, hidden)
        return self._denoised(run_head(self._unet, hidden), latents, sigma)

    def _read(self, latents: Tensor, sigma: float, wanted: Sequence[NamedLayer]) -> tuple[Tensor, ...]:
        """Run the conditional half as far as the last of the wanted layers."""
        reader = LayerReader(wanted)
        _, model_input, time, context = self._inputs(latents, sigma, self._context[-1:])
        hidden, skips = run_encoder(self._unet, model_input, time, context)
        with contextlib.suppress(AllRead):
            for number in reader.blocks:
                block = self._blocks[number]
                hidden = run_resnet(block.resnet, torch.cat([hidden, skips[number]], dim=1), time)
                hidden, _ = run_attention(block.attention, hidden, context, note=reader.of_block(number))
                hidden = upsample_latents(block, hidden)
        return reader.results()

    def _embed_time(self, timestep: int, model_input: Tensor, count: int) -> Tensor:
        """Return the embedding ``(E,C)`` of the timestep, pooled text, and size, crop and target size of the picture.

        The picture is taken for one that was neither resized nor cropped.
        """
        unet, halves = self._unet, len(model_input) // count
        size = [side * PIXELS_PER_LATENT for side in model_input.shape[2:]]
        numbers = torch.tensor([*size, 0, 0, *size], device=model_input.device)
        told = unet.add_time_proj(numbers).flatten().to(model_input.dtype).expand(len(model_input), -1)
        pooled = self._pooled[-halves:].repeat_interleave(count, dim=0)
        embedding: Tensor = embed_timestep(unet, timestep, len(model_input), model_input)
        added: Tensor = unet.add_embedding(torch.cat([pooled, told], dim=1))
        return embedding + added


def make_xl_prompt(model: ModelDescription, given: tuple[Tensor, Tensor] | None) -> tuple[Tensor, Tensor]:
    """Return embeddings ``(2,77,C)`` and pooled texts ``(2,C)`` float32, negative first.

    Zeros stand for the negative prompt, and for the empty prompt where the model was trained with them. A ``given``
    pair, positive first, has zeros as pooled texts.
    """
    width, pooled_width = model.sizes.unet.context_dim, model.sizes.unet.pooled_dim
    positive, pooled = torch.zeros(NUM_TOKENS, width), torch.zeros(pooled_width)
    negative = positive
    if given is not None:
        positive, negative = (part.detach().float().cpu().reshape(-1, part.shape[-1]) for part in given)
    elif model.conditioning == "tensor":
        stored = read_tensors([model.path], "conditioning.")
        positive, pooled = stored[CONDITIONING_KEY].float(), stored.get(POOLED_KEY, pooled).float()
    elif model.conditioning == "text encoder":
        positive, pooled = embed_empty_xl_prompt(model.path)
    elif model.conditioning != "zeros":
        raise InputError(
            f"`model` must hold the embedding of the empty prompt, but {model.path.name} has no text encoders. "
            "Save the whole pipeline, or pass `conditioning`."
        )
    for name, embedding in (("negative", negative), ("positive", positive)):
        require_shape(f"conditioning ({name})", embedding, "N C", N=NUM_TOKENS, C=width)
    require_shape("pooled text", pooled, "C", C=pooled_width)
    return torch.stack([negative, positive]), torch.stack([torch.zeros_like(pooled), pooled])


assert XL_NUMBERS == 6  # noqa: S101 - size, crop and target size, two numbers each
