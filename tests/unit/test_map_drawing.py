# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The map as SVG and as Mermaid, read by a parser of XML and by Mermaid's own rules. What a person sees of it is the browser tests' business."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest
from ansible_collections.kindnet.host.plugins.plugin_utils._canvas import Canvas, fit, visible, width_of
from ansible_collections.kindnet.host.plugins.plugin_utils._map import MISSING, map_of
from ansible_collections.kindnet.host.plugins.plugin_utils._map_mermaid import mermaid
from ansible_collections.kindnet.host.plugins.plugin_utils._map_svg import svg
from reports import GUIDE, HOSTILE, address, everywhere, guide, large, missing, pod_cidr, report_of, unreachable

SVG = "{http://www.w3.org/2000/svg}"

REPORTS = {
    "no node": report_of(0),
    "one": report_of(1),
    "guide": guide(),
    "four": report_of(4),
    "five, one unreachable": report_of(5, [unreachable(2)]),
    "twelve": report_of(12),
    "fifty": large(50),
    "fifty-one": large(51),
    "sixty, all routes missing": report_of(60, [missing(i, k) for i in range(60) for k in range(60) if i != k]),
    "hostile": everywhere(guide(), HOSTILE),
    "hostile, many": everywhere(large(60), HOSTILE),
}


@pytest.fixture(params=list(REPORTS))
def report(request):
    return REPORTS[request.param]


def drawings(report):
    return [ElementTree.fromstring(text) for text in re.findall(r"<svg .*?</svg>", svg(map_of(report)), re.DOTALL)]


def texts(report):
    return [t.text for drawing in drawings(report) for t in drawing.iter(SVG + "text")]


def test_it_is_xml_of_few_words(report):
    """No element and no attribute but those that draw: neither links, scripts and handlers, nor ids and styles."""
    for drawing in drawings(report):
        for element in drawing.iter():
            assert element.tag in {SVG + name for name in ("svg", "rect", "path", "text", "title")}
            allowed = {"x", "y", "width", "height", "rx", "class", "d", "transform", "font-size", "viewBox", "role", "aria-label"}
            assert set(element.attrib) <= allowed


def test_the_sheet_holds_its_texts(report):
    for drawing in drawings(report):
        width, height = float(drawing.get("width")), float(drawing.get("height"))
        for text in drawing.iter(SVG + "text"):
            x, y = float(text.get("x")), float(text.get("y"))
            reach = width_of(text.text, float(text.get("font-size", 11)))
            if text.get("transform"):
                assert y - reach >= 0 and x <= width
            else:
                assert x >= 0 and x + reach <= width + 0.1 and 0 < y < height


def test_of_a_few_nodes_everything_is_there():
    shown = texts(guide())
    for name in GUIDE:
        assert name in shown
    for text in ("172.18.0.3", "pods 10.244.1.0/24", "pod-3 10.244.1.2", "veth1a2b3c10", "10.244.1.0/24 via 172.18.0.3", "1 of 2 routes right"):
        assert text in shown
    assert "10.244.2.0/24 missing, wanted via 172.18.0.4" in shown
    assert "wrong: 10.244.0.0/24 via 172.18.0.9 (not via 172.18.0.2)" in shown


def test_each_route_of_a_few_nodes_is_an_arrow():
    (drawing,) = drawings(guide())
    kinds = [e.get("class") for e in drawing.iter(SVG + "path") if e.get("class").startswith("line ")]
    assert sorted(kinds) == ["line foreign", "line missing"] + 4 * ["line right"] + ["line wrong"]


def test_of_many_nodes_each_is_a_row_and_what_stands_out_an_arrow():
    findings, table = drawings(large(50))
    shown = [t.text for t in table.iter(SVG + "text")]
    for i in range(50):
        assert {"node-%02d" % (i + 1), address(i), pod_cidr(i)} <= set(shown)
    assert shown.count("49 of 49 routes right") == 28
    kinds = [e.get("class") for e in findings.iter(SVG + "path") if e.get("class").startswith("line ")]
    assert kinds == 3 * ["line missing"] + ["line wrong"] + 2 * ["line foreign"]
    marks = [e for e in table.iter(SVG + "path") if e.find(SVG + "title") is not None]
    assert sum(e.get("class") == "symbol missing" for e in marks) == 20
    assert "node-04 to node-08: 1 missing" in [e.find(SVG + "title").text for e in marks]


