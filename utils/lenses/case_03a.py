"""The case of part 03a: what the stream at a text's last word holds behind layer 1."""

import random

import torch
from jaxtyping import Float
from torch import Tensor, nn

from utils.course.cases import estimate
from utils.data.prompts import fact_prompt, token_id
from utils.data.world import landmarks
from utils.lenses.stream import logit_lens, residual_stack


def what_the_end_holds(model: nn.Module) -> dict[str, object]:
    """Design an experiment: what does the stream at a text's last word hold behind layer 1?

    Three readings are open: "word" (the last word and its position, and nothing of what came before), "question" (also
    which kind of answer is due: a city, a country, a builder, a material), "answer" (also which one, for the landmark
    that the text names). A trial compares two texts that end in the same word at the same position: how much more does
    a lens, put on the one's stream, speak for that text's answer than put on the other's?

    Args:
        model: The course model.

    Returns:
        A dict with these keys:

        "landmark", "question": Lists of at least 10 trials. A trial is a tuple (text, other, answer, control): two
            texts and two words. Each text names one landmark, once, and the model goes on with one of its four facts
            (city, country, builder, material), behind `text` with the answer. Both have the same number of tokens and
            the same last word. In "landmark" they differ in the landmark alone; the answer is not true of the other's,
            and the control is a word of the answer's kind that is true of neither. In "question" the landmark is the
            same, and another kind of fact is asked for; the control is a fact of the landmark of a third kind. In a
            list each landmark has at most one `text`, and these are of at least two wordings.
        "measure": A function ``measure(model, stream, answer)`` that returns a number, the larger the more a lens on
            ``stream`` [d_model] speaks for the word ``answer``. An effect is this number with the stream at the last
            word of `text` less that with the stream at the last word of `other`. Behind the *last* layer, where the
            model answers, it is above 0 in at least nine of ten trials of each list. The control's mean effect is
            smaller than the answer's, or its interval not above 0: in "landmark" behind the last layer, in "question"
            behind layer 1.
        "effect_landmark", "effect_question": The mean of a list's effects behind layer 1 (the stream that layer 2
            reads), and the half-width of its 95 % interval.
        "verdict": "word" if all effects of both lists are 0 (to six decimals), which is what this reading predicts.
            "answer" if the interval of "landmark" lies above a tenth of the mean effect that the same trials have
            behind the last layer. "question" if it lies below this tenth, and the interval of "question" above 0.
            Else "undecided".
    """
    rng, kinds = random.Random(0), ["city", "country", "builder", "material"]
    endings = {}
    for question in [(kind, wording) for kind in kinds for wording in range(6)]:
        tokens = model.to_tokens(fact_prompt(landmarks()[0], *question).text)[0]
        endings[question] = len(tokens), tokens[-1].item()
    alike = [(a, b) for a in endings for b in endings if a[0] != b[0] and endings[a] == endings[b]]
    trials = {"landmark": [], "question": []}
    for i, x in enumerate(rng.sample(landmarks(), 24)):
        kind = kinds[i % 4]
        other = rng.choice([y for y in landmarks() if getattr(y, kind) != getattr(x, kind)])
        taken = [getattr(x, kind), getattr(other, kind)]
        control = rng.choice([getattr(z, kind) for z in landmarks() if getattr(z, kind) not in taken])
        texts = [fact_prompt(y, kind, i % 6).text for y in (x, other)]
        trials["landmark"].append((*texts, taken[0], control))
        asked = rng.choice(alike)
        third = rng.choice([kind for kind in kinds if kind not in (asked[0][0], asked[1][0])])
        texts = [fact_prompt(x, *question).text for question in asked]
        trials["question"].append((*texts, getattr(x, asked[0][0]), getattr(x, third)))

    def measure(model: nn.Module, stream: Float[Tensor, "d_model"], answer: str) -> float:
        with torch.no_grad():
            return logit_lens(model, stream).log_softmax(-1)[token_id(answer)].item()

    def effects(name: str) -> tuple[list[float], list[float]]:
        found = [], []
        for text, other, answer, _ in trials[name]:
            here, there = (residual_stack(model, model.to_tokens(said))[:, 0, -1] for said in (text, other))
            for effects_there, site in zip(found, (2, -1), strict=True):  # behind layer 1, and behind the last
                effects_there.append(measure(model, here[site], answer) - measure(model, there[site], answer))
        return found

    (by_landmark, at_the_end), (by_question, _) = effects("landmark"), effects("question")
    (mean, half), (asked_mean, asked_half) = estimate(by_landmark), estimate(by_question)
    least = estimate(at_the_end)[0] / 10
    if max(map(abs, by_landmark + by_question)) < 1e-6:
        verdict = "word"
    elif mean - half > least:
        verdict = "answer"
    else:
        verdict = "question" if mean + half < least and asked_mean - asked_half > 0 else "undecided"
    return {
        **trials,
        "measure": measure,
        "effect_landmark": (mean, half),
        "effect_question": (asked_mean, asked_half),
        "verdict": verdict,
    }
