"""The page in a real, headless Chromium: no request, no error, sorted, filtered, opened, by keyboard and on a phone."""

import re

import numpy as np
import pytest
from matplotlib.figure import Figure

from truemorph import Finding
from truemorph.report.gallery import jpeg_source
from truemorph.report.page import Galaxy, Gallery, Illustration, Light, Page, Pair, Section, Table, write_page

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning"),  # the browser's pipes, at exit
]
HOSTILE = "<script>document.title='owned'</script>"
N = 50
STUCK = 300_000  # milliseconds


@pytest.fixture(scope="module")
def galaxies():
    rng = np.random.default_rng(5)
    names = [HOSTILE, "</template><img src=x onerror=\"document.title='owned'\">", *(f"J{k:04d}" for k in range(N - 2))]
    out = []
    for number, name in enumerate(names):
        pixels = rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)
        keys = {"alpha": round(rng.uniform(2, 30), 3), "posterior": round(rng.uniform(0.5, 1), 3)}
        keys |= {"votes": round(rng.uniform(0, 0.5), 3) if number % 7 else None, "split": ["train", "test"][number % 2]}
        picture = jpeg_source(pixels)
        pictures, details = [(HOSTILE, picture), ("better image", picture)], [("α", "7.00"), (HOSTILE, HOSTILE)]
        caption = [f"α {keys['alpha']:.1f}", HOSTILE]
        out.append(Galaxy(name, picture, caption, keys, pictures, details, link="https://localhost/"))
    return out


def drawn(name, *sizes):
    """An illustration of as many panels as sizes."""
    figures = [Figure(figsize=size) for size in sizes]
    for figure in figures:
        figure.add_subplot().plot([0, 1], [0, 1], color="#000000")
        figure.axes[0].set_title(HOSTILE)
    return Illustration(name, figures if len(sizes) > 1 else figures[0], HOSTILE)


@pytest.fixture(scope="module")
def page_file(galaxies, tmp_path_factory):
    pairs = [Pair(HOSTILE, [(HOSTILE, galaxies[0].thumbnail), ("no better image", "")])]
    findings = [Finding("bad", "problem", "A problem.", "Do."), Finding("hostile", "caution", HOSTILE, HOSTILE)]
    ranges = {"posterior": "p(disk)", "alpha": "α", "votes": "votes"}
    table = Table("T", ["labels", *"abcdefgh"], [[HOSTILE, *"12345678"]], HOSTILE, [(HOSTILE, 9)])
    page = Page(
        title=HOSTILE,
        headline=f"{HOSTILE} is the headline",
        answer=f"The answer is {HOSTILE}.",
        remark="Small print.",
        verdict={"status": "caution", "text": "One caution.", "reason": HOSTILE, "next": HOSTILE},
        first=drawn("first", (4, 3)),
        examples=pairs,
        lights=[Light("Curve", findings, [(HOSTILE, HOSTILE)]), Light("Sample", [], [("a", "b")]), Light("Gold")],
        sections=[
            Section("Figures", figures=[drawn("line", (9, 3)), drawn("panels", (4, 3), (4, 3))], tables=[table]),
            Section("Galaxies", HOSTILE, pairs=pairs, gallery=Gallery("A note.", galaxies, ranges, {"split": "split"})),
        ],
        appendix=[
            Section("Methods", include="equations.html", items=[HOSTILE]),
            Section("Settings", tables=[Table("", (), [[HOSTILE, HOSTILE]])]),
        ],
    )
    return write_page(page, tmp_path_factory.mktemp("page") / "report <a>&b.html")


@pytest.fixture
def opened(browser, page_file):
    """Open the page; at the end nothing may have been requested, said on the console, or thrown."""
    troubles, pages = [], []

    def requested(request):
        if not request.url.startswith(("data:", "blob:")) and request.url != page_file.as_uri():
            troubles.append(request.url)

    def open_page(width=1300, unfold=True, **options):
        page = browser.new_page(viewport={"width": width, "height": 900}, **options)
        page.set_default_timeout(STUCK)
        page.on("console", lambda message: troubles.append(message.text))
        page.on("pageerror", lambda error: troubles.append(str(error)))
        page.on("request", requested)
        page.goto(page_file.as_uri())
        if unfold:
            page.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true; })")
        pages.append(page)
        return page

    yield open_page
    for page in pages:
        page.close()
    assert troubles == []


def shown(page):
    return page.eval_on_selector_all("#gallery li:not([hidden])", "every => every.map(one => one.dataset.name)")


def by(galaxies, key):
    known = sorted((galaxy for galaxy in galaxies if galaxy.keys[key] is not None), key=lambda one: -one.keys[key])
    return [one.name for one in known] + [galaxy.name for galaxy in galaxies if galaxy.keys[key] is None]


