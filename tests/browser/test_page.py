# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The page works, loads nothing, and can be read: in either colour scheme, on a wide and on a narrow screen, of 3, 50 and 1,000 nodes."""

from __future__ import annotations

import re

import pytest
from ansible_collections.kindnet.host.plugins.plugin_utils._report_page import page
from reports import GUIDE, HOSTILE, everywhere, guide, large, report_of, unreachable
from selenium.webdriver.common.by import By
from selenium.webdriver.support.select import Select

SCHEMES = ("light", "dark")
REPORTS = {"3": guide, "4": lambda: report_of(4, [unreachable(3)]), "5": lambda: report_of(5), "50": large, "60": lambda: large(60)}
# What a person sees first, and what the test itself compares: rows of the table and hosts, by whether they are shown.
SHOWN = """return Array.from(document.querySelectorAll(arguments[0]), (e) => e).filter((e) => e.checkVisibility()).map((e) => e.dataset.host)"""


@pytest.fixture(params=list(REPORTS))
def report(request):
    return REPORTS[request.param]()


def rows(browser):
    return browser.run(SHOWN, "tr.row")


def hosts(browser):
    return browser.run(SHOWN, "details.host")


def items(report):
    """Host, status, concern and all words of each difference and problem, and of each host that was not reached, as the page should have them."""
    return [
        (h["name"], h["status"], d["concern"], " ".join(str(v) for v in [h["name"], *d.values()]))
        for h in report["hosts"]
        for d in [
            *([{"concern": "host", "message": h["message"]}] if h["status"] == "unreachable" else []),
            *h["problems"],
            *h["differences"],
        ]
    ]


@pytest.mark.parametrize("scheme", SCHEMES)
def test_it_opens_without_a_complaint_and_asks_for_nothing(browser, report, scheme):
    address = browser.open(page(report), scheme=scheme)
    assert browser.driver.title.startswith(report["verdict"].replace("_", " "))
    assert browser.console() == []
    assert [url for url in browser.requests() if not url.startswith("data:")] == [address]


def test_the_policy_stops_what_gets_in(browser):
    """The test of the tests above: a script, a handler, a style and an image that somebody put into the page."""
    text = page(guide()).replace(
        "</main>", "<script>document.title = 'gone'</script><img src='http://127.0.0.1:1/x.png' onerror='document.title = \"gone\"'></main>"
    )
    browser.open(text)
    assert browser.driver.title.startswith("drifted")
    assert len([line for line in browser.console() if "Content Security Policy" in line]) >= 2
    assert browser.blocked() == ["csp"], "what the log of requests has, it has although it was not sent"


def test_hostile_texts_do_nothing(browser):
    address = browser.open(page(everywhere(guide(), HOSTILE)))
    assert browser.console() == []
    assert [url for url in browser.requests() if not url.startswith("data:")] == [address]
    assert browser.run("return document.querySelectorAll('img, iframe, object, embed, link:not([rel=icon]), svg [onload]').length") == 0
    name = browser.run("return document.querySelector('tr.row').dataset.host")
    Select(browser.driver.find_element(By.ID, "filter-host")).select_by_index(1)
    assert set(rows(browser)) == {name}, "such a name can be asked for, too"


@pytest.mark.parametrize("field, value", [("status", "drifted"), ("status", "in_sync"), ("status", "unreachable"), ("concern", "sysctl"), ("concern", "masq")])
def test_filters_by_what_can_be_chosen(browser, field, value):
    report = guide()
    report["hosts"].append(report_of(5, [unreachable(4)])["hosts"][4])
    browser.open(page(report))
    assert len(rows(browser)) == 6
    Select(browser.driver.find_element(By.ID, "filter-" + field)).select_by_value(value)
    place = {"status": 1, "concern": 2}[field]
    assert rows(browser) == [item[0] for item in items(report) if item[place] == value]
    if field == "status":
        assert hosts(browser) == [h["name"] for h in report["hosts"] if h["status"] == value]
    else:
        assert len(hosts(browser)) == 4, "a host has no concern"


def test_filters_by_host_and_text_and_back(browser):
    report = guide()
    browser.open(page(report))
    count = browser.driver.find_element(By.ID, "filter-count")
    assert count.text == "5 of 5 differences"
    text = browser.driver.find_element(By.ID, "filter-text")
    for words in ("MASQUERADE", "ip_forward", "route 172.18.0.9", "no such thing"):
        text.clear()
        text.send_keys(words)
        assert rows(browser) == [i[0] for i in items(report) if all(word.lower() in i[3].lower() for word in words.split())]
    assert count.text == "0 of 5 differences"
    browser.driver.find_element(By.ID, "filter-clear").click()
    Select(browser.driver.find_element(By.ID, "filter-host")).select_by_value(GUIDE[1])
    assert set(rows(browser)) == set(hosts(browser)) == {GUIDE[1]}
    browser.driver.find_element(By.ID, "filter-clear").click()
    assert (len(rows(browser)), len(hosts(browser))) == (5, 3)


