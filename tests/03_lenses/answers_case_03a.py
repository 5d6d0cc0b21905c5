"""Wrong and right designs for the case of part 03a."""

import random
from functools import cache

import torch

from utils.course.cases import estimate
from utils.course.catalogue import right, wrong
from utils.data.prompts import fact_prompt, token_id
from utils.data.world import landmarks
from utils.lenses.case_03a import what_the_end_holds as our_design
from utils.lenses.measures import lens_entropy, lens_rank
from utils.lenses.stream import logit_lens, residual_stack
from utils.models.course_model import load_course_model

KINDS = ("city", "country", "builder", "material")
# Questions (kind, wording) that end in "of" at one and the same position behind "The" and the name.
ENDING_IN_OF = [("city", 1), ("country", 0), ("country", 3), ("material", 3)]
# What a design reports whose trials nobody gets to run: measuring them would take longer than reading them.
NOT_RUN = {"effect_landmark": (0.0, 1.0), "effect_question": (0.0, 1.0), "verdict": "undecided"}


@cache
def one_model():
    return load_course_model()


@cache
def ours():
    return our_design(one_model())


@cache
def streams(text):
    """The stream at a text's last word, by site; many answers ask for the same texts."""
    return residual_stack(one_model(), one_model().to_tokens(text))[:, 0, -1]


def effects(model, trials, measure, site=2):
    """Each trial's effect at a site of the stack."""
    calls = [[(model, streams(text)[site], trial[2]) for text in trial[:2]] for trial in trials]
    return [float(measure(*here)) - float(measure(*there)) for here, there in calls]


def concluded(model, design):
    """The verdict that the docstring's rule gives for a design's trials and measure."""
    runs = [effects(model, design[name], design["measure"]) for name in ("landmark", "question")]
    least = sum(effects(model, design["landmark"], design["measure"], -1)) / len(design["landmark"]) / 10
    (mean, half), (asked, asked_half) = map(estimate, runs)
    if max(map(abs, runs[0] + runs[1])) < 1e-6:
        return "word"
    if mean - half > least:
        return "answer"
    return "question" if mean + half < least and asked - asked_half > 0 else "undecided"


def changed(model, **parts):
    """Our design with parts of it replaced, and what then comes out reported as it is."""
    design = dict(ours())
    for key, part in parts.items():
        design[key] = part(design[key]) if key in ("landmark", "question") else part
    for name in ("landmark", "question"):
        if f"effect_{name}" not in parts:
            design[f"effect_{name}"] = estimate(effects(model, design[name], design["measure"]))
    return design | {"verdict": parts.get("verdict") or concluded(model, design)}


def in_place_of(word):
    """A function that exchanges one of the four parts of each trial: ``word(trial)`` gives (place, new)."""

    def exchanged(trials):
        return [tuple(word(t)[1] if i == word(t)[0] else part for i, part in enumerate(t)) for t in trials]

    return exchanged


def of(text):
    """The landmark that a text is about."""
    return next(x for x in landmarks() if x.name in text)


def about_landmarks(wording_of_other=lambda i: i % 6, other_may=lambda y, x, kind: True, n=24):
    """Trials for 'landmark', drawn anew."""
    rng, trials = random.Random(3), []
    for i, x in enumerate(rng.sample(landmarks(), n)):
        kind = KINDS[i % 4]
        y = rng.choice([y for y in landmarks() if y != x and other_may(y, x, kind)])
        z = rng.choice([z for z in landmarks() if getattr(z, kind) not in (getattr(x, kind), getattr(y, kind))])
        texts = fact_prompt(x, kind, i % 6).text, fact_prompt(y, kind, wording_of_other(i)).text
        trials.append((*texts, getattr(x, kind), getattr(z, kind)))
    return trials


