"""The page of an analysis in Chromium: filters, sorting, search, cases, keyboard, paper, phones, dark and light."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import BrowserContext, Page

from itemic.analysis import Analysis, Case, Cases
from itemic.text import shown
from tests.analysis.pages import HOSTILE, hostile, marketplace, markup, save
from tests.browser import Window, chromium, find_chromium, opened

pytestmark = pytest.mark.skipif(
    find_chromium() is None, reason="no Chromium on the path; install one, or name it in ITEMIC_CHROMIUM"
)


@pytest.fixture(scope="module")
def made() -> tuple[Analysis, Cases]:
    return marketplace()


@pytest.fixture(scope="module")
def cases(made: tuple[Analysis, Cases]) -> Cases:
    return made[1]


@pytest.fixture(scope="module")
def file(made: tuple[Analysis, Cases], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("page"), made)


@pytest.fixture(scope="module")
def browser() -> Iterator[BrowserContext]:
    with chromium() as context:
        yield context


@pytest.fixture
def window(browser: BrowserContext, file: Path) -> Iterator[Window]:
    found = opened(browser, file)
    yield found
    assert found.faults == []
    assert found.dialogs == []
    found.page.close()


def listed(page: Page) -> list[int]:
    """The cases of the list's page."""
    return [int(text.replace(",", "")) for text in page.locator("#list button.open").all_text_contents()]


def told(page: Page) -> int:
    """How many cases the form says that there are."""
    return int(page.locator("#found").inner_text().split()[0].replace(",", ""))


def fill(page: Page, **values: object) -> None:
    for name, value in values.items():
        page.fill(f"#filters [name={name.replace('_', '-')}]", str(value))
    page.locator("#filters").dispatch_event("submit")


def test_it_opens_without_a_network(window: Window, file: Path, cases: Cases) -> None:
    assert window.asked == [file.resolve().as_uri()]
    assert told(window.page) == len(cases.cases)
    assert listed(window.page) == [case.request for case in cases.cases[:25]]
    window.page.wait_for_function("() => document.querySelector('[data-chart=lift]').children.length > 0")