def test_it_works_without_a_script(browser):
    browser.driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        browser.open(page(guide()))
        assert len(rows(browser)) == 5
        assert not browser.driver.find_element(By.ID, "filters").is_displayed(), "what would do nothing is not shown"
        host = browser.driver.find_element(By.CSS_SELECTOR, "details.host")
        host.find_element(By.TAG_NAME, "summary").click()
        assert "veth1a2b3c00" in host.text
    finally:
        browser.driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})


@pytest.mark.parametrize("width", [1280, 400])
def test_it_is_no_wider_than_the_screen(browser, report, width):
    browser.open(page(report), width=width)
    browser.run("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
    wide, screen = browser.run("return [document.documentElement.scrollWidth, document.documentElement.clientWidth]")
    assert wide <= screen == width


OVERLAPS = """
const found = [];
for (const svg of document.querySelectorAll("svg")) {
  const sheet = svg.getBoundingClientRect();
  const boxes = Array.from(svg.querySelectorAll("text"), (e) => [e.firstChild.textContent, e.getBoundingClientRect()]);
  const signs = svg.querySelectorAll(".symbol.missing, .symbol.wrong, .symbol.foreign");
  const marks = Array.from(signs, (e) => [e.getAttribute("class"), e.getBoundingClientRect()]);
  boxes.forEach(([text, a], i) => {
    if (a.left < sheet.left || a.right > sheet.right || a.top < sheet.top || a.bottom > sheet.bottom) found.push(`${text} leaves the sheet`);
    for (const [other, b] of [...boxes.slice(i + 1), ...marks]) {
      const wide = Math.min(a.right, b.right) - Math.max(a.left, b.left), high = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
      if (wide > 1 && high > 1) found.push(`${text} over ${other}`);
    }
  });
}
return [document.querySelectorAll("svg text").length, found];
"""


def test_texts_of_the_map_do_not_overlap(browser, report):
    browser.open(page(report))
    number, found = browser.run(OVERLAPS)
    assert number > 20
    assert found == []


# Of every text that is shown: its colour, and the colours that are behind it.
CONTRASTS = r"""
const linear = (v) => (v / 255 <= 0.03928 ? v / 255 / 12.92 : ((v / 255 + 0.055) / 1.055) ** 2.4);
const luminance = ([r, g, b]) => 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
const parts = (text) => text.match(/[\d.]+/g).map(Number);
const behind = (e) => {
  for (; e; e = e.parentElement) {
    const colour = parts(getComputedStyle(e).backgroundColor);
    if (colour.length < 4 || colour[3] > 0) return colour.slice(0, 3);
  }
  return [255, 255, 255];
};
const found = {};
for (const e of document.querySelectorAll("body *:not(option):not(script)")) {
  if (!e.checkVisibility() || !Array.from(e.childNodes).some((n) => n.nodeType === 3 && n.data.trim())) continue;
  const drawn = e.namespaceURI.endsWith("svg");
  if (drawn && e.tagName !== "text") continue;
  const style = getComputedStyle(e), colour = parts(drawn ? style.fill : style.color).slice(0, 3);
  const backs = [behind(e)];
  if (drawn) for (const shape of e.ownerSVGElement.querySelectorAll("rect")) {
    const a = e.getBoundingClientRect(), b = shape.getBoundingClientRect(), fill = getComputedStyle(shape).fill;
    if (fill !== "none" && a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom) backs.push(parts(fill).slice(0, 3));
  }
  for (const back of backs) {
    const [high, low] = [luminance(colour), luminance(back)].sort((x, y) => y - x), ratio = (high + 0.05) / (low + 0.05);
    if (ratio < 4.5) found[`${e.tagName}.${e.getAttribute("class")} ${colour} on ${back}`] = ratio;
  }
}
return found;
"""


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("size", ["3", "50"])
def test_every_text_stands_out_from_what_is_behind_it(browser, size, scheme):
    browser.open(page(REPORTS[size]()), scheme=scheme)
    browser.run("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
    assert browser.run(CONTRASTS) == {}


def test_tables_and_fields_have_names(browser):
    browser.open(page(guide()))
    for field in browser.driver.find_elements(By.CSS_SELECTOR, "select, input, button"):
        assert field.accessible_name
    for table in browser.driver.find_elements(By.TAG_NAME, "table"):
        assert table.accessible_name == "Differences" or re.match("(pod|node) to (pod|node), IPv4: ", table.accessible_name)
        assert len(table.find_elements(By.CSS_SELECTOR, "thead th[scope=col]")) >= 4
    for drawing in browser.driver.find_elements(By.TAG_NAME, "svg"):
        assert drawing.accessible_name


def test_a_thousand_hosts(browser):
    report = large(1000)
    report["reachability"] = None
    address = browser.open(page(report))
    assert browser.console() == []
    assert [url for url in browser.requests() if not url.startswith("data:")] == [address]
    told = sum(len(h[key]) for h in report["hosts"] for key in ("failures", "problems", "differences"))
    assert len(rows(browser)) == told + 1 == 975, "and the host that could not be reached"
    browser.driver.find_element(By.ID, "filter-text").send_keys("ip_forward")
    assert rows(browser) == ["node-0026"]
    number, found = browser.run(OVERLAPS)
    assert number > 20
    assert found == []
