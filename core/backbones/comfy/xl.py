"""Adapter over ComfyUI's MODEL, VAE and CONDITIONING of SDXL, for features alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor

from ...config.parts import LAYER_KINDS
from ...types import InputError
from .. import schedule
from ..layers import XL_DEPTHS, LayerReader, NamedLayer, parse_layers
from ..protocol import FeatureDenoiser, Layer, Prediction, Result
from .attention import AttentionPatch, require_all_tokens, stop_when_read
from .backbone import ComfyFeatures, Session
from .calls import Call, HostCalls
from .checks import NUMBER_CHANNELS, XL_NUMBERS, require_xl_readable

POOLED = "pooled_output"
"""Where the host keeps the pooled text of a prompt."""


class ComfyXl(ComfyFeatures):
    """`FeatureBackbone` over the host's SDXL; sizes that a prompt does not tell are those of the frames, or tiles."""

    KIND = "sdxl"

    def __init__(self, model: Any, vae: Any, positive: Any = None, negative: Any = None) -> None:
        super().__init__(model, vae, positive, negative)
        for name, prompt in (("positive", self._positive), ("negative", self._negative)):
            if any(extras.get(POOLED) is None for _, extras in prompt):
                raise InputError(
                    f"`{name}` must hold the pooled text of SDXL, but does not. Wire CLIP Text Encode of the same "
                    "checkpoint to it, or nothing."
                )

    def _require(self, model: Any) -> None:
        require_xl_readable(model)

    def _blank_extras(self, model: Any) -> dict[str, Any]:
        told: int = model.model.diffusion_model.label_emb[0][0].in_features
        return {POOLED: torch.zeros(1, told - XL_NUMBERS * NUMBER_CHANNELS)}

    def run(
        self, job: Callable[[FeatureDenoiser], Result], guidance_scale: float, latent_shape: Sequence[int]
    ) -> Result:
        """Load the model through the host's sampling, call ``job`` and clean up; see `FeatureBackbone.run`."""
        session = Session(job, lambda loaded: XlHostDenoiser(loaded, guidance_scale))
        sigmas = schedule.make_sigmas(self.training_sigmas, 25)
        conditioning = (self._positive, self._negative)
        return self._sample(session, guidance_scale, self._blank(latent_shape), sigmas, conditioning)


class XlHostDenoiser(HostCalls):
    """`FeatureDenoiser` over SDXL that the host has loaded; valid inside `ComfyXl.run` only."""

    def predict(self, latents: Tensor, sigma: float) -> Prediction:
        """Call the UNet on ``latents`` ``(T,4,H/8,W/8)``; see `FeatureDenoiser.predict`."""
        parts = self._in_parts(lambda part: self._denoised(latents[part], sigma, Call({}, {})), len(latents))
        return Prediction(torch.cat(parts), None)

    def queries(self, latents: Tensor, sigma: float, blocks: Sequence[Layer]) -> tuple[Tensor, ...]:
        """Return what named layers of the conditional half hold; see `FeatureDenoiser.queries`."""
        wanted = parse_layers(blocks, XL_DEPTHS)
        parts = self._in_parts(lambda part: self._read(latents[part], sigma, wanted), len(latents))
        return tuple(torch.cat(column) for column in zip(*parts, strict=True))

    def _read(self, latents: Tensor, sigma: float, wanted: Sequence[NamedLayer]) -> tuple[Tensor, ...]:
        reader = LayerReader(wanted, stops=self._may_stop)
        call = Call({}, {}, stop_when_read if self._may_stop else None)
        for block, depth in {(layer.block, layer.depth) for layer in wanted}:
            for name, kinds in (("attn1", ("query", "key")), ("attn2", ("cross_query",))):
                patch = self._showing(self._attention(name, block, depth), block, depth, kinds, reader)
                call.replace[name, block, depth] = patch
        with self._watching(wanted, reader):
            self._denoised(latents, sigma, call, guided=False)
        return reader.results()

    def _showing(
        self, attention: AttentionPatch, block: int, depth: int, kinds: tuple[str, ...], reader: LayerReader
    ) -> AttentionPatch:
        """Return a patch of attention that shows its queries, and keys, and changes nothing."""

        def show(q: Tensor, k: Tensor, v: Tensor, extra: dict[str, Any]) -> Tensor:
            require_all_tokens(q, extra)
            for kind, tokens in zip(kinds, (q, k), strict=False):
                layer = NamedLayer(block, depth, LAYER_KINDS.index(kind))
                reader.add(layer, self._conditional(tokens, extra))
            return attention(q, k, v, extra)

        return show

    @contextmanager
    def _watching(self, wanted: Sequence[NamedLayer], reader: LayerReader) -> Iterator[None]:
        """Show the reader outputs of transformer blocks, for which the host has no patch, as long as the call lasts."""

        def show(layer: NamedLayer) -> Callable[..., None]:
            def hook(_module: Any, _inputs: Any, options: dict[str, Any], output: Tensor) -> None:
                reader.add(layer, self._conditional(output, options["transformer_options"]))

            return hook

        unet = self._loaded.base.diffusion_model
        with ExitStack() as hooks:
            for layer in set(wanted):
                if LAYER_KINDS[layer.kind] == "output":
                    module = unet.output_blocks[layer.block][1].transformer_blocks[layer.depth]
                    hooks.callback(module.register_forward_hook(show(layer), with_kwargs=True).remove)
            yield

    def _conditional(self, tokens: Tensor, options: dict[str, Any]) -> Tensor:
        """Return the part ``(T,N,C)`` of the conditional half."""
        halves = options["uuids"]
        part: Tensor = tokens.chunk(len(halves))[halves.index(self._loaded.conds["positive"][0]["uuid"])]
        return part