def test_filters_keep_what_is_asked_for(window: Window, cases: Cases, made: tuple[Analysis, Cases]) -> None:
    page = window.page
    counts = {number: item.count for number, item in enumerate(cases.items)}
    title = next(one.title for one in made[0].causes if one.name == "long_tail")

    def expect(keep: list[Case]) -> None:
        # a reset is followed by the filter in a turn of its own
        saying = (
            "count => document.querySelector('#found').innerText.replaceAll(',', '').startsWith(`${count} `)"
        )
        page.wait_for_function(saying, arg=len(keep))
        assert told(page) == len(keep) > 0
        assert listed(page) == [case.request for case in keep[:25]]

    page.locator(".chip", has_text=re.compile("^bad$")).click()
    keep = [case for case in cases.cases if case.bad]
    expect(keep)
    page.locator(".chip", has_text=title).click()
    keep = [case for case in keep if "long_tail" in case.causes]
    expect(keep)
    fill(page, length_from=8, length_to=15)
    keep = [case for case in keep if 8 <= case.length <= 15]
    expect(keep)
    middle = sorted(counts[case.target] for case in keep)[len(keep) // 2]
    fill(page, popular_from=2, popular_to=middle)
    keep = [case for case in keep if 2 <= counts[case.target] <= middle]
    expect(keep)
    category = cases.items[keep[0].target].category
    fill(page, category=category.upper())
    keep = [case for case in keep if cases.items[case.target].category == category]
    expect(keep)
    page.get_by_role("button", name="Reset").click()
    expect(cases.cases)


def test_chips_count_what_is_left(window: Window, cases: Cases, made: tuple[Analysis, Cases]) -> None:
    page = window.page
    page.locator(".chip", has_text=re.compile("^bad$")).click()
    for cause in made[0].causes:
        count = sum(cause.name in case.causes for case in cases.cases if case.bad)
        if any(cause.name in case.causes for case in cases.cases):
            chip = page.locator("#chips .chip", has=page.get_by_text(cause.title, exact=True))
            assert chip.locator("small").inner_text() == f"{count:,}"


def test_search_finds_titles_where_it_is_told_to(window: Window, cases: Cases) -> None:
    page = window.page
    word = cases.items[cases.cases[7].history[0]].title.split()[-1]

    def has(numbers: list[int]) -> bool:
        return any(word.lower() in cases.items[n].title.lower() for n in numbers)

    places = {
        "history": lambda case: has(case.history),
        "listed": lambda case: has(case.listed),
        "target": lambda case: has([case.target]),
        "anywhere": lambda case: has([case.target, *case.listed, *case.history]),
    }
    for place, holds in places.items():
        page.select_option("#filters [name=where]", place)
        fill(page, words=word.upper())
        assert told(page) == sum(map(holds, cases.cases)), place
    page.select_option("#filters [name=where]", "user")
    fill(page, words=cases.cases[9].user)
    assert listed(page) == [cases.cases[9].request]
    fill(page, words="nobody has this")
    assert told(page) == 0
    assert "No case is like that" in window.text("#list tbody")


def test_columns_sort_both_ways(window: Window, cases: Cases) -> None:
    page = window.page
    keys: dict[str, Callable[[Case], Any]] = {
        "Popularity": lambda case: cases.items[case.target].count,
        "History": lambda case: case.length,
        "Place": lambda case: case.rank or 10**9,
        "What came next": lambda case: cases.items[case.target].title.lower(),
        "User": lambda case: case.user,
    }
    for name, key in keys.items():
        for sign in (False, True):
            head = page.locator("#list thead th", has_text=name)
            head.click()
            page.locator(
                f"#list th[aria-sort={'descending' if sign else 'ascending'}]", has_text=name
            ).wait_for()
            got = [next(case for case in cases.cases if case.request == number) for number in listed(page)]
            assert [key(case) for case in got] == sorted(map(key, cases.cases), reverse=sign)[:25], name
    assert page.locator("#list th[aria-sort=descending]").inner_text().strip() == "User"


def test_a_case_shows_all_that_is_known_of_it(window: Window, cases: Cases) -> None:
    page = window.page
    case = next(one for one in cases.cases if one.bad and len(one.causes) > 1 and one.level == 2)
    page.goto(f"{page.url.partition('#')[0]}#case-{case.request}")
    page.wait_for_selector("#case[open]")
    titles = [item.title for item in cases.items]
    assert window.text("#case-title") == f"Case {case.request}"
    assert window.texts(".history .title") == [
        titles[n] + ("what came" if n == case.target else "") for n in case.history
    ]
    got = window.texts(".listed .title")
    assert all(text.startswith(titles[n]) for text, n in zip(got, case.listed, strict=True))
    had = [n in case.history for n in case.listed]
    assert ["in the history" in text for text in got] == had
    sentences = [cases.sentences[name].format(**values) for name, values in case.causes.items()]
    assert all(said.endswith(want) for said, want in zip(window.texts(".why li"), sentences, strict=True))
    rows = window.texts("#case-body tbody tr")
    codes = [cases.items[n].codes for n in case.listed]
    right = cases.items[case.target].codes
    for level, row in enumerate(rows, 1):
        assert f"{sum(one[:level] == right[:level] for one in codes)} of {len(codes)}" in row
        assert ("first wrong here" in row) == (level == case.level)


def test_the_keyboard_is_enough(window: Window, cases: Cases) -> None:
    page = window.page
    focused = "document.activeElement.textContent"
    page.locator("#filters [name=words]").focus()
    heads = []
    for _ in range(60):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.matches('#list button.open')"):
            break
        heads.append(page.evaluate("document.activeElement.closest('th')?.textContent.trim() ?? ''"))
    assert [head for head in heads if head] == [
        "Case",
        "What came next",
        "Popularity",
        "History",
        "Place",
        "Wrong at level",
        "Patterns",
        "User",
    ]
    assert page.evaluate(focused) == str(cases.cases[0].request)
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline != "none"
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    before = page.evaluate("document.activeElement.getBoundingClientRect().top")
    page.keyboard.press("Enter")
    assert abs(page.locator("#list tr.opened button").bounding_box()["y"] - before) < 2  # type: ignore[index]
    assert window.text("#case-title") == f"Case {cases.cases[2].request}"
    assert page.evaluate("document.activeElement.id") == "case-title"
    page.keyboard.press("ArrowRight")
    assert window.text("#case-title") == f"Case {cases.cases[3].request}"
    page.keyboard.press("Escape")
    assert not page.locator("#case").is_visible()
    assert page.evaluate(focused) == str(cases.cases[3].request)
    page.keyboard.press("PageDown")
    assert page.evaluate(focused) == str(cases.cases[25].request) == str(listed(page)[0])
    page.keyboard.press("ArrowUp")
    assert page.evaluate(focused) == str(cases.cases[24].request)
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Enter")  # sorts by the last column
    page.locator("#list th[aria-sort=ascending]", has_text="User").wait_for()


def test_a_cause_leads_to_its_bad_cases(window: Window, cases: Cases, made: tuple[Analysis, Cases]) -> None:
    cause = next(one for one in made[0].causes if one.about == "kind" and one.bad)
    window.page.locator(f"button[data-cause={cause.name}]").click()
    window.page.wait_for_function("() => document.activeElement.id === 'found'")
    assert (
        told(window.page) == cause.bad == sum(cause.name in case.causes for case in cases.cases if case.bad)
    )


def test_slices_take_turns(window: Window, made: tuple[Analysis, Cases]) -> None:
    page = window.page
    names = list(made[0].slices)
    for name in names:
        page.locator("#slices .chip", has_text=name).click()
        assert [one for one in names if page.get_by_text(f"Requests by {one}", exact=True).is_visible()] == [
            name
        ]
        number = names.index(name)
        page.wait_for_function(
            f"() => document.querySelector('[data-chart=slice-{number}]').children.length > 0"
        )


def test_paper_gets_overview_causes_and_the_open_case(window: Window, cases: Cases, tmp_path: Path) -> None:
    page = window.page
    page.wait_for_function("() => document.querySelector('[data-chart=kinds]').children.length > 0")
    page.locator("#list button.open").nth(1).click()
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    page.emulate_media(media="print", color_scheme="dark")
    assert [
        page.locator(f"#{part}").is_visible() for part in ("overview", "causes", "slices", "cases", "case")
    ] == [
        True,
        True,
        False,
        False,
        True,
    ]
    assert page.locator("#case").evaluate("node => getComputedStyle(node).position") == "static"
    assert page.locator("#overview .paper svg path").count() > 10
    assert page.locator("#causes .paper svg").count() == 2
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(253, 253, 251)"
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.locator(".paper").count() == 0
    page.emulate_media(media="screen")
    assert page.pdf(path=tmp_path / "page.pdf", format="A4").startswith(b"%PDF")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_dark_and_light_can_be_read(browser: BrowserContext, file: Path, scheme: str) -> None:
    window = opened(browser, file, scheme=scheme)
    colour = "name => getComputedStyle(document.documentElement).getPropertyValue(name)"
    paper, ink, quiet, link = (
        window.page.evaluate(colour, f"--{n}") for n in ("paper", "ink", "quiet", "c1")
    )
    assert (_light(paper) > 0.5) == (scheme == "light")
    assert min(_contrast(paper, text) for text in (ink, quiet, link)) >= 4.5
    assert len(window.page.screenshot()) > 20_000
    other = {"light": "dark", "dark": "light"}[scheme]
    window.page.emulate_media(color_scheme=other)  # type: ignore[arg-type]
    assert (_light(window.page.evaluate(colour, "--paper")) > 0.5) == (other == "light")
    assert window.faults == []
    window.page.close()


def test_a_phone_needs_no_sideways_scrolling(browser: BrowserContext, file: Path) -> None:
    window = opened(browser, file, size=(360, 740))
    page = window.page
    page.mouse.wheel(0, 2500)
    page.wait_for_timeout(2000)  # all charts that are drawn by and by
    assert window.sideways() == 0
    widest = page.evaluate(
        "Math.max(...[...document.querySelectorAll('#list tr')].map((r) => r.getBoundingClientRect().right))"
    )
    assert widest <= 360
    page.select_option("#filters [name=order]", "2 desc")
    first = listed(page)[0]
    page.locator("#list tbody tr").first.click()
    assert window.text("#case-title") == f"Case {first}"
    box = page.locator("#case").bounding_box()
    assert box is not None
    assert (box["x"], box["width"]) == (0, 360)
    assert window.sideways() == 0
    assert page.evaluate("document.getElementById('main').inert")
    page.get_by_role("button", name="Close").click()
    assert not page.evaluate("document.getElementById('main').inert")
    assert window.faults == []
    page.close()


def test_hostile_texts_are_texts(browser: BrowserContext, tmp_path: Path) -> None:
    made = hostile()
    window = opened(browser, save(tmp_path, made))
    page = window.page
    for number, case in enumerate(made[1].cases[: len(HOSTILE)]):
        page.evaluate("hash => { location.hash = hash }", f"case-{case.request}")
        page.wait_for_function(
            "id => document.getElementById('case-title').textContent === id", arg=f"Case {case.request}"
        )
        target = shown(made[1].items[case.target].title)
        assert page.locator("#case-body > .item .title").first.text_content() == target
        assert f"user {shown(HOSTILE[number])}" in (page.locator(".who").text_content() or "")
        assert window.texts("#case-body .why li i, #case-body img, #case-body script, #case-body svg") == []
    page.keyboard.press("Escape")
    assert page.locator("#list tbody .title").first.text_content() == shown(
        made[1].items[made[1].cases[0].target].title
    )
    page.locator("#slices").scroll_into_view_if_needed()
    for slicing in range(len(made[0].slices)):
        page.locator(f"#slices input[value='{slicing}']").check(force=True)
        page.wait_for_function(
            f"() => document.querySelector('[data-chart=slice-{slicing}]').children.length > 0"
        )
        first = list(made[0].slices.values())[slicing][0]
        said = _under_the_pointer(page, f"[data-chart=slice-{slicing}]", shown(first.value))
        assert f"{first.requests:,} requests" in said
    page.fill("#filters [name=words]", HOSTILE[0])
    page.locator("#filters").dispatch_event("submit")
    assert told(page) > 0
    for injected in ("img", "svg[onload]", "iframe", "object", "a[href^=java]", "#main b b"):
        assert page.locator(injected).count() == 0
    assert (
        page.evaluate("[...document.querySelectorAll('script')].length") == 6
    )  # Bokeh's own text runs a second time
    assert (window.faults, window.dialogs, len(window.asked)) == ([], [], 1)
    page.close()


TOLD = """() => {
  const told = [];
  const search = (root) => root.querySelectorAll("*").forEach((one) => {
    if (one.matches(".bk-Tooltip")) {
      const parts = [...one.shadowRoot.children].filter((part) => part.localName !== "style");
      told.push(parts.map((part) => part.textContent).join(""));
    }
    if (one.shadowRoot) search(one.shadowRoot);
  });
  search(document);
  return told;
}"""


def _under_the_pointer(page: Page, chart: str, what: str) -> str:
    """What a chart says of its first row, where a pointer that crosses it finds something that begins so."""
    found = page.locator(chart)
    found.scroll_into_view_if_needed()
    box = found.bounding_box()
    assert box is not None
    for y in (28, 24, 32):
        for x in range(150, int(box["width"]) - 8, 7):
            page.mouse.move(box["x"] + x, box["y"] + y)
            for text in page.evaluate(TOLD):
                if str(text).startswith(what):
                    return str(text)
    return ""


def test_the_catalogue_of_markup_is_inert(browser: BrowserContext, tmp_path: Path) -> None:
    made = markup()
    window = opened(browser, save(tmp_path, made))
    page = window.page
    titles = window.texts("#list tbody .title")
    assert titles == [shown(made[1].items[case.target].title) for case in made[1].cases]
    assert {"<script>alert(1)</script>", "␛[31mred␛[0m", "[/]"} <= set(titles)
    for button in page.locator("#list button.open").all():
        button.click()
        assert page.locator("#case-body script, #case-body img, #case-body a").count() == 0
    assert (window.faults, window.dialogs, len(window.asked)) == ([], [], 1)
    page.close()


def _light(colour: str) -> float:
    """Relative luminance of ``#rrggbb``, by WCAG 2."""
    parts = [int(colour.strip()[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def _contrast(one: str, other: str) -> float:
    low, high = sorted((_light(one), _light(other)))
    return (high + 0.05) / (low + 0.05)