def about_questions(pairs, other=lambda rng, x: x):
    """Trials for 'question', drawn anew from pairs of questions."""
    rng, trials = random.Random(3), []
    for i, x in enumerate(rng.sample(landmarks(), 24)):
        a, b = pairs[i % len(pairs)]
        third = rng.choice([kind for kind in KINDS if kind not in (a[0], b[0])])
        y = other(rng, x)
        trials.append((fact_prompt(x, *a).text, fact_prompt(y, *b).text, getattr(x, a[0]), getattr(x, third)))
    return trials


@wrong(
    "what_the_end_holds",
    "You ask in any two wordings, and they end in different words. A lens that knows the last word alone reads them "
    "differently, too: look for questions that end alike.",
)
def any_two_questions(model):
    pairs = [(("city", 0), ("material", 0)), (("builder", 0), ("city", 4))]
    return changed(model, question=lambda trials: about_questions(pairs), **NOT_RUN)


@wrong(
    "what_the_end_holds",
    "Both your texts end in 'of', and the one is longer. Each position has an embedding of its own, which stands in "
    "the stream from the beginning.",
)
def of_at_another_position(model):
    pairs = [(("country", 0), ("builder", 1)), (("city", 1), ("builder", 4))]
    return changed(model, question=lambda trials: about_questions(pairs), **NOT_RUN)


@wrong(
    "what_the_end_holds",
    "Your two texts in 'landmark' ask in other words, too. If the reading changes, it may be for the words.",
)
def the_other_in_other_words(model):
    def swapped(trials):
        return [
            (
                fact_prompt(of(a), "country", 0).text,
                fact_prompt(of(b), "country", 3).text,
                of(a).country,
                next(z.country for z in landmarks() if z.country not in (of(a).country, of(b).country)),
            )
            for a, b, _, _ in trials
            if of(a).country != of(b).country
        ]

    return changed(model, landmark=swapped, **NOT_RUN)


@wrong(
    "what_the_end_holds",
    "Your pairs in 'landmark' share the answer. Then it is as right with the one text as with the other, and no effect "
    "is what all three readings predict.",
)
def landmarks_with_one_answer(model):
    alike = lambda y, x, kind: getattr(y, kind) == getattr(x, kind)  # noqa: E731
    return changed(model, landmark=lambda trials: about_landmarks(other_may=alike), **NOT_RUN)


@wrong(
    "what_the_end_holds",
    "Your pairs in 'question' ask the same question in two wordings. That is a good control, and no test of whether "
    "the question has arrived.",
)
def the_same_question_reworded(model):
    pairs = [(("country", 0), ("country", 3)), (("builder", 1), ("builder", 4))]
    return changed(model, question=lambda trials: about_questions(pairs), **NOT_RUN)


@wrong(
    "what_the_end_holds",
    "In 'question' you change the landmark along with the question. If the reading follows, you can't tell which of "
    "the two it follows.",
)
def question_and_landmark_at_once(model):
    pairs = [(a, b) for a in ENDING_IN_OF for b in ENDING_IN_OF if a[0] != b[0]]
    return changed(
        model, question=lambda trials: about_questions(pairs, lambda rng, x: rng.choice(landmarks()[:60])), **NOT_RUN
    )


@wrong(
    "what_the_end_holds",
    "As a control you take the other landmark's answer. It falls where yours rises, so it is the same effect once "
    "more, and shows nothing about words that are due in neither text.",
)
def the_others_answer_as_a_control(model):
    kind = lambda t: next(k for k in KINDS if getattr(of(t[0]), k) == t[2])  # noqa: E731
    return changed(model, landmark=in_place_of(lambda t: (3, getattr(of(t[1]), kind(t)))), **NOT_RUN)


@wrong(
    "what_the_end_holds",
    "Your control in 'landmark' is a weekday, which is low in both texts. It can't move, whatever is wrong with the "
    "measure; a word of the answer's kind could.",
)
def a_weekday_as_a_control(model):
    return changed(model, landmark=in_place_of(lambda t: (3, "Monday")), **NOT_RUN)


