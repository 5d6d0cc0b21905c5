"""Wrong answers for tracing, the pitfall, ROME and steering, each with its sentence, and right ones."""

import torch
from torch.distributions import Categorical, kl_divergence

from utils.course.catalogue import right, wrong
from utils.patching.hooks import run_with_cache, run_with_hooks
from utils.patching.tracing import corrupt_with_noise

# corrupt_with_noise


def inside(positions, n_pos):
    if positions is not None and bool(((positions < 0) | (positions >= n_pos)).any()):
        raise ValueError("position outside")


def guarded(subject, std, *, size=True, each=True):
    if size and std < 0:
        raise ValueError("std is negative")
    if each and not subject.any(1).all():
        raise ValueError("a prompt has no subject")


def drawn(embeddings, generator):
    return torch.randn(embeddings.shape, generator=generator, dtype=embeddings.dtype)


def placed(embeddings, subject, noise):
    return torch.where(subject[..., None], embeddings + noise, embeddings)


@wrong(
    "corrupt_with_noise",
    "You add noise to all tokens. Then the whole sentence is drowned, and no site can be said to carry the subject.",
)
def everywhere(embeddings, subject, std, generator):
    guarded(subject, std)
    return embeddings + std * drawn(embeddings, generator)


@wrong(
    "corrupt_with_noise",
    "You put noise in the embedding's place, so that nothing of the subject is left, however small std is. The noise "
    "is to be added to what is there.",
)
def in_place_of_it(embeddings, subject, std, generator):
    guarded(subject, std)
    return torch.where(subject[..., None], std * drawn(embeddings, generator), embeddings)


@wrong(
    "corrupt_with_noise",
    "Your noise has std squared as its standard deviation: with a std of 3 the subject is drowned three times as deep "
    "as was asked for.",
)
def squared(embeddings, subject, std, generator):
    guarded(subject, std)
    return placed(embeddings, subject, std**2 * drawn(embeddings, generator))


@wrong(
    "corrupt_with_noise",
    "Your noise is uniform. It has the right size and not the right shape: no entry is ever moved further than 1.7 "
    "standard deviations, where Gaussian noise moves one in twelve.",
)
def uniform(embeddings, subject, std, generator):
    guarded(subject, std)
    noise = (2 * torch.rand(embeddings.shape, generator=generator, dtype=embeddings.dtype) - 1) * 3**0.5
    return placed(embeddings, subject, std * noise)


@wrong("corrupt_with_noise", "All tokens of a subject get the same noise, so the difference between them survives.")
def same_for_all_tokens(embeddings, subject, std, generator):
    guarded(subject, std)
    return placed(embeddings, subject, std * drawn(embeddings[:, :1], generator))


@wrong("corrupt_with_noise", "All prompts get the same noise: your many prompts are one draw.")
def same_for_all_prompts(embeddings, subject, std, generator):
    guarded(subject, std)
    return placed(embeddings, subject, std * drawn(embeddings[:1], generator))


@wrong(
    "corrupt_with_noise",
    "You multiply `std` by the embeddings' own standard deviation, so the noise depends on what it is added to. `std` "
    "is in the embeddings' units already: the multiplying is done by whoever calls.",
)
def in_their_own_units(embeddings, subject, std, generator):
    guarded(subject, std)
    return placed(embeddings, subject, std * embeddings.std() * drawn(embeddings, generator))


@wrong(
    "corrupt_with_noise",
    "You start anew from the generator's seed in every call. All draws are then one draw, and the mean over many of "
    "them is as noisy as one.",
)
def from_the_seed_again(embeddings, subject, std, generator):
    guarded(subject, std)
    return placed(embeddings, subject, std * drawn(embeddings, torch.Generator().manual_seed(generator.initial_seed())))


@wrong("corrupt_with_noise", "Your noise does not come from the generator: nobody can repeat the experiment.")
def from_elsewhere(embeddings, subject, std, generator):
    guarded(subject, std)
    fresh = torch.Generator()
    fresh.seed()
    return placed(embeddings, subject, std * drawn(embeddings, fresh))


@wrong(
    "corrupt_with_noise",
    "A negative size goes through: a mistake in a sign is not seen, as noise looks alike either way.",
)
def negative_size(embeddings, subject, std, generator):
    guarded(subject, std, size=False)
    return placed(embeddings, subject, std * drawn(embeddings, generator))


@wrong(
    "corrupt_with_noise", "A prompt without a subject goes through: that prompt is never corrupted, and nobody is told."
)
def without_a_subject(embeddings, subject, std, generator):
    guarded(subject, std, each=False)
    return placed(embeddings, subject, std * drawn(embeddings, generator))


@wrong(
    "corrupt_with_noise",
    "You ask whether there is any subject at all. One prompt's subject then speaks for the prompts that have none.",
)
def some_subject(embeddings, subject, std, generator):
    guarded(subject, std, each=False)
    if not subject.any():
        raise ValueError("no subject")
    return placed(embeddings, subject, std * drawn(embeddings, generator))


@wrong(
    "corrupt_with_noise",
    "You take `std` for a variance, and its root for the size of the noise: a std of 3 gives noise of 1.7.",
)
def root(embeddings, subject, std, generator):
    guarded(subject, std)
    return placed(embeddings, subject, std**0.5 * drawn(embeddings, generator))


@wrong(
    "corrupt_with_noise",
    "All entries of a token's embedding get the same number: it is moved along one direction, up or down, and the "
    "rest of it stays.",
)
def same_for_all_entries(embeddings, subject, std, generator):
    guarded(subject, std)
    return placed(embeddings, subject, std * drawn(embeddings[..., :1], generator))


@wrong(
    "corrupt_with_noise",
    "Your noise is float32 whatever it is added to, so that embeddings in half precision come back in single. The "
    "docstring has the dtype of `embeddings`.",
)
def noise_in_single_precision(embeddings, subject, std, generator):
    guarded(subject, std)
    return placed(embeddings, subject, std * torch.randn(embeddings.shape, generator=generator))


@wrong(
    "corrupt_with_noise",
    "Your noise is `torch.rand`, between 0 and std: every entry is pushed the same way. Gaussian noise, of both signs, "
    "comes from `torch.randn`.",
)
def noise_of_one_sign(embeddings, subject, std, generator):
    guarded(subject, std)
    noise = torch.rand(embeddings.shape, generator=generator, dtype=embeddings.dtype)
    return placed(embeddings, subject, std * noise)


@wrong(
    "corrupt_with_noise",
    "You add the noise to the embeddings that you were given, in place. Whoever calls you has no clean ones left, and "
    "the next draw comes on top of this one.",
)
def drowns_what_was_given(embeddings, subject, std, generator):
    guarded(subject, std)
    embeddings[subject] += std * drawn(embeddings, generator)[subject]
    return embeddings


@right("corrupt_with_noise")
def times_a_mask(embeddings, subject, std, generator):
    guarded(subject, std)
    noise = torch.empty_like(embeddings).normal_(0.0, 1.0, generator=generator)
    return embeddings + std * noise * subject[:, :, None]


@right("corrupt_with_noise")
def only_where_needed(embeddings, subject, std, generator):
    guarded(subject, std)
    noisy = embeddings.clone()
    at = subject.nonzero(as_tuple=True)
    noisy[at] = noisy[at] + std * torch.randn(embeddings[at].shape, generator=generator, dtype=embeddings.dtype)
    return noisy


@right("corrupt_with_noise")
def token_by_token(embeddings, subject, std, generator):
    guarded(subject, std)
    noisy = embeddings.clone()
    for row, pos in subject.nonzero().tolist():
        noisy[row, pos] += std * torch.randn(embeddings.shape[-1], generator=generator, dtype=embeddings.dtype)
    return noisy


# causal_trace