def test_galaxies_are_sorted_and_filtered(opened, galaxies):
    page = opened()
    assert shown(page) == by(galaxies, "posterior")
    page.select_option("#sort", "votes")
    assert shown(page) == by(galaxies, "votes")
    page.select_option("#sort", "alpha")
    page.click("#direction")
    assert shown(page) == by(galaxies, "alpha")[::-1]
    page.fill("input[data-key=alpha][data-end=low]", "5.5")
    page.fill("input[data-key=alpha][data-end=high]", "20")
    page.select_option("select[data-key=split]", "test")
    expected = {
        galaxy.name for galaxy in galaxies if 5.5 <= galaxy.keys["alpha"] <= 20 and galaxy.keys["split"] == "test"
    }
    assert set(shown(page)) == expected
    assert page.inner_text("#count") == f"{len(expected)} of {N} shown"
    page.click("button[type=reset]")
    sync_api.expect(page.locator("#count")).to_have_text(f"{N} of {N} shown")
    page.fill("#search", "<SCRIPT>")
    assert shown(page) == [HOSTILE]


def test_the_keyboard_is_enough(opened, galaxies):
    page = opened(unfold=False)
    order = by(galaxies, "posterior")
    for place in ("#all-galaxies", "#gallery"):  # the first is unfolded, then a galaxy is opened
        for _ in range(80):
            page.keyboard.press("Tab")
            if page.evaluate(f"document.activeElement.closest('{place}') !== null"):
                break
        page.keyboard.press("Enter")
    assert page.inner_text("#detail-title") == order[0]
    assert page.locator("#detail .views img").count() == 2
    assert page.inner_text("#detail table").startswith("α")
    for key in ("ArrowRight", "ArrowRight", "ArrowLeft"):
        page.keyboard.press(key)
    assert page.inner_text("#detail-title") == order[1]
    page.keyboard.press("Escape")
    assert not page.evaluate("document.getElementById('detail').open")
    sync_api.expect(page.locator("#gallery li button").nth(1)).to_be_focused()  # it comes back
    page.locator("#gallery li button").nth(N - 1).click()
    assert page.get_attribute("#next", "aria-disabled") == "true"
    page.keyboard.press("ArrowRight")  # there is none
    page.click("#previous")
    assert page.inner_text("#detail-title") == order[-2]
    page.click("#close")
    assert not page.evaluate("document.getElementById('detail').open")


@pytest.mark.parametrize("width", [360, 1300])
def test_it_fits_phones_and_desks(opened, width):
    page = opened(width)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    small = page.eval_on_selector_all(
        "button:not([hidden]), select, input",
        "all => all.filter(one => one.offsetParent && one.offsetHeight < 24).length",
    )
    assert small == 0  # WCAG 2.2's smallest target
    first, second = (one.bounding_box() for one in page.locator("#figure-panels .drawing").all())
    assert (second["y"] > first["y"] + 50) == (width < 600)  # one below the other on phones
    page.locator("#gallery li button").first.click()
    box = page.locator("#detail").bounding_box()
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= width


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_its_ground(opened, scheme):
    page = opened(color_scheme=scheme)
    pairs = page.evaluate(
        """() => [...document.querySelectorAll(
          "p, strong, h1, h2, h3, summary, figcaption, th, td, label, legend, li span"
        )].map(one => {
          let ground = one;
          const clear = "rgba(0, 0, 0, 0)";
          while (ground && getComputedStyle(ground).backgroundColor === clear) ground = ground.parentElement;
          return [getComputedStyle(one).color, getComputedStyle(ground).backgroundColor];
        })"""
    )
    assert min(contrast(*one) for one in {tuple(pair) for pair in pairs}) >= 4.5  # WCAG AA
    line = page.evaluate("getComputedStyle(document.querySelector('figure svg')).color")
    assert contrast(line, page.evaluate("getComputedStyle(document.querySelector('figure')).backgroundColor")) > 10


def contrast(*colours):
    """WCAG's contrast ratio of two CSS colours."""
    shares = []
    for colour in colours:
        rgb = np.array([float(one) for one in re.findall(r"[\d.]+", colour)[:3]]) / 255
        linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
        shares.append(float(linear @ [0.2126, 0.7152, 0.0722]))
    return (max(shares) + 0.05) / (min(shares) + 0.05)


def test_the_users_text_stays_text_and_everything_has_a_name_for_those_who_hear_the_page(opened):
    page = opened()
    page.locator("#gallery li button").first.click()
    assert page.title() == HOSTILE
    assert page.locator("main script").count() == page.locator("img[onerror]").count() == 0
    unnamed = page.evaluate(
        """() => [...document.querySelectorAll("img, svg[role=img], input, select, button, dialog")].filter(one => {
          const by = document.getElementById(one.getAttribute("aria-labelledby"))?.textContent;
          const label = one.getAttribute("aria-label") ?? by ?? one.getAttribute("alt")
            ?? one.closest("label")?.textContent ?? one.textContent;
          return label === null || (label === "" && !one.closest("button"));
        }).map(one => one.outerHTML.slice(0, 80))"""
    )
    assert unnamed == []
    assert page.locator("h1").count() == 1


def test_it_prints(opened):
    page = opened(unfold=False)
    page.emulate_media(media="print")
    assert not page.locator("#controls").is_visible()
    pdf = page.pdf(format="A4")
    assert 1 <= len(re.findall(rb"/Type\s*/Page\b", pdf)) <= 8  # what is folded is not printed
