"""Labelling in a real, headless Chromium: two people, by keyboard alone, killed once and resumed."""

import re
import signal
import subprocess
import sys
from contextlib import ExitStack

import polars as pl
import pytest

from truemorph import read_tree
from truemorph.gold.answers import read_answers
from truemorph.gold.plan import read_plan

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytest.importorskip("uvicorn", reason="uvicorn is not installed")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning"),  # the browser's pipes, at exit
]
STUCK = 120_000  # milliseconds
# Background shells and test runners start their children with Ctrl-C ignored: listen to it again.
COMMAND = "import signal, truemorph.cli; signal.signal(signal.SIGINT, signal.default_int_handler); truemorph.cli.main()"


@pytest.fixture
def start(plan):
    """Run truemorph gold label in a process of its own; return it and the address of its page."""
    with ExitStack() as stack:

        def label(*options, folder=plan):
            command = [sys.executable, "-c", COMMAND, "gold", "label", str(folder), "--port", "0", *map(str, options)]
            pipes = dict.fromkeys(("stdout", "stderr"), subprocess.PIPE)
            process = stack.enter_context(subprocess.Popen(command, **pipes, text=True))
            stack.callback(process.kill)
            return process, next(found[0] for line in process.stderr if (found := re.search(r"http\S+", line)))

        yield label


@pytest.fixture
def opened(browser):
    """Open the page for one person; at the end nothing may have been said on the console, or asked of others."""
    troubles = []

    def open_page(address, name, width=1300, **options):
        page = browser.new_page(viewport={"width": width, "height": 900}, **options)
        page.set_default_timeout(STUCK)
        page.on("console", lambda message: troubles.append(message.text))
        page.on("pageerror", lambda error: troubles.append(str(error)))
        page.on("request", lambda sent: None if sent.url.startswith((address, "data:")) else troubles.append(sent.url))
        page.goto(address)
        page.keyboard.press("Tab")
        page.keyboard.type(name)
        page.keyboard.press("Enter")
        sync_api.expect(page.locator("#place")).to_contain_text("answered")
        return page

    open_page.troubles = troubles
    yield open_page
    for context in browser.contexts:
        context.close()
    assert troubles == []


def place(page):
    return page.inner_text("#place")


def answered(page):
    return int(re.search(r"(\d+) answered", place(page))[1])


def press(page, key):
    """Press an answer's key and wait until it is counted."""
    n = answered(page)
    page.keyboard.press(key)
    sync_api.expect(page.locator("#place")).to_contain_text(f"{n + 1} answered")


def test_two_people_label_sixty_galaxies_and_are_killed_once(start, opened, plan):
    first, address = start("--twins", 4)
    pages = {name: opened(address, name) for name in ("Ann", "Bob")}
    for number in range(20):
        for k, page in enumerate(pages.values()):
            press(page, str(1 + (number + k) % 4))
    first.kill()
    assert read_answers(plan)["annotator"].value_counts().sort("annotator").rows() == [("Ann", 20), ("Bob", 20)]
    pages["Ann"].keyboard.press("1")
    sync_api.expect(pages["Ann"].locator("#message")).to_contain_text("Not saved")
    opened.troubles.clear()  # the browser's own words on the lost connection
    second, address = start()
    for k, name in enumerate(pages):
        page = opened(address, name)
        assert answered(page) == 20
        n = int(re.search(r"of (\d+)", place(page))[1])
        for number in range(20, n):
            press(page, str(1 + (number + k) % 2))
        sync_api.expect(page.locator("#message")).to_contain_text("All pictures have an answer")
    second.send_signal(signal.SIGINT)
    out, err = second.communicate(timeout=60)
    assert second.returncode == 0
    assert "Traceback" not in err
    assert f"Next: truemorph gold import {plan}" in out
    found = read_answers(plan)
    selected = set(read_plan(plan)[1]["object_id"])
    for name in ("Ann", "Bob"):
        own = found.filter(pl.col("annotator") == name)
        assert set(own.filter(pl.col("occasion") == "first")["galaxy"]) == selected
        assert own["occasion"].value_counts().sort("occasion").rows() == [
            ("first", len(selected)), ("repeat", read_plan(plan)[0].repeats), ("twin", 4),
        ]  # fmt: skip
    assert (found["seconds"] > 0).all()


