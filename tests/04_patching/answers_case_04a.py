"""Wrong and right designs for the case of part 04a."""

import random

import torch

from utils.course.cases import estimate
from utils.course.catalogue import made_once, right, wrong
from utils.data.prompts import fact_prompt, named_landmark, token_id
from utils.data.world import BUILDERS, COUNTRY_OF_CITY, MATERIALS, landmarks
from utils.patching.case_04a import what_the_last_word_carries

SITE = "blocks.1.hook_resid_post"
RUNS = {}


@made_once
def our_design(model):
    return what_the_last_word_carries(model) | {"measure": said_by_the_model}


def said_by_the_model(model, prompt, donor, answer):
    return probability(logits_of(model, prompt, donor), answer)


def logits_of(model, prompt, donor, positions=None, site=SITE):
    """The prompt's last logits with the donor's activation at these positions, the name's last word if None.

    Remembered; where the check watches what runs in the model, by hooks of its own, it has to run.
    """
    places = [named_landmark(prompt)[1]] if positions is None else positions
    key = prompt, donor, tuple(places), site
    if key not in RUNS or model.unembed._forward_hooks:
        RUNS[key] = patched_logits(model, prompt, donor, places, site)
    return RUNS[key]


def patched_logits(model, prompt, donor, places, site):
    with torch.no_grad():
        _, cache = model.run_with_cache(model.to_tokens(donor), names_filter=site)

        def write(x, hook):
            x[:, places] = cache[site][:, places]
            return x

        return model.run_with_hooks(model.to_tokens(prompt), fwd_hooks=[(site, write)])[0, -1]


def probability(logits, answer):
    return logits.softmax(-1)[token_id(answer)].item()


def changed(model, **parts):
    """Our design with parts of it replaced, and what then comes out reported as it is."""
    design = our_design(model)
    design.pop("effect_same_city"), design.pop("effect_same_word")
    design |= {key: part(design[key]) if key.startswith("same_") else part for key, part in parts.items()}
    measure, moves = design["measure"], []
    for name in ("same_city", "same_word"):
        mean, half = estimate([measure(model, p, d, a) - measure(model, p, p, a) for p, d, _, a in design[name]])
        design.setdefault(f"effect_{name}", (mean, half))
        moves.append(mean - half > 0)
    verdicts = {(True, True): "landmark", (False, True): "city", (False, False): "word"}
    return design | {"verdict": parts.get("verdict") or verdicts.get(tuple(moves), "undecided")}


def anew(chosen, asked, *, donors=lambda x, y: x.city == y.city, controls=None, phrasing=None):
    """Trials for the prompts' landmarks drawn again, with other donors, controls or wordings."""
    rng, trials = random.Random(1), []
    for i, landmark in enumerate(chosen):
        alike = [x for x in landmarks() if donors(x, landmark) and getattr(x, asked) != getattr(landmark, asked)]
        donor = rng.choice(alike)
        others = [x for x in landmarks() if x != landmark and getattr(x, asked) != getattr(donor, asked)]
        control = controls(landmark, donor) if controls else rng.choice(others)
        wording = i % 6 if phrasing is None else phrasing
        texts = [fact_prompt(x, asked, wording).text for x in (landmark, donor, control)]
        trials.append((*texts, getattr(donor, asked)))
    return trials


def of_prompts(trials):
    return [named_landmark(trial[0])[0] for trial in trials]


@wrong(
    "what_the_last_word_carries",
    "Your pairs in 'same_city' stand in different cities. Then 'city' predicts a change as well as 'landmark' does, "
    "and the effect can't tell them apart: take two landmarks of one city that differ in something else.",
)
def in_other_cities(model):
    elsewhere = lambda x, y: x.city != y.city and x.second != y.second  # noqa: E731
    return changed(model, same_city=lambda trials: anew(of_prompts(trials), "builder", donors=elsewhere))


@wrong(
    "what_the_last_word_carries",
    "You ask for the city of two landmarks that stand in the same city. Every reading predicts the same answer before "
    "and after the patch; ask for something in which the two differ.",
)
def asks_for_what_is_shared(model):
    def asking(trials):
        chosen = [(named_landmark(t[0])[0], named_landmark(t[1])[0], named_landmark(t[2])[0]) for t in trials]
        return [(*(fact_prompt(x, "city", i % 6).text for x in three), three[1].city) for i, three in enumerate(chosen)]

    return changed(model, same_city=asking)


@wrong(
    "what_the_last_word_carries",
    "Your prompts ask for the city, and your answers are builders: the two landmarks differ in their builder, but "
    "nobody asked for it.",
)
def builders_where_a_city_is_asked_for(model):
    def asking(trials):
        return [
            (*(fact_prompt(named_landmark(text)[0], "city", i % 6).text for text in trial[:3]), trial[3])
            for i, trial in enumerate(trials)
        ]

    return changed(model, same_city=asking)


