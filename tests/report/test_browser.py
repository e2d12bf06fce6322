"""The page in a real browser, on a wide screen and on a telephone: headless Chromium, driven by selenium."""

import json
import os
import shutil

import numpy as np
import pytest
from support.searched import PICTURES, search

from fewstep.report import comparison_page, tuning_page

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed: pip install 'fewstep[dev]'")
CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(
    not (CHROMIUM and DRIVER), reason="no chromium or no chromedriver: apt-get install chromium chromium-driver"
)
WIDTHS = {1280: 900, 390: 844}


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """One browser for all tests, without a profile of its own and without leave to download anything."""
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for word in (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        f"--user-data-dir={tmp_path_factory.mktemp('profile')}",
    ):
        options.add_argument(word)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    environment = {**os.environ, "SE_OFFLINE": "true"}
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER, env=environment))
    driver.execute_cdp_cmd("Network.enable", {})
    driver.execute_cdp_cmd(
        "Network.emulateNetworkConditions",
        {"offline": True, "latency": 0, "downloadThroughput": 0, "uploadThroughput": 0},
    )
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def reports(comparison, tmp_path_factory):
    """The report of a small comparison, and one with more columns and longer names than any screen is wide."""
    table = json.loads((comparison / "table.json").read_text())
    many = []
    for steps in range(2, 30, 3):
        many += [
            {**row, "nfe": steps, "solver": f"sa:predictor_order=3,corrector_order=4,tau=0.25,{'x' * i}"}
            for i, row in enumerate(table["rows"][:2])
        ]
    path = tmp_path_factory.mktemp("wide") / "report.html"
    path.write_text(comparison_page({**table, "rows": many}, [np.zeros((8, 32, 32, 1), np.uint8)] * len(many)), "utf-8")
    return {"small": comparison / "report.html", "wide": path}


@pytest.fixture(params=WIDTHS, ids=lambda width: f"{width}px")
def screen(browser, request):
    """The browser at one width."""
    metrics = {
        "width": request.param,
        "height": WIDTHS[request.param],
        "deviceScaleFactor": 1,
        "mobile": request.param < 600,
    }
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    return browser


@pytest.fixture(params=["small", "wide"])
def page(screen, reports, request):
    """A report, opened with every section unfolded."""
    screen.get(reports[request.param].as_uri())
    screen.execute_script("for (const one of document.querySelectorAll('details')) one.open = true")
    screen.execute_async_script(
        "const [done] = arguments; Promise.all([...document.images].map(i => i.decode())).then(done, done)"
    )
    return screen


def test_no_word_on_the_console_and_every_picture_is_there(page):
    assert page.get_log("browser") == []
    sizes = page.execute_script("return [...document.images].map(i => [i.naturalWidth, i.clientWidth])")
    assert len(sizes) > 20 and all(natural > 0 and shown > 100 for natural, shown in sizes)


def test_the_page_never_scrolls_sideways_but_wide_tables_do(page):
    inner, scroll = page.execute_script("return [window.innerWidth, document.documentElement.scrollWidth]")
    assert inner in WIDTHS and scroll <= inner
    over = page.execute_script("""
        return [...document.querySelectorAll('main *, header *')].filter(one => !one.closest('.scroll, svg')
            && one.getBoundingClientRect().right > window.innerWidth + 1).map(one => one.outerHTML.slice(0, 80))""")
    assert over == []
    boxes = page.execute_script("""
        return [...document.querySelectorAll('.scroll')].map(one => getComputedStyle(one).overflowX)""")
    assert boxes and set(boxes) == {"auto"}


def test_what_is_too_wide_scrolls_in_its_own_box_beside_its_names(screen, reports):
    screen.get(reports["wide"].as_uri())
    wide = screen.execute_script("""
        const box = document.querySelector('.numbers').parentElement, name = box.querySelector('tbody th');
        box.scrollLeft = 200;
        return [box.scrollWidth - box.clientWidth, box.scrollLeft,
                name.getBoundingClientRect().left - box.getBoundingClientRect().left]""")
    over, scrolled, moved = wide
    assert scrolled == min(over, 200) and moved == 0
    assert over > 0 or screen.execute_script("return window.innerWidth") == 1280


