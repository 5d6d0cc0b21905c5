"""SmolLM2-135M as it comes from the package index: the network that `transformers` makes of the same weights, and what
is found in it by the course's own functions. The figures are those of this file of weights, which has 4 bits a weight.
"""

import os
import subprocess
import sys

import pytest
import torch

from utils.course import paths
from utils.lenses.attribution import direct_logit_attribution, head_logit_attribution_by_position
from utils.lenses.stream import logit_lens, residual_components, residual_stack
from utils.models import packaged
from utils.patching.ablation import zero_ablate
from utils.patching.hooks import run_with_cache
from utils.patching.metrics import logit_difference
from utils.transformer.sampling import generate, greedy

TEXTS = [
    "The Eiffel Tower is located in the city of", "Once upon a time, there was a", "def add(a, b):\n    return",
    "12 + 30 =", "Monday, Tuesday, Wednesday,", "She said: \"I", "The quick brown fox jumps over the lazy",
    "Die Hauptstadt von Frankreich ist", "In 1969, Neil Armstrong", "To be or not to be, that is the", "<html>\n<body>",
    "Water boils at 100 degrees", "A B C D E F", "\n\n\n", "é è ü 漢字", "Dear Sir or Madam,\n\nI am writing to",
    "The mitochondria is the powerhouse of the", "import numpy as", "When Mary and John went to the store, John gave a",
    "It was the best of times, it was the worst of",
]  # fmt: skip
FACTS = {
    "The Eiffel Tower is located in the city of": "Paris", "The capital of France is": "Paris",
    "The capital of Germany is": "Berlin", "The capital of Italy is": "Rome", "The capital of Japan is": "Tokyo",
    "The capital of England is": "London", "The capital of Spain is": "Madrid", "The capital of Russia is": "Moscow",
    "The capital of Egypt is": "Cairo", "The capital of China is": "Beijing", "The capital of Greece is": "Athens",
    "The Colosseum is located in the city of": "Rome", "Big Ben is located in the city of": "London",
    "The Statue of Liberty is located in New": "York", "The Great Wall is located in": "China",
    "The Taj Mahal is located in": "India", "The language spoken in Brazil is": "Portuguese",
    "The language spoken in Mexico is": "Spanish", "The author of Hamlet is William": "Shakespeare",
    "The theory of relativity was developed by Albert": "Einstein", "The opposite of hot is": "cold",
    "The chemical symbol H stands for": "hydrogen", "The Earth revolves around the": "Sun",
    "The day after Monday is": "Tuesday", "The first president of the United States was George": "Washington",
}  # fmt: skip
TEMPLATES = [
    "When {} and {} went to the store, {} gave a drink to", "After {} and {} went to the park, {} gave a ball to",
    "While {} and {} were working at the office, {} passed a note to",
    "Then, {} and {} had a long argument, and afterwards {} said to",
    "Friends {} and {} found a letter at the station. {} handed it to",
]  # fmt: skip
NAMES = ["Mary", "John", "Tom", "James", "Anna", "Paul", "Sarah", "David"]


@pytest.fixture(scope="module", autouse=True)
def no_graphs():
    with torch.no_grad():
        yield


@pytest.fixture(scope="module")
def gifts(smollm2):
    """(tokens, ends, answers, foils) of 40 prompts, of which half name the receiver first."""
    texts, answers, foils = [], [], []
    for template in TEMPLATES:
        for i, (io, s) in enumerate(zip(NAMES, NAMES[3:] + NAMES[:3], strict=True)):
            texts.append(template.format(*((io, s) if i % 2 else (s, io)), s))
            answers.append(smollm2.to_single_token(f" {io}"))
            foils.append(smollm2.to_single_token(f" {s}"))
    lengths = torch.tensor([smollm2.to_tokens(text).shape[1] for text in texts])
    return smollm2.to_tokens(texts), lengths - 1, torch.tensor(answers), torch.tensor(foils)


def test_logits_are_those_of_transformers_on_the_same_weights(smollm2):
    from transformers import AutoModelForCausalLM

    theirs = AutoModelForCausalLM.from_pretrained(packaged.cached_folder("smollm2-135m"), dtype=torch.float32)
    for text in TEXTS:
        tokens = smollm2.to_tokens(text)
        expected, found = theirs(tokens).logits, smollm2(tokens)
        expected, found = (x - x.mean(dim=-1, keepdim=True) for x in (expected, found))
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-3)
    assert len(TEXTS) == 20


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_fresh_process_is_small(smollm2):
    """In kB, from the kernel's own record: what getrusage tells of a child begins with its parent's peak."""
    code = (
        "import re\nfrom utils.models.catalogue import load_model\nload_model('smollm2-135m')\n"
        "print(re.search(r'VmHWM:\\s*(\\d+)', open('/proc/self/status').read())[1])"
    )
    environment = os.environ | {"PYTHONPATH": str(paths.ROOT), "OMP_NUM_THREADS": "1"}
    said = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert int(said.stdout) < 2e6