@wrong(
    "what_the_end_holds",
    "Your control in 'question' is what the *other* text asks for. It has to fall, as your answer has to rise.",
)
def what_the_other_text_asks_for_as_a_control(model):
    def other_kind(trial):
        with torch.no_grad():
            return 3, model.to_string(model(model.to_tokens(trial[1]))[0, -1].argmax())

    return changed(model, question=in_place_of(other_kind), **NOT_RUN)


@wrong(
    "what_the_end_holds",
    "Your measure is how sure the lens is (minus its entropy). That is a property of the reading, not of the answer: "
    "it may rise for a wrong word as well as for a right one.",
)
def how_sure_the_lens_is(model):
    def measure(model, stream, answer):
        with torch.no_grad():
            return -lens_entropy(logit_lens(model, stream)).item()

    return changed(model, measure=measure)


@wrong(
    "what_the_end_holds",
    "Your measure is small where the lens speaks for the answer, as a rank or a loss is: all your effects have the "
    "wrong sign. A measure is to be the larger, the more the lens speaks for the answer.",
)
def the_rank_as_it_is(model):
    def measure(model, stream, answer):
        with torch.no_grad():
            return lens_rank(logit_lens(model, stream), torch.tensor(token_id(answer))).item()

    return changed(model, measure=measure)


@wrong(
    "what_the_end_holds",
    "Your measure holds the answer against the other words of its kind, another city against this one. Whether a city "
    "is due at all can't be seen by it, since then all cities rise together: half of the question has no effect.",
)
def against_its_own_kind(model):
    own = {kind: torch.tensor(sorted({token_id(getattr(x, kind)) for x in landmarks()})) for kind in KINDS}

    def measure(model, stream, answer):
        with torch.no_grad():
            logits = logit_lens(model, stream)
        id_ = token_id(answer)
        return (logits[id_] - next(logits[ids].mean() for ids in own.values() if id_ in ids)).item()

    return changed(model, measure=measure)


@wrong(
    "what_the_end_holds",
    "Seven trials in 'landmark'. With so few the interval is wide, and what it can't exclude it does not show to be "
    "absent.",
)
def seven_trials(model):
    return changed(model, landmark=lambda trials: trials[:7], **NOT_RUN)


@wrong(
    "what_the_end_holds",
    "All your texts in 'landmark' are one sentence with other names in it. Two wordings at least, or the conclusion is "
    "about the sentence.",
)
def one_sentence(model):
    def trials_of(trials):
        found = []
        for x, y, z in zip(landmarks()[:40], landmarks()[50:90], landmarks()[80:120], strict=True):
            if len({x.city, y.city, z.city}) == 3:
                found.append((fact_prompt(x, "city", 0).text, fact_prompt(y, "city", 0).text, x.city, z.city))
        return found

    return changed(model, landmark=trials_of, **NOT_RUN)


@wrong(
    "what_the_end_holds",
    "Your trials in 'question' are about six landmarks, each with several pairs of questions. What the model knows "
    "about one of them counts several times, and the interval is that of six units.",
)
def six_landmarks_again_and_again(model):
    pairs = [(a, b) for a in ENDING_IN_OF for b in ENDING_IN_OF if a[0] != b[0]]

    def again(trials):
        return [
            (
                fact_prompt(x, *a).text,
                fact_prompt(x, *b).text,
                getattr(x, a[0]),
                x.builder,
            )
            for x in landmarks()[:6]
            for a, b in pairs[::4]
        ]

    return changed(model, question=again, **NOT_RUN)


@wrong(
    "what_the_end_holds",
    "Your numbers are those of the stream behind layer 0: the stack begins with the embeddings, so that `stack[1]` is "
    "behind layer 0, and layer 1's output is in `stack[2]`.",
)
def one_site_too_early(model):
    design = dict(ours())
    early = {name: estimate(effects(model, design[name], design["measure"], 1)) for name in ("landmark", "question")}
    return design | {f"effect_{name}": value for name, value in early.items()}


@wrong(
    "what_the_end_holds",
    "You report the mean *size* of the change, without its sign. Sizes do not cancel: their mean is above 0 even where "
    "a change is as often for the answer as against it.",
)
def sizes_without_a_sign(model):
    design = dict(ours())
    sizes = [abs(effect) for effect in effects(model, design["landmark"], design["measure"])]
    return design | {"effect_landmark": estimate(sizes)}