def test_the_keyboard_is_enough(start, opened, plan):
    page = opened(start()[1], "Ann")
    press(page, "2")
    page.keyboard.press("n")
    page.keyboard.type("1 or 2 arms")  # letters and numbers of a note are no answers
    page.keyboard.press("Enter")
    press(page, "3")
    page.keyboard.press("ArrowLeft")
    sync_api.expect(page.locator("#note")).to_have_value("1 or 2 arms")
    sync_api.expect(page.locator("[aria-pressed=true]")).to_contain_text("can’t tell")
    page.keyboard.press("n")
    page.keyboard.type("!")
    page.keyboard.press("Enter")  # saves the note of a picture that has an answer
    sync_api.expect(page.locator("#place")).to_contain_text("3 of")
    assert read_answers(plan)["note"].to_list() == ["", "1 or 2 arms!"]
    page.keyboard.press("Backspace")
    sync_api.expect(page.locator("#place")).to_contain_text("2 of")
    page.keyboard.press("u")
    sync_api.expect(page.locator("#place")).to_contain_text("1 of")
    shown = "getComputedStyle(document.querySelector('#picture'))"
    page.keyboard.press("+")
    assert page.evaluate(f"{shown}.transform").startswith("matrix(1.4")
    page.keyboard.down("1")
    page.keyboard.down("1")  # held
    page.keyboard.up("1")
    sync_api.expect(page.locator("#place")).to_contain_text("1 answered")


@pytest.mark.parametrize(("width", "scheme"), [(400, "dark"), (1300, "light")])
def test_it_fits_phones_and_desks(start, opened, better, width, scheme):
    page = opened(start("--images", better, "--better", better)[1], "Ann", width, color_scheme=scheme)
    sync_api.expect(page.locator("#better")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    boxes = [one.bounding_box() for one in page.locator("#choices button, #picture, #better").all()]
    assert all(box["y"] + box["height"] <= 900 for box in boxes)  # seen without scrolling
    assert page.locator("#picture").bounding_box()["width"] >= 0.4 * width


def test_questions_of_a_tree_are_asked_along_the_gates(start, opened, of_bars):
    """By keyboard alone, a level back at a time, and again with what was answered marked."""
    folder, _ = of_bars
    page = opened(start(folder=folder)[1], "Ann")
    texts = [gate.text for gate in read_tree("gz2").gates("bar")]
    text, pressed = page.locator("#text"), page.locator("[aria-pressed=true]")
    buttons = page.locator("#choices button")
    sync_api.expect(text).to_have_text(texts[0])
    sync_api.expect(buttons).to_have_text(["1 smooth", "2 disk", "3 can’t tell", "4 artefact"])
    page.keyboard.press("2")
    sync_api.expect(text).to_have_text(texts[1])
    page.keyboard.press("2")
    sync_api.expect(text).to_have_text(texts[2])
    sync_api.expect(page.locator("#way")).to_have_text("disk › not edge-on ›")
    page.keyboard.press("Backspace")
    sync_api.expect(text).to_have_text(texts[1])
    page.keyboard.press("2")
    press(page, "2")
    for keys in (["1"], ["2", "1"], ["2", "2", "3"], ["2", "3"], ["3"], ["4"]):
        sync_api.expect(text).to_have_text(texts[0])
        for key in keys[:-1]:
            page.keyboard.press(key)
        press(page, keys[-1])
    said = ["bar", "smooth", "edge-on", "cannot tell", "disk, cannot tell", "unclear", "artefact"]
    assert read_answers(folder)["answer"].to_list() == said
    for number in range(len(said), 0, -1):
        page.keyboard.press("ArrowLeft")
        sync_api.expect(page.locator("#place")).to_contain_text(f"{number} of")
    for level, answer in enumerate(["disk", "not edge-on", "bar"]):
        sync_api.expect(text).to_have_text(texts[level])
        sync_api.expect(pressed).to_have_text(f"2 {answer}")
        if level < 2:
            page.locator("#choices button", has_text=answer).last.click()
    page.keyboard.press("u")
    page.keyboard.press("u")
    sync_api.expect(text).to_have_text(texts[0])
    page.keyboard.press("u")  # the last answer
    sync_api.expect(page.locator("#place")).to_contain_text("6 answered")


@pytest.mark.parametrize(("width", "scheme"), [(400, "dark"), (1300, "light")])
def test_questions_of_a_tree_fit_phones_and_desks(start, opened, of_bars, width, scheme):
    page = opened(start(folder=of_bars[0])[1], "Ann", width, color_scheme=scheme)
    for key in "22":
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        boxes = [one.bounding_box() for one in page.locator("#choices button, #picture").all()]
        assert all(box["y"] + box["height"] <= 900 for box in boxes)
        page.keyboard.press(key)
