"""The training loop that both networks share: plan, schedule, moving average, checkpoints, progress."""

from __future__ import annotations

import copy
import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .session import Session, in_words

Batch = tuple[Tensor, ...]

UNMEASURED_STEPS = 30
"""Steps before the step rate is measured: compilation and warm-up of the device."""
MEASURED_STEPS = 60
"""Steps that the rate is measured over, unless they take longer than `MEASURED_SECONDS`."""
MEASURED_SECONDS = 30.0
PLANNED_SHARE = 0.85
"""Share of the minutes that is planned for steps; the rest is for validation and checkpoints."""
NUM_REPORTS = 20
PROGRESS_SECONDS = 15.0
CHECKPOINT_SECONDS = 120.0
FINAL_RATE = 0.01
"""Learning rate at the end, as a share of its peak."""


@dataclass(frozen=True)
class StageSettings:
    """How one network is trained."""

    name: str
    steps: int
    """Steps in all; 0 plans them from the measured rate so that the stage takes `minutes`."""
    minutes: float
    peak_rate: float
    warmup_steps: int
    ema_decay: float
    seed: int
    weight_decay: float = 0.01
    compiled: bool = False
    bf16: bool = False
    replan: bool = False
    """Plan the remaining steps anew after a resume, when another machine goes on."""


def step_generator(seed: int, stage: str, step: int, device: torch.device | str = "cpu") -> torch.Generator:
    """Return the generator of one step, so that a resumed run draws what an uninterrupted one would have."""
    mixed = seed * 1_000_003 + sum(map(ord, stage)) * 100_000_007 + step
    return torch.Generator(device).manual_seed(mixed)


def learning_rate(step: int, total: int | None, settings: StageSettings) -> float:
    """Return the rate of a step: linear warm-up, then a cosine down to `FINAL_RATE` of the peak."""
    warmup = min(1.0, (step + 1) / max(1, settings.warmup_steps))
    progress = min(1.0, step / total) if total else 0.0
    cosine = FINAL_RATE + (1 - FINAL_RATE) * 0.5 * (1 + math.cos(math.pi * progress))
    return settings.peak_rate * warmup * cosine


