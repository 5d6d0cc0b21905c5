"""JupyterLab and nbgrader's page in a real browser: what a learner and an instructor see.

Needs selenium, Chromium and its driver, and installs none of them. The screenshots go to the folder that
``MI_SCREENSHOTS`` names, to be looked at by a person.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output, new_raw_cell

from utils.course.paths import load_file

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402
from selenium.webdriver.support.expected_conditions import (  # noqa: E402
    element_to_be_clickable,
    presence_of_element_located,
)
from selenium.webdriver.support.ui import WebDriverWait  # noqa: E402

HERE = Path(__file__).parent
submissions = load_file(HERE / "submissions.py")
server = load_file(HERE / "server.py")
MINI, RIGHT, SPOKEN = submissions.MINI, submissions.RIGHT, submissions.SPOKEN
Submission = submissions.Submission

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
DRIVER = shutil.which("chromedriver")
MISSING = [name for name, path in (("Chromium", CHROMIUM), ("chromedriver", DRIVER)) if not path]
pytestmark = [pytest.mark.browser, pytest.mark.skipif(bool(MISSING), reason=f"{' and '.join(MISSING)} not installed")]

PATIENCE = 120
OPTIONS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-sync",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--window-size=1280,1500",
)

# A notebook in which each kind of report is seen once.
WORK = {
    "double": "def double(x):\n    return x ** 2",
    "quadruple": "def quadruple(x):\n    print('a print')\n    return double(double(x))",
    "scaffolded": "def scaffolded(x, n):\n    return x.no_such_method()",
}

# What a submission may hold so that it runs on the page of whoever reads it: all of it says ``ran = 1``.
SCRIPTS = {
    "a script": "<script>ran = 1</script>",
    "an image": "<img src=x onerror='ran = 1'>",
    "an unclosed image": "<img src=x onerror='ran = 1' ",
    "a drawing": "<svg onload='ran = 1'></svg>",
    "a frame": "<iframe srcdoc='<script>parent.ran = 1</script>'></iframe>",
    "a link": "[link](javascript:ran=1)",
    "a link in capitals": "[link](JaVaScRiPt:ran=1)",
    "a link with an entity": "[link](javascript&#58;ran=1) [link](javascript&colon;ran=1)",
    "a link with a tab": "[link](java&Tab;script:ran=1) [link](java&#9;script:ran=1) [link](java&NewLine;script:ran=1)",
    "a link with an entity before": "[link](&#1;javascript:ran=1) [link](&#106;avascript:ran=1)",
    "a link with an escape": "[link](javascript\\:ran=1) [link](java\\script:ran=1)",
    "a link elsewhere": "[link][1]\n\n[1]: javascript:ran=1",
    "a link elsewhere, hidden": "[link][2]\n\n[2]: &#106;ava&Tab;script:ran=1",
    "a link in brackets": "<javascript:ran=1>",
    "a link to data": "[link](data:text/html,<script>opener.ran=1</script>)",
    "a picture's words": "![x' onerror='ran=1](y)",
    "a picture's title": "![x](y 'z\" onerror=\"ran=1')",
    "a heading": '# x" onclick="ran=1" y="',
    "a language": '```x"><img/src=x onerror=ran=1>\n1\n```',
    "a formula": "$\\href{javascript:ran=1}{link}$ $$</script><script>ran = 1</script>$$",
    "what a browser mends": "<\nscript>ran = 1</script> <\u200bscript>ran = 1</script> <!--><script>ran = 1</script>",
    "a declaration": "<!DOCTYPE x [<!ENTITY y '<script>ran=1</script>'>]> <?x <script>ran=1</script>?>",
    "an attachment": "![x](attachment:x.svg)",
}
SPEAKING = r"""
def double(x):
    print("<script>ran = 1</script>\x1b[31m<img src=x onerror='ran = 1'>\x1b[0m")
    raise ValueError("<script>ran = 1</script><img src=x onerror='ran = 1'>")"""

# Presses every link and brings the mouse over everything, then tells whether anything ran.
TOUCH_EVERYTHING = """
const done = arguments[0];
for (const element of document.querySelectorAll('body *')) {
  element.dispatchEvent(new MouseEvent('mouseover', {bubbles: true}));
  if (element.tagName === 'A' && !/^(https?|file):/.test(element.protocol)) element.click();
  if (element.onclick) element.onclick();
}
setTimeout(() => done(window.ran === 1), 2000);
"""

RUN_EVERY_CELL = """
const [theme, done] = arguments;
const moment = () => new Promise(resolve => setTimeout(resolve, 100));
(async () => {
  while (!window.jupyterapp) await moment();
  const app = window.jupyterapp;
  await app.restored;
  let panel;
  while (!(panel = [...app.shell.widgets('main')].find(widget => widget.sessionContext))) await moment();
  app.shell.activateById(panel.id);  // a window that nobody looks at may have the focus nowhere
  await panel.context.ready;
  await panel.sessionContext.ready;
  for (let i = 0; i < panel.content.widgets.length; i++) {
    panel.content.activeCellIndex = i;
    if (panel.content.activeCell.model.type === 'code') await app.commands.execute('notebook:run-cell');
  }
  panel.content.activeCellIndex = 0;
  while (theme && document.body.dataset.jpThemeName !== theme) await moment();
  return 'ran';
})().then(done, error => done(String(error)));
"""

CONTRASTS = """
const numbers = text => text.match(/[\\d.]+/g).map(Number);
const light = ([r, g, b]) => [r, g, b].map(v => v / 255)
  .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
  .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