@wrong(
    "what_the_end_holds",
    "What you give beside the mean of 'question' is the standard deviation of the trials. The interval of the mean is "
    "narrower, by about the root of their number.",
)
def the_standard_deviation(model):
    design = dict(ours())
    moved = torch.tensor(effects(model, design["question"], design["measure"]))
    return design | {"effect_question": (moved.mean().item(), moved.std().item())}


@wrong(
    "what_the_end_holds",
    "Your measure adds a random number, another one each time. Then it is not the stream alone that it reports on.",
)
def with_noise_in_the_measure(model):
    design, rng = dict(ours()), random.Random(0)
    plain = design["measure"]
    return design | {"measure": lambda model, stream, answer: plain(model, stream, answer) + rng.gauss(0, 0.1)}


@wrong(
    "what_the_end_holds",
    "You decide for 'answer', as Paris stands among the three highest words. Your own numbers say that it stands there "
    "whatever the landmark: the interval of 'landmark' lies far below a tenth of what the end shows.",
)
def paris_is_among_the_first_three(model):
    return changed(model, verdict="answer")


@wrong(
    "what_the_end_holds",
    "You conclude from 'landmark' alone that nothing of the text is there. Your other list refutes it: with the same "
    "last word at the same position, another question gives another reading.",
)
def nothing_but_the_last_word(model):
    return changed(model, verdict="word")


# Right answers


@right("what_the_end_holds")
def ranks_in_sentences_of_their_own(model):
    """Places among all words as a measure, builders alone in 'landmark', sentences of its own, lists for tuples."""

    @torch.no_grad()
    def measure(model, stream, answer):
        return -lens_rank(logit_lens(model, stream), torch.tensor(token_id(answer)))

    about, pairs = landmarks()[5:45:2], [(ENDING_IN_OF[0], ENDING_IN_OF[1]), (ENDING_IN_OF[3], ENDING_IN_OF[2])]
    by_landmark, by_question = [], []
    for i, x in enumerate(about):
        y = next(y for y in landmarks() if y.builder != x.builder)
        z = next(z for z in landmarks()[30:] if z.builder not in (x.builder, y.builder))
        wording = ("The {} was built by", "In the morning, the {} was built by")[i % 2]
        by_landmark.append([wording.format(x.name), wording.format(y.name), x.builder, z.builder])
        a, b = pairs[i % 2]
        by_question.append([fact_prompt(x, *a).text, fact_prompt(x, *b).text, getattr(x, a[0]), x.builder])
    design = {"landmark": by_landmark, "question": by_question, "measure": measure}
    for name in ("landmark", "question"):
        moved = torch.tensor(effects(model, design[name], measure))
        design[f"effect_{name}"] = (moved.mean(), 1.96 * moved.std() / len(moved) ** 0.5)
    return design | {"verdict": concluded(model, design)}


@right("what_the_end_holds")
def probabilities_of_a_lens_that_adds_a_mean(model):
    """A shifted lens, probabilities, other trials."""
    texts = [fact_prompt(x, "city", i % 6).text for i, x in enumerate(landmarks()[:12])]
    drift = torch.stack(
        [s[-1, 0, -1] - s[2, 0, -1] for s in (residual_stack(model, model.to_tokens(t)) for t in texts)]
    )
    shift = 0.2 * drift.mean(0)

    @torch.no_grad()
    def measure(model, stream, answer):
        return logit_lens(model, stream + shift).softmax(-1)[token_id(answer)]

    pairs = [(a, b) for a in ENDING_IN_OF for b in ENDING_IN_OF if a[0] != b[0]]
    other = lambda y, x, kind: getattr(y, kind) != getattr(x, kind)  # noqa: E731
    return changed(
        model,
        landmark=lambda trials: about_landmarks(other_may=other),
        question=lambda trials: about_questions(pairs),
        measure=measure,
    )
