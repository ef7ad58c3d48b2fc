import itertools
from xml.etree import ElementTree

import numpy as np
import numpy.typing as npt
import pytest

from edgellm.report.charts.bars import Bar, BarGroup, bar_chart
from edgellm.report.charts.chart import WIDTH, Chart, ChartValue, sheet, shortened, text_width, with_range
from edgellm.report.charts.palette import DARK, DARK_INK, LIGHT, LIGHT_INK
from edgellm.report.charts.points import Series, point_chart, ticks

SVG = "{http://www.w3.org/2000/svg}"
HOSTILE = '"></svg><script>alert(1)</script>\x1b\u202e ' + "very long " * 50


def drawn(chart: Chart) -> ElementTree.Element:
    return ElementTree.fromstring(str(chart.svg()))


def written(value: ChartValue) -> str:
    return with_range(value, lambda number: f"{number:g}")


def test_bars_are_as_long_as_their_values() -> None:
    bars = [Bar("a", ChartValue(0.25)), Bar("b", ChartValue(1.0), 1), Bar("c", ChartValue(0.0))]
    svg = drawn(bar_chart("scores", [BarGroup("group", bars)], written, most=1.0))
    widths = [float(rect.get("width", "0")) for rect in svg.iter("rect") if rect.get("class") != "track"]
    assert widths == [0.25 * WIDTH, WIDTH, 0]
    assert [text.text for text in svg.iter("text")] == ["group", "a", "0.25", "b", "1", "c", "0"]
    assert svg.find("title") is not None and "a: 0.25; b: 1" in str(svg.findtext("title"))


def test_differences_begin_at_zero_and_go_both_ways() -> None:
    bars = [Bar("worse", ChartValue(-0.5, -1.0, 0.0)), Bar("better", ChartValue(0.25, 0.0, 0.5))]
    svg = drawn(bar_chart("differences", [BarGroup("", bars)], written, least=-1.0, most=1.0, reference=0.0))
    worse, better = (rect for rect in svg.iter("rect") if rect.get("class") != "track")
    assert (worse.get("x"), worse.get("width")) == ("100", "100")
    assert (better.get("x"), better.get("width")) == ("200", "50")
    whiskers = [path.get("d", "") for path in svg.iter("path") if path.get("class") == "end"]
    assert "M0.0 23.0H200.0" in whiskers[0]
    assert all(line.get("x1") == "200" for line in svg.iter("line"))


def test_points_stand_at_their_values() -> None:
    series = [Series("one", {1: ChartValue(10, 8, 12), 2: ChartValue(20)}), Series("two", {1: ChartValue(5)})]
    chart = point_chart("over threads", series, "threads", "tok/s")
    svg = drawn(chart)
    assert "one: 10 tok/s at 1 threads, 20 tok/s at 2 threads; two: 5" in str(svg.findtext("title"))
    places = [path.get("transform", "") for path in svg.iter("path") if path.get("transform")]
    legend, points = places[:2], [tuple(map(float, place[10:-1].split())) for place in places[2:]]
    assert legend == ["translate(6 9)", "translate(6 27)"]
    (x1, y10), (x2, y20), (x, y5) = points
    assert x == x1 < x2 < WIDTH and y20 < y10 < y5
    assert y10 - y20 == pytest.approx(2 * (y5 - y10), abs=0.2)  # the axis is linear
    assert len([path for path in svg.iter("path") if path.get("class", "").startswith("join s")]) == 1


def test_places_may_have_names() -> None:
    series = [Series("one", {0: ChartValue(10), 1: ChartValue(20)})]
    texts = [
        text.text
        for text in drawn(point_chart("engines", series, "engine", "tok/s", names={0: "old", 1: "new"})).iter("text")
    ]
    assert "old" in texts and "new" in texts and "one" not in texts  # a series alone needs no legend


@pytest.mark.parametrize(
    ("highest", "expected"),
    [(1, [0, 0.25, 0.5, 0.75, 1]), (42.6, [0, 20, 40, 60]), (100, [0, 25, 50, 75, 100])],
)  # fmt: skip
def test_ticks_are_round(highest: float, expected: list[float]) -> None:
    assert list(ticks(highest)) == pytest.approx(expected)


