"""The page says what the report holds, holds no foreign HTML, needs nothing from outside, and stays small."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest

from tests.profiler import made_up
from trt_blendmask.profiler.diff import diff
from trt_blendmask.profiler.page import diff_page_of, page_of
from trt_blendmask.profiler.page.conditions import conditions_svgs
from trt_blendmask.profiler.report import Comparison, Environment, ProfileReport, Readings
from trt_blendmask.profiler.words import ms_text, pair, summary, verdict

VOID = {"meta", "input", "img", "br"}


class Reader(HTMLParser):
    """Texts, tags and attributes; every tag that is opened must be closed by its own end."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.words: list[str] = []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not set(self.open) & {"style", "script"}:
            self.words.append(data)


@pytest.fixture(scope="module")
def whole() -> str:
    return page_of(made_up.report())


def rows_of(html: str, kind: str) -> list[list[str]]:
    """Cells of the first table of that class."""
    table = re.search(rf'<table class="{kind}.*?</table>', html, re.S)
    assert table
    rows = re.findall(r"<tr.*?</tr>", table[0], re.S)
    return [[re.sub("<.*?>", "", cell) for cell in re.findall(r"<t[dh].*?</t[dh]>", row, re.S)] for row in rows]


def test_every_section_is_there(whole: str) -> None:
    words = Reader(whole).words
    for title in ("Models", "Latency", "Where the time goes", "Layers", "Pipeline", "Machine"):
        assert title in words
    for text in ("another process used 31 % of a core", made_up.report().command, "Example Workstation 7"):
        assert text in words


def test_the_summary_comes_first_and_is_right() -> None:
    report = made_up.report()
    median = report.models[2].distribution("host")
    assert median is not None
    assert summary(report) == (
        f"int8 is the fastest: {median.median_ms:.1f} ms a frame (median; letterbox to detections, by the host's "
        "clock), 1.62 times as fast as fp32 (1.59 to 1.64). With 2 in flight, 40.6 frames a second. int8 finds what "
        "fp32 finds with F1 0.9810, mask IoU 0.9840 on 64 pictures."
    )
    first = re.search("<p.*?</p>", page_of(report))
    assert first
    assert "int8 is the fastest" in first[0]


def test_the_summary_calls_no_winner_within_the_noise() -> None:
    report = made_up.report()
    two = replace(report, models=report.models[:2])
    assert summary(two).startswith(
        "fp16 cannot be told from fp32: takes 0.989 times as long (0.974 to 1.005), and no difference at all gives "
        "0.988 to 1.012. They take "
    )
    turned = replace(report, models=report.models[1::-1])
    assert summary(turned).startswith("fp32 cannot be told from fp16: ")


def test_the_summary_where_the_first_one_is_the_fastest() -> None:
    report = made_up.report()
    turned = replace(report, models=(report.models[2], report.models[0]))
    assert "int8 is the fastest" in summary(turned)
    assert "fp32 takes 1.62 times as long as int8 (1.59 to 1.64)" in summary(turned)


def test_the_summary_of_one_model_and_of_none_that_was_timed() -> None:
    report = made_up.report()
    assert summary(replace(report, models=report.models[:1])).startswith("fp32 takes ")
    failed = replace(report.models[0], times={}, layers=None, error="it finds other things")
    assert summary(replace(report, models=(failed,))) == "No frames were timed. fp32: it finds other things"


def test_a_pair_may_have_been_noted_the_other_way_round() -> None:
    report = made_up.report()
    there, back = pair(report, "fp32", "int8", "host"), pair(report, "int8", "fp32", "host")
    assert there is not None
    assert back is not None
    assert (back.ratio, back.low, back.high) == pytest.approx((1 / there.ratio, 1 / there.high, 1 / there.low))
    assert back.noise_low == pytest.approx(1 / there.noise_high)
    assert pair(report, "fp32", "int8", "gpu") is None
    assert verdict(there) == "1.62 times as fast as fp32 (1.59 to 1.64)"
    assert verdict(back) == "takes 1.62 times as long as int8 (1.59 to 1.64)"
    same = Comparison("a", "b", "host", 1.01, 0.99, 1.03, 0.98, 1.02, False)
    assert verdict(same) == (
        "cannot be told from a: takes 1.010 times as long (0.990 to 1.030), and no difference at all gives 0.980 to "
        "1.020"
    )