@wrong(
    "what_the_last_word_carries",
    "Your prompts do not end where the fact is the next word: what the model says there is no fact about a landmark. "
    "Are they a word too short?",
)
def cut_a_word_early(model):
    def cut(trials):
        return [(*(text.rsplit(" ", 1)[0] for text in trial[:3]), trial[3]) for trial in trials]

    return changed(model, same_city=cut)


@wrong(
    "what_the_last_word_carries",
    "As a control you patch the prompt with itself. That changes nothing, by construction: a control that can't fail "
    "controls nothing. Patch from a landmark that has neither answer.",
)
def patched_with_itself_as_a_control(model):
    return changed(model, same_city=lambda trials: [(p, d, p, a) for p, d, _, a in trials])


@wrong(
    "what_the_last_word_carries",
    "Your control's landmark has the answer, too (in the extreme it is the donor itself), so the answer has to come. "
    "Take a control of which it is not true.",
)
def a_control_that_has_the_answer(model):
    return changed(model, same_word=lambda trials: [(p, d, d, a) for p, d, _, a in trials])


@wrong(
    "what_the_last_word_carries",
    "Your measure is the answer's lead over the prompt's own answer. It rises by half when any other landmark is put "
    "in, because the prompt's own answer falls: that is no arrival. Look at the answer alone.",
)
def the_lead_over_the_prompts_own_answer(model):
    def lead(model, prompt, donor, answer):
        with torch.no_grad():
            own = model(model.to_tokens(prompt))[0, -1].argmax()
        logits = logits_of(model, prompt, donor)
        return (logits[token_id(answer)] - logits[own]).item()

    return changed(model, measure=lead)


@wrong(
    "what_the_last_word_carries",
    "All your prompts are one sentence with other names in it. Two wordings at least, or the conclusion is about the "
    "sentence.",
)
def one_sentence(model):
    return changed(model, same_city=lambda trials: anew(of_prompts(trials), "builder", phrasing=0))


@wrong(
    "what_the_last_word_carries",
    "Six trials are too few for an interval that could exclude anything; the world has 120 landmarks.",
)
def six_trials(model):
    return changed(model, same_city=lambda trials: trials[:6])


@wrong(
    "what_the_last_word_carries",
    "Several of your prompts are about one landmark, in other words each time. They are right or wrong together, so "
    "your interval is that of fewer units than you count.",
)
def one_landmark_in_six_wordings(model):
    def twice(trials):
        chosen = of_prompts(trials)[:6]
        return (
            anew(chosen, "builder") + anew(chosen, "builder", phrasing=1)[2:] + anew(chosen, "builder", phrasing=3)[:1]
        )

    return changed(model, same_city=twice)


@wrong(
    "what_the_last_word_carries",
    "You patch where the answer is read, at the end of the prompt. Behind layer 1 the landmark has not got there yet, "
    "and the question is about the last word of its name.",
)
def at_the_end_of_the_prompt(model):
    def measure(model, prompt, donor, answer):
        end = len(model.to_tokens(prompt)[0]) - 1
        return probability(logits_of(model, prompt, donor, [end]), answer)

    return changed(model, measure=measure)


@wrong(
    "what_the_last_word_carries",
    "You patch the word before the last word of the name. `named_landmark` returns the last word's position, with "
    "<bos> at 0, and counts like the streams do.",
)
def one_word_too_early(model):
    def measure(model, prompt, donor, answer):
        return probability(logits_of(model, prompt, donor, [named_landmark(prompt)[1] - 1]), answer)

    return changed(model, measure=measure)


@wrong(
    "what_the_last_word_carries",
    "You patch behind layer 2. Layers count from 0, and the stream behind layer 1 is the one between the second block "
    "and the third: `blocks.1.hook_resid_post`.",
)
def behind_layer_2(model):
    def measure(model, prompt, donor, answer):
        return probability(logits_of(model, prompt, donor, site="blocks.2.hook_resid_post"), answer)

    return changed(model, measure=measure)


@wrong(
    "what_the_last_word_carries",
    "You patch behind layer 0. Layers count from 0, and the stream behind layer 1 is the one between the second block "
    "and the third: `blocks.1.hook_resid_post`. It is in the second block that two heads of the last "
    "word look at the first one, and at little else.",
)
def behind_layer_0(model):
    def measure(model, prompt, donor, answer):
        return probability(logits_of(model, prompt, donor, site="blocks.0.hook_resid_post"), answer)

    return changed(model, measure=measure)


@wrong(
    "what_the_last_word_carries",
    "You patch the whole prompt. Then the run is the donor's from layer 2 on, and the answer comes whatever the last "
    "word carries.",
)
def the_whole_prompt(model):
    def measure(model, prompt, donor, answer):
        return probability(logits_of(model, prompt, donor, list(range(len(model.to_tokens(prompt)[0])))), answer)

    return changed(model, measure=measure)


