"""Time to open, sort and filter a report with 200 galaxies in Chromium: python benchmarks/report_speed.py [PAGE]

PAGE is a page of `truemorph report` with a gallery; default demo/report.html. Needs playwright and a Chromium.
"""

import shutil
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

ROUNDS = 9
WORK = """async () => {
  const sort = document.getElementById("sort"), low = document.querySelector("input[data-key=alpha][data-end=low]");
  const times = {sort: [], filter: []};
  const paint = () => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)));
  for (let round = 0; round < ROUNDS; round++) {
    for (const [name, act] of [["sort", () => { sort.selectedIndex = round % sort.options.length; }],
                               ["filter", () => { low.value = round % 2 ? "" : "8"; }]]) {
      const began = performance.now();
      act();
      sort.dispatchEvent(new Event("input", {bubbles: true}));
      await paint();
      times[name].push(performance.now() - began);
    }
  }
  return times;
}""".replace("ROUNDS", str(ROUNDS))


def main():
    page_file = Path(sys.argv[1] if len(sys.argv) > 1 else "demo/report.html").resolve()
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    print(f"A page of {page_file.stat().st_size / 1e6:.1f} MB; median and slowest of {ROUNDS}.\n")
    print("| | loaded after | sort to next picture | filter to next picture |\n|---|---|---|---|")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for width in (360, 1400):
            page = browser.new_page(viewport={"width": width, "height": 900})
            page.goto(page_file.as_uri())
            loaded = page.evaluate("performance.getEntriesByType('navigation')[0].loadEventEnd")
            galaxies = page.locator("#gallery li").count()
            times = page.evaluate(WORK)
            middle = {name: sorted(all_of_it)[ROUNDS // 2] for name, all_of_it in times.items()}
            worst = {name: max(all_of_it) for name, all_of_it in times.items()}
            cells = [f"{middle[name]:.0f}, {worst[name]:.0f} ms" for name in ("sort", "filter")]
            print(f"| {width} pixels wide, {galaxies} galaxies | {loaded:.0f} ms | {' | '.join(cells)} |")
        browser.close()


if __name__ == "__main__":
    main()
