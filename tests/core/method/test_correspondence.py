"""Correspondence-based refinement against slow loops that list every track."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch
from vidseg.core.config.parts import RefinementConfig
from vidseg.core.method import correspondence
from vidseg.core.method.correspondence import match_cells, refine, vote_by_cell, within_threshold
from vidseg.core.method.published import find_starts, follow_matches, match_anchored, vote_by_track, within_one_side
from vidseg.core.types import Grid, InputError

from ...golden_data import golden_dir

GRID = Grid(4, 5)
WIDE = Grid(6, 7)
BOTH = pytest.mark.parametrize("vote", [vote_by_cell, vote_by_track], ids=["paper", "published"])
THRESHOLDS = pytest.mark.parametrize("threshold", [0, 1, 2])
DEFAULT = RefinementConfig()
DIRECTIONS = [step for step in product((-1, 0, 1), repeat=2) if step != (0, 0)]


def random_case(num_frames=5, grid=GRID, num_labels=3, seed=0, drift=0.6):
    """Features that change slowly, so that some matches are good and some tracks survive."""
    generator = torch.Generator().manual_seed(seed)
    frames = [torch.randn(grid.num_tokens, 6, generator=generator)]
    for _ in range(num_frames - 1):
        frames.append(frames[-1] + drift * torch.randn(grid.num_tokens, 6, generator=generator))
    maps = torch.randint(0, num_labels, (num_frames, *grid), generator=generator)
    return maps, torch.stack(frames)


def moving_case(direction, num_frames=4, grid=WIDE):
    """A texture that moves by one cell per frame; what enters at the border is new."""
    generator = torch.Generator().manual_seed(1)
    margin = num_frames
    texture = torch.randn(grid.h + 2 * margin, grid.w + 2 * margin, 16, generator=generator)
    labels = torch.arange(texture.shape[0] * texture.shape[1]).reshape(texture.shape[:2])
    features, truth = [], []
    for frame in range(num_frames):
        top, left = margin - frame * direction[0], margin - frame * direction[1]
        features.append(texture[top : top + grid.h, left : left + grid.w].flatten(0, 1))
        truth.append(labels[top : top + grid.h, left : left + grid.w])
    return torch.stack(features), torch.stack(truth)


def slow_match(matching, vote, frame, cell):
    def cosine(a, b):
        return float((a @ b) / (a.norm() * b.norm()))

    source, scores = matching[frame, cell].double(), []
    for target in range(matching.shape[1]):
        score = cosine(source, matching[frame + 1, target].double())
        if vote is vote_by_track:
            first = cosine(source, matching[0, target].double())
            score = frame / (frame + 1) * score + 1 / (frame + 1) * first
        scores.append(score)
    return scores.index(max(scores))


def slow_is_good(start, end, grid, threshold, vote):
    moves = [end // grid.w - start // grid.w, end % grid.w - start % grid.w]
    return all((move if vote is vote_by_track else abs(move)) <= threshold for move in moves)


def published_rows(size):
    """Rows (or columns) of the query points, as the published code computes them one by one: some come twice."""
    return [int((torch.tensor(row) / size) * size) for row in range(size)]


def slow_tracks(matching, grid, threshold, vote):
    """List tracks as lists of (frame, cell), for the votes by cell: starts also where nothing arrives."""
    num_frames, num_cells = matching.shape[:2]
    match = {
        (frame, cell): slow_match(matching, vote, frame, cell)
        for frame, cell in product(range(num_frames - 1), range(num_cells))
    }
    good = {at: slow_is_good(at[1], end, grid, threshold, vote) for at, end in match.items()}
    joined = {at for at in match if good[at] or vote is vote_by_track}
    reached = {(at[0] + 1, match[at]) for at in joined}
    starts = [at for at in product(range(num_frames), range(num_cells)) if at not in reached]
    if vote is vote_by_track:
        starts = [(0, y * grid.w + x) for y, x in product(published_rows(grid.h), published_rows(grid.w))]
    tracks = []
    for start in starts:
        track = [start]
        while track[-1] in joined:
            track.append((track[-1][0] + 1, match[track[-1]]))
        if all(good[at] for at in track[:-1]):
            tracks.append(track)
    return tracks


def slow_refine(maps, matching, threshold, vote):
    grid = Grid(*maps.shape[1:])
    labels = maps.flatten(1).tolist()
    result = [list(row) for row in labels]
    votes: dict[tuple[int, int], dict[int, int]] = {}
    for track in slow_tracks(matching, grid, threshold, vote):
        met = [labels[frame][cell] for frame, cell in track]
        winner = max(met, key=met.count)  # the first of the tied
        for frame, cell in track:
            result[frame][cell] = winner
            counts = votes.setdefault((frame, cell), {})
            for label in met:
                counts[label] = counts.get(label, 0) + 1
    if vote is vote_by_track:
        return torch.tensor(result).reshape(maps.shape)
    result = [list(row) for row in labels]
    for (frame, cell), counts in votes.items():
        tied = [label for label in counts if counts[label] == max(counts.values())]
        if result[frame][cell] not in tied:
            result[frame][cell] = min(tied)
    return torch.tensor(result).reshape(maps.shape)


@BOTH
@THRESHOLDS
@pytest.mark.parametrize("seed", [0, 1])
def test_refine_equals_slow_loops(vote, threshold, seed):
    maps, matching = random_case(seed=seed)
    refined = refine(maps, matching, RefinementConfig(spatial_threshold=threshold), vote)
    assert refined.dtype == torch.int64
    assert torch.equal(refined, slow_refine(maps, matching, threshold, vote))


@pytest.mark.parametrize(
    ("match", "within", "vote"),
    [(match_cells, within_threshold, vote_by_cell), (match_anchored, within_one_side, vote_by_track)],
    ids=["paper", "published"],
)
def test_cases_reach_both_outcomes(match, within, vote):
    """The cases above have bad and good matches, merging tracks and changed labels."""
    maps, matching = random_case()
    matches = match(matching)
    assert 0.1 < float(within(matches, GRID, 1).float().mean()) < 0.99
    assert len(matches[-1].unique()) < GRID.num_tokens
    assert not torch.equal(refine(maps, matching, DEFAULT, vote), maps)


@pytest.mark.parametrize(("match", "vote"), [(match_cells, vote_by_cell), (match_anchored, vote_by_track)])
def test_matches_and_tracks_equal_slow_loops(match, vote):
    _, matching = random_case()
    matches = match(matching)
    for frame, cell in product(range(4), range(GRID.num_tokens)):
        assert int(matches[frame, cell]) == slow_match(matching, vote, frame, cell)
    cells = follow_matches(matches)
    for start in range(GRID.num_tokens):
        cell = start
        for frame in range(5):
            assert int(cells[frame, start]) == cell
            cell = slow_match(matching, vote, frame, cell) if frame < 4 else cell


def test_anchored_matching_never_moves_in_the_first_hop():
    _, matching = random_case(drift=5.0)
    assert match_anchored(matching)[0].tolist() == list(range(GRID.num_tokens))
    assert match_cells(matching)[0].tolist() != list(range(GRID.num_tokens))


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_a_shift_by_one_cell_is_followed(direction):
    matching, truth = moving_case(direction)
    matches = match_cells(matching)
    good = within_threshold(matches, WIDE, 1)
    for frame, row, column in product(range(3), range(6), range(7)):
        to_row, to_column = row + direction[0], column + direction[1]
        if 0 <= to_row < 6 and 0 <= to_column < 7:
            assert int(matches[frame, row * 7 + column]) == to_row * 7 + to_column
            assert bool(good[frame, row * 7 + column])
    wrong = truth.clone()
    wrong[1, 2:4, 2:4] = 9999  # a mistake in one frame, which the three others outvote
    assert torch.equal(refine(wrong, matching, DEFAULT)[:, 2:4, 2:4], truth[:, 2:4, 2:4])


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_threshold_zero_follows_no_move(direction):
    matching, truth = moving_case(direction)
    noisy = truth + torch.tensor([0, 9999, 0, 0])[:, None, None]
    refined = refine(noisy, matching, RefinementConfig(spatial_threshold=0))
    assert torch.equal(refined[:, 2:4, 2:4], noisy[:, 2:4, 2:4])


def test_one_sided_threshold_lets_moves_up_and_left_pass():
    grid = Grid(5, 5)
    middle = torch.full((1, 25), 12)
    matches = torch.arange(25)[None]
    ends = matches.clone()
    ends[0, 12] = 0  # two up and two left
    assert not bool(within_threshold(ends, grid, 1)[0, 12])
    assert bool(within_one_side(ends, grid, 1)[0, 12])
    near = [cell for cell in range(25) if abs(cell // 5 - 2) <= 1 and abs(cell % 5 - 2) <= 1]
    assert within_threshold(middle, grid, 1)[0].nonzero().flatten().tolist() == near
    below = [cell for cell in range(25) if 2 - cell // 5 <= 1 and 2 - cell % 5 <= 1]
    one_sided = within_one_side(middle, grid, 1)
    assert one_sided[0].nonzero().flatten().tolist() == below
    assert bool(within_threshold(ends, grid, 2)[0, 12])


@BOTH
@THRESHOLDS
def test_constant_maps_are_a_fixed_point(vote, threshold):
    config = RefinementConfig(spatial_threshold=threshold)
    _, matching = random_case()
    maps = torch.full((5, *GRID), 17)
    assert torch.equal(refine(maps, matching, config, vote), maps)


@BOTH
@THRESHOLDS
def test_a_still_clip_with_still_labels_is_a_fixed_point(vote, threshold):
    config = RefinementConfig(spatial_threshold=threshold)
    maps, matching = random_case(1)
    still = maps.expand(5, -1, -1)
    assert torch.equal(refine(still, matching.expand(5, -1, -1), config, vote), still)


@BOTH
@THRESHOLDS
def test_rising_relabeling_commutes(vote, threshold):
    config = RefinementConfig(spatial_threshold=threshold)
    maps, matching = random_case(seed=3)
    rising = torch.tensor([5, 6, 255])
    plain = refine(maps, matching, config, vote)
    assert torch.equal(refine(rising[maps], matching, config, vote), rising[plain])


def test_any_relabeling_commutes_where_ties_do_not_look_at_labels():
    maps, matching = random_case(seed=3)
    other = torch.tensor([8, 0, 3])
    published = refine(maps, matching, DEFAULT, vote_by_track)
    assert torch.equal(refine(other[maps], matching, DEFAULT, vote_by_track), other[published])
    two = maps % 2  # with two labels the cell's own label is always among the tied
    plain = refine(two, matching, DEFAULT)
    assert torch.equal(refine(other[two], matching, DEFAULT), other[plain])


@pytest.mark.parametrize("grid", [Grid(44, 2), Grid(2, 56)])
def test_rows_and_columns_that_the_published_code_leaves_out_start_no_track(grid):
    maps, matching = random_case(2, grid, drift=2.0)
    assert len(set(published_rows(44))) == 42
    assert int(find_starts(grid).sum()) < grid.num_tokens
    ours = refine(maps, matching, DEFAULT, vote_by_track)
    assert torch.equal(ours, slow_refine(maps, matching, 1, vote_by_track))


def test_ties_keep_the_label_of_the_cell_or_take_the_first_met():
    matching = torch.eye(4).expand(2, 4, 4)
    maps = torch.tensor([[[2, 0], [1, 3]], [[1, 3], [1, 2]]])
    assert torch.equal(refine(maps, matching, DEFAULT), maps)
    first_met = maps[0].expand(2, 2, 2)
    assert torch.equal(refine(maps, matching, DEFAULT, vote_by_track), first_met)


@pytest.mark.parametrize(("match", "vote"), [(match_cells, vote_by_cell), (match_anchored, vote_by_track)])
def test_one_frame_and_off_change_nothing(match, vote):
    maps, matching = random_case()
    assert torch.equal(refine(maps[:1], matching[:1], DEFAULT, vote), maps[:1])
    assert torch.equal(refine(maps, matching, RefinementConfig(enabled=False), vote), maps)
    assert match(matching[:1]).shape == (0, GRID.num_tokens)


def test_length_of_tokens_does_not_matter():
    maps, matching = random_case()
    scale = torch.rand(5, GRID.num_tokens, 1, generator=torch.Generator().manual_seed(0)) + 0.5
    assert torch.equal(refine(maps, matching * scale, DEFAULT), refine(maps, matching, DEFAULT))


def test_chunks_do_not_change_matches(monkeypatch):
    _, matching = random_case()
    expected = match_cells(matching)
    for elements in (1, 50, 390):
        monkeypatch.setattr(correspondence, "_CHUNK_ELEMENTS", elements)
        assert torch.equal(match_cells(matching), expected)


def test_refuses_bad_input():
    maps, matching = random_case()
    bad = matching.clone()
    bad[2, 3, 1] = float("nan")
    with pytest.raises(InputError, match="`matching` must be finite"):
        refine(maps, bad, DEFAULT)
    with pytest.raises(InputError, match=r"`matching` must have shape \(T=5, N=20, C\)"):
        refine(maps, matching[:, :19], DEFAULT)
    with pytest.raises(InputError, match="`maps` must have shape"):
        refine(maps.flatten(1), matching, DEFAULT)


@pytest.mark.parametrize("name", ["sd_default", "sd_windows_0", "sd_windows_1", "sd_windows_2"])
def test_golden_tracks_and_maps(name):
    golden = np.load(golden_dir() / f"{name}.npz")
    matching = torch.from_numpy(golden["q_block7_t24"])[len(golden["latents_clean"]) :]
    cells = follow_matches(match_anchored(matching))
    np.testing.assert_array_equal(cells // 16, golden["corr_h"])
    np.testing.assert_array_equal(cells % 16, golden["corr_w"])
    refined = refine(torch.from_numpy(golden["knn_labels"]), matching, DEFAULT, vote_by_track)
    np.testing.assert_array_equal(refined, golden["cbr_labels"])


def test_golden_refinement_is_exercised():
    golden = np.load(golden_dir() / "sd_windows_0.npz")
    assert (golden["knn_labels"] != golden["cbr_labels"]).sum() == 12