@wrong(
    "what_the_last_word_carries",
    "You put in what the MLP of layer 1 adds at the last word, not the stream: what earlier layers wrote there stays "
    "the prompt's.",
)
def only_what_the_mlp_adds(model):
    def measure(model, prompt, donor, answer):
        return probability(logits_of(model, prompt, donor, site="blocks.1.hook_mlp_out"), answer)

    return changed(model, measure=measure)


@wrong(
    "what_the_last_word_carries",
    "Your measure never runs the prompt. It reads the answer where another text is run, and there it comes whatever "
    "the last word carries: nothing was patched.",
)
def the_donors_own_run(model):
    def measure(model, prompt, donor, answer):
        with torch.no_grad():
            return probability(model(model.to_tokens(donor))[0, -1], answer)

    return changed(model, measure=measure)


@wrong(
    "what_the_last_word_carries",
    "Your measure draws random numbers, so that the same trial gives another number each time. Fix what it depends on, "
    "or leave the noise out.",
)
def with_noise_in_the_measure(model):
    rng = random.Random(0)

    def measure(model, prompt, donor, answer):
        return probability(logits_of(model, prompt, donor), answer) + rng.gauss(0, 0.01)

    return changed(model, measure=measure)


@wrong(
    "what_the_last_word_carries",
    "What you report beside the mean is the standard deviation of the trials. The interval of the mean is narrower, by "
    "the root of their number.",
)
def the_standard_deviation(model):
    design = our_design(model)
    measure, trials = design["measure"], design["same_word"]
    moved = torch.tensor([measure(model, p, d, a) - measure(model, p, p, a) for p, d, _, a in trials])
    return design | {"effect_same_word": (moved.mean().item(), moved.std().item())}


@wrong(
    "what_the_last_word_carries",
    "Your numbers refute 'city': two landmarks of one city would carry the same, the patch would change nothing, and "
    "yet the builder moves. You call it 'city' all the same.",
)
def the_city_all_the_same(model):
    return changed(model, verdict="city")


# Right answers


@right("what_the_last_word_carries")
def logits_above_the_others(model):
    """Two other questions, a logit against the mean of all values in its place, another library's hooks."""
    kinds = [tuple(MATERIALS), tuple(dict.fromkeys(COUNTRY_OF_CITY.values())), tuple(BUILDERS)]

    def measure(model, prompt, donor, answer):
        logits = logits_of(model, prompt, donor)
        others = [token_id(x) for kind in kinds if answer in kind for x in kind if x != answer]
        return float(logits[token_id(answer)] - logits[others].mean())

    chosen = random.Random(5).sample(landmarks(), 24)
    same_word = lambda x, y: x.second == y.second  # noqa: E731
    return changed(
        model,
        same_city=lambda trials: anew(chosen, "material"),
        same_word=lambda trials: anew(chosen, "country", donors=same_word),
        measure=measure,
    )


@right("what_the_last_word_carries")
def said_or_not(model):
    """Bare names as donors, 0 or 1 as a measure, torch's own hooks, a normal interval, lists for tuples."""

    def measure(model, prompt, donor, answer):
        at, kept = named_landmark(prompt)[1], {}
        block = model.blocks[1]
        handle = block.register_forward_hook(lambda module, inputs, output: kept.setdefault("donor", output))
        model(model.to_tokens(donor))
        handle.remove()

        def write(module, inputs, output):
            return torch.cat([output[:, :at], kept["donor"][:, at : at + 1], output[:, at + 1 :]], dim=1)

        handle = block.register_forward_hook(write)
        logits = model(model.to_tokens(prompt))[0, -1]
        handle.remove()
        return logits.argmax() == token_id(answer)

    design = {"measure": measure}
    for name, asked, shared in (("same_city", "builder", "city"), ("same_word", "builder", "second")):
        trials = []
        for i, x in enumerate(landmarks()[3::9]):
            y = next(
                y for y in reversed(landmarks()) if getattr(y, shared) == getattr(x, shared) and y.builder != x.builder
            )
            z = next(z for z in landmarks() if z != x and z.builder not in (x.builder, y.builder))
            text = ("The {} was built by", "The {} is the work of")[i % 2]
            trials.append([text.format(x.name), f"The {y.name}", f"The {z.name}", getattr(y, asked)])
        moved = torch.tensor([float(measure(model, p, d, a)) - float(measure(model, p, p, a)) for p, d, _, a in trials])
        design |= {name: trials, f"effect_{name}": (moved.mean(), 1.96 * moved.std() / len(moved) ** 0.5)}
    return design | {"verdict": "landmark"}
