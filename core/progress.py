"""Tell a person at a terminal, or a log, how far a run is."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Protocol, TextIO

from tqdm import tqdm

STAGE_SHARES: Mapping[str, float] = {"features": 0.1, "modulation": 0.5, "decoding": 0.4}
"""Stages of a window and their expected shares of its time, until the first window has shown them."""
GUIDED_SHARES: Mapping[str, float] = {"features": 0.9, "upsampling": 0.1}
"""Likewise where modulation is off and a guided filter enlarges the labels."""
LINE_INTERVAL = 10.0
"""Seconds between two lines where the output is not a terminal."""
REFRESH_INTERVAL = 0.1
"""Seconds between two updates of the line at a terminal."""
_BAR = "{percentage:3.0f}%|{bar:20}| {desc}"
"""Line at a terminal, in the words of tqdm."""
_FINISHED = 1e-6
"""Frames that remain only by rounding."""
_INSTANT = 1e-9
"""Seconds that stand for no time, so that a rate is finite."""

Clock = Callable[[], float]
"""Returns seconds that never fall."""


class Display(Protocol):
    """Shows how far the run is."""

    def show(self, fraction: float, text: str, *, last: bool) -> None:
        """Show a fraction in [0, 1] and a text; ``last`` marks the end of a stage."""
        ...

    def close(self) -> None:
        """Leave the terminal as it was."""
        ...


class LineDisplay:
    """Plain lines for logs: one at the end of a stage and at most one in `LINE_INTERVAL` seconds between."""

    def __init__(self, stream: TextIO, clock: Clock = time.monotonic) -> None:
        self._stream, self._clock = stream, clock
        self._shown = clock()

    def show(self, fraction: float, text: str, *, last: bool) -> None:
        """Write a line where one is due."""
        if last or self._clock() - self._shown >= LINE_INTERVAL:
            self._shown = self._clock()
            tqdm.write(f"[{fraction:4.0%}] {text}", file=self._stream)
            self._stream.flush()

    def close(self) -> None:
        """Nothing to restore."""


class TerminalDisplay:
    """A bar of tqdm, with a text of ours for the time left: it knows of the stages that are to come."""

    def __init__(self, stream: TextIO) -> None:
        self._bar = tqdm(
            total=1.0,
            file=stream,
            mininterval=REFRESH_INTERVAL,
            delay=0,
            dynamic_ncols=True,
            ascii=True,
            bar_format=_BAR,
        )

    def show(self, fraction: float, text: str, *, last: bool) -> None:
        """Rewrite the line, at most once in `REFRESH_INTERVAL` seconds but for the end of a stage."""
        self._bar.set_description_str(text, refresh=False)
        self._bar.update(fraction - self._bar.n)
        if last:
            self._bar.refresh()

    def close(self) -> None:
        """End the line."""
        self._bar.close()


def open_display(stream: TextIO) -> Display:
    """Return what suits ``stream``: a bar at a terminal, plain lines elsewhere."""
    return TerminalDisplay(stream) if stream.isatty() else LineDisplay(stream)


class RunProgress:
    """The ``progress`` of all stages of a run: stage, frames per second, and the time left of the whole run.

    The stages of a window are shown as a part of all windows; others, such as the check of the input, by themselves,
    and while windows are under way without moving the bar. ``shares`` are the expected ones of the time of a window.
    """

    def __init__(
        self, display: Display, shares: Mapping[str, float] = STAGE_SHARES, clock: Clock = time.monotonic
    ) -> None:
        self._display, self._shares, self._clock = display, dict(shares), clock
        self._num_frames = self._window_length = self._first = self._done = 0
        self._spent: dict[str, float] = {}
        self._parts: dict[str, float] = {}
        self._stage, self._fraction = "", 0.0
        self._begin = self._stage_begin = self._last = clock()

    def start(self, num_frames: int, window_length: int, first: int = 0) -> None:
        """Begin with the window that starts at frame ``first``; those before are finished and took no time."""
        self._num_frames, self._window_length = num_frames, window_length
        self._first = first
        self._begin = self._clock()
        self._begin_window(first)

    def announce(self, seconds: float, work: str) -> None:
        """Say before it starts how long ``work`` will take."""
        self._display.show(0.0, f"about {format_duration(seconds)} for {work}", last=True)
        self._begin = self._last = self._clock()

    def window_done(self, stop: int) -> None:
        """Note that all frames before ``stop`` are finished, and learn the shares of the stages."""
        if sum(self._spent.values()) > 0:
            self._shares = {stage: self._spent.get(stage, 0.0) for stage in self._shares}
        self._begin_window(stop)

    def _begin_window(self, start: int) -> None:
        self._done, self._stage, self._last = start, "", self._clock()
        self._spent, self._parts = {}, {}

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Show that ``done`` of ``total`` units of ``stage`` are done; stages may take turns."""
        now = self._clock()
        if stage != self._stage:
            self._stage, self._stage_begin = stage, self._last
        part = done / total if total else 1.0
        if stage in self._shares and self._num_frames:
            self._spent[stage] = self._spent.get(stage, 0.0) + now - self._last
            self._parts[stage] = part
            self._show_window(stage, now, last=done >= total)
        else:
            whole = self._fraction if self._done < self._num_frames else part
            rate = max(done, 1) / max(now - self._stage_begin, _INSTANT)
            text = f"{stage}: {done} of {total}, {rate:.3g}/s, {format_duration((total - done) / rate)} left"
            if done >= total:
                text = f"{stage}: {total} in {format_duration(now - self._stage_begin)}"
            self._display.show(whole, text, last=done >= total)
        self._last = now

    def _show_window(self, stage: str, now: float, *, last: bool) -> None:
        """Show how far all windows are, from the parts of the current one that its stages have done."""
        whole = max(sum(self._shares.values()), _INSTANT)
        share = sum(self._shares[name] * part for name, part in self._parts.items()) / whole
        length = max(0, min(self._window_length, self._num_frames - self._done))
        done = self._done + share * length
        rate = max(done - self._first, _INSTANT) / max(now - self._begin, _INSTANT)
        frames = f"frames {self._done + 1}-{self._done + length} of {self._num_frames}"
        if length == 1:
            frames = f"frame {self._done + 1} of {self._num_frames}"
        left = format_duration((self._num_frames - done) / rate)
        text = f"{frames}: {stage} {self._parts[stage]:.0%}, {rate:.3g} frames/s, {left} left"
        if self._num_frames - done < _FINISHED:
            frames = format_count(self._num_frames - self._first, "frame")
            text = f"{frames} in {format_duration(now - self._begin)}"
        self._fraction = done / self._num_frames
        self._display.show(self._fraction, text, last=last)

    def close(self) -> None:
        """Leave the terminal as it was."""
        self._display.close()


def format_count(number: int, thing: str) -> str:
    """Return a number of things as people read it.

    >>> format_count(1, "frame"), format_count(16, "frame")
    ('1 frame', '16 frames')
    """
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


def format_duration(seconds: float) -> str:
    """Return a duration as people read it.

    >>> format_duration(7.2), format_duration(185), format_duration(7384)
    ('7 s', '3:05 min', '2:03 h')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60}:{whole % 60:02d} min"
    return f"{whole // 3600}:{whole % 3600 // 60:02d} h"
