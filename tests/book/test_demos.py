"""The book's live demos, driven in a browser: their numbers are Python's."""

import re

import browser
import demos
import numpy as np
import pytest
import torch

from utils.attribution import lime
from utils.attribution.occlusion import occlusion_map
from utils.data.prompts import token_id
from utils.lenses.stream import logit_lens, residual_stack
from utils.models.course_model import load_course_model
from utils.models.digits_cnn import load_digits_cnn
from utils.patching.hooks import run_with_hooks
from utils.sae.clamp import clamp_feature
from utils.sae.shipped import load_dictionary
from utils.superposition.geometry import feature_dimensionality, find_polygon
from utils.superposition.toy import ToyModel, toy_loss

pytestmark = [pytest.mark.slow, pytest.mark.browser]
MEGABYTES = 25


@pytest.fixture
def demo(built, driver):
    """Opens the page of a chapter's demo, and gives the driver."""

    def opened(name):
        if name not in demos.PLAIN and not (built / "demos/runtime.js").exists():
            pytest.skip(f"the npm package {demos.LIBRARY} can't be had")
        chapter = next(key for key, value in demos.OF_CHAPTER.items() if value == name)
        browser.open_demo(driver, built, chapter)
        return driver

    yield opened
    assert [entry["message"] for entry in driver.get_log("browser")] == []


@pytest.fixture(scope="module")
def model():
    return load_course_model().requires_grad_(False)


def type_prompt(driver, text, number=0):
    """Replace what is in a field, and wait for the answer to all of it."""
    field = driver.find_elements("css selector", ".demo input[type=text]")[number]
    field.clear()
    before = driver.execute_script("return performance.now()")
    field.send_keys(text)
    browser.answered(driver, before)
    driver.execute_async_script("setTimeout(arguments[0], 500)")


def rows(driver, selector):
    """The cells of a table's body."""
    found = driver.find_elements("css selector", f".demo {selector} tbody tr")
    return [[cell.text for cell in row.find_elements("css selector", "th, td")] for row in found]


def press(driver, label):
    next(b for b in driver.find_elements("css selector", ".demo button") if b.text == label).click()


def same_words(shown, logits):
    """A table of words and probabilities holds the most probable words, rounded."""
    p = logits.softmax(-1)
    return all(abs(p[token_id(word)] - float(share)) <= 0.0051 for word, share in shown) and len(shown) > 0


def test_attention(demo, model):
    driver = demo("attention")
    text = "While Anna and Paul were at the market, Paul sold the lamp to"
    type_prompt(driver, text)
    logits, cache = model.run_with_cache(text)
    driver.execute_script("Demo.attention.state.layer = 2")
    press(driver, "2.1")
    shown = driver.execute_script(
        "const s = Demo.attention.state; return s.words.map((_, q) => [...s.result.pattern(s.layer, s.head, q)])"
    )
    assert np.abs(np.array(shown) - cache["pattern", 2][0, 1].numpy()).max() < 1e-4
    pattern, words = cache["pattern", 2][0, 1, -1], rows(driver, "table")
    assert all(abs(pattern[int(word.split()[0])] - float(weight)) <= 0.0051 for word, weight in words[:5])
    assert float(words[0][1]) == pytest.approx(pattern.max().item(), abs=0.0051)
    assert same_words(words[5:], logits[0, -1])


def test_lens(demo, model):
    driver = demo("lens")
    text = "The Copper Garden is located in"
    type_prompt(driver, text)
    said = logit_lens(model, residual_stack(model, model.to_tokens(text)))[:, 0]
    shown = [row[1:] for row in rows(driver, ".grid")]
    best = [[model.tokenizer.convert_ids_to_tokens(i) for i in place] for place in said.argmax(-1).tolist()]
    assert shown == best
    assert same_words(rows(driver, "table:not(.grid)"), said[-1, -1])