class Trainer:
    """Train one network; everything that a resume needs is in the checkpoint."""

    def __init__(self, network: nn.Module, objective: nn.Module, settings: StageSettings, folder: Path) -> None:
        """Take over from the checkpoint in ``folder`` where there is one."""
        self.settings = settings
        self.network, self.average = network, copy.deepcopy(network).eval().requires_grad_(False)
        self.device = next(network.parameters()).device
        self._forward = torch.compile(objective, dynamic=False) if settings.compiled else objective
        self._optimizer = torch.optim.AdamW(
            network.parameters(), lr=0.0, betas=(0.9, 0.99), weight_decay=settings.weight_decay,
            fused=self.device.type == "cuda",
        )  # fmt: skip
        self.step, self.elapsed, self.total = 0, 0.0, settings.steps or None
        self.history: list[dict[str, Any]] = []
        self._path = folder / f"{settings.name}_checkpoint.pt"
        self._resume()

    def _resume(self) -> None:
        if not self._path.exists():
            return
        state = torch.load(self._path, map_location=self.device, weights_only=True)
        self.network.load_state_dict(state["network"])
        self.average.load_state_dict(state["average"])
        self._optimizer.load_state_dict(state["optimizer"])
        self.step, self.elapsed, self.history = state["step"], state["elapsed"], state["history"]
        self.total = self.total or state["total"]
        print(f"{self.settings.name}: resumed at step {self.step} of {self.total}", flush=True)

    def save(self) -> None:
        """Write the checkpoint; an interruption leaves the old one or the new one, never half of one."""
        state = {
            "network": self.network.state_dict(), "average": self.average.state_dict(),
            "optimizer": self._optimizer.state_dict(), "step": self.step, "total": self.total,
            "elapsed": self.elapsed, "history": self.history,
        }  # fmt: skip
        self._path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = self._path.with_suffix(".unfinished")
        torch.save(state, unfinished)
        unfinished.replace(self._path)
        figures = {"step": self.step, "total": self.total, "elapsed": self.elapsed, "history": self.history}
        (self._path.parent / f"{self.settings.name}_history.json").write_text(json.dumps(figures), encoding="utf-8")

    @property
    def finished(self) -> bool:
        """Whether all planned steps are done."""
        return self.total is not None and self.step >= self.total

    def run(
        self, batch_of: Callable[[int], Batch], report: Callable[[Trainer], dict[str, Any]], session: Session
    ) -> bool:
        """Train until the planned steps are done (True) or the session is over (False); saved in both cases."""
        clock = _Clock(self)
        while not self.finished and not session.is_over:
            clock.add(self.train_step(batch_of(self.step)))
            self.step += 1
            clock.plan_when_measured()
            if self.total and (self.step % max(1, self.total // NUM_REPORTS) == 0 or self.finished):
                self.history.append({"step": self.step, "loss": clock.mean_loss(), **report(self)})
            clock.show_and_save()
        clock.stop()
        self.save()
        return self.finished

    def train_step(self, batch: Batch) -> Tensor:
        """Change the weights by one batch and return its loss, still on the device."""
        rate = learning_rate(self.step, self.total, self.settings)
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.settings.bf16):
            loss: Tensor = self._forward(*batch)
        loss.backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        decay = min(self.settings.ema_decay, (1 + self.step) / (10 + self.step))
        averages, values = list(self.average.parameters()), [value.detach() for value in self.network.parameters()]
        torch._foreach_lerp_(averages, values, 1 - decay)
        return loss.detach()


class _Clock:
    """Time and loss since the last report of one call of `Trainer.run`."""

    def __init__(self, trainer: Trainer) -> None:
        self._trainer = trainer
        self._start = self._shown = self._saved = time.monotonic()
        self._before, self._first = trainer.elapsed, trainer.step
        self._measured_from: tuple[int, float] | None = None
        self._to_plan = trainer.total is None or (trainer.settings.replan and not trainer.settings.steps)
        self._losses: list[Tensor] = []
        self._last: Tensor | None = None

    def add(self, loss: Tensor) -> None:
        self._losses.append(loss)
        self._last = loss

    def mean_loss(self) -> float:
        value = float(torch.stack(self._losses).mean())
        self._losses.clear()
        if not math.isfinite(value):
            raise RuntimeError(f"The loss must stay finite, but got {value}. Lower the learning rate.")
        return value

    def plan_when_measured(self) -> None:
        """Fix the number of steps once the rate is known."""
        trainer = self._trainer
        done = trainer.step - self._first
        if not self._to_plan or done < UNMEASURED_STEPS:
            return
        if self._measured_from is None:
            float(self._last)  # waits for the device
            self._measured_from = (trainer.step, time.monotonic())
            return
        first, start = self._measured_from
        if trainer.step - first < MEASURED_STEPS and time.monotonic() - start < MEASURED_SECONDS:
            return
        float(self._last)
        rate = (trainer.step - first) / (time.monotonic() - start)
        self.stop()
        left = max(0.0, trainer.settings.minutes * 60 - trainer.elapsed) * PLANNED_SHARE
        trainer.total = trainer.step + int(left * rate)
        self._to_plan = False
        print(
            f"{trainer.settings.name}: {rate:.2f} steps/s, so {trainer.total} steps fill {in_words(left)}", flush=True
        )

    def show_and_save(self) -> None:
        trainer, now = self._trainer, time.monotonic()
        self.stop()
        if now - self._shown > PROGRESS_SECONDS:
            rate = (trainer.step - self._first) / (now - self._start)
            left = in_words((trainer.total - trainer.step) / rate) if trainer.total else "not planned yet"
            loss = float(self._last)
            print(
                f"{trainer.settings.name}: step {trainer.step}/{trainer.total} loss {loss:.4f} left {left}", flush=True
            )
            self._shown = now
        if now - self._saved > CHECKPOINT_SECONDS:
            trainer.save()
            self._saved = now

    def stop(self) -> None:
        self._trainer.elapsed = self._before + time.monotonic() - self._start
