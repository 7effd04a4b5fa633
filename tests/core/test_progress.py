from __future__ import annotations

import io

import pytest
from vidseg.core.progress import LineDisplay, RunProgress, TerminalDisplay, format_duration, open_display


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Recorder:
    def __init__(self) -> None:
        self.shown: list[tuple[float, str, bool]] = []

    def show(self, fraction: float, text: str, *, last: bool) -> None:
        self.shown.append((fraction, text, last))

    def close(self) -> None:
        self.shown.append((-1, "closed", True))


def test_the_time_left_covers_all_stages_and_windows() -> None:
    clock, display = Clock(), Recorder()
    progress = RunProgress(display, {"features": 0.5, "modulation": 0.5}, clock)
    progress.start(20, 10)
    clock.now += 10
    progress("features", 10, 10)  # half of the first of two windows: 5 of 20 frames in 10 s
    assert display.shown[-1] == (0.25, "frames 1-10 of 20: features 100%, 0.5 frames/s, 30 s left", True)
    clock.now += 15
    progress("modulation", 4, 8)
    fraction, text, last = display.shown[-1]
    assert fraction == pytest.approx(7.5 / 20)
    assert "modulation 50%, 0.3 frames/s, 42 s left" in text
    assert not last
    clock.now += 15
    progress("modulation", 8, 8)
    progress.window_done(10)
    clock.now += 10
    progress("features", 10, 10)  # learned: features are a quarter of a window
    fraction, text, _ = display.shown[-1]
    assert fraction == pytest.approx(12.5 / 20)
    assert text == "frames 11-20 of 20: features 100%, 0.25 frames/s, 30 s left"


def test_a_single_frame_is_no_plural() -> None:
    clock, display = Clock(), Recorder()
    progress = RunProgress(display, {"features": 1.0}, clock)
    progress.start(1, 14)
    clock.now += 2
    progress("features", 1, 2)
    progress("features", 2, 2)
    assert [text.partition(":")[0] for _, text, _ in display.shown] == ["frame 1 of 1", "1 frame in 2 s"]


def test_what_is_finished_says_how_long_it_took() -> None:
    clock, display = Clock(), Recorder()
    progress = RunProgress(display, {"modulation": 0.5, "decoding": 0.4}, clock)
    progress.start(16, 16)
    clock.now += 100
    progress("modulation", 16, 16)
    clock.now += 80
    progress("decoding", 16, 16)
    assert display.shown[-1] == (1.0, "16 frames in 3:00 min", True)
    clock.now += 7
    progress("refinement", 16, 16)
    assert display.shown[-1] == (1.0, "refinement: 16 in 7 s", True)


def test_a_stage_between_those_of_windows_does_not_move_the_bar() -> None:
    clock, display = Clock(), Recorder()
    progress = RunProgress(display, {"features": 1.0}, clock)
    progress.start(20, 10)
    clock.now += 10
    progress("features", 10, 10)
    progress("K-means runs", 1, 4)
    assert [fraction for fraction, _, _ in display.shown] == [0.5, 0.5]
    progress.window_done(20)
    progress("overlay", 1, 4)
    assert display.shown[-1][0] == 0.25


def test_frames_of_an_earlier_run_take_no_time() -> None:
    clock, display = Clock(), Recorder()
    progress = RunProgress(display, {"features": 1.0}, clock)
    progress.start(30, 10, first=20)
    clock.now += 5
    progress("features", 5, 10)
    assert display.shown[-1][1] == "frames 21-30 of 30: features 50%, 1 frames/s, 5 s left"


def test_other_stages_are_shown_by_themselves() -> None:
    clock, display = Clock(), Recorder()
    progress = RunProgress(display, clock=clock)
    clock.now += 2
    progress("check input", 4, 10)
    assert display.shown[-1] == (0.4, "check input: 4 of 10, 2/s, 3 s left", False)
    progress.close()
    assert display.shown[-1][1] == "closed"


@pytest.mark.parametrize("total", [0, 1])
def test_nothing_to_do_and_no_time_give_no_error(total: int) -> None:
    display = Recorder()
    progress = RunProgress(display, clock=Clock())
    progress("check input", total, total)
    progress.start(1, 14)
    progress("features", total, total)
    progress.window_done(1)
    progress("features", total, total)
    assert all(0 <= fraction <= 1 for fraction, _, _ in display.shown)


def test_plain_lines_come_now_and_then() -> None:
    clock, stream = Clock(), io.StringIO()
    display = LineDisplay(stream, clock)
    for _ in range(25):
        clock.now += 1
        display.show(0.5, "working", last=False)
    display.show(1.0, "done", last=True)
    display.close()
    assert stream.getvalue() == "[ 50%] working\n[ 50%] working\n[100%] done\n"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_line_is_rewritten() -> None:
    stream = Terminal()
    display = open_display(stream)
    assert isinstance(display, TerminalDisplay)
    display.show(0.5, "too soon", last=False)
    display.show(0.5, "a long text", last=True)
    display.show(0.25, "short", last=True)
    display.close()
    display.close()
    *_, first, second, last = stream.getvalue().split("\r")
    assert first == " 50%|##########          | a long text"
    assert second == " 25%|#####               | short      "  # nothing of the longer line remains
    assert last.endswith("\n")
    assert "too soon" not in stream.getvalue()


def test_a_log_gets_plain_lines() -> None:
    assert isinstance(open_display(io.StringIO()), LineDisplay)


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.2, "0 s"), (59.4, "59 s"), (60, "1:00 min"), (3599, "59:59 min"), (3660, "1:01 h")]
)
def test_durations(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


def test_stages_may_take_turns() -> None:
    clock, display = Clock(), Recorder()
    progress = RunProgress(display, {"modulation": 0.5, "decoding": 0.5}, clock)
    progress.start(10, 10)
    for part in (1, 2):
        for stage, seconds in (("modulation", 1.0), ("decoding", 3.0)):
            clock.now += seconds
            progress(stage, part, 2)
    assert [round(fraction, 2) for fraction, _, _ in display.shown] == [0.25, 0.5, 0.75, 1.0]
    progress.window_done(10)
    progress.start(20, 10, first=10)
    clock.now += 2
    progress("modulation", 2, 2)  # learned: a quarter of the time
    assert display.shown[-1][0] == pytest.approx(12.5 / 20)