def trace(
    model, tokens, subject, names, positions, metric, *, std, n_draws, generator, window=1, embedding="hook_embed",
    near=lambda i, w, n: range(n)[max(0, i - (w - 1) // 2) : i + w // 2 + 1], fresh=False, drown=True,
    all_rows=True, mean=True, own=False, guards=("window", "n_draws", "positions"), everywhere=False, one_call=False,
    drown_last=False, corrupt=corrupt_with_noise,
):  # fmt: skip
    """Causal tracing, with switches for what can go wrong."""
    if "window" in guards and window < 1 or "n_draws" in guards and n_draws < 1:
        raise ValueError("window or n_draws")
    if "positions" in guards:
        inside(positions, tokens.shape[1])
    rows, n = torch.arange(len(tokens)), max(n_draws, 1)
    with torch.no_grad():
        logits, cache = run_with_cache(model, tokens, [embedding, *names])
        noisy, restored = 0, torch.zeros(len(names), len(positions), len(tokens))
        copies = n if one_call else 1

        def noise():
            x, where = cache[embedding].repeat(copies, 1, 1), subject.repeat(copies, 1)
            return corrupt(x, where, std, generator).split(len(tokens))

        draws = noise() if one_call else (noise()[0] for _ in range(n))
        for drowned in draws:
            noisy = noisy + metric(run_with_hooks(model, tokens, [(embedding, lambda _, d=drowned: d)]))
            for i in range(len(names)):
                for j, at in enumerate(positions):
                    d = noise()[0] if fresh else drowned
                    hooks = [(embedding, lambda _, d=d: d)] if drown else []
                    where = at if all_rows else at[:1].expand_as(at)
                    for k in near(i, max(window, 1), len(names)):

                        def put(x, name=names[k], where=where):
                            if everywhere:
                                return cache[name]
                            value = x if own else cache[name]
                            return x.index_put((rows, where), value[rows, where])

                        hooks.append((names[k], put))
                    hooks = hooks[1:] + hooks[:1] if drown_last else hooks
                    restored[i, j] += metric(run_with_hooks(model, tokens, hooks))
    scale = n if mean else 1
    return {"clean": metric(logits).detach(), "noisy": noisy / scale, "restored": restored / scale}


@wrong(
    "causal_trace",
    "Every run gets noise of its own. The runs then differ in the noise as well as in the restoration, and the small "
    "effects drown in the difference. One draw serves the noisy run and all its restorations.",
)
def fresh_noise(*args, **kwargs):
    return trace(*args, **kwargs, fresh=True)


@wrong(
    "causal_trace",
    "Your restored runs have no noise in them: you restore what was never lost, and every site seems to bring all of "
    "the answer back.",
)
def without_noise(*args, **kwargs):
    return trace(*args, **kwargs, drown=False)


@wrong(
    "causal_trace",
    "What you put back comes from the noisy run itself, so nothing is restored, and no site seems to matter.",
)
def restores_the_noise(*args, **kwargs):
    return trace(*args, **kwargs, own=True)


@wrong(
    "causal_trace",
    "You restore the position of the first prompt in all prompts. Their subjects stand elsewhere, and another word is "
    "put right.",
)
def first_prompts_position(*args, **kwargs):
    return trace(*args, **kwargs, all_rows=False)


@wrong(
    "causal_trace",
    "You restore all positions at once, so every column of the map is the same, and nothing can be said about where.",
)
def at_all_positions(*args, **kwargs):
    return trace(*args, **kwargs, everywhere=True)


@wrong(
    "causal_trace",
    "`window` has no effect: one layer is restored at a time, however wide it is. A fact that several MLPs write "
    "together then looks as if no MLP held it.",
)
def without_a_window(*args, **kwargs):
    return trace(*args, **kwargs, near=lambda i, w, n: [i])


@wrong(
    "causal_trace",
    "Your windows begin at the layer that they belong to, so the peak of the map comes too early. The docstring has "
    "them around it.",
)
def windows_that_begin_there(*args, **kwargs):
    return trace(*args, **kwargs, near=lambda i, w, n: range(n)[i : i + w])


@wrong(
    "causal_trace",
    "At the first layers your windows begin at a negative number, which Python counts from the end: nothing is "
    "restored there, and the map says that early layers do not matter.",
)
def windows_that_wrap_around(*args, **kwargs):
    return trace(*args, **kwargs, near=lambda i, w, n: range(n)[i - (w - 1) // 2 : i + w // 2 + 1])


@wrong(
    "causal_trace",
    "`embedding` has no effect: the noise always goes to `hook_embed`. Other models call their embeddings otherwise.",
)
def always_hook_embed(*args, embedding="hook_embed", **kwargs):
    return trace(*args, **kwargs)


@wrong(
    "causal_trace",
    "You add the draws up and do not divide: with ten draws the effects are ten times as large as with one.",
)
def sum_over_draws(*args, **kwargs):
    return trace(*args, **kwargs, mean=False)


@wrong("causal_trace", "A window of no layers is accepted, and a map comes out of it.")
def no_layers_at_all(*args, **kwargs):
    return trace(*args, **kwargs, guards=("n_draws", "positions"))


@wrong("causal_trace", "No draws at all are accepted; the mean of nothing is not a number that means anything.")
def no_draws_at_all(*args, **kwargs):
    return trace(*args, **kwargs, guards=("window", "positions"))


@wrong(
    "causal_trace",
    "Position -1 is accepted, and counts from the end: the column of your map is the last token's, whatever was meant.",
)
def positions_from_the_end(model, tokens, subject, names, positions, metric, **kwargs):
    if bool((positions >= tokens.shape[1]).any()):
        raise ValueError("position outside")
    return trace(model, tokens, subject, names, positions, metric, **kwargs, guards=("window", "n_draws"))


@wrong(
    "causal_trace",
    "Your windows of an even width lean to the other side: the docstring has one name more behind the middle than "
    "before it.",
)
def windows_that_lean_back(*args, **kwargs):
    return trace(*args, **kwargs, near=lambda i, w, n: range(n)[max(0, i - w // 2) : i + (w - 1) // 2 + 1])


@wrong(
    "causal_trace",
    "You give the restored runs as what they add to the noisy one. Asked for is the metric of the restored run itself.",
)
def the_gain(*args, **kwargs):
    found = trace(*args, **kwargs)
    return found | {"restored": found["restored"] - found["noisy"]}


@wrong("causal_trace", "Your result holds on to the graphs of its runs: with many sites and draws the memory is gone.")
def with_graphs(model, tokens, *args, **kwargs):
    found = trace(model, tokens, *args, **kwargs)
    tied = 0 * model(tokens).sum()
    return {name: value + tied for name, value in found.items()}


@wrong(
    "causal_trace",
    "Your noise is right, and it is drawn for all draws in one call. Other numbers then come from the same seed than "
    "the docstring promises, and a published map cannot be repeated.",
)
def all_draws_in_one_call(*args, **kwargs):
    return trace(*args, **kwargs, one_call=True)


@wrong(
    "causal_trace",
    "Where the restored site is the embedding itself, the noise is still there: your hook that drowns it comes behind "
    "those that restore (hooks at one name act in their order), or what you put back is not the clean value.",
)
def drowned_again(*args, **kwargs):
    return trace(*args, **kwargs, drown_last=True)


@wrong(
    "causal_trace",
    "Your windows end one name too early: a slice leaves its end out, so that i + window // 2 has to be followed by "
    "+ 1. With a window of one nothing is restored at all.",
)
def windows_that_end_early(*args, **kwargs):
    return trace(*args, **kwargs, near=lambda i, w, n: range(n)[max(0, i - (w - 1) // 2) : i + w // 2])


@wrong(
    "causal_trace",
    "Your windows reach window // 2 names to either side. A window of two then holds three names: the docstring has "
    "(window - 1) // 2 of them before the middle.",
)
def windows_too_wide(*args, **kwargs):
    return trace(*args, **kwargs, near=lambda i, w, n: range(n)[max(0, i - w // 2) : i + w // 2 + 1])


@wrong(
    "causal_trace",
    "Only the last draw counts in the noisy run: its metric takes the place of those before it. The mean over draws is "
    "asked for there, too.",
)
def noisy_run_of_the_last_draw(model, tokens, subject, names, positions, metric, *, generator, **kwargs):
    drawn = []

    def kept(*args):
        drawn.append(corrupt_with_noise(*args))
        return drawn[-1]

    found = trace(model, tokens, subject, names, positions, metric, **kwargs, generator=generator, corrupt=kept)
    with torch.no_grad():
        last = run_with_hooks(model, tokens, [(kwargs.get("embedding", "hook_embed"), lambda _: drawn[-1])])
    return found | {"noisy": metric(last)}


@right("causal_trace")
def site_by_site(*args, **kwargs):
    return trace(*args, **kwargs)


@right("causal_trace")
def with_noise_for_the_subject_alone(*args, **kwargs):
    return trace(*args, **kwargs, corrupt=only_where_needed)


@right("causal_trace")
def with_noise_drawn_token_by_token(*args, **kwargs):
    return trace(*args, **kwargs, corrupt=token_by_token)


@right("causal_trace")
def all_columns_in_one_pass(
    model, tokens, subject, names, positions, metric, *, std, n_draws, generator, window=1, embedding="hook_embed"
):
    if min(window, n_draws) < 1:
        raise ValueError("window or n_draws")
    inside(positions, tokens.shape[1])
    n, batch = len(positions), len(tokens)
    rows, columns = torch.arange(n * batch), positions.flatten()
    noisy, restored = [], []
    with torch.no_grad():
        logits, cache = run_with_cache(model, tokens, [embedding, *names])
        repeated = {name: torch.cat([cache[name]] * n) for name in names}

        def restore(x, name):
            x = x.clone()
            x[rows, columns] = repeated[name][rows, columns]
            return x

        for _ in range(n_draws):
            drowned = corrupt_with_noise(cache[embedding], subject, std, generator)
            noisy.append(metric(run_with_hooks(model, tokens, [(embedding, lambda _, d=drowned: d)])))
            for middle in range(len(names)):
                hooks = [(embedding, lambda _, d=drowned: torch.cat([d] * n))]
                for layer, name in enumerate(names):
                    if -((window - 1) // 2) <= layer - middle <= window // 2:
                        hooks.append((name, lambda x, name=name: restore(x, name)))
                out = run_with_hooks(model, tokens.repeat(n, 1), hooks)
                restored += [metric(out[k * batch : (k + 1) * batch]) for k in range(n)]
    restored = torch.stack(restored).reshape(n_draws, len(names), n, batch)
    return {"clean": metric(logits).detach(), "noisy": sum(noisy) / n_draws, "restored": restored.mean(dim=0)}


# embedding_patch_pitfall


def push(
    model, tokens, positions, name, direction, answer, scale, *, unit=True, relative=True, everywhere=False, zero=True,
    width=True, kl="forward", share="argmax", summed=False, last=False, places=True, one_length=False,
):  # fmt: skip
    if zero and not direction.any():
        raise ValueError("direction is zero")
    if places:
        inside(positions, tokens.shape[1])
    rows = torch.arange(len(tokens))

    def edit(x):
        if width and direction.shape != x.shape[-1:]:
            raise ValueError("width")
        step = direction / direction.norm() if unit else direction
        size = x.norm(dim=-1, keepdim=True) if relative else 1.0
        size = x[rows, positions].norm() if one_length else size
        pushed = x + scale * size * step
        return pushed if everywhere else x.index_put((rows, positions), pushed[rows, positions])

    read = torch.full_like(positions, tokens.shape[1] - 1) if last else positions
    with torch.no_grad():
        before = model(tokens)[rows, read].log_softmax(-1)
        after = run_with_hooks(model, tokens, [(name, edit)])[rows, read].log_softmax(-1)
    p, q = (before, after) if kl == "forward" else (after, before)
    divergence = (p.exp() * (p - q)).sum(-1)
    likeliest = (before if share == "before" else after).argmax(-1)
    counted = (likeliest == answer) & (share != "turned" or before.argmax(-1) != answer)
    hits = after[:, answer].exp().mean() if share == "probability" else counted.float().mean()
    if share == "gain":
        hits = hits - (before.argmax(-1) == answer).float().mean()
    return hits.item(), divergence.mean() if summed else divergence


@wrong(
    "embedding_patch_pitfall",
    "Your divergence is KL(after || before): it is large where the push makes something likely that was not. Asked for "
    "is the other one, which is large where something likely is lost.",
)
def other_divergence(*args):
    return push(*args, kl="reverse")


@wrong(
    "embedding_patch_pitfall",
    "The length of the direction counts in your push: with a direction five times as long you push five times as far.",
)
def any_length(*args):
    return push(*args, unit=False)


@wrong(
    "embedding_patch_pitfall",
    "You add a vector of length `scale`. It is meant as a multiple of the activation's own length at that position.",
)
def absolute_length(*args):
    return push(*args, relative=False)


@wrong(
    "embedding_patch_pitfall",
    "You push at all positions. With each prompt pushed at one alone, what is measured is that one's doing.",
)
def at_every_position(*args):
    return push(*args, everywhere=True)


@wrong(
    "embedding_patch_pitfall",
    "You return the answer's mean probability; asked for is how often it is the likeliest token. The two may differ "
    "by a lot.",
)
def mean_probability(*args):
    return push(*args, share="probability")


@wrong(
    "embedding_patch_pitfall",
    "You average the divergence over the prompts. Each prompt's own is asked for: without the spread there is no "
    "interval.",
)
def one_divergence(*args):
    return push(*args, summed=True)


@wrong("embedding_patch_pitfall", "A direction of zeros goes through, and gives NaN: it has no direction to push in.")
def no_direction(*args):
    return push(*args, zero=False)


@wrong(
    "embedding_patch_pitfall",
    "A direction of another width goes through where broadcasting allows it: one number is stretched over the "
    "whole stream.",
)
def stretched_over_the_stream(*args):
    return push(*args, width=False)


@wrong(
    "embedding_patch_pitfall",
    "Position -1 is accepted, and counts from the end: another token is pushed, and read, than was meant.",
)
def pushed_from_the_end(model, tokens, positions, *args):
    if bool((positions >= tokens.shape[1]).any()):
        raise ValueError("position outside")
    return push(model, tokens, positions, *args, places=False)


@wrong(
    "embedding_patch_pitfall",
    "A short direction is refused, or has no effect, as if it were zero. Only its direction counts: any vector "
    "that is not zero has one.",
)
def too_short(model, tokens, positions, name, direction, answer, scale):
    if direction.norm() < 1e-6:
        raise ValueError("direction is zero")
    return push(model, tokens, positions, name, direction, answer, scale)


@wrong(
    "embedding_patch_pitfall",
    "Your share is that of the run before the push. Asked for is how often the answer is the likeliest token now.",
)
def share_before(*args):
    return push(*args, share="before")


@wrong(
    "embedding_patch_pitfall",
    "You leave out prompts whose likeliest token was the answer before. Asked for is the share of those that say it "
    "now, whatever they said before.",
)
def turned_round_only(*args):
    return push(*args, share="turned")


@wrong(
    "embedding_patch_pitfall",
    "You return by how much the share has grown. Asked for is the share itself, after the push.",
)
def share_gained(*args):
    return push(*args, share="gain")


@wrong(
    "embedding_patch_pitfall",
    "You take one length for all prompts, that of their activations in one piece. Each prompt is pushed by a "
    "multiple of its own.",
)
def one_length_for_all(*args):
    return push(*args, one_length=True)


@wrong(
    "embedding_patch_pitfall",
    "You push at each prompt's position and read at the end of the line. The docstring has one position for both.",
)
def reads_at_the_end(*args):
    return push(*args, last=True)


@wrong(
    "embedding_patch_pitfall",
    "`x[:, positions]` is every prompt at the positions of all: each prompt is pushed at the others' positions, "
    "too. A row number is needed for each position.",
)
def at_everybodys_positions(model, tokens, positions, name, direction, answer, scale):
    if not direction.any():
        raise ValueError("direction is zero")
    inside(positions, tokens.shape[1])
    rows = torch.arange(len(tokens))

    def edit(x):
        if direction.shape != x.shape[-1:]:
            raise ValueError("width")
        x = x.clone()
        here = x[:, positions]
        x[:, positions] = here + scale * here.norm(dim=-1, keepdim=True) * direction / direction.norm()
        return x

    with torch.no_grad():
        before = model(tokens)[rows, positions].log_softmax(-1)
        after = run_with_hooks(model, tokens, [(name, edit)])[rows, positions].log_softmax(-1)
    return (after.argmax(-1) == answer).float().mean().item(), (before.exp() * (before - after)).sum(-1)


def ends(model, tokens, positions, name, direction, scale):
    """Logits at the positions, before and after the push."""
    rows = torch.arange(len(tokens))

    def edit(x):
        pushed = x + scale * x.norm(dim=-1, keepdim=True) * direction / direction.norm()
        return x.index_put((rows, positions), pushed[rows, positions])

    with torch.no_grad():
        return [run_with_hooks(model, tokens, hooks)[rows, positions] for hooks in ([], [(name, edit)])]


@wrong(
    "embedding_patch_pitfall",
    "You take the logarithm of probabilities. Where a model is sure, some of them are too small for a float and become "
    "0; 0 times the logarithm of 0 is NaN. `log_softmax` never makes them so small.",
)
def logarithm_of_probabilities(model, tokens, positions, name, direction, answer, scale):
    share, _ = push(model, tokens, positions, name, direction, answer, scale)
    before, after = (logits.softmax(-1) for logits in ends(model, tokens, positions, name, direction, scale))
    return share, (before * (before.log() - after.log())).sum(-1)


@wrong(
    "embedding_patch_pitfall",
    "Where a probability after the push rounds to 0, your divergence is infinite (`kl_divergence` of "
    "torch.distributions sets it so). The logits are finite, and so is the answer: stay with log-probabilities.",
)
def infinite_where_a_probability_rounds_to_zero(model, tokens, positions, name, direction, answer, scale):
    share, _ = push(model, tokens, positions, name, direction, answer, scale)
    before, after = (Categorical(logits=logits) for logits in ends(model, tokens, positions, name, direction, scale))
    return share, kl_divergence(before, after)


@wrong(
    "embedding_patch_pitfall",
    "You push inside the activation that the hook is given. A bare hook point hands on the very tensor that went "
    "in, so whatever else reads it is pushed as well. Write into a copy.",
)
def pushed_in_place(model, tokens, positions, name, direction, answer, scale):
    if not direction.any():
        raise ValueError("direction is zero")
    inside(positions, tokens.shape[1])
    rows = torch.arange(len(tokens))

    def edit(x):
        if direction.shape != x.shape[-1:]:
            raise ValueError("width")
        here = x[rows, positions]
        x[rows, positions] = here + scale * here.norm(dim=-1, keepdim=True) * direction / direction.norm()
        return x

    with torch.no_grad():
        before = model(tokens)[rows, positions].log_softmax(-1)
        after = run_with_hooks(model, tokens, [(name, edit)])[rows, positions].log_softmax(-1)
    return (after.argmax(-1) == answer).float().mean().item(), (before.exp() * (before - after)).sum(-1)


@wrong(
    "embedding_patch_pitfall",
    "Your divergence has the wrong sign: before and after are exchanged inside the logarithm's difference. A "
    "divergence is never negative.",
)
def negative_divergence(*args):
    share, divergence = push(*args)
    return share, -divergence


@wrong(
    "embedding_patch_pitfall",
    "You average over the vocabulary where the divergence adds up: the probabilities are the weights already.",
)
def mean_over_words(model, *args):
    share, divergence = push(model, *args)
    return share, divergence / model(args[0]).shape[-1]


@wrong(
    "embedding_patch_pitfall",
    "A direction whose entries add up to zero is refused as if it were zero itself. Entries of both signs may do so.",
)
def refuses_cancelling_directions(model, tokens, positions, name, direction, answer, scale):
    if direction.sum() == 0:
        raise ValueError("direction is zero")
    return push(model, tokens, positions, name, direction, answer, scale)


@wrong(
    "embedding_patch_pitfall",
    "You divide by a length that is kept from being too small, by a number added to it or by a lower bound, as "
    "`F.normalize` has one. Below that bound the direction's length counts after all, and a very short one pushes less "
    "far.",
)
def with_a_shortest_length(model, tokens, positions, name, direction, *args):
    if not direction.any():
        raise ValueError("direction is zero")
    unit = torch.nn.functional.normalize(direction, dim=0)
    return push(model, tokens, positions, name, unit, *args, unit=False)


@right("embedding_patch_pitfall")
def another_push(*args):
    return push(*args)


@right("embedding_patch_pitfall")
def prompt_by_prompt_push(model, tokens, positions, name, direction, answer, scale):
    if float(direction.abs().sum()) == 0.0:
        raise ValueError("no direction")
    inside(positions, tokens.shape[1])
    hits, divergences = 0, []
    for row, at in zip(tokens, positions.tolist(), strict=True):

        def edit(x, at=at):
            if x.shape[2] != len(direction):
                raise ValueError("another width")
            x = x.clone()
            x[0, at] += scale * torch.linalg.vector_norm(x[0, at]) * direction / torch.linalg.vector_norm(direction)
            return x

        with torch.no_grad():
            old, new = model(row[None])[0, at], run_with_hooks(model, row[None], [(name, edit)])[0, at]
        hits += int(new.argmax() == answer)
        divergences.append(
            torch.nn.functional.kl_div(new.log_softmax(0), old.log_softmax(0), log_target=True, reduction="sum")
        )
    return hits / len(tokens), torch.stack(divergences)


# rome_key_covariance


def spread(model, tokens, name, ridge, chunk, *, guard=True, centred=False, summed=False, ridge_of=None, last=False):
    if guard and ridge < 0:
        raise ValueError("ridge is negative")
    with torch.no_grad():
        keys = torch.cat([run_with_cache(model, part, [name])[1][name] for part in tokens.split(chunk)])
    keys = (keys[:, -1:] if last else keys).flatten(0, 1)
    keys = keys - keys.mean(0) if centred else keys
    moment = keys.mT @ keys / (1 if summed else len(keys))
    size = moment.diagonal().mean() if ridge_of is None else ridge_of
    return moment + ridge * size * torch.eye(len(moment), dtype=moment.dtype)


@wrong(
    "rome_key_covariance",
    "You subtract the mean of the keys. The edit needs the second moment about zero: the mean key counts too.",
)
def centred(model, tokens, name, *, ridge=1e-3, chunk=64):
    return spread(model, tokens, name, ridge, chunk, centred=True)


@wrong(
    "rome_key_covariance",
    "`torch.cov` subtracts the mean of the keys, and divides by one less than their number. In spite of the name, "
    "what the edit needs is the second moment about zero.",
)
def by_torch_cov(model, tokens, name, *, ridge=1e-3, chunk=64):
    if ridge < 0:
        raise ValueError("ridge is negative")
    with torch.no_grad():
        keys = torch.cat([run_with_cache(model, part, [name])[1][name].flatten(0, 1) for part in tokens.split(chunk)])
    moment = torch.cov(keys.mT)
    return moment + ridge * moment.diagonal().mean() * torch.eye(len(moment), dtype=moment.dtype)


@wrong(
    "rome_key_covariance",
    "You return the sum over all keys, which grows with the number of documents: two corpora cannot be compared.",
)
def summed(model, tokens, name, *, ridge=1e-3, chunk=64):
    return spread(model, tokens, name, ridge, chunk, summed=True)


@wrong(
    "rome_key_covariance",
    "Your ridge is a fixed number: next to long keys it is nothing, and next to short ones it is everything. It is "
    "meant as a share of the mean diagonal.",
)
def fixed_ridge(model, tokens, name, *, ridge=1e-3, chunk=64):
    return spread(model, tokens, name, ridge, chunk, ridge_of=1.0)


@wrong("rome_key_covariance", "The ridge is missing: with fewer keys than dimensions your matrix has no inverse.")
def no_ridge(model, tokens, name, *, ridge=1e-3, chunk=64):
    return spread(model, tokens, name, ridge, chunk, ridge_of=0.0)


@wrong(
    "rome_key_covariance",
    "You use the last position of each document alone. Every position is a key, and the edit is to spare them all.",
)
def last_position(model, tokens, name, *, ridge=1e-3, chunk=64):
    return spread(model, tokens, name, ridge, chunk, last=True)


@wrong("rome_key_covariance", "A negative ridge goes through, and takes away what the inverse needs.")
def any_ridge(model, tokens, name, *, ridge=1e-3, chunk=64):
    return spread(model, tokens, name, ridge, chunk, guard=False)


@wrong(
    "rome_key_covariance",
    "You average the chunks' means. The last chunk is smaller, so its documents count for more than the others.",
)
def mean_of_means(model, tokens, name, *, ridge=1e-3, chunk=64):
    if ridge < 0:
        raise ValueError("ridge is negative")
    moment = torch.stack([spread(model, part, name, 0.0, chunk) for part in tokens.split(chunk)]).mean(0)
    return moment + ridge * moment.diagonal().mean() * torch.eye(len(moment), dtype=moment.dtype)


@wrong(
    "rome_key_covariance",
    "You take the product of the mean key with itself. What is asked for is the mean of the products: how the keys are "
    "spread is in it, too.",
)
def of_the_mean_key(model, tokens, name, *, ridge=1e-3, chunk=64):
    if ridge < 0:
        raise ValueError("ridge is negative")
    with torch.no_grad():
        keys = torch.cat([run_with_cache(model, part, [name])[1][name] for part in tokens.split(chunk)])
    mean = keys.flatten(0, 1).mean(0)
    moment = torch.outer(mean, mean)
    return moment + ridge * moment.diagonal().mean() * torch.eye(len(moment), dtype=moment.dtype)


@wrong(
    "rome_key_covariance",
    "Your ridge is a share of the trace, the sum of the diagonal, and grows with the width. Asked for is one of "
    "its mean.",
)
def share_of_the_trace(model, tokens, name, *, ridge=1e-3, chunk=64):
    moment = spread(model, tokens, name, 0.0, chunk)
    if ridge < 0:
        raise ValueError("ridge is negative")
    return moment + ridge * moment.trace() * torch.eye(len(moment), dtype=moment.dtype)


@wrong(
    "rome_key_covariance",
    "Your ridge goes to every entry of the matrix: added as a number, it is broadcast. It belongs to the diagonal "
    "alone.",
)
def ridge_everywhere(model, tokens, name, *, ridge=1e-3, chunk=64):
    moment = spread(model, tokens, name, 0.0, chunk)
    if ridge < 0:
        raise ValueError("ridge is negative")
    return moment + ridge * moment.diagonal().mean()


@wrong("rome_key_covariance", "Your matrix holds on to the graph of every forward pass, and the memory with it.")
def covariance_with_graphs(model, tokens, name, *, ridge=1e-3, chunk=64):
    return spread(model, tokens, name, ridge, chunk) + 0 * model(tokens[:chunk]).sum()


@wrong(
    "rome_key_covariance",
    "`chunk` has no effect: all documents go through the model at once. The paper takes a hundred thousand of them.",
)
def all_documents_at_once(model, tokens, name, *, ridge=1e-3, chunk=64):
    return spread(model, tokens, name, ridge, len(tokens))


@wrong(
    "rome_key_covariance",
    "Your matrix is in double precision whatever the keys are. Adding up in double precision is fine; what you return "
    "should have the keys' dtype, or it can't be multiplied with them.",
)
def double_precision_for_all(model, tokens, name, *, ridge=1e-3, chunk=64):
    return spread(model, tokens, name, ridge, chunk).double()


@wrong(
    "rome_key_covariance",
    "You divide by the number of documents. Every position of every document is a key, and the mean is over keys.",
)
def divided_by_documents(model, tokens, name, *, ridge=1e-3, chunk=64):
    return tokens.shape[1] * spread(model, tokens, name, ridge, chunk)


@right("rome_key_covariance")
def key_by_key(model, tokens, name, *, ridge=1e-3, chunk=64):
    if ridge < 0:
        raise ValueError("ridge is negative")
    total, n = 0, 0
    for start in range(0, len(tokens), chunk):
        with torch.no_grad():
            _, cache = run_with_cache(model, tokens[start : start + chunk], [name])
        for key in cache[name].reshape(-1, cache[name].shape[-1]):
            total, n = total + torch.outer(key, key), n + 1
    return total / n + torch.diag_embed((ridge * torch.trace(total / n) / len(total)).expand(len(total)))


@right("rome_key_covariance")
def all_keys_together(model, tokens, name, *, ridge=1e-3, chunk=64):
    return spread(model, tokens, name, ridge, chunk)


# rome_target_value


def fit(
    model, tokens, subject, ends, target, name, *, keep=None, steps=30, lr=0.1, decay=0.01, longest=3.0, limit=True,
    price=True, kept=True, absolute=True, at_ends=False, unit=True, read_last=False, in_vocabulary=True, room=True,
    sgd=False, first=False, backwards=False, own=False, places=True, once=False, surprise="mean", keep_sum=False,
    everybodys=False,
):  # fmt: skip
    """Fit a value, with switches for what can go wrong."""
    for prompts, *positions in [(tokens, subject, ends), *([] if keep is None else [keep])]:
        for at in positions if places else []:
            inside(at, prompts.shape[1])
    with torch.no_grad():
        logits, cache = run_with_cache(model, tokens, [name])
        old = cache[name][torch.arange(len(tokens)), subject][: 1 if first else None].mean(0)
        before = None if keep is None else model(keep[0])[torch.arange(len(keep[0])), keep[2]].log_softmax(-1)
    if in_vocabulary and not 0 <= target < logits.shape[-1] or room and longest <= 0:
        raise ValueError("target or longest")
    size = old.norm() if unit else 1.0
    change = torch.zeros_like(old, requires_grad=True)
    optimizer = (torch.optim.SGD if sgd else torch.optim.Adam)([change], lr=lr)

    def predict(prompts, at, end):
        rows = torch.arange(len(prompts))
        at = end if at_ends else at
        value = (old + size * change).expand(len(rows), -1)

        def edit(x):
            if everybodys:
                x = x.clone()
                x[:, at] = value[0]
                return x
            return x.index_put((rows, at), value - old + x[rows, at] if own else value)

        write = (name, edit)
        logits = run_with_hooks(model, prompts, [write])
        return (logits[:, -1] if read_last else logits[rows, end]).log_softmax(-1)

    for _ in range(steps):
        with torch.enable_grad():
            said = predict(tokens, subject, ends)[:, target % logits.shape[-1]]
            loss = {"mean": -said.mean(), "sum": -said.sum(), "chance": -said.exp().mean()}[surprise]
            loss = loss + (decay if price else 0.0) * change.square().sum()
            if keep is not None and kept:
                p, q = (predict(*keep), before) if backwards else (before, predict(*keep))
                lost = (p.exp() * (p - q)).sum(-1)
                loss = loss + (lost.sum() if keep_sum else lost.mean())
            (change.grad,) = torch.autograd.grad(loss, [change])
        optimizer.step()
        if limit and not once:
            with torch.no_grad():
                change *= (longest / change.norm()).clamp(max=1.0)
    if once:
        change = change * (longest / change.norm().clamp(min=1e-9)).clamp(max=1.0)
    return (old * absolute + size * change).detach()


@wrong(
    "rome_target_value",
    "You return the change. The value is the old output plus the change: it is what the MLP shall write.",
)
def the_change_alone(*args, **kwargs):
    return fit(*args, **kwargs, absolute=False)


@wrong(
    "rome_target_value", "`keep` has no effect: the new city may cost the subject everything else that is known of it."
)
def keeps_nothing(*args, **kwargs):
    return fit(*args, **kwargs, kept=False)


@wrong(
    "rome_target_value",
    "Your change may become as long as it likes: `longest` has no effect. A long enough vector makes any model say "
    "anything, and everything else goes with it.",
)
def no_limit(*args, **kwargs):
    return fit(*args, **kwargs, limit=False)


@wrong(
    "rome_target_value",
    "Length costs nothing: `decay` has no effect, and of two changes that do the job the longer one may win.",
)
def no_price(*args, **kwargs):
    return fit(*args, **kwargs, price=False)


@wrong(
    "rome_target_value",
    "You write at the prompt's end. There almost anything can be said directly; the edit is to sit at the subject.",
)
def writes_at_the_end(*args, **kwargs):
    return fit(*args, **kwargs, at_ends=True)


@wrong(
    "rome_target_value",
    "You read every prediction at the last column. Shorter prompts end earlier, and what stands behind their end is "
    "padding.",
)
def reads_the_last_column(*args, **kwargs):
    return fit(*args, **kwargs, read_last=True)


@wrong(
    "rome_target_value",
    "Your change is not in units of the old output's length, so step and limit mean something else.",
)
def absolute_units(*args, **kwargs):
    return fit(*args, **kwargs, unit=False)


@wrong(
    "rome_target_value",
    "A target outside the vocabulary goes through: -1 is counted from the end, and another word is made to be said.",
)
def any_target(*args, **kwargs):
    return fit(*args, **kwargs, in_vocabulary=False)


@wrong(
    "rome_target_value", "A `longest` of zero goes through: nothing can change, and the old output comes back as new."
)
def no_room(*args, **kwargs):
    return fit(*args, **kwargs, room=False)


@wrong(
    "rome_target_value",
    "Position -1 is accepted, and counts from the end: the value is written, or read, at another token than was meant.",
)
def places_from_the_end(model, tokens, subject, ends, *args, keep=None, **kwargs):
    for prompts, *positions in [(tokens, subject, ends), *([] if keep is None else [keep])]:
        if any(bool((at >= prompts.shape[1]).any()) for at in positions):
            raise ValueError("position outside")
    return fit(model, tokens, subject, ends, *args, keep=keep, **kwargs, places=False)


@wrong(
    "rome_target_value",
    "You shorten the change once, at the end. On the way it is as long as it likes, so that what you cut off is "
    "not what Adam would have found within the limit. It is to be shortened after every step.",
)
def shortened_once(*args, **kwargs):
    return fit(*args, **kwargs, once=True)


@wrong(
    "rome_target_value",
    "You add the prompts' surprises up. With many prompts the target outweighs what is to be kept; the docstring "
    "has the mean.",
)
def sum_of_surprises(*args, **kwargs):
    return fit(*args, **kwargs, surprise="sum")


@wrong(
    "rome_target_value",
    "You maximise the target's probability, not its logarithm. Where the model is sure of something else the slope "
    "of a probability is nearly nothing, and the search does not get away.",
)
def probability(*args, **kwargs):
    return fit(*args, **kwargs, surprise="chance")


@wrong(
    "rome_target_value",
    "You add up the divergences of the prompts to keep; the docstring has their mean. With many of them the target has "
    "no say.",
)
def sum_of_divergences(*args, **kwargs):
    return fit(*args, **kwargs, keep_sum=True)


@wrong(
    "rome_target_value",
    "You take plain gradient steps. The docstring asks for Adam, whose steps do not shrink with the gradient where the "
    "model is sure of its answer.",
)
def gradient_descent(*args, **kwargs):
    return fit(*args, **kwargs, sgd=True)


@wrong(
    "rome_target_value",
    "Your old output is that of the first prompt. The value has to serve all prompts, and starts from their mean.",
)
def begins_at_the_first_prompt(*args, **kwargs):
    return fit(*args, **kwargs, first=True)


@wrong(
    "rome_target_value",
    "The divergence that keeps the other predictions is KL(after || before). It weighs a word by how likely it is "
    "after the change, so that a word that is lost hardly counts; the docstring's weighs it by how likely it was "
    "before.",
)
def keeps_the_other_way_round(*args, **kwargs):
    return fit(*args, **kwargs, backwards=True)


@wrong(
    "rome_target_value",
    "You add the change to what each prompt has at its subject. The edited matrix will write one vector, whatever the "
    "sentence: write the mean of the old outputs plus the change into all of them, and into those to keep.",
)
def adds_to_each_prompts_own(*args, **kwargs):
    return fit(*args, **kwargs, own=True)


@wrong(
    "rome_target_value",
    "`x[:, subject]` is every prompt at the positions of all: in each prompt the value is written where the others' "
    "subjects end, too. A row number is needed for each position.",
)
def at_everybodys_subjects(*args, **kwargs):
    return fit(*args, **kwargs, everybodys=True)


@right("rome_target_value")
def where_gradients_are_on(
    model, tokens, subject, ends, target, name, *, keep=None, steps=30, lr=0.1, decay=0.01, longest=3.0
):
    """Step by step as the hints have it; that gradients are switched on is left to the caller."""
    if longest <= 0:
        raise ValueError("longest must be positive")
    for prompts, *positions in [(tokens, subject, ends), *([keep] if keep else [])]:
        for at in positions:
            inside(at, prompts.shape[1])
    with torch.no_grad():
        logits, cache = run_with_cache(model, tokens, [name])
        before = None if keep is None else model(keep[0])[torch.arange(len(keep[0])), keep[2]].log_softmax(-1)
    if not 0 <= target < logits.shape[-1]:
        raise ValueError("target is not in the vocabulary")
    old = cache[name][torch.arange(len(tokens)), subject].mean(0)
    change = torch.zeros_like(old, requires_grad=True)
    optimizer = torch.optim.Adam([change], lr=lr)

    def predictions(prompts, at, end):
        def write(x):
            x = x.clone()
            x[torch.arange(len(x)), at] = old + old.norm() * change
            return x

        return run_with_hooks(model, prompts, [(name, write)])[torch.arange(len(prompts)), end].log_softmax(-1)

    for _ in range(steps):
        loss = -predictions(tokens, subject, ends)[:, target].mean() + decay * (change * change).sum()
        if keep is not None:
            loss = loss + (before.exp() * (before - predictions(*keep))).sum(-1).mean()
        (change.grad,) = torch.autograd.grad(loss, [change])
        optimizer.step()
        with torch.no_grad():
            change *= (longest / change.norm()).clamp(max=1.0)
    return (old + old.norm() * change).detach()


@right("rome_target_value")
def another_fit(*args, **kwargs):
    return fit(*args, **kwargs)


@right("rome_target_value")
def adam_by_hand(model, tokens, subject, ends, target, name, *, keep=None, steps=30, lr=0.1, decay=0.01, longest=3.0):
    with torch.no_grad():
        logits, cache = run_with_cache(model, tokens, [name])
    if target not in range(logits.shape[-1]) or longest <= 0:
        raise ValueError("target or longest")
    for prompts, *positions in [(tokens, subject, ends), *([keep] if keep else [])]:
        if any(int(at.min()) < 0 or int(at.max()) >= prompts.shape[1] for at in positions):
            raise ValueError("position outside")
    old = torch.stack([cache[name][i, at] for i, at in enumerate(subject)]).mean(0)

    def logprobs(value, prompts, at, end):
        def write(x):
            x = x.clone()
            x[range(len(x)), at] = value
            return x

        return run_with_hooks(model, prompts, [(name, write)])[range(len(prompts)), end].log_softmax(-1)

    change, first, second = torch.zeros_like(old), torch.zeros_like(old), torch.zeros_like(old)
    for step in range(1, steps + 1):
        with torch.enable_grad():
            leaf = change.clone().requires_grad_()
            value = old + torch.linalg.vector_norm(old) * leaf
            loss = decay * leaf @ leaf - logprobs(value, tokens, subject, ends)[:, target].mean()
            if keep is not None:
                prompts, at, end = keep
                before = model(prompts)[range(len(prompts)), end].detach().log_softmax(-1)
                after = logprobs(value, prompts, at, end)
                loss = loss + torch.nn.functional.kl_div(after, before, log_target=True, reduction="batchmean")
            slope = torch.autograd.grad(loss, leaf)[0]
        first, second = 0.9 * first + 0.1 * slope, 0.999 * second + 0.001 * slope**2
        change = change - lr * (first / (1 - 0.9**step)) / ((second / (1 - 0.999**step)).sqrt() + 1e-8)
        if change.norm() > longest:
            change = longest * change / change.norm()
    return old + old.norm() * change


# rome_update


def check_key(key):
    if not key.any():
        raise ValueError("key is zero")


@wrong(
    "rome_update",
    "You write along the key itself. Keys that look like it are changed most, whether or not there are many of them: "
    "the covariance has no say.",
)
def without_covariance(W_out, b_out, covariance, key, value):
    check_key(key)
    return W_out + torch.outer(key, value - key @ W_out - b_out) / (key @ key)


@wrong(
    "rome_update", "You multiply by the covariance. It has to be its inverse: what is frequent is to be touched least."
)
def not_inverted(W_out, b_out, covariance, key, value):
    check_key(key)
    direction = covariance @ key
    return W_out + torch.outer(direction, value - key @ W_out - b_out) / (direction @ key)


@wrong(
    "rome_update",
    "The bias is forgotten: your matrix gives the value, and then the MLP adds b_out to it and writes something else.",
)
def without_bias(W_out, b_out, covariance, key, value):
    check_key(key)
    direction = torch.linalg.solve(covariance, key)
    return W_out + torch.outer(direction, value - key @ W_out) / (direction @ key)


@wrong(
    "rome_update",
    "You add the value to what the key gives already, and the MLP writes the old and the new one together.",
)
def on_top(W_out, b_out, covariance, key, value):
    check_key(key)
    direction = torch.linalg.solve(covariance, key)
    return W_out + torch.outer(direction, value - b_out) / (direction @ key)


@wrong(
    "rome_update",
    "The direction is right and its length is not: you divide by k^T k. Multiply your change with the key: what "
    "comes out is not the difference to the value.",
)
def wrong_divisor(W_out, b_out, covariance, key, value):
    check_key(key)
    direction = torch.linalg.solve(covariance, key)
    return W_out + torch.outer(direction, value - key @ W_out - b_out) / (key @ key)


@wrong(
    "rome_update",
    "You return the change without the matrix that it is added to: the MLP would forget all its other keys.",
)
def change_only(W_out, b_out, covariance, key, value):
    check_key(key)
    direction = torch.linalg.solve(covariance, key)
    return torch.outer(direction, value - key @ W_out - b_out) / (direction @ key)


@wrong("rome_update", "A key of zeros gives NaN everywhere, and a model that says nothing any more.")
def zero_key(W_out, b_out, covariance, key, value):
    direction = torch.linalg.solve(covariance, key)
    return W_out + torch.outer(direction, value - key @ W_out - b_out) / (direction @ key)


@wrong(
    "rome_update",
    "You refuse every key that has a zero in it. Many hidden activations are zero behind a ReLU; only a key that is "
    "zero throughout has no direction.",
)
def refuses_any_zero(W_out, b_out, covariance, key, value):
    if not key.all():
        raise ValueError("key is zero")
    direction = torch.linalg.solve(covariance, key)
    return W_out + torch.outer(direction, value - key @ W_out - b_out) / (direction @ key)


@wrong(
    "rome_update",
    "You refuse a short key as if it were zero. Hidden activations may be small; any key that is not zero in every "
    "entry can be given a value.",
)
def refuses_short_keys(W_out, b_out, covariance, key, value):
    if torch.allclose(key, torch.zeros_like(key)):
        raise ValueError("key is zero")
    direction = torch.linalg.solve(covariance, key)
    return W_out + torch.outer(direction, value - key @ W_out - b_out) / (direction @ key)


@wrong(
    "rome_update",
    "You ask whether the key's entries add up to zero. Entries of both signs may do so, and yet the key has a "
    "direction.",
)
def refuses_a_sum_of_zero(W_out, b_out, covariance, key, value):
    if key.sum() == 0:
        raise ValueError("key is zero")
    direction = torch.linalg.solve(covariance, key)
    return W_out + torch.outer(direction, value - key @ W_out - b_out) / (direction @ key)


@wrong(
    "rome_update",
    "You add a small number to the divisor. The shorter the key, the more of the divisor it makes up, and the new "
    "matrix does not give the value.",
)
def careful_divisor(W_out, b_out, covariance, key, value):
    check_key(key)
    direction = torch.linalg.solve(covariance, key)
    return W_out + torch.outer(direction, value - key @ W_out - b_out) / (direction @ key + 1e-8)


@wrong(
    "rome_update",
    "The bias has the wrong sign in your difference: the MLP adds b_out, so what the key gives is k W + b.",
)
def bias_added(W_out, b_out, covariance, key, value):
    check_key(key)
    direction = torch.linalg.solve(covariance, key)
    return W_out + torch.outer(direction, value - key @ W_out + b_out) / (direction @ key)


@wrong(
    "rome_update",
    "You subtract the change: the key now gives its old output minus what it lacks.",
)
def subtracted(W_out, b_out, covariance, key, value):
    check_key(key)
    direction = torch.linalg.solve(covariance, key)
    return W_out - torch.outer(direction, value - key @ W_out - b_out) / (direction @ key)


@wrong(
    "rome_update",
    "You add a change that gives the whole value for the key, on top of what the key gives already, bias included. "
    "Only what is missing to the value should be added.",
)
def value_for_the_difference(W_out, b_out, covariance, key, value):
    check_key(key)
    direction = torch.linalg.solve(covariance, key)
    return W_out + torch.outer(direction, value) / (direction @ key)


@wrong(
    "rome_update",
    "You do not divide. Multiply your change with the key: what comes out is the difference to the value times "
    "k^T C^-1 k, and not the difference.",
)
def no_divisor(W_out, b_out, covariance, key, value):
    check_key(key)
    direction = torch.linalg.solve(covariance, key)
    return W_out + torch.outer(direction, value - key @ W_out - b_out)


@wrong(
    "rome_update",
    "You divide by the squared length of C^-1 k. Multiply your change with the key: the difference to the value comes "
    "out if you divide by k^T C^-1 k.",
)
def divided_by_the_directions_length(W_out, b_out, covariance, key, value):
    check_key(key)
    direction = torch.linalg.solve(covariance, key)
    return W_out + torch.outer(direction, value - key @ W_out - b_out) / (direction @ direction)


@right("rome_update")
def with_an_inverse(W_out, b_out, covariance, key, value):
    check_key(key)
    direction = covariance.inverse() @ key
    direction = direction / (direction * key).sum()
    return W_out + direction[:, None] * (value - (key @ W_out + b_out))[None]


@right("rome_update")
def by_lagrange(W_out, b_out, covariance, key, value):
    """Solve the constrained least-squares problem's own equations, with one multiplier for each output."""
    check_key(key)
    n = len(key)
    system = torch.zeros(n + 1, n + 1, dtype=key.dtype)
    system[:n, :n], system[:n, n], system[n, :n] = covariance, key, key
    right_side = torch.zeros(n + 1, len(value), dtype=key.dtype)
    right_side[n] = value - key @ W_out - b_out
    return W_out + torch.linalg.solve(system, right_side)[:n]


# steer


def steered(
    model, tokens, name, direction, doses, metric, positions, *, add=True, unit=False, pile=False, guard=True,
    everywhere=False, places=True,
):  # fmt: skip
    if places:
        inside(positions, tokens.shape[1])
    rows, results, given = torch.arange(len(tokens)), [], 0
    for dose in doses:
        given = given + dose if pile else dose

        def edit(x, dose=given):
            if guard and direction.shape != x.shape[-1:]:
                raise ValueError("width")
            step = dose * (direction / direction.norm() if unit else direction)
            new = x + step if add else step.expand_as(x)
            if positions is None or everywhere:
                return new
            return x.index_put((rows, positions), new[rows, positions])

        with torch.no_grad():
            results.append(metric(run_with_hooks(model, tokens, [(name, edit)])))
    return torch.stack(results)


@wrong(
    "steer",
    "You normalise the direction. A dose of one is the vector as it was given; its length is part of the question.",
)
def normalised(model, tokens, name, direction, doses, metric, *, positions=None):
    return steered(model, tokens, name, direction, doses, metric, positions, unit=True)


@wrong(
    "steer",
    "You put the direction in the activation's place, and what the prompt has said is gone. Steering adds to it.",
)
def in_its_place(model, tokens, name, direction, doses, metric, *, positions=None):
    return steered(model, tokens, name, direction, doses, metric, positions, add=False)


@wrong(
    "steer",
    "Your doses pile up: each run has all the doses before it as well, and the curve is drawn against the wrong ones.",
)
def piling_up(model, tokens, name, direction, doses, metric, *, positions=None):
    return steered(model, tokens, name, direction, doses, metric, positions, pile=True)


@wrong(
    "steer",
    "You add the direction at all positions whatever `positions` says: which of them made the difference stays open.",
)
def at_all_of_them(model, tokens, name, direction, doses, metric, *, positions=None):
    return steered(model, tokens, name, direction, doses, metric, positions, everywhere=True)


@wrong(
    "steer",
    "You add the direction at the first prompt's position in every prompt. In the others another word stands there.",
)
def first_prompts_place(model, tokens, name, direction, doses, metric, *, positions=None):
    inside(positions, tokens.shape[1])
    same = None if positions is None else positions[:1].expand_as(positions)
    return steered(model, tokens, name, direction, doses, metric, same)


@wrong(
    "steer",
    "You average over the prompts. Each prompt's response is asked for: a mean that rises may hide prompts that fall.",
)
def mean_response(model, tokens, name, direction, doses, metric, *, positions=None):
    return steered(model, tokens, name, direction, doses, metric, positions).mean(-1)


@wrong(
    "steer",
    "A direction of one number goes through: broadcasting adds it to every entry, and you steer along a vector that "
    "nobody chose.",
)
def any_width(model, tokens, name, direction, doses, metric, *, positions=None):
    return steered(model, tokens, name, direction, doses, metric, positions, guard=False)


@wrong(
    "steer",
    "The metric gets the logits of all doses in one piece. It was made for these prompts in their order, and with more "
    "rows than prompts it fails, or asks the wrong row.",
)
def one_metric_for_all_doses(model, tokens, name, direction, doses, metric, *, positions=None):
    pieces = []

    def keep(logits):
        pieces.append(logits)
        return logits[:, 0, 0]

    steered(model, tokens, name, direction, doses, keep, positions)
    return metric(torch.cat(pieces)).view(len(doses), len(tokens))


@wrong(
    "steer",
    "Positions that are 0 throughout are taken for no positions at all, and the direction is added everywhere. 0 is a "
    "position, and only None means all of them.",
)
def zeros_for_none(model, tokens, name, direction, doses, metric, *, positions=None):
    inside(positions, tokens.shape[1])
    given = positions if positions is not None and positions.any() else None
    return steered(model, tokens, name, direction, doses, metric, given)


@wrong(
    "steer",
    "`x[:, positions]` is every prompt at the positions of all: each prompt is steered at the others' positions, "
    "too. A row number is needed for each position.",
)
def at_everybodys_places(model, tokens, name, direction, doses, metric, *, positions=None):
    inside(positions, tokens.shape[1])

    def run(dose):
        def edit(x):
            if direction.shape != x.shape[-1:]:
                raise ValueError("width")
            x = x.clone()
            x[:, slice(None) if positions is None else positions] += dose * direction
            return x

        with torch.no_grad():
            return metric(run_with_hooks(model, tokens, [(name, edit)]))

    return torch.stack([run(dose) for dose in doses])


@wrong(
    "steer",
    "Position -1 is accepted, and counts from the end: another token is steered than was meant.",
)
def steered_from_the_end(model, tokens, name, direction, doses, metric, *, positions=None):
    if positions is not None and bool((positions >= tokens.shape[1]).any()):
        raise ValueError("position outside")
    return steered(model, tokens, name, direction, doses, metric, positions, places=False)


@wrong("steer", "Your curve holds on to the graph of every run, and the memory with it.")
def curve_with_graphs(model, tokens, name, direction, doses, metric, *, positions=None):
    curve = steered(model, tokens, name, direction, doses, metric, positions)
    return curve + 0 * model(tokens).sum()


@wrong(
    "steer",
    "You subtract the direction: a positive dose takes away what it should add, and your curve runs backwards.",
)
def taken_away(model, tokens, name, direction, doses, metric, *, positions=None):
    return steered(model, tokens, name, direction, -doses, metric, positions)


@wrong(
    "steer",
    "You add inside the activation that the hook is given. A bare hook point hands on the very tensor that went in, so "
    "whatever else reads it is steered as well. Write into a copy.",
)
def steered_in_place(model, tokens, name, direction, doses, metric, *, positions=None):
    inside(positions, tokens.shape[1])

    def edit(x, dose):
        if direction.shape != x.shape[-1:]:
            raise ValueError("width")
        if positions is None:
            return x + dose * direction
        x[torch.arange(len(x)), positions] += dose * direction
        return x

    with torch.no_grad():
        runs = [run_with_hooks(model, tokens, [(name, lambda x, d=dose: edit(x, d))]) for dose in doses]
        return torch.stack([metric(logits) for logits in runs])


@wrong(
    "steer",
    "You return how far each dose moves the metric. Asked for is the metric itself, at each dose.",
)
def moved_by(model, tokens, name, direction, doses, metric, *, positions=None):
    curve = steered(model, tokens, name, direction, doses, metric, positions)
    return curve - metric(model(tokens)).detach()


@wrong(
    "steer",
    "A dose of yours is a share of the activation's own length. Asked for is the dose times the direction as it "
    "was given.",
)
def in_activation_lengths(model, tokens, name, direction, doses, metric, *, positions=None):
    inside(positions, tokens.shape[1])

    def edit(x, dose):
        if direction.shape != x.shape[-1:]:
            raise ValueError("width")
        moved = x + dose * direction * x.norm(dim=-1, keepdim=True)
        chosen = slice(None) if positions is None else torch.nn.functional.one_hot(positions, x.shape[1]).bool()
        return moved if positions is None else torch.where(chosen[..., None], moved, x)

    with torch.no_grad():
        runs = [run_with_hooks(model, tokens, [(name, lambda x, d=dose: edit(x, d))]) for dose in doses]
        return torch.stack([metric(logits) for logits in runs])


@wrong(
    "steer",
    "You add the direction from the position on, to the end of the prompt. With `positions` it is added at that one "
    "position of each prompt.",
)
def steered_from_there_on(model, tokens, name, direction, doses, metric, *, positions=None):
    inside(positions, tokens.shape[1])
    start = torch.zeros(len(tokens), dtype=torch.long) if positions is None else positions
    there = (torch.arange(tokens.shape[1]) >= start[:, None])[..., None]

    def adding(dose):
        def edit(x):
            if direction.shape != x.shape[-1:]:
                raise ValueError("width")
            return torch.where(there, x + dose * direction, x)

        return edit

    with torch.no_grad():
        return torch.stack([metric(run_with_hooks(model, tokens, [(name, adding(dose))])) for dose in doses])


@right("steer")
def dose_by_dose(model, tokens, name, direction, doses, metric, *, positions=None):
    inside(positions, tokens.shape[1])

    def run(dose):
        def edit(x):
            if x.shape[-1] != direction.numel():
                raise ValueError("width")
            x = x.clone()
            for row in range(len(x)):
                at = slice(None) if positions is None else int(positions[row])
                x[row, at] += dose * direction
            return x

        with torch.no_grad():
            return metric(run_with_hooks(model, tokens, [(name, edit)]))

    return torch.stack([run(dose) for dose in doses.tolist()])


@right("steer")
def all_doses_in_one_run(model, tokens, name, direction, doses, metric, *, positions=None):
    n, (batch, pos) = len(doses), tokens.shape
    inside(positions, pos)
    at = torch.ones(batch, pos) if positions is None else torch.nn.functional.one_hot(positions, pos)

    def edit(x):
        if len(direction) != x.shape[-1]:
            raise ValueError("width")
        step = doses[:, None, None, None] * at[None, :, :, None].to(x.dtype) * direction
        return x + step.flatten(0, 1)

    with torch.no_grad():
        logits = run_with_hooks(model, tokens.repeat(n, 1), [(name, edit)])
        return torch.stack([metric(part) for part in logits.split(batch)])
