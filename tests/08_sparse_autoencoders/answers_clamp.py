"""Wrong and right answers for clamping a latent and counting side effects."""

import torch

from utils.course.catalogue import right, wrong


def refuse(value):
    if value < 0:
        raise ValueError("a latent is never below 0")


def masked(change, positions):
    return change if positions is None else change * positions


@wrong(
    "clamp_feature",
    "You put the dictionary's reconstruction in the activation's place. What the dictionary doesn't explain is lost on "
    "the way, and the model changes even where the latent stays what it is. Add the change to the activation.",
)
def reconstruction(sae, latent, value, *, positions=None):
    refuse(value)

    def clamp(x):
        z = sae(x)[1].clone()
        z[..., latent] = value
        new = z @ sae.W_dec + sae.b_dec
        return new if positions is None else torch.where(positions[..., None], new, x)

    return clamp


@wrong(
    "clamp_feature",
    "You add the change to the dictionary's reconstruction and hand that on, at every position. What the dictionary "
    "doesn't explain is lost. Add the change to the activation.",
)
def change_of_the_reconstruction(sae, latent, value, *, positions=None):
    refuse(value)

    def clamp(x):
        reconstruction, z = sae(x)
        return reconstruction + masked(value - z[..., latent], positions)[..., None] * sae.W_dec[latent]

    return clamp


@wrong(
    "clamp_feature",
    "Your hook writes into the activation that it is given. Whoever else holds that tensor, such as a cache, then has "
    "the changed one: return a new tensor.",
)
def in_place(sae, latent, value, *, positions=None):
    refuse(value)

    def clamp(x):
        x += masked(value - sae(x)[1][..., latent], positions)[..., None] * sae.W_dec[latent]
        return x

    return clamp


@wrong("clamp_feature", "Where the latent is off you leave it off. It is to be set there as well: all of the value.")
def only_where_on(sae, latent, value, *, positions=None):
    refuse(value)

    def clamp(x):
        z = sae(x)[1][..., latent]
        return x + masked((value - z) * (z > 0), positions)[..., None] * sae.W_dec[latent]

    return clamp


@wrong(
    "clamp_feature",
    "You add the whole value to what the latent holds already. To set it to the value, add only what is missing.",
)
def added(sae, latent, value, *, positions=None):
    refuse(value)
    return lambda x: x + masked(torch.full(x.shape[:-1], float(value)), positions)[..., None] * sae.W_dec[latent]


@wrong(
    "clamp_feature",
    "You divide the latent's direction by its length. A latent's value counts in units of its own row of W_dec, "
    "whatever length that has.",
)
def unit_direction(sae, latent, value, *, positions=None):
    refuse(value)
    row = sae.W_dec[latent] / sae.W_dec[latent].norm()
    return lambda x: x + masked(value - sae(x)[1][..., latent], positions)[..., None] * row


@wrong(
    "clamp_feature",
    "You write along the encoder's direction. What a latent writes is its row of W_dec; the column of W_enc is what it "
    "reads.",
)
def along_the_encoder(sae, latent, value, *, positions=None):
    refuse(value)
    return lambda x: x + masked(value - sae(x)[1][..., latent], positions)[..., None] * sae.W_enc[:, latent]


@wrong("clamp_feature", "You clamp everywhere, whatever `positions` says.")
def everywhere(sae, latent, value, *, positions=None):
    refuse(value)
    return lambda x: x + (value - sae(x)[1][..., latent])[..., None] * sae.W_dec[latent]


@wrong(
    "clamp_feature",
    "You take the latent's pre-activation for the latent. Where the latent is off, that is below 0 or was cut by "
    "TopK, and you push further than the value.",
)
def preactivation(sae, latent, value, *, positions=None):
    refuse(value)

    def clamp(x):
        z = x @ sae.W_enc[:, latent] + sae.b_enc[latent]
        return x + masked(value - z, positions)[..., None] * sae.W_dec[latent]

    return clamp


@wrong(
    "clamp_feature",
    "You only ever push up: where the latent is above the value it stays there. To take a latent out it must go down.",
)
def only_up(sae, latent, value, *, positions=None):
    refuse(value)
    return lambda x: x + masked((value - sae(x)[1][..., latent]).clamp(min=0), positions)[..., None] * sae.W_dec[latent]


@wrong("clamp_feature", "A negative value goes through. No latent is ever below 0: refuse it before a hook is made.")
def unchecked(sae, latent, value, *, positions=None):
    return lambda x: x + masked(value - sae(x)[1][..., latent], positions)[..., None] * sae.W_dec[latent]


@right("clamp_feature")
def by_two_reconstructions(sae, latent, value, *, positions=None):
    """The difference of two decodings is what is added."""
    if value < 0:
        raise ValueError(value)

    def clamp(x):
        reconstruction, z = sae(x)
        changed = torch.cat([z[..., :latent], torch.full_like(z[..., :1], value), z[..., latent + 1 :]], dim=-1)
        new = x + changed @ sae.W_dec + sae.b_dec - reconstruction
        return new if positions is None else torch.where(positions.unsqueeze(-1), new, x)

    return clamp


