"""Test the charts: widths balance, bars are proportional, all elements are inside the frame, and text is escaped."""

import re
import xml.etree.ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manifests.display import (
    format_bytes,
    format_count,
    format_duration,
    format_edge,
    format_quantity,
    format_share,
    format_short,
)
from manifests.report import svg
from manifests.report.data import Bands, Bins, Flow, LedgerFlow, Planted, fold_flows, sum_flows
from manifests.report.html import Html, visible
from manifests.report.svg import (
    MOST_BARS,
    TRUNK,
    describe_bins,
    flow_chart,
    histograms,
    merge_bins,
    recall_curve,
)

amounts = st.lists(st.integers(1, 10**9), min_size=1, max_size=20)


@st.composite
def ledger_flows(draw: st.DrawFn) -> LedgerFlow:
    """Draw a balanced flow."""
    entered = [Flow(f"s{n}", size, "source") for n, size in enumerate(draw(amounts))]
    left, stages = sum_flows(entered), []
    for name in ("extract", "filter", "neardup"):
        flows: list[Flow] = []
        for number, wanted in enumerate(draw(st.lists(st.integers(1, 10**9), max_size=20))):
            taken = min(wanted, left)
            if taken:
                flows.append(Flow(f"r{number}", taken, draw(st.sampled_from(("dropped", "damaged", "removed")))))
                left -= taken
        stages.append((name, sorted(flows, key=lambda flow: -flow.amount)))
    arrived = [Flow("train", left, "arrived")] if left else []
    return LedgerFlow("records", sorted(entered, key=lambda flow: -flow.amount), stages, arrived)


def drawn(chart: Html) -> ET.Element:
    return ET.fromstring(chart)


def bands(root: ET.Element, *kinds: str) -> list[ET.Element]:
    return [path for path in root.iter("path") if set(kinds) & set(path.get("class", "").split())]


@given(ledger_flows())
def test_widths_are_amounts_times_one_scale_and_balance(flow: LedgerFlow) -> None:
    assert flow.balance == 0
    root, scale = drawn(flow_chart(flow)), TRUNK / flow.total
    said = {"in": [flow.entered], "dropped damaged removed": [flows for _, flows in flow.stages],
            "arrived": [flow.arrived]}  # fmt: skip
    for kinds, groups in said.items():
        wanted = [flow.amount * scale for flows in groups for flow in fold_flows(flows, svg.ROWS)]
        widths = [float(path.get("stroke-width", "")) for path in bands(root, *kinds.split())]
        expected = sorted(max(width, svg.HAIR) for width in wanted)
        assert sorted(widths) == pytest.approx(expected, rel=1e-5)
    into = sum(flow.amount for flow in fold_flows(flow.entered, svg.ROWS)) * scale
    assert into == pytest.approx(TRUNK)
    trunk = [float(rect.get("width", "")) for rect in root.iter("rect")]
    lefts, left = [], flow.total
    for _, flows in flow.stages:
        left -= sum_flows(flows)
        lefts += [left * scale] * 2 if left else []
    assert trunk == pytest.approx(lefts, rel=1e-5)


@given(ledger_flows())
def test_every_band_lies_inside_the_frame(flow: LedgerFlow) -> None:
    root = drawn(flow_chart(flow))
    width, height = map(float, root.get("viewBox", "").split()[2:])
    for path in root.iter("path"):
        for x, y in re.findall(r"[ML ]?(-?[\d.]+) (-?[\d.]+)(?=[HVA]|$)", path.get("d", "")):
            assert -1 <= float(x) <= width and -1 <= float(y) <= height
    for label in root.iter("text"):
        assert 0 < float(label.get("y", "")) < height


def test_the_smallest_flows_are_folded_to_one() -> None:
    flows = [Flow(f"r{n}", 20 - n, "dropped") for n in range(20)]
    some = fold_flows(flows, 5)
    assert len(some) == 5 and sum_flows(some) == sum_flows(flows) and some[-1].name == "16 others"


def test_bars_are_in_proportion_and_labelled_at_round_edges() -> None:
    root = drawn(
        histograms("lengths", [("", Bins(edges=[80, 100, 125, 160, 200, 250], counts=[1, 0, 4, 2, 1]))], " words")
    )
    heights = [float(bar.get("height", "")) for bar in root.iter("rect")]
    assert heights == pytest.approx([22, 88, 44, 22])
    assert [label.text for label in root.iter("text")] == ["100", "200"]
    assert root.get("role") == "img" and root.find("title") is not None and root.find("desc") is not None


def test_what_a_histogram_says_of_itself() -> None:
    assert describe_bins(Bins(edges=[2, 3, 4, 5], counts=[8, 1, 1]), " documents") == (
        "median 2 documents; nine in ten from 2 to 5"
    )
    bins = Bins(edges=[100, 125, 160], counts=[1, 9])
    assert describe_bins(bins, "") == "median 125 to 160; nine in ten from 100 to 160"
    assert Bins().quantile(0.5) == (0.0, 0.0)