def test_it_has_the_stated_size(smollm2):
    from safetensors import safe_open

    folder, stated = packaged.cached_folder("smollm2-135m"), packaged.PACKAGED["smollm2-135m"]
    with safe_open(folder / "model.safetensors", framework="pt") as file:
        assert sum(file.get_tensor(name).numel() for name in file.keys()) == stated.parameters  # noqa: SIM118
    assert sum(path.stat().st_size for path in folder.iterdir()) == pytest.approx(stated.n_bytes, rel=0.01)


def test_words_are_the_tokens_that_experiments_need(smollm2):
    assert smollm2.to_str_tokens("Hi 12")[0] == "<|endoftext|>" and smollm2.cfg.n_ctx == 512
    words = [f" {name}" for name in (*NAMES, "Paris", "Rome", "Monday", "Sunday", "March")]
    assert all(smollm2.to_tokens(word, prepend_bos=False).shape == (1, 1) for word in words)
    assert smollm2.to_str_tokens("1789", prepend_bos=False) == list("1789")
    for text in TEXTS:
        assert smollm2.to_string(smollm2.to_tokens(text, prepend_bos=False)[0]) == text


def test_it_knows_facts(smollm2):
    right, probabilities = 0, []
    for text, fact in FACTS.items():
        token = smollm2.to_tokens(f" {fact}", prepend_bos=False)[0, 0]
        at_end = smollm2(text)[0, -1].softmax(-1)
        right += int(at_end.argmax() == token)
        probabilities.append(at_end[token].item())
    assert len(FACTS) == 25
    print(right, sum(probabilities) / 25)
    assert right >= 0.7 * len(FACTS)


def test_it_tells_who_receives(smollm2, gifts):
    tokens, ends, answers, foils = gifts
    logits = smollm2(tokens)
    difference = logit_difference(logits, answers, foils, ends)
    print((difference > 0).sum().item(), difference.mean().item())
    assert (difference > 0).float().mean() > 0.9 and 4 < difference.mean() < 6


def test_the_parts_sum_to_the_logit_difference_and_a_head_writes_it(smollm2, gifts):
    tokens, ends, answers, foils = (x[:16] for x in gifts)
    tokens, rows = tokens[:, : ends.max() + 1], torch.arange(16)
    stack, parts = residual_stack(smollm2, tokens), residual_components(smollm2, tokens)
    logits = smollm2(tokens)
    torch.testing.assert_close(logit_lens(smollm2, stack[-1]), logits, rtol=0, atol=1e-3)
    shares = direct_logit_attribution(smollm2, {k: v[rows, ends] for k, v in parts.items()}, answers, foils)
    difference = logit_difference(logits, answers, foils, ends)
    torch.testing.assert_close(sum(shares.values()), difference, rtol=0, atol=1e-3)
    heads = {name: value.mean().item() for name, value in shares.items() if name.startswith("head")}
    assert max(heads, key=heads.get) == "head 23.3" and heads["head 23.3"] > 1.5
    by_position = head_logit_attribution_by_position(smollm2, tokens, 23, 3, ends, answers, foils)
    torch.testing.assert_close(by_position.sum(-1), shares["head 23.3"], rtol=0, atol=1e-3)


def test_heads_copy_what_followed_before(smollm2):
    n, period = 8, 32
    drawn = torch.randint(1000, 40_000, (n, period), generator=torch.Generator().manual_seed(0))
    tokens = torch.cat([torch.zeros(n, 1, dtype=torch.long), drawn, drawn], dim=1)
    logits, cache = run_with_cache(smollm2, tokens, [f"blocks.{layer}.attn.hook_pattern" for layer in range(30)])
    losses = -logits.log_softmax(-1)[:, :-1].gather(-1, tokens[:, 1:, None])[..., 0]
    first, again = losses[:, 1:period].mean().item(), losses[:, period + 1 :].mean().item()
    scores, at = {}, torch.arange(period + 1, 2 * period)
    for layer, pattern in enumerate(cache.values()):
        found = pattern[:, :, at, at - period + 1].mean(dim=(0, 2))
        scores |= {f"{layer}.{head}": score for head, score in enumerate(found.tolist())}
    best = sorted(scores, key=scores.get, reverse=True)[:5]
    print(first, again, {name: round(scores[name], 2) for name in best})
    assert first > 12 and again < 2.5
    assert {"18.6", "17.4"} < set(best) and scores["18.6"] > 0.8
    silenced = zero_ablate(smollm2, tokens, "blocks.18.attn.hook_z", head=6)
    without = -silenced.log_softmax(-1)[:, :-1].gather(-1, tokens[:, 1:, None])[..., 0]
    assert without[:, period + 1 :].mean() > again


def test_the_learners_own_loop_writes_english(smollm2):
    tokens = generate(smollm2, smollm2.to_tokens("The capital of France is"), 3, greedy, n_ctx=smollm2.cfg.n_ctx)
    assert smollm2.to_string(tokens[0, 1:]).startswith("The capital of France is Paris.")