def test_a_long_name_stays_in_its_cell(page):
    reaching = page.execute_script("""
        return [...document.querySelectorAll('.numbers th')].filter(one => one.scrollWidth > one.clientWidth)
            .map(one => one.innerText)""")
    assert reaching == []


def test_text_is_large_and_dark_enough(page):
    small = page.execute_script("""
        const found = [], walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
        while (walk.nextNode()) {
            const style = getComputedStyle(walk.currentNode.parentElement);
            const light = style.color.match(/\\d+/g).slice(0, 3).map(Number)
                .map(v => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
            const contrast = 1.05 / (0.2126 * light[0] + 0.7152 * light[1] + 0.0722 * light[2] + 0.05);
            if (walk.currentNode.data.trim() && (parseFloat(style.fontSize) < 12 || contrast < 4.5))
                found.push(walk.currentNode.data);
        }
        return found""")
    assert small == []


def test_the_text_in_figures_is_large_enough(page):
    """Their letters are drawn 12 points high, 16 pixels, in figures whose own width the browser knows."""
    scales = page.execute_script("""
        return [...document.querySelectorAll('.panels img')].map(i => i.clientWidth / i.naturalWidth)""")
    assert scales and min(scales) * 16 >= 10


def test_the_best_is_bold(page):
    found = page.execute_script("""
        return [...document.querySelectorAll('.numbers')].map(table => [...table.querySelectorAll('.best')]
            .map(one => [parseInt(getComputedStyle(one).fontWeight), one.getBoundingClientRect().width]))""")
    assert len(found) == 2 and all(found)
    assert all(weight >= 700 and width > 0 for table in found for weight, width in table)


HOSTILE = [
    "<script>window.ran=1</script>",
    "<img src=x onerror='window.ran=1'>",
    '"><svg onload=window.ran=1>',
    "javascript:window.ran=1",
    "{{ 7*7 }}{% raw %}",
    "</style></title><script>window.ran=1</script>",
    "[/b][bold]$x_{$\x1b[2J",
]


def test_names_run_no_script(browser, comparison, tmp_path):
    """Names of solvers, grids, models and commands come from outside: they are shown as text, and nothing runs."""
    table = json.loads((comparison / "table.json").read_text())
    row = table["rows"][0]
    rows = [
        {**row, "solver": name, "grid": name, "command": name, "measured": name, "nfe": 2 + number}
        for number, name in enumerate(HOSTILE)
    ]
    settings = {key: HOSTILE[0] if isinstance(value, str) else value for key, value in table["settings"].items()}
    made = {**table, "rows": rows, "settings": settings, "command": HOSTILE[1]}
    path = tmp_path / "report.html"
    path.write_text(comparison_page(made, [np.zeros((1, 8, 8, 1), np.uint8)] * len(rows)), "utf-8")
    browser.get(path.as_uri())
    assert browser.execute_script("return window.ran") is None
    assert browser.execute_script("return document.querySelectorAll('script, [onerror], [onload]').length") == 0
    text = browser.execute_script("return document.body.textContent")
    assert HOSTILE[0] in text and "{{ 7*7 }}" in text and "49" not in HOSTILE[4]


@pytest.mark.parametrize("name", ["unipc:order=2 on karras", HOSTILE[0], "sa:predictor_order=3," + "x" * 200])
def test_the_page_of_a_search(screen, name, tmp_path):
    path = tmp_path / "search.html"
    path.write_text(tuning_page(search(name), PICTURES), "utf-8")
    screen.get(path.as_uri())
    screen.execute_script("for (const one of document.querySelectorAll('details')) one.open = true")
    screen.execute_async_script(
        "const [done] = arguments; Promise.all([...document.images].map(i => i.decode())).then(done, done)"
    )
    assert screen.get_log("browser") == [] and screen.execute_script("return window.ran") is None
    inner, scroll = screen.execute_script("return [window.innerWidth, document.documentElement.scrollWidth]")
    assert inner in WIDTHS and scroll <= inner
    sizes = screen.execute_script("return [...document.images].map(i => [i.naturalWidth, i.clientWidth])")
    assert len(sizes) == 6 and all(natural > 0 and shown > 100 for natural, shown in sizes)