@given(st.lists(st.integers(0, 9), min_size=1, max_size=121))
def test_labels_of_an_axis_do_not_touch(counts: list[int]) -> None:
    bins = Bins(edges=[float(edge) for edge in range(len(counts) + 1)], counts=counts)
    if not any(counts):
        counts[0] = 1
    root = drawn(histograms("any", [("", Bins(edges=bins.edges, counts=counts))], ""))
    ends = []
    for label in root.iter("text"):
        x, width, anchor = float(label.get("x", "")), 6.2 * len(label.text or ""), label.get("class", "").split()
        left = x - width / 2 if "mid" in anchor else x - width if "end" in anchor else x
        ends += [left, left + width]
    assert ends == sorted(ends) and ends[0] >= 0 and ends[-1] <= 281


def test_histograms_over_one_axis_keep_their_places() -> None:
    edges = [10, 20, 30, 40]
    rows = [
        ("head", Bins(edges=edges, counts=[1, 2, 0])),
        ("none", Bins()),
        ("tail", Bins(edges=edges, counts=[0, 0, 5])),
    ]
    root = drawn(histograms("perplexity", rows, ""))
    assert [float(bar.get("x", "")) for bar in root.iter("rect")] == pytest.approx([0, 24, 48])
    assert histograms("nothing", [("none", Bins())], "") == ""


def test_the_curve_passes_through_its_points_and_shows_what_was_planted() -> None:
    planted = Planted(
        level=0.8, jaccard=0.8, expected=0.9, found=9, planted=10, accepted=8, right=8, interval=(0.6, 1.0)
    )
    curve = [(0.3, 0.0), (0.65, 0.5), (1.0, 1.0)]
    root = drawn(recall_curve(Bands(sources=["web"], bands=14, rows=8, threshold=0.7, curve=curve, planted=[planted])))
    (line,) = [path.get("d", "") for path in root.iter("path") if path.get("class") == "line"]
    points = [tuple(map(float, pair.split())) for pair in line.lstrip("M").split("L")]
    assert points[0][1] - points[1][1] == pytest.approx(points[1][1] - points[2][1], abs=0.02)
    (dot,) = root.iter("circle")
    assert float(dot.get("cy", "")) == pytest.approx(points[2][1] + 0.1 * (points[0][1] - points[2][1]), abs=0.02)


def test_numbers_for_people() -> None:
    assert [format_short(n) for n in (0, 9_999, 10_000, 999_500, 1_234_567, 1.4e12, 67e9)] == [
        "0", "9,999", "10.0k", "1.00M", "1.23M", "1.40T", "67.0B",
    ]  # fmt: skip
    assert [format_bytes(n) for n in (12, 1_500, 3e9)] == ["12 B", "1.50 kB", "3.00 GB"]
    assert [format_share(1, 3), format_share(1, 10**6), format_share(0, 5), format_share(1, 0)] == [
        "33.3%",
        "< 0.1%",
        "0.0%",
        "–",
    ]
    assert [format_duration(s) for s in (0.001, 2.5, 90, 7_200, 172_800)] == [
        "< 0.01 s",
        "2.50 s",
        "1.50 min",
        "2.00 h",
        "2.00 d",
    ]
    assert [format_quantity(n, "records") for n in (0, 1, 2)] == ["0 records", "1 record", "2 records"]
    assert format_count(1234567) == "1,234,567" and [format_edge(n) for n in (0.05, 2.5, 125.0)] == [
        "0.05",
        "2.5",
        "125",
    ]


def test_text_that_cannot_be_seen_is_named_and_long_text_cut() -> None:
    assert visible("a\u202eb\x00\ud800\u2028") == "a‹U+202E›b‹U+0000›‹U+D800›‹U+2028›"
    assert visible("one\ntwo\tthree") == "one ⏎ two → three" and visible("x" * 500, 10) == "x" * 10 + "…"
    assert visible("سلام می\u200cخواهم ‎") == "سلام می\u200cخواهم ‹U+200E›"


@given(st.lists(st.integers(0, 9), max_size=400))
def test_a_coarser_histogram_holds_the_same_values_between_edges_of_the_finer(counts: list[int]) -> None:
    fine = Bins(edges=[float(edge) for edge in range(len(counts) + 1)] if counts else [], counts=counts)
    coarse = merge_bins(fine)
    assert coarse.total() == fine.total() and len(coarse.counts) <= MOST_BARS
    assert set(coarse.edges) <= set(fine.edges) and len(coarse.edges) == (len(coarse.counts) + 1 if counts else 0)
    for place, held in enumerate(coarse.counts):
        low, high = int(coarse.edges[place]), int(coarse.edges[place + 1])
        assert sum(counts[low:high]) == held