def test_patching_by_keyboard(demo, model):
    driver = demo("patching")
    texts = ["The Silver Tower is located in", "The Marble Garden is located in"]
    for number, text in enumerate(texts):
        type_prompt(driver, text, number)
    button = driver.find_element("css selector", ".demo .grid button")
    button.send_keys("\ue015\ue015\ue014\ue014\ue014")  # down, down, right, right, right
    before = driver.execute_script("return performance.now()")
    driver.switch_to.active_element.send_keys(" ")
    browser.answered(driver, before)
    first, second = (model.to_tokens(text) for text in texts)
    _, cache = model.run_with_cache(first)
    one, two = model(first)[0, -1].argmax(), model(second)[0, -1].argmax()
    stream = cache["resid_post", 1][:, 3]

    def put_in(resid):
        return torch.cat([resid[:, :3], stream[:, None], resid[:, 4:]], dim=1)

    logits = run_with_hooks(model, second, [("blocks.1.hook_resid_post", put_in)])[0, -1]
    lead = float(re.search(r"the lead is (-?[\d.]+)", driver.find_element("css selector", ".demo .said").text)[1])
    assert lead == pytest.approx((logits[one] - logits[two]).item(), abs=0.0051)
    leads = [(model(t)[0, -1][one] - model(t)[0, -1][two]).item() for t in (second, first)]
    assert float(rows(driver, ".grid")[2][4]) == pytest.approx((lead - leads[0]) / (leads[1] - leads[0]), abs=0.0051)
    before = driver.execute_script("return performance.now()")
    press(driver, "Patch every site")
    browser.answered(driver, before)
    shares = [row[1:] for row in rows(driver, ".grid")]
    assert shares[-1] == ["0.00"] * (len(shares[-1]) - 1) + ["1.00"]


def test_superposition(built, driver):
    driver.get((built / "06_superposition/index.html").as_uri())
    for choice, value in enumerate(("6", "2", "0.2", "0.8")):
        driver.execute_script(
            "const list = document.querySelectorAll('.demo select')[arguments[0]]; list.value = arguments[1];"
            "list.dispatchEvent(new Event('change'))",
            choice,
            value,
        )
    net, examples, found = driver.execute_script(
        "const d = Demo.superposition, net = d.network(); net.b.forEach((_, i) => net.b[i] = i / 20 - 0.1);"
        "const x = d.batch(200); return [net, x, d.lossAndGradient(net, x)]"
    )
    toy, x = ToyModel(1, 6, 2).double(), torch.tensor([examples], dtype=torch.double)
    toy.load_state_dict({"W": torch.tensor([net["W"]]), "b": torch.tensor([net["b"]])})
    loss = toy_loss(toy(x), x, 0.8 ** torch.arange(6))
    loss.sum().backward()
    assert found["loss"] == pytest.approx(loss.item(), rel=1e-6)
    assert np.allclose(found["gradient"], torch.cat([toy.W.grad[0], toy.b.grad]), atol=1e-6)
    press(driver, "Train")
    said = driver.find_element("css selector", ".demo .said")
    wait = pytest.importorskip("selenium.webdriver.support.ui").WebDriverWait
    wait(driver, 60).until(lambda _: said.text.startswith("Trained"))
    net = driver.execute_script("return Demo.superposition.network()")
    W = torch.tensor(net["W"])
    shown = [[float(number) for number in row[1:]] for row in rows(driver, "table")]
    expected = torch.stack([W.norm(dim=0), feature_dimensionality(W)], dim=1)
    assert np.abs(np.array(shown) - expected.numpy()).max() <= 0.0051
    corners = driver.execute_script("return Demo.superposition.polygon()")
    assert corners == find_polygon(W) and (f"polygon of {corners} corners" in said.text) == (corners > 0)
    assert np.mean(net["losses"][-100:]) < 0.8 * np.mean(net["losses"][:5])
    assert driver.get_log("browser") == []