def test_large_maps_stay_small():
    assert len(svg(map_of(large(1000)))) < 200_000


def test_a_text_that_does_not_fit_loses_its_middle_and_keeps_a_title():
    canvas = Canvas()
    canvas.text(0, 10, "k8s-production-worker-17.rack-b.example.org", width=150)
    element = ElementTree.fromstring(canvas.render("it"))[0]
    assert element.text == "k8s-produc…xample.org"
    assert element.find(SVG + "title").text == "k8s-production-worker-17.rack-b.example.org"
    assert width_of(element.text) <= 150


@pytest.mark.parametrize("text", ["short", "a" * 500, "宽" * 100, "a" + "宽" * 50, ""])
def test_what_is_made_to_fit_fits(text):
    assert width_of(fit(text, 100)) <= 100


def test_nothing_hides():
    assert visible("a\x00b\x1b[31m\u202ec\u2066\ud800\u200bd\n\te") == "a\ufffdb\ufffd[31m\ufffdc\ufffd\ufffd\ufffdd\n\te"
    assert visible("Zürich 宽 ✓") == "Zürich 宽 ✓"
    assert visible(None) == ""


# The forms that are used of Mermaid's flowcharts. In quotes, all that could mean something else is a number.
LABEL = r'"(?:[A-Za-z0-9 .:/,_-]|\#\d+;|<br/>)*"'
GRAMMAR = re.compile(
    rf"""
    flowchart\ LR
    | \s+ (?:n|b)\d+\[{LABEL}\]
    | \s+ subgraph\ n\d+\[{LABEL}\]
    | \s+ n\d+p\d+\({LABEL}\)
    | \s+ end
    | \s+ [nb]\d+\ (?:-->|-\.->|==>)\|{LABEL}\|\ [nb]\d+
    | \s+ linkStyle\ \d+\ stroke:\#[0-9a-f]{{6}},color:\#[0-9a-f]{{6}}
    | \s+ style\ [nb]\d+\ stroke-dasharray:4\ 3
    """,
    re.VERBOSE,
)


def test_mermaid_knows_every_line(report):
    lines = mermaid(report).splitlines()
    assert lines[0] == "flowchart LR"
    assert not [line for line in lines if not GRAMMAR.fullmatch(line)]
    defined = re.findall(r"^ +(?:subgraph )?([nb]\d+(?:p\d+)?)[\[(]", "\n".join(lines), re.MULTILINE)
    assert len(set(defined)) == len(defined)
    links = [line for line in lines if "|" in line]
    for link in links:
        assert {link.split()[0], link.split()[-1]} <= set(defined)
    for number in re.findall(r"linkStyle (\d+)", "\n".join(lines)):
        assert int(number) < len(links)
    # Mermaid refuses more, unless whoever shows it says otherwise.
    assert len(links) < 500 and len("\n".join(lines)) < 50_000


def test_mermaid_of_a_few_nodes():
    text = mermaid(guide())
    assert '  subgraph n1["k8s-guide-worker<br/>172.18.0.3<br/>pods 10.244.1.0/24<br/>1 of 2 routes right"]' in text
    assert '    n1p0("pod-3 10.244.1.2<br/>veth1a2b3c10")' in text
    assert '  n0 -->|"10.244.1.0/24 via 172.18.0.3"| n1' in text
    assert '  n0 -.->|"10.244.2.0/24 missing, wanted via 172.18.0.4"| n2' in text


def test_mermaid_has_a_number_for_what_could_mean_something_else():
    report = report_of(1)
    report["nodes"][0]["name"] = report["hosts"][0]["name"] = 'a"b<c>#d`[e]|f'
    assert '"a#34;b#60;c#62;#35;d#96;#91;e#93;#124;f<br/>172.18.0.2<br/>' in mermaid(report)


def test_the_same_report_makes_the_same_drawings(report):
    found = map_of(report)
    assert svg(found) == svg(map_of(report))
    assert mermaid(report) == mermaid(report)
    assert all(r.state != MISSING for r in found.findings) or "missing" in svg(found)
