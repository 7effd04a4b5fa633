"""What all calls of a diffusers UNet have in common: chunks that fit into memory, scaled inputs, guidance."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor

from ..memory import is_out_of_memory
from ..protocol import halve_on_out_of_memory
from .unet import embed_timestep

Part = TypeVar("Part")


class GuidedUNet:
    """Calls of a UNet with conditioning ``(2,77,C)``, negative first, which a scale of 1 leaves out.

    ``compute_batch`` is the most elements of a UNet call, per half of guidance.
    """

    def __init__(
        self,
        unet: Any,  # noqa: ANN401
        conditioning: Tensor,
        guidance_scale: float,
        training_sigmas: Tensor,
        prediction_type: str,
        compute_batch: int,
    ) -> None:
        self._unet = unet
        self._guidance_scale = guidance_scale
        self._context = conditioning if guidance_scale != 1 else conditioning[1:]
        self._training_sigmas = training_sigmas
        self._prediction_type = prediction_type
        self._compute_batch = compute_batch

    @property
    def _halves(self) -> int:
        return len(self._context)

    def _in_chunks(self, run: Callable[[int], Part], count: int) -> Part:
        """Call ``run`` with a chunk size that fits into memory, and stay with a smaller one once memory ran out."""
        largest = max(1, min(count, self._compute_batch))

        def attempt(size: int) -> Part:
            if size < largest:
                self._compute_batch = size
            return run(size)

        return halve_on_out_of_memory(attempt, largest, is_out_of_memory)

    def _inputs(self, latents: Tensor, sigma: float, context: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return latents on the device, and the UNet's input, time embedding and context for the halves given."""
        latents = latents.to(context.device, torch.float32)
        scaled = latents / (_level(sigma, latents) ** 2 + 1) ** 0.5
        model_input = scaled.to(context.dtype).repeat(len(context), 1, 1, 1)
        timestep = int((self._training_sigmas - sigma).abs().argmin())
        time = self._embed_time(timestep, model_input, len(latents))
        return latents, model_input, time, context.repeat_interleave(len(latents), dim=0)

    def _embed_time(self, timestep: int, model_input: Tensor, _count: int) -> Tensor:
        """Return the embedding ``(E,C)`` of what the UNet is told beside the text: the timestep."""
        return embed_timestep(self._unet, timestep, len(model_input), model_input)

    def _denoised(self, output: Tensor, latents: Tensor, sigma: float) -> Tensor:
        """Apply guidance and turn the UNet's output into the prediction of the clean latents."""
        output, level = output.to(torch.float32), _level(sigma, latents)
        latents = latents.repeat(len(output) // len(latents), 1, 1, 1)
        if self._prediction_type == "v_prediction":
            denoised = latents / (level**2 + 1) - output * level / (level**2 + 1) ** 0.5
        else:
            denoised = latents - output * level
        if self._halves == 1:
            return denoised
        negative, positive = denoised.chunk(2)
        return negative + self._guidance_scale * (positive - negative)


def _level(sigma: float, like: Tensor) -> Tensor:
    """Return ``sigma`` as a tensor ``(1,1,1,1)`` float32: all arithmetic on it is then rounded in the same places."""
    return torch.full((1, 1, 1, 1), sigma, dtype=torch.float32, device=like.device)