@pytest.mark.parametrize("highest", [1e-9, 0.7, 1.3, 7, 9.99, 12345.6, 1e12])
def test_ticks_reach_the_highest_value(highest: float) -> None:
    found = ticks(highest)
    assert 3 <= len(found) <= 6 and found[-1] >= highest * 0.999 > found[-2] * 0.99


def test_odd_values_are_drawn() -> None:
    for chart in (
        bar_chart("zero", [BarGroup("", [Bar("a", ChartValue(0.0, 0.0, 0.0))])], written),
        bar_chart("none", [], written),
        point_chart("zero", [Series("a", {0: ChartValue(0.0)})], "x", "y"),
        point_chart("zero", [Series("a", {0: ChartValue(0.0)})], "x", "y", is_joined=False),
        point_chart("many", [Series(f"s{n}", {1: ChartValue(n)}) for n in range(40)], "x", "y"),
    ):
        assert drawn(chart).tag == "svg"


def test_hostile_names_stay_inside() -> None:
    chart = bar_chart(
        HOSTILE, [BarGroup(HOSTILE, [Bar(HOSTILE, ChartValue(1.0), mark=HOSTILE[:20])])], written, note=HOSTILE
    )
    points = point_chart(HOSTILE, [Series(HOSTILE, {1: ChartValue(1)})] * 2, HOSTILE, "y", names={1: HOSTILE})
    document = ElementTree.fromstring(sheet(HOSTILE, HOSTILE, [chart, points]))
    assert {each.tag.removeprefix(SVG) for each in document.iter()} <= {
        "svg", "style", "title", "g", "text", "rect", "path", "line",
    }  # fmt: skip
    for text in drawn(chart).iter("text"):
        assert text_width(text.text or "") <= WIDTH + 1


def test_texts_are_cut_where_they_must_be() -> None:
    assert shortened("short", 100) == "short"
    cut = shortened("a very long name of a model", 100)
    assert cut.endswith("…") and text_width(cut) <= 100
    assert text_width("中文") > 1.5 * text_width("ab")


def test_a_sheet_is_one_document_with_both_kinds_of_colours() -> None:
    charts = [
        bar_chart(f"chart {n}", [BarGroup("", [Bar("a", ChartValue(1.0))])], written, note="note") for n in range(3)
    ]
    found = sheet("title", "machine", charts)
    document = ElementTree.fromstring(found)
    texts = [text.text for text in document.iter(f"{SVG}text")]
    assert texts[:2] == ["title", "machine"] and {"chart 0", "chart 1", "chart 2", "note"} <= set(texts)
    assert "prefers-color-scheme: dark" in found
    assert "prefers-color-scheme" not in sheet("title", "machine", charts, is_for_screens=False)


# How people see colours who lack one kind of cone: Machado, Oliveira and Fernandes (2009), severity 1, in linear RGB.
CONES = (
    np.eye(3),
    np.array([[0.1523, 1.0526, -0.2049], [0.1145, 0.7863, 0.0992], [-0.0039, -0.0481, 1.0520]]),
    np.array([[0.3673, 0.8606, -0.2280], [0.2801, 0.6725, 0.0474], [-0.0118, 0.0429, 0.9689]]),
    np.array([[1.2555, -0.0767, -0.1788], [-0.0784, 0.9308, 0.1476], [0.0047, 0.6914, 0.3039]]),
)
TO_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])


def linear(colour: str) -> npt.NDArray[np.float64]:
    v = np.array([int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)])
    return np.where(v <= 0.04045, v / 12.92, ((v + 0.055) / 1.055) ** 2.4)


def lab(rgb: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    xyz = TO_XYZ @ np.clip(rgb, 0, 1) / np.array([0.9505, 1, 1.089])
    x, y, z = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def contrast(one: str, other: str) -> float:
    low, high = sorted(float(TO_XYZ[1] @ linear(colour)) for colour in (one, other))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize(("series", "ink"), [(LIGHT, LIGHT_INK), (DARK, DARK_INK)])
def test_colours_differ_for_everybody(series: tuple[str, ...], ink: dict[str, str]) -> None:
    assert all(contrast(colour, ink["back"]) >= 3 for colour in series)
    assert contrast(ink["soft"], ink["back"]) >= 4.5 and contrast(ink["text"], ink["back"]) >= 7
    for cones in CONES:
        seen = [lab(cones @ linear(colour)) for colour in series]
        assert min(float(np.linalg.norm(a - b)) for a, b in itertools.combinations(seen, 2)) >= 15
