"""Work in two threads: whole, in any order, and the same as by one; diagrams that samples leave."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from d3_ros.data.held_out_points import draw_points
from d3_ros.geometry.alignment import ScaleAligner
from d3_ros.geometry.alignment.local.detail import Detail
from d3_ros.geometry.alignment.local.voronoi import Samples, diagram_of, hand_on
from d3_ros.geometry.alignment.parallel import in_bands, meanwhile, together

SHAPE = (150, 200)
V, U = np.mgrid[: SHAPE[0], : SHAPE[1]]
RELATIVE = (0.5 + 0.25 * np.sin(U / 34) + 0.2 * np.cos(V / 22)).astype(np.float32)
TRUTH = (1.0 + 5.0 * RELATIVE) * (1.0 + 0.1 * np.sin(U / 9) * np.sin(V / 7))


@pytest.mark.parametrize("rows", [0, 1, 7, 48, 50])
def test_bands_cover_every_row_once(rows):
    times = np.zeros(rows, int)

    def visit(band: slice) -> None:
        times[band] += 1

    in_bands(visit, rows, at_once=8)
    np.testing.assert_array_equal(times, 1)


def test_calls_may_be_nested_deeper_than_there_are_threads():
    def depth(levels: int) -> int:
        if levels == 0:
            return 1
        return sum(together(lambda: depth(levels - 1), lambda: depth(levels - 1)))

    assert depth(8) == 2**8


def test_who_waits_for_work_that_nobody_has_begun_does_it_himself():
    by = []
    go, busy = threading.Event(), []
    try:
        for _ in range(64):  # more than there are threads
            context = meanwhile(go.wait)
            busy.append(context)
            context.__enter__()
        with meanwhile(lambda: by.append(threading.current_thread())) as result:
            result()
    finally:
        go.set()
        for context in reversed(busy):
            context.__exit__(None, None, None)
    assert by == [threading.current_thread()]


def test_errors_of_either_thread_arrive_and_nothing_runs_on():
    ended = threading.Event()

    def fail() -> None:
        raise ValueError("broken")

    def end() -> None:
        ended.set()

    with pytest.raises(ValueError, match="broken"):
        together(end, fail)
    assert ended.is_set()
    started = threading.Event()
    release = threading.Event()
    running = []

    def slow() -> None:
        started.set()
        release.wait()
        running.append("ended")

    with pytest.raises(ValueError, match="broken"), meanwhile(slow):
        if started.wait(5.0):
            threading.Timer(0.05, release.set).start()
        fail()
    assert running == (["ended"] if started.is_set() else [])


def test_several_cameras_at_once_get_what_each_gets_alone():
    clouds = [draw_points(TRUTH, points, seed=1) for points in (60, 400, 5000, 9000)]

    def run(sparse: np.ndarray) -> list[np.ndarray]:
        aligner = ScaleAligner()
        fits = [aligner.update(RELATIVE, sparse, stamp=0.1 * frame) for frame in range(4)]
        return [fit.apply(RELATIVE) for fit in fits]

    with ThreadPoolExecutor(len(clouds)) as cameras:
        at_once = list(cameras.map(run, clouds))
    for together_with_others, sparse in zip(at_once, clouds, strict=True):
        np.testing.assert_array_equal(together_with_others, run(sparse))


@pytest.mark.parametrize("step", [1, 2, 8])
def test_bands_of_detail_have_no_seams(step):
    cells = np.random.default_rng(0).random((160 // step, 200 // step)).astype(np.float32)
    detail = Detail(cells, cells[::-1], step)
    whole = detail.maps(0, 150, 200)
    for top in range(0, 150, 40):
        band = detail.maps(top, min(40, 150 - top), 200)
        for part, image in zip(band, whole, strict=True):
            np.testing.assert_array_equal(part, image[top : top + 40])


def test_the_map_to_metres_is_the_same_in_bands():
    fit = ScaleAligner().update(RELATIVE, draw_points(TRUTH, 5000, seed=0), stamp=0.0)
    tall = np.tile(RELATIVE, (4, 1))
    field = fit.to_metres.field
    whole = field.at(tall)
    for top in range(0, len(tall), 70):
        band = slice(top, top + 70)
        np.testing.assert_array_equal(field.at(tall[band], top, len(tall)), whole[band])


def test_cells_of_samples_that_leave_go_to_those_around():
    rng = np.random.default_rng(0)
    cells = rng.choice(60 * 80, 300, replace=False)
    rows, columns = np.divmod(cells, 80)
    ones = np.ones(300)
    every = Samples(rows, columns, ones, ones, ones)
    leaving = rng.random(300) < 0.1
    diagram = hand_on(diagram_of(rows, columns, (60, 80)), every, leaving)
    assert not leaving[diagram.nearest].any()
    v, u = np.mgrid[:60, :80]
    exact = np.hypot(v[..., None] - rows[~leaving], u[..., None] - columns[~leaving]).min(axis=2)
    taken = np.hypot(v - rows[diagram.nearest], u - columns[diagram.nearest])
    np.testing.assert_allclose(diagram.distance, taken, atol=0.5)  # OpenCV's is approximate
    assert np.mean(taken - exact < 0.5) > 0.95 and (taken - exact).max() < 2 * diagram.spacing


def test_nothing_is_carried_where_everybody_around_leaves():
    rng = np.random.default_rng(0)
    cells = rng.choice(60 * 80, 300, replace=False)
    rows, columns = np.divmod(cells, 80)
    ones = np.ones(300)
    every = Samples(rows, columns, ones, ones, ones)
    diagram = hand_on(diagram_of(rows, columns, (60, 80)), every, columns < 40)
    assert np.isinf(diagram.distance[:, :30]).mean() > 0.5
    assert np.isfinite(diagram.distance[:, 45:]).all()