def parts(before, after, tokens, wanted):
    is_wanted = torch.isin(torch.arange(before.shape[-1]), wanted)
    rise = (after.softmax(-1) - before.softmax(-1))[..., is_wanted].sum(-1).mean()
    rest = [logits[..., ~is_wanted].softmax(-1) for logits in (before, after)]
    moved = (rest[1] - rest[0]).abs().sum(-1).mean() / 2
    following = tokens[:, 1:]
    lost = (before.log_softmax(-1) - after.log_softmax(-1))[:, :-1].gather(-1, following[..., None])[..., 0]
    return is_wanted, rise, moved, following, lost


def made(rise, moved, loss):
    return {"wanted": float(rise), "others": float(moved), "loss": float(loss)}


@wrong(
    "side_effects",
    "Your 'others' counts what the wanted words took from all other words alike. Bring the others' distribution back "
    "to a sum of 1 before you compare, or any effect at all is its own side effect.",
)
def not_renormalised(before, after, tokens, wanted):
    is_wanted, rise, _, following, lost = parts(before, after, tokens, wanted)
    moved = (after.softmax(-1) - before.softmax(-1))[..., ~is_wanted].abs().sum(-1).mean() / 2
    return made(rise, moved, lost[~is_wanted[following]].mean())


@wrong("side_effects", "Your 'others' is the sum of the absolute differences; it should be half of that, from 0 to 1.")
def not_halved(before, after, tokens, wanted):
    is_wanted, rise, moved, following, lost = parts(before, after, tokens, wanted)
    return made(rise, 2 * moved, lost[~is_wanted[following]].mean())


@wrong(
    "side_effects",
    "Your loss includes next words that are among the wanted ones. There the change helps, and hides what it costs.",
)
def all_next_words(before, after, tokens, wanted):
    is_wanted, rise, moved, following, lost = parts(before, after, tokens, wanted)
    nothing = bool(is_wanted[following].all())
    return made(rise, moved, float("nan") if nothing else lost.mean())


@wrong(
    "side_effects",
    "Your loss is taken at the word that the model has just read. A position's logits are about the *next* word.",
)
def the_same_word(before, after, tokens, wanted):
    is_wanted, rise, moved, _, _ = parts(before, after, tokens, wanted)
    lost = (before.log_softmax(-1) - after.log_softmax(-1)).gather(-1, tokens[..., None])[..., 0]
    return made(rise, moved, lost[~is_wanted[tokens]].mean() if not is_wanted[tokens].all() else float("nan"))


@wrong("side_effects", "Your 'wanted' is the rise of an average wanted word. It should be that of their sum.")
def averaged_wanted(before, after, tokens, wanted):
    is_wanted, rise, moved, following, lost = parts(before, after, tokens, wanted)
    return made(rise / len(wanted), moved, lost[~is_wanted[following]].mean())


@wrong("side_effects", "Your loss falls where it should rise: it is before less after.")
def falls(before, after, tokens, wanted):
    is_wanted, rise, moved, following, lost = parts(before, after, tokens, wanted)
    return made(rise, moved, -lost[~is_wanted[following]].mean())


@wrong(
    "side_effects",
    "You compare logits and not probabilities. A model's logits may all rise by a constant, and nothing has changed.",
)
def of_logits(before, after, tokens, wanted):
    is_wanted, rise, moved, following, lost = parts(before, after, tokens, wanted)
    rise = (after - before)[..., is_wanted].mean()
    return made(rise, moved, lost[~is_wanted[following]].mean())


@wrong(
    "side_effects",
    "Your loss leaves out the positions at which a wanted word has just been *read*. What counts is whether the next "
    "word, the one that is to be predicted, is wanted.",
)
def read_words_left_out(before, after, tokens, wanted):
    is_wanted, rise, moved, _, lost = parts(before, after, tokens, wanted)
    return made(rise, moved, lost[~is_wanted[tokens[:, :-1]]].mean())


@wrong(
    "side_effects",
    "Where every next word is a wanted one, your loss is 0. That would say that the change costs nothing; nothing is "
    "known: NaN.",
)
def zero_for_nothing(before, after, tokens, wanted):
    is_wanted, rise, moved, following, lost = parts(before, after, tokens, wanted)
    kept = lost[~is_wanted[following]]
    return made(rise, moved, kept.mean() if len(kept) else 0.0)


@right("side_effects")
def position_by_position(before, after, tokens, wanted):
    """With loops over positions."""
    kept = [word for word in range(before.shape[-1]) if word not in wanted.tolist()]
    rises, moves, losses = [], [], []
    for row in range(tokens.shape[0]):
        for place in range(tokens.shape[1]):
            p, q = before[row, place].softmax(0), after[row, place].softmax(0)
            rises.append(q[wanted].sum() - p[wanted].sum())
            moves.append((q[kept] / q[kept].sum() - p[kept] / p[kept].sum()).abs().sum() / 2)
            if place + 1 < tokens.shape[1] and int(tokens[row, place + 1]) in kept:
                losses.append((p[tokens[row, place + 1]] / q[tokens[row, place + 1]]).log())
    loss = torch.stack(losses).mean().item() if losses else float("nan")
    return {"loss": loss, "others": torch.stack(moves).mean().item(), "wanted": torch.stack(rises).mean().item()}