def test_classifier(demo, monkeypatch):
    driver, model = demo("classifier"), load_digits_cnn()
    before = driver.execute_script("return performance.now()")
    press(driver, "Clear")
    browser.answered(driver, before)
    for place in (10, 11, 12, 13, 21, 28, 36, 44, 52):
        driver.find_elements("css selector", ".demo .pad button")[place].click()
    driver.execute_async_script("setTimeout(arguments[0], 1500)")
    state = driver.execute_script(
        "const s = Demo.classifier.state;"
        "return { ...s, image: [...s.image], neighbours: s.neighbours.map((row) => [...row]) }"
    )
    x = torch.tensor(state["image"], dtype=torch.float32).view(1, 1, 8, 8)
    assert x.sum() == 9
    logits = model(x.requires_grad_())
    assert np.abs(np.array(state["logits"]) - logits[0].detach().numpy()).max() < 1e-4
    read = logits.argmax().item()
    assert f"reads {read} " in driver.find_element("css selector", ".demo .said").text
    logits[0, read].backward()
    maps = {name: np.array(values) for name, values in state["maps"].items()}
    assert np.abs(maps["gradient"] - x.grad.flatten().numpy()).max() < 1e-4
    covered = occlusion_map(model, x.detach(), torch.tensor([read]), patch=2)
    assert np.abs(maps["occlusion"] - covered.flatten().numpy()).max() < 1e-4
    neighbours = torch.tensor(state["neighbours"])
    monkeypatch.setattr(lime, "lime_neighbourhood", lambda *arguments, **options: neighbours)
    fitted, _, _ = lime.lime_explain(
        lambda rows: model(rows.view(-1, 1, 8, 8))[:, read],
        x.detach().flatten(),
        torch.full((64,), 0.3),
        kernel_width=6,
        n_samples=500,
        generator=torch.Generator(),
    )
    assert np.abs(maps["lime"] - fitted.numpy()).max() < 1e-3


def test_steering(demo, model):
    driver, sae = demo("steering"), load_dictionary("course-model")
    text = "The sailor carried the fox and the"
    type_prompt(driver, text)
    logits = model(text)[0, -1]
    for latent in (503, 77):
        field = driver.find_element("css selector", ".demo input[type=number]")
        field.clear()
        before = driver.execute_script("return performance.now()")
        field.send_keys(f"{latent}\t")
        browser.answered(driver, before)
        value = driver.execute_script("return Demo.steering.state.value")
        hook = (sae.site, clamp_feature(sae, latent, value))
        steered = run_with_hooks(model, model.to_tokens(text), [hook])[0, -1]
        words = rows(driver, "table")
        assert same_words(words[:5], logits) and same_words(words[5:], steered)
        found = driver.execute_script("return [...Demo.steering.state.steered.first]")
        assert np.abs(np.array(found) - steered.numpy()).max() < 1e-3


@pytest.mark.parametrize("name", demos.OF_CHAPTER.values())
@pytest.mark.parametrize("width", [1300, 1100, 400])
def test_each_demo_fits_its_page_in_both_themes(demo, driver, name, width, tmp_path, request):
    driver.set_window_size(width, 1000)
    request.addfinalizer(lambda: driver.set_window_size(1300, 1000))
    demo(name)
    pictures = browser.pictures(tmp_path)
    for theme in ("light", "dark"):
        driver.execute_script(f"document.body.dataset.theme = '{theme}'")
        driver.execute_script("document.querySelector('.demo').scrollIntoView()")
        driver.save_screenshot(str(pictures / f"demo-{name}-{width}-{theme}.png"))
    assert driver.execute_script("return document.documentElement.scrollWidth <= innerWidth")


def test_a_page_with_its_demo_is_small(built):
    heaviest = sum(path.stat().st_size for path in (built / "demos").glob("*"))
    assert heaviest < MEGABYTES * 1e6