def test_numbers_in_the_table_of_models_are_those_of_the_report(whole: str) -> None:
    report = made_up.report()
    rows = rows_of(whole, "models")
    assert rows[0] == ["", "fp32", "fp16", "int8"]
    begin = next(k for k, row in enumerate(rows) if row[0].startswith("Letterbox to detections") and len(row) == 1)
    table = {row[0]: row[1:] for row in rows[begin + 1 : begin + 9]}
    seen = [model.distribution("host") for model in report.models]
    assert table["median"] == [f"{one.median_ms:.1f}" for one in seen if one]
    assert table["p99"] == [f"{one.percentiles[99.0]:.1f}" for one in seen if one]
    assert table["CoV"] == [f"{one.cov:.1%}" for one in seen if one]
    against = {row[0]: row[1:] for row in rows[next(k for k, r in enumerate(rows) if "against fp32" in r[0]) + 1 :][:4]}
    assert against["time"] == ["", "x 0.989", "x 0.618"]
    assert against["a difference"] == ["", "no", "yes"]


def test_the_table_of_layers_has_every_number(whole: str) -> None:
    profile = made_up.report().models[0].layers
    assert profile is not None
    rows = rows_of(whole, "layers")[1:]
    assert len(rows) == len(profile.layers)
    slowest = max(profile.layers, key=lambda layer: layer.ms)
    assert rows[0][:2] == [slowest.name, slowest.part]
    assert float(rows[0][7]) == pytest.approx(slowest.ms, abs=5e-4)
    assert sum(float(row[7]) for row in rows) == pytest.approx(profile.sum_ms, rel=1e-3)
    assert [float(row[7]) for row in rows] == sorted((float(row[7]) for row in rows), reverse=True)


def test_bars_of_parts_are_as_long_as_their_times(whole: str) -> None:
    """The widths of the first model's segments are in the ratio of its milliseconds."""
    profile = made_up.report().models[0].layers
    assert profile is not None
    drawing = next(s for s in re.findall("<svg.*?</svg>", whole, re.S) if "Milliseconds of each part" in s)
    root = ElementTree.fromstring(drawing)
    name = "{http://www.w3.org/2000/svg}"
    boxes = [box for box in root.iter(f"{name}rect") if box.get("y") == "18"]
    titles = [box.find(f"{name}title").text for box in boxes]  # type: ignore[union-attr]
    widths = {title.split(":")[0]: float(box.get("width") or 0) for title, box in zip(titles, boxes, strict=True)}  # type: ignore[union-attr]
    scale = sum(widths.values()) / profile.sum_ms
    for part, wide in widths.items():
        expected = sum(layer.ms for layer in profile.layers if layer.part == part)
        assert wide == pytest.approx(expected * scale, abs=0.2)
    assert len(widths) == len({layer.part for layer in profile.layers})


def test_every_drawing_is_well_formed_and_within_its_frame(whole: str) -> None:
    for drawing in re.findall("<svg.*?</svg>", whole, re.S):
        root = ElementTree.fromstring(drawing)
        _, _, width, height = map(float, (root.get("viewBox") or "").split())
        assert "nan" not in drawing
        for node in root.iter():
            for key, most in (("x", width), ("cx", width), ("y", height), ("cy", height)):
                if key in node.attrib and not node.tag.endswith("g"):
                    assert -1 <= float(node.attrib[key]) <= most + 1