const under = element => {
  for (let e = element; e; e = e.parentElement) {
    const colour = numbers(getComputedStyle(e).backgroundColor);
    if (colour.length < 4 || colour[3] > 0) return colour;
  }
  return [255, 255, 255];
};
return [...arguments[0].querySelectorAll('strong, span, th, td')].map(element => {
  const style = getComputedStyle(element), back = under(element), opacity = Number(style.opacity);
  const front = numbers(style.color).slice(0, 3).map((v, i) => opacity * v + (1 - opacity) * back[i]);
  const [a, b] = [light(front), light(back)].sort((x, y) => y - x);
  return (a + 0.05) / (b + 0.05);
});
"""


def hand_in_scripts(root):
    """A submission full of them: in its prose, its answers, its outputs and its metadata."""
    mallory = Submission(root, double=SPEAKING, why_four="\n\n".join(SCRIPTS.values()))
    html = {
        "text/html": SCRIPTS["an image"],
        "application/javascript": "ran = 1",
        "image/svg+xml": SCRIPTS["a drawing"],
    }
    for source in SCRIPTS.values():
        cells = [new_markdown_cell(source), new_raw_cell(source, metadata={"raw_mimetype": "text/html"})]
        cells[0].attachments = {"x.svg": {"image/svg+xml": SCRIPTS["a drawing"]}}
        shown = new_code_cell(f"text = {source!r}", outputs=[new_output("display_data", html)])
        mallory.notebook.cells += [*cells, shown]
    mallory.cell("check_double").outputs = [new_output("display_data", html)]
    mallory.cell("quadruple").metadata["name"] = SCRIPTS["an image"]
    mallory.cell("quadruple").metadata["tags"] = [SCRIPTS["an image"]]
    closing = "</title></script><script>ran = 1</script>"
    mallory.notebook.metadata |= {
        "title": closing,
        "authors": [{"name": closing}],
        "widgets": {"application/vnd.jupyter.widget-state+json": {"state": {closing: closing}}},
        "language_info": {"name": "python", "pygments_lexer": closing},
    }
    path = mallory.hand_in("mallory")
    odd = mallory.notebook.cells[-1].id
    path.write_text(path.read_text().replace(f'"{odd}"', json.dumps("x\"><img src=x onerror='ran=1'>")))


@pytest.fixture(scope="module")
def course(built_mini, tmp_path_factory, course_environment):
    """A course with two graded submissions, one with an answer to be graded by hand."""
    root = tmp_path_factory.mktemp("browser") / "course"
    shutil.copytree(built_mini, root)
    Submission(root, **WORK).write(root / "work.ipynb")
    Submission(root, **RIGHT, why_four=SPOKEN).hand_in("ada")
    Submission(root, **WORK).hand_in("ben")
    hand_in_scripts(root)
    for command in (["generate_assignment", "--force"], ["autograde"], ["generate_feedback"]):
        subprocess.run(
            [Path(sys.executable).with_name("nbgrader"), *command, MINI],
            cwd=root,
            check=True,
            env=course_environment(root),
            capture_output=True,
        )
    return root


@pytest.fixture(scope="module")
def jupyter(course, course_environment, tmp_path_factory):
    state = tmp_path_factory.mktemp("jupyter")
    with server.jupyter_server(course, course_environment(course), state) as running:
        settings = {
            "apputils-extension:notification": '{"fetchNews": "false", "checkForUpdates": false}',
            "notebook-extension:tracker": '{"windowingMode": "none"}',
        }
        for name, value in settings.items():
            running.put(f"lab/api/settings/@jupyterlab/{name}", {"raw": value})
        yield running


@pytest.fixture(scope="module")
def browser(jupyter, tmp_path_factory):
    """Chromium, signed in."""
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for option in (*OPTIONS, f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"):
        options.add_argument(option)
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    driver.set_script_timeout(PATIENCE)
    driver.get(jupyter.page("login"))
    yield driver
    driver.quit()


@pytest.fixture
def screenshot(browser, tmp_path):
    folder = Path(os.environ.get("MI_SCREENSHOTS", tmp_path))
    folder.mkdir(parents=True, exist_ok=True)
    return lambda name: browser.save_screenshot(str(folder / f"{name}.png"))


def wait_for(browser, condition):
    return WebDriverWait(browser, PATIENCE).until(condition)


@pytest.mark.parametrize("theme", ["JupyterLab Light", "JupyterLab Dark"])
def test_the_checks_cards_are_readable_in_jupyterlab(browser, jupyter, screenshot, theme):
    jupyter.put("lab/api/settings/@jupyterlab/apputils-extension:themes", {"raw": f'{{"theme": "{theme}"}}'})
    browser.get(jupyter.page("lab/tree/work.ipynb?reset"))
    assert browser.execute_async_script(RUN_EVERY_CELL, theme) == "ran"
    cards = browser.find_elements(By.CSS_SELECTOR, ".jp-OutputArea div[role=status]")
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", cards[0])
    screenshot(f"jupyterlab {theme.split()[1].lower()}")
    text = "\n".join(card.text for card in cards)
    for part in (
        "✗ double: 2 of 2 checks failed",
        "You square the number.",
        "✓ quadruple: the check passed",
        "a print",
        "○ Scale: not attempted",
    ):
        assert part in text
    assert all(ratio >= 4.5 for card in cards for ratio in browser.execute_script(CONTRASTS, card))
    errors = [area.text for area in browser.find_elements(By.CSS_SELECTOR, "[data-mime-type$=stderr]")]
    assert errors == [
        f"CheckFailed: {verdict}"
        for verdict in (
            "✗ double: 2 of 2 checks failed",
            "✗ scaffolded: 2 of 2 checks failed",
            "○ Scale: not attempted",
        )
    ]


def test_a_toy_model_follows_the_learners_hand(browser, jupyter, course, screenshot):
    cell = new_code_cell("from utils.superposition.pictures import toy_explorer\ntoy_explorer()")
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}  # else JupyterLab asks for one
    nbformat.write(new_notebook(cells=[cell], metadata={"kernelspec": kernel}), course / "demo.ipynb")
    browser.get(jupyter.page("lab/tree/demo.ipynb?reset"))
    assert browser.execute_async_script(RUN_EVERY_CELL, None) == "ran"

    def told(driver):
        pictures = driver.find_elements(By.CSS_SELECTOR, ".jp-OutputArea img[alt]")
        return pictures[0].get_attribute("alt") if pictures else ""

    wait_for(browser, lambda driver: told(driver).startswith("5 features"))
    features, probability, _ = browser.find_elements(By.CSS_SELECTOR, ".jp-OutputArea input[type=number]")
    screenshot("a toy model as it comes")
    features.send_keys(Keys.CONTROL, "a", Keys.NULL, "4", Keys.ENTER)
    wait_for(browser, lambda driver: told(driver).startswith("4 features"))
    probability.send_keys(Keys.CONTROL, "a", Keys.NULL, "0.9", Keys.ENTER)
    wait_for(browser, lambda driver: "probability 0.9" in told(driver))
    screenshot("a toy model, changed")


def test_the_validate_button_names_what_fails(browser, jupyter, screenshot):
    browser.get(jupyter.page("lab/tree/work.ipynb?reset"))
    assert browser.execute_async_script(RUN_EVERY_CELL, None) == "ran"
    browser.find_element(By.CSS_SELECTOR, ".validate-button").click()
    dialog = wait_for(browser, presence_of_element_located((By.CSS_SELECTOR, ".jp-Dialog")))
    wait_for(browser, lambda _: "Validation Results" in dialog.text)
    screenshot("validate")
    assert "✗ double: 2 of 2 checks failed" in dialog.text and "check(quadruple)" not in dialog.text


def test_the_assignment_is_on_nbgraders_page(browser, jupyter, screenshot):
    browser.get(jupyter.page("formgrader/manage_assignments"))
    row = wait_for(browser, presence_of_element_located((By.XPATH, f"//tr[contains(., '{MINI}')]")))
    screenshot("formgrader assignments")
    assert row.find_element(By.CSS_SELECTOR, ".num-submissions").text == "3"


def test_an_answer_is_graded_by_hand_on_nbgraders_page(browser, jupyter, screenshot):
    submitted = jupyter.json(f"formgrader/api/submitted_notebooks/{MINI}/{MINI}")
    ada = next(s["id"] for s in submitted if s["student"] == "ada")
    browser.get(jupyter.page(f"formgrader/submissions/{ada}"))
    score = wait_for(browser, element_to_be_clickable((By.CSS_SELECTOR, "#why_four.needs_manual_grade")))
    assert SPOKEN in browser.page_source
    score.send_keys("4", Keys.TAB)
    wait_for(browser, lambda _: jupyter.json(f"formgrader/api/submission/{MINI}/ada")["score"] == 14)
    screenshot("formgrader submission")
    assert not jupyter.json(f"formgrader/api/submission/{MINI}/ada")["needs_manual_grade"]


@pytest.mark.parametrize("where", ["formgrader", "feedback"])
def test_nothing_of_a_submission_runs_on_the_page_of_who_reads_it(browser, jupyter, course, screenshot, where):
    if where == "formgrader":
        submitted = jupyter.json(f"formgrader/api/submitted_notebooks/{MINI}/{MINI}")
        mallory = next(s["id"] for s in submitted if s["student"] == "mallory")
        browser.get(jupyter.page(f"formgrader/submissions/{mallory}"))
        wait_for(browser, presence_of_element_located((By.ID, "why_four")))
    else:
        browser.get((course / "feedback" / "mallory" / MINI / f"{MINI}.html").as_uri())
    text = browser.find_element(By.TAG_NAME, "body").text
    assert text.count("<script>ran = 1</script>") > 2  # shown, as it was written
    assert browser.execute_async_script(TOUCH_EVERYTHING) is False
    screenshot(f"scripts in {where}")


@pytest.mark.parametrize("name", ["a script", "an image", "a drawing", "a frame", "a link"])
def test_it_would_be_noticed_if_it_ran(browser, tmp_path, name):
    text = SCRIPTS[name].replace("[link](javascript:ran=1)", "<a href='javascript:ran=1'>link</a>")
    (tmp_path / "page.html").write_text(f"<!doctype html><body>{text}</body>")
    browser.get((tmp_path / "page.html").as_uri())
    assert browser.execute_async_script(TOUCH_EVERYTHING) is True


def test_the_feedback_page_is_readable(browser, course, screenshot):
    browser.get((course / "feedback" / "ben" / MINI / f"{MINI}.html").as_uri())
    screenshot("feedback")
    text = browser.find_element(By.TAG_NAME, "body").text
    assert "✗ double: 2 of 2 checks failed" in text and "You square the number." in text
