"""What the page says of the whole pipeline and of the inside of the network."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np

from tests.profiler import made_up
from trt_blendmask.profiler.page import page_of
from trt_blendmask.profiler.report import Distribution, Stage
from trt_blendmask.profiler.words import bound, busy, ms_text


def test_which_stage_bounds_the_rate() -> None:
    profile = made_up.pipeline()
    shares = busy(profile)
    assert shares["network"] > 0.9 > shares["sink"] > shares["reader"]
    assert bound(profile) == f"network bounds the rate: its 2 threads work {shares['network']:.0%} of the time."
    one = Distribution.from_samples([10.0])
    slow = replace(profile, stages=(Stage("decode", one, "reader"),), frames=10, seconds=1.0)
    assert (
        bound(slow)
        == "decode is the busiest stage, but nothing bounds the rate here: its thread works 10% of the time."
    )


def test_frames_that_go_through_together_count_once() -> None:
    stage = Stage("network", Distribution.from_samples([40.0]), "network", together=4.0)
    assert busy(replace(made_up.pipeline(), stages=(stage,), frames=50, seconds=1.0)) == {"network": 0.5}


def test_the_pipeline_has_the_percentiles_that_were_asked_for() -> None:
    profile = made_up.pipeline()
    stages = tuple(
        replace(stage, ms=Distribution.from_samples([end - begin for _, begin, end in stage.spans], (50, 90)))
        for stage in profile.stages
    )
    ages = Distribution.from_samples([90.0, 100.0, 200.0], (50, 90))
    html = page_of(replace(made_up.report(), pipeline=(replace(profile, stages=stages, glass_to_glass=ages),)))
    html = html[html.index("<h2>Pipeline") :]
    assert "p99" not in html
    assert "<b>100 ms</b> (median; p90 180, most 200)" in html
    rows = re.findall("<tr.*?</tr>", html[html.index('<div class="numbers">') :], re.S)
    heads, first = (re.findall("<t[dh].*?>(.*?)</t[dh]>", row) for row in rows[:2])
    ms = [end - begin for _, begin, end in profile.stages[0].spans]
    cells = dict(zip(heads, first, strict=True))
    assert cells["p90"] == ms_text(float(np.percentile(ms, 90)))
    assert cells["p90"] != ms_text(max(ms))


def test_the_copies_of_a_gpu_are_drawn_without_layers_too() -> None:
    report = made_up.report()
    int8 = replace(report.models[2], layers=None)
    assert "Inside the network" not in page_of(replace(report, models=(int8,)))
    times = {**int8.times, "h2d": [0.5] * 9, "compute": [4.0] * 9, "d2h": [0.25] * 9}
    html = page_of(replace(report, models=(replace(int8, times=times),)))
    assert "Inside the network, int8: 4.75 ms" in html
    titles = re.findall("<title>(h2d|compute|d2h): (.*?) ms", html)
    assert titles[:3] == [("h2d", "0.50"), ("compute", "4.00"), ("d2h", "0.25")]