@pytest.mark.parametrize("kind", ["profile", "diff"])
def test_names_that_are_html_stay_words(kind: str) -> None:
    report = made_up.report(hostile=True)
    first = report.models[0]
    assert first.layers is not None
    layer = replace(first.layers.layers[0], name=made_up.HOSTILE, part=made_up.HOSTILE, op=made_up.HOSTILE, ms=9.0)
    layer = replace(layer, kernel=f'" onclick="x{made_up.HOSTILE}')
    layers = replace(first.layers, layers=(layer, *first.layers.layers), note=made_up.HOSTILE, tool=made_up.HOSTILE)
    series = {f"{made_up.HOSTILE} W": [1.0, 2.0]}
    hostile = replace(
        report,
        models=(replace(first, layers=layers, error=made_up.HOSTILE), *report.models[1:]),
        readings=Readings((0.0, 1.0), series),  # type: ignore[arg-type]
        pipeline=(replace(report.pipeline[0], model=made_up.HOSTILE, source=made_up.HOSTILE),),
    )
    slower = replace(layers, layers=(replace(layer, ms=30.0, precision="FP16"), *layers.layers[1:]))
    after = replace(hostile, models=(replace(hostile.models[0], layers=slower), *hostile.models[1:]))
    html = page_of(hostile) if kind == "profile" else diff_page_of(diff(hostile, after))
    read = Reader(html)
    assert read.tags.count("script") == 1
    assert not [name for name, _ in read.attributes if name.startswith("on")]
    assert any("<script>alert('x')</script>&\"'" in word for word in read.words)


@pytest.mark.parametrize("kind", ["profile", "diff"])
def test_it_needs_nothing_from_outside(whole: str, kind: str) -> None:
    html = whole if kind == "profile" else diff_page_of(diff(made_up.report(), made_up.report()))
    read = Reader(html)
    assert not [value for name, value in read.attributes if name in ("src", "href", "srcset", "action")]
    assert "@import" not in html
    assert "url(" not in html
    assert set(re.findall(r"https?://[^\"' <]+", html)) <= {"http://www.w3.org/2000/svg"}


def test_thousands_of_layers_still_fit_into_a_mail() -> None:
    """Also with names as long as TensorRT makes them."""
    one = made_up.many_layers(5000)
    first = one.models[0].layers
    assert first is not None
    fused = tuple(replace(layer, name=" + ".join([layer.name] * 50), kernel="k" * 900) for layer in first.layers)
    six = replace(
        one,
        models=tuple(replace(one.models[0], label=f"m{k}", layers=replace(first, layers=fused)) for k in range(6)),
    )
    html = page_of(six)
    assert len(html.encode()) < 2e6
    assert "4700 faster layers" in html


def test_what_was_not_measured_is_left_out() -> None:
    report = made_up.report()
    bare = tuple(
        replace(model, layers=None, throughput=None, agreement=None, conditions={}, mj_per_frame=None, warnings=())
        for model in report.models[:1]
    )
    html = page_of(ProfileReport("x", "", report.environment, "", bare))
    words = Reader(html).words
    for title in ("Layers", "Pipeline", "Throughput", "Where the time goes", "Mind", "Clocks, temperatures, power"):
        assert title not in words
    nothing = page_of(ProfileReport("x", "", report.environment, "", (replace(bare[0], times={}, error="broken"),)))
    assert "fp32 was not timed: broken" in nothing
    broke = replace(report, models=(replace(report.models[0], error="broken"), *report.models[1:]))
    assert "fp32 was not timed to the end: broken" in page_of(broke)
    assert summary(broke).endswith(" fp32 was not timed to the end.")
    assert "fp32 is" not in summary(broke)
    assert Reader(page_of(ProfileReport("x", "", report.environment, "", ()))).words


def test_times_that_are_all_alike_and_single_ones() -> None:
    report = made_up.report()
    for samples in ([5.0], [5.0] * 20, [0.0, 0.0], [1e-4, 2e-4], [1.0] * 999 + [1e5], [1e14] * 2, [1e-7] * 2):
        model = replace(report.models[0], times={"host": samples}, layers=None)
        html = page_of(replace(report, models=(model,), comparisons=(), pipeline=()))
        assert "nan" not in "".join(re.findall(' d="[^"]*"', html))


def test_curves_of_many_sensors_stay_upright() -> None:
    names = [f"zone{k} C" for k in range(25)]
    drawing = conditions_svgs(Readings(at_s=(0.0, 1.0), series={name: [40.0, 60.0] for name in names}))[0]
    height = float(re.search(r'viewBox="0 0 \d+ (\d+)"', drawing)[1])  # type: ignore[index]
    curves = re.findall(r'd="M\S+ (\S+?)L\S+ (\S+?)"', drawing)
    assert len(curves) == 25
    assert all(0 < float(last) < float(first) < height for first, last in curves)
    lowest_name = max(float(y) for y in re.findall(r'y="(\S+)"[^>]*>zone', drawing))
    assert all(float(last) > lowest_name for _, last in curves)


def test_a_run_that_was_cut_short_says_so() -> None:
    assert "Cut short by Ctrl-C" in page_of(replace(made_up.report(), stopped=True))
    assert "Cut short" not in page_of(made_up.report())


def test_what_the_numbers_are_of_is_told(whole: str) -> None:
    """Means of layers need not be of all runs; ratios are not quotients of the medians beside them."""
    assert "mean of 40 runs" not in whole
    assert "layers by ONNX Runtime, 40 runs<" in whole
    assert "round by round" in whole
    alone = replace(made_up.report(), models=made_up.report().models[:1], comparisons=())
    assert "round by round" not in page_of(alone)


@pytest.mark.parametrize(
    ("ms", "words"), [(0, "0"), (0.0123, "0.0123"), (0.5, "0.50"), (9.876, "9.88"), (61.82, "61.8"), (1234.5, "1,234")]
)
def test_milliseconds_keep_the_digits_that_matter(ms: float, words: str) -> None:
    assert ms_text(ms) == words


def test_the_diff_says_what_changed_and_hides_what_did_not() -> None:
    one = made_up.report()
    model = one.models[2]
    assert model.layers is not None
    layers = tuple(
        replace(layer, ms=layer.ms * 2, precision="FP16", error_ms=0.01 * layer.ms)
        if layer.part == "basis"
        else replace(layer, error_ms=0.01 * layer.ms)
        for layer in model.layers.layers
    )
    slower = replace(
        model,
        layers=replace(model.layers, layers=layers, sum_ms=sum(layer.ms for layer in layers)),
        times={key: [1.3 * ms for ms in samples] for key, samples in model.times.items()},
    )
    html = diff_page_of(diff(one, replace(one, models=(*one.models[:2], slower))))
    words = " ".join(Reader(html).words)
    assert "fp32, which did not change" in words
    assert "int8, which did not change" not in words
    assert "back in FP16" in words
    rows = rows_of(html, "layers")
    assert {row[0] for row in rows[1:]} == {layer.name for layer in layers if layer.part == "basis"}


def test_the_summary_names_no_fastest_of_two_that_cannot_be_told_apart() -> None:
    report = made_up.report()
    pairs = [replace(one, differs=one.differs and one.one != "fp16") for one in report.comparisons]
    words = summary(replace(report, comparisons=tuple(pairs)))
    assert words.startswith("int8 cannot be told from fp16 but is among the fastest: ")
    assert "1.62 times as fast as fp32" in words
    assert "is the fastest" not in words


def test_the_summary_goes_by_rounds_where_medians_say_otherwise() -> None:
    report = made_up.report()
    slower = [replace(one, ratio=1.2, low=1.1, high=1.3) for one in report.comparisons]
    words = summary(replace(report, models=(report.models[0], report.models[2]), comparisons=tuple(slower)))
    assert words.startswith("fp32 is the fastest: ")
    assert "int8 takes 1.20 times as long as fp32" in words


def test_the_summary_of_too_few_rounds_tells_no_differences() -> None:
    words = summary(replace(made_up.report(), comparisons=(), stopped=True))
    assert words.startswith("Too few rounds to tell which is faster. Medians, ms: fp32 ")
    assert "fastest" not in words


def test_the_summary_names_who_was_not_timed() -> None:
    report = made_up.report()
    wrong = replace(report.models[2], times={}, error="it finds other things")
    assert summary(replace(report, models=(*report.models[:2], wrong))).endswith(" int8 was not timed.")


def test_what_trtexec_does_not_tell_is_no_zero() -> None:
    unknown = replace(made_up.report().models[0], input_hw=(0, 0), file_bytes=0, macs=None)
    html = page_of(replace(made_up.report(), models=(unknown,), environment=Environment()))
    words = Reader(html).words
    assert "0 x 0" not in words
    assert "0 cores" not in words
    assert "file, MB" not in words


def test_the_summary_of_layers_alone() -> None:
    alone = replace(made_up.report().models[0], times={})
    assert alone.layers is not None
    assert summary(replace(made_up.report(), models=(alone,))) == (
        f"No frames were timed. fp32: only layers, {ms_text(alone.layers.sum_ms)} ms in all."
    )
