"""Wrong answers for the tuned lens, each with its sentence, and right ones."""

import torch
from einops import einsum
from torch import nn

from utils.course.catalogue import right, wrong
from utils.lenses.measures import lens_kl
from utils.lenses.stream import logit_lens

# TunedLens


class Translators(nn.Module):
    """What the answers share."""

    def __init__(self, n_sites, d_model):
        super().__init__()
        self.A = nn.Parameter(torch.zeros(n_sites, d_model, d_model))
        self.b = nn.Parameter(torch.zeros(n_sites, d_model))

    def bias(self, stack):
        return self.b.reshape(len(self.b), *[1] * (stack.ndim - 2), -1)

    def refuse(self, stack):
        if len(stack) != len(self.A):
            raise ValueError("one site for each translator")


@wrong(
    "TunedLens",
    "Your translator is h A + b, without h itself, so that a new lens maps everything to zero. The residual "
    "form starts where the logit lens is and has only the difference to learn.",
)
class WithoutTheResidual(Translators):
    def forward(self, stack):
        self.refuse(stack)
        return einsum(stack, self.A, "site ... d, site d e -> site ... e") + self.bias(stack)


@wrong(
    "TunedLens",
    "A starts as the identity, and h is added as well: a new lens doubles the stream. In the form h + h A + b, "
    "which A leaves h as it is?",
)
class IdentityOnTop(Translators):
    def __init__(self, n_sites, d_model):
        super().__init__(n_sites, d_model)
        self.A = nn.Parameter(torch.eye(d_model).repeat(n_sites, 1, 1))

    def forward(self, stack):
        self.refuse(stack)
        return stack + einsum(stack, self.A, "site ... d, site d e -> site ... e") + self.bias(stack)


@wrong(
    "TunedLens",
    "A starts as the identity, and h is not added: a new lens is the identity all the same, but what you call A is "
    "I + A here. The form asked for is h + h A + b, with an A that holds only the difference.",
)
class IdentityInsteadOfTheResidual(Translators):
    def __init__(self, n_sites, d_model):
        super().__init__(n_sites, d_model)
        self.A = nn.Parameter(torch.eye(d_model).repeat(n_sites, 1, 1))

    def forward(self, stack):
        self.refuse(stack)
        return einsum(stack, self.A, "site ... d, site d e -> site ... e") + self.bias(stack)


@wrong(
    "TunedLens",
    "A new lens of yours is random. Training would have to undo that first, and a short training would not get "
    "below the logit lens for that reason alone.",
)
class RandomStart(Translators):
    def __init__(self, n_sites, d_model):
        super().__init__(n_sites, d_model)
        generator = torch.Generator().manual_seed(n_sites)
        self.A = nn.Parameter(0.1 * torch.randn(n_sites, d_model, d_model, generator=generator))

    def forward(self, stack):
        self.refuse(stack)
        return stack + einsum(stack, self.A, "site ... d, site d e -> site ... e") + self.bias(stack)


@wrong(
    "TunedLens",
    "You multiply with the transpose of A. The course writes vectors as rows: h meets A from the left, and the "
    "sum runs over A's first index.",
)
class Transposed(Translators):
    def forward(self, stack):
        self.refuse(stack)
        return stack + einsum(stack, self.A, "site ... d, site e d -> site ... e") + self.bias(stack)


@wrong(
    "TunedLens",
    "Every site is translated with the first site's map. What has to be undone differs from layer to layer, and "
    "each has its own A and b.",
)
class FirstMapForAll(Translators):
    def forward(self, stack):
        self.refuse(stack)
        return stack + stack @ self.A[0] + self.b[0]


@wrong(
    "TunedLens",
    "The bias is never added. The mean of the stream drifts from layer to layer, and no linear map undoes a shift.",
)
class BiasNotAdded(Translators):
    def forward(self, stack):
        self.refuse(stack)
        return stack + einsum(stack, self.A, "site ... d, site d e -> site ... e")


@wrong(
    "TunedLens",
    "A stack with another number of sites goes through: sites and translators are paired until one of them runs "
    "out (or a single site is used for all). The docstring names the error to raise.",
)
class AnyNumberOfSites(Translators):
    def forward(self, stack):
        return torch.stack([h + h @ A + b for h, A, b in zip(stack, self.A, self.b, strict=False)])


@wrong(
    "TunedLens",
    "A and b are tensors of your module, and not parameters: they do not appear in `parameters()`, so that no "
    "optimiser would ever change them.",
)
class NotParameters(nn.Module):
    def __init__(self, n_sites, d_model):
        super().__init__()
        self.register_buffer("A", torch.zeros(n_sites, d_model, d_model))
        self.register_buffer("b", torch.zeros(n_sites, d_model))

    refuse, bias = Translators.refuse, Translators.bias

    def forward(self, stack):
        self.refuse(stack)
        return stack + einsum(stack, self.A, "site ... d, site d e -> site ... e") + self.bias(stack)


@wrong(
    "TunedLens",
    "You add b as it stands, [n_sites, d_model], to a stack with dimensions in between: it meets the last two of them "
    "and not the sites. Give it as many dimensions of size one in the middle as the stack has there.",
)
class BiasAsItStands(Translators):
    def forward(self, stack):
        self.refuse(stack)
        return stack + einsum(stack, self.A, "site ... d, site d e -> site ... e") + self.b


@wrong(
    "TunedLens",
    "No gradient goes back to the stack: you cut it off (`detach`, `.data`, `no_grad`). The lens is a part of a "
    "larger calculation like any other module.",
)
class StackCutOff(Translators):
    def forward(self, stack):
        self.refuse(stack)
        stack = stack.detach()
        return stack + einsum(stack, self.A, "site ... d, site d e -> site ... e") + self.bias(stack)


@wrong(
    "TunedLens",
    "Your module is made for a stack [site, batch, pos, d_model]: it counts on two dimensions between sites and "
    "d_model. There may be any number of them; training, for one, has a list of rows there.",
)
class TwoDimensionsBetween(Translators):
    def forward(self, stack):
        self.refuse(stack)
        return stack + stack @ self.A[:, None] + self.b[:, None, None]


@wrong(
    "TunedLens",
    "You give b two dimensions of size one in the middle. That fits a stack [site, batch, pos, d_model] and no other: "
    "a stack with fewer dimensions comes back with more. Give b as many as the stack has there.",
)
class BiasForTwoDimensionsBetween(Translators):
    def forward(self, stack):
        self.refuse(stack)
        return stack + einsum(stack, self.A, "site ... d, site d e -> site ... e") + self.b[:, None, None]


@wrong(
    "TunedLens",
    "You give b one dimension of size one in the middle. That fits a stack [site, row, d_model] and no other. Give b "
    "as many as the stack has there.",
)
class BiasForOneDimensionBetween(Translators):
    def forward(self, stack):
        self.refuse(stack)
        return stack + einsum(stack, self.A, "site ... d, site d e -> site ... e") + self.b[:, None]


@wrong(
    "TunedLens",
    "Your module is made for a stack [site, row, d_model]: it counts on one dimension between sites and d_model. There "
    "may be any number of them, as in a stack [site, batch, pos, d_model].",
)
class OneDimensionBetween(Translators):
    def forward(self, stack):
        self.refuse(stack)
        return stack + stack @ self.A + self.b[:, None]


@right("TunedLens")
class SiteBySite(Translators):
    def forward(self, stack):
        self.refuse(stack)
        return torch.stack([h + h @ A + b for h, A, b in zip(stack, self.A, self.b, strict=True)])


@right("TunedLens")
class FlattenedAndBatched(Translators):
    def forward(self, stack):
        self.refuse(stack)
        flat = stack.reshape(len(stack), -1, stack.shape[-1])
        return stack + torch.baddbmm(self.b[:, None], flat, self.A).reshape(stack.shape)


# train_tuned_lens


def refuse_wrong_lens(lens, model, stack):
    if len(lens.A) != len(stack) - 1:
        raise ValueError("one translator for each site but the last")
    refuse_half_precision(lens, model, stack)


def refuse_half_precision(lens, model, stack):
    if {lens.A.dtype, model.unembed.W_U.dtype, stack.dtype} & {torch.float16, torch.bfloat16}:
        raise ValueError("not in half precision")


def train(
    lens,
    model,
    stack,
    n_steps,
    n_rows,
    lr,
    generator,
    *,
    loss_of=None,
    rate=None,
    draw=None,
    adam=torch.optim.Adam,
    fresh=True,
    order=lambda stack: stack.flatten(1, 2),
    refuse=refuse_wrong_lens,
    clear=True,
):
    """The training loop, with one thing or another done differently."""
    refuse(lens, model, stack)
    rows, losses = order(stack.detach()), []
    if clear:
        lens.zero_grad()
    optimizer = adam(lens.parameters(), lr=lr)
    for step in range(n_steps):
        drawn = (draw or torch.randint)(rows.shape[1], (n_rows,), generator=generator)
        final = logit_lens(model, rows[-1, drawn]).detach()
        guess = logit_lens(model, lens(rows[:-1, drawn]))
        loss = loss_of(guess, final) if loss_of else lens_kl(guess, final).mean(-1)
        losses.append(loss.detach())
        optimizer.param_groups[0]["lr"] = rate(step) if rate else lr * (1 - step / n_steps)
        if fresh:
            optimizer.zero_grad()
        loss.sum().backward(inputs=[lens.A, lens.b])
        optimizer.step()
    return torch.stack(losses)


@wrong(
    "train_tuned_lens",
    "You minimise KL(lens || final), with the two arguments of `lens_kl` exchanged. That lets the lens "
    "concentrate on one of several likely tokens and ignore the rest.",
)
def other_direction(lens, model, stack, *, n_steps, n_rows, lr, generator):
    return train(
        lens, model, stack, n_steps, n_rows, lr, generator, loss_of=lambda guess, final: lens_kl(final, guess).mean(-1)
    )


@wrong(
    "train_tuned_lens",
    "You trained on the final distribution's most likely token. The lens is to say what the model says, its "
    "doubts included: the whole distribution is the target.",
)
def top_token_as_target(lens, model, stack, *, n_steps, n_rows, lr, generator):
    def loss_of(guess, final):
        best = final.argmax(-1).expand(guess.shape[:-1]).unsqueeze(-1)
        return -guess.log_softmax(-1).gather(-1, best).squeeze(-1).mean(-1)

    return train(lens, model, stack, n_steps, n_rows, lr, generator, loss_of=loss_of)


@wrong(
    "train_tuned_lens",
    "Your learning rate stays where it starts. At its end the training then jumps about the best translator "
    "instead of settling; the docstring gives the rate of step i.",
)
def constant_learning_rate(lens, model, stack, *, n_steps, n_rows, lr, generator):
    return train(lens, model, stack, n_steps, n_rows, lr, generator, rate=lambda step: lr)


@wrong(
    "train_tuned_lens",
    "Your gradients pile up: what a step leaves in `.grad`, the next one adds to. Each step is to follow the gradient "
    "of its own rows.",
)
def gradients_piled_up(lens, model, stack, *, n_steps, n_rows, lr, generator):
    return train(lens, model, stack, n_steps, n_rows, lr, generator, fresh=False)


@wrong(
    "train_tuned_lens",
    "Your optimiser also shrinks the weights in every step, as AdamW does unless told otherwise. Here that pulls the "
    "lens back to the logit lens, whatever the loss says. Adam is asked for.",
)
def weights_decay(lens, model, stack, *, n_steps, n_rows, lr, generator):
    return train(lens, model, stack, n_steps, n_rows, lr, generator, adam=torch.optim.AdamW)


@wrong(
    "train_tuned_lens",
    "You called `backward()` on a loss that runs through the model's final norm and unembedding, and so left "
    "gradients in the model. Ask for the gradients of the lens alone.",
)
def gradients_left_in_the_model(lens, model, stack, *, n_steps, n_rows, lr, generator):
    losses = train(lens, model, stack, n_steps, n_rows, lr, generator)
    rows = stack.detach().flatten(1, 2)
    loss = lens_kl(logit_lens(model, lens(rows[:-1])), logit_lens(model, rows[-1]).detach()).mean()
    loss.backward()
    return losses


@wrong(
    "train_tuned_lens",
    "You cleared the model's gradients, yours and those that were there before. The latter belong to somebody who is "
    "training the model; ask for the gradients of the lens alone, and there is nothing to clear.",
)
def gradients_of_the_model_cleared(lens, model, stack, *, n_steps, n_rows, lr, generator):
    losses = train(lens, model, stack, n_steps, n_rows, lr, generator)
    model.zero_grad()
    return losses


@wrong(
    "train_tuned_lens",
    "You switched the model's gradients off and left them off. Whoever trains the model next finds that nothing "
    "learns.",
)
def gradients_of_the_model_switched_off(lens, model, stack, *, n_steps, n_rows, lr, generator):
    model.requires_grad_(False)
    return train(lens, model, stack, n_steps, n_rows, lr, generator)


@wrong(
    "train_tuned_lens",
    "You switched the model's gradients off and afterwards on again, for all of its weights. Some had been frozen, and "
    "are not any more: keep what was, or leave `requires_grad` alone.",
)
def all_weights_thawed(lens, model, stack, *, n_steps, n_rows, lr, generator):
    model.requires_grad_(False)
    losses = train(lens, model, stack, n_steps, n_rows, lr, generator)
    model.requires_grad_(True)
    return losses


@wrong(
    "train_tuned_lens",
    "A gradient that was in the lens before you began goes into your first step. Clear the lens's gradients before the "
    "first one, too.",
)
def first_step_with_an_old_gradient(lens, model, stack, *, n_steps, n_rows, lr, generator):
    refuse_wrong_lens(lens, model, stack)
    rows, losses = stack.detach().flatten(1, 2), []
    optimizer = torch.optim.Adam(lens.parameters(), lr=lr)
    for step in range(n_steps):
        drawn = torch.randint(rows.shape[1], (n_rows,), generator=generator)
        loss = lens_kl(logit_lens(model, lens(rows[:-1, drawn])), logit_lens(model, rows[-1, drawn]).detach()).mean(-1)
        losses.append(loss.detach())
        optimizer.param_groups[0]["lr"] = lr * (1 - step / n_steps)
        loss.sum().backward(inputs=[lens.A, lens.b])
        optimizer.step()
        optimizer.zero_grad()
    return torch.stack(losses)


@wrong(
    "train_tuned_lens",
    "Your learning rate is one step ahead: step 0 is to have `lr` itself, and the last one lr / n_steps, where yours "
    "has 0 and does nothing. (A scheduler that is called before the optimiser's step does that, too.)",
)
def schedule_one_step_ahead(lens, model, stack, *, n_steps, n_rows, lr, generator):
    return train(lens, model, stack, n_steps, n_rows, lr, generator, rate=lambda step: lr * (1 - (step + 1) / n_steps))


@wrong(
    "train_tuned_lens",
    "Your learning rate reaches 0 in the last step, as you divide by n_steps - 1. The docstring divides by n_steps.",
)
def schedule_down_to_zero(lens, model, stack, *, n_steps, n_rows, lr, generator):
    return train(
        lens, model, stack, n_steps, n_rows, lr, generator, rate=lambda step: lr * (1 - step / max(1, n_steps - 1))
    )


@wrong(
    "train_tuned_lens",
    "You report the loss behind each step, and the one before it is asked for: then the first row is the logit lens's.",
)
def losses_behind_the_step(lens, model, stack, *, n_steps, n_rows, lr, generator):
    refuse_wrong_lens(lens, model, stack)
    rows, losses = stack.detach().flatten(1, 2), []
    optimizer = torch.optim.Adam(lens.parameters(), lr=lr)
    lens.zero_grad()
    for step in range(n_steps):
        drawn = torch.randint(rows.shape[1], (n_rows,), generator=generator)
        final = logit_lens(model, rows[-1, drawn]).detach()
        optimizer.param_groups[0]["lr"] = lr * (1 - step / n_steps)
        loss = lens_kl(logit_lens(model, lens(rows[:-1, drawn])), final).mean(-1)
        lens.A.grad, lens.b.grad = torch.autograd.grad(loss.sum(), [lens.A, lens.b])
        optimizer.step()
        losses.append(lens_kl(logit_lens(model, lens(rows[:-1, drawn])), final).mean(-1).detach())
        optimizer.zero_grad()
    return torch.stack(losses)


@wrong(
    "train_tuned_lens",
    "Your steps are those of plain gradient descent. Adam divides each entry's step by the size of its gradients, and "
    "is asked for.",
)
def plain_gradient_descent(lens, model, stack, *, n_steps, n_rows, lr, generator):
    return train(lens, model, stack, n_steps, n_rows, lr, generator, adam=torch.optim.SGD)


@wrong(
    "train_tuned_lens",
    "Your list of rows goes position after position: the first positions of all texts come before all second ones. "
    "Text after text is asked for, so that row number i is position i % pos of text i // pos.",
)
def position_after_position(lens, model, stack, *, n_steps, n_rows, lr, generator):
    return train(
        lens, model, stack, n_steps, n_rows, lr, generator, order=lambda stack: stack.transpose(1, 2).flatten(1, 2)
    )


@wrong(
    "train_tuned_lens",
    "A lens with too few or too many translators goes through: you train as many sites as there are of both. The "
    "docstring names the error to raise.",
)
def any_number_of_translators(lens, model, stack, *, n_steps, n_rows, lr, generator):
    refuse_half_precision(lens, model, stack)
    n = min(len(lens.A), len(stack) - 1)
    if len(lens.A) == len(stack) - 1:
        return train(lens, model, stack, n_steps, n_rows, lr, generator)
    few = Translators(n, stack.shape[-1]).to(stack)
    few.forward = lambda stack: stack + stack @ few.A + few.b[:, None]
    return train(few, model, torch.cat([stack[:n], stack[-1:]]), n_steps, n_rows, lr, generator)


@wrong(
    "train_tuned_lens",
    "Half precision goes through, or fails with an error of PyTorch's. Adam's squares of small gradients round to 0 "
    "there, and the lens ends in NaN; the docstring names the error to raise.",
)
def in_any_precision(lens, model, stack, *, n_steps, n_rows, lr, generator):
    def refuse(lens, model, stack):
        if len(lens.A) != len(stack) - 1:
            raise ValueError("one translator for each site but the last")

    return train(lens, model, stack, n_steps, n_rows, lr, generator, refuse=refuse)


@wrong(
    "train_tuned_lens",
    "Your rows do not come from the generator that you were given, so that nobody can repeat the training. The "
    "docstring says how they are drawn.",
)
def rows_from_elsewhere(lens, model, stack, *, n_steps, n_rows, lr, generator):
    own = torch.Generator().manual_seed(987654321)
    return train(lens, model, stack, n_steps, n_rows, lr, own)


@wrong(
    "train_tuned_lens",
    "You draw rows without putting any back (`randperm`). The docstring gives the line that draws them, with which a "
    "row may come twice, and with which others get the rows that you get.",
)
def rows_without_replacement(lens, model, stack, *, n_steps, n_rows, lr, generator):
    def draw(n, size, generator):
        return torch.randperm(n, generator=generator)[: size[0]]

    return train(lens, model, stack, n_steps, n_rows, lr, generator, draw=draw)


@wrong(
    "train_tuned_lens",
    "You trained on the same first rows in every step. A lens that has seen few positions fits these, and not "
    "the others.",
)
def always_the_same_rows(lens, model, stack, *, n_steps, n_rows, lr, generator):
    return train(
        lens, model, stack, n_steps, n_rows, lr, generator, draw=lambda n, size, generator: torch.arange(size[0]) % n
    )


@wrong(
    "train_tuned_lens",
    "You report one number a step, the mean over sites. Each site has a loss of its own, and the question of "
    "the chapter is how they differ.",
)
def sites_averaged(lens, model, stack, *, n_steps, n_rows, lr, generator):
    return train(lens, model, stack, n_steps, n_rows, lr, generator).mean(-1)


@wrong(
    "train_tuned_lens",
    "The lens never changes: losses are reported, and no step is taken.",
)
def no_step_taken(lens, model, stack, *, n_steps, n_rows, lr, generator):
    return train(lens, model, stack, n_steps, n_rows, lr, generator, rate=lambda step: 0.0)


@wrong(
    "train_tuned_lens",
    "You never clear the lens's gradients: every step follows the sum of all those before it, and the first one what "
    "was left in the lens before you began.",
)
def gradients_never_cleared(lens, model, stack, *, n_steps, n_rows, lr, generator):
    return train(lens, model, stack, n_steps, n_rows, lr, generator, fresh=False, clear=False)


@wrong(
    "train_tuned_lens",
    "You add the divergences of the rows up. The loss of a site is their mean, so that it can be compared between "
    "trainings with few rows and with many.",
)
def summed_over_rows(lens, model, stack, *, n_steps, n_rows, lr, generator):
    return train(
        lens, model, stack, n_steps, n_rows, lr, generator, loss_of=lambda guess, final: lens_kl(guess, final).sum(-1)
    )


@wrong(
    "train_tuned_lens",
    "You draw the rows once, before the loop, and train on the same ones in every step. Each step has a draw of its "
    "own.",
)
def one_draw_for_all_steps(lens, model, stack, *, n_steps, n_rows, lr, generator):
    drawn = []

    def draw(n, size, generator):
        drawn.append(drawn[0] if drawn else torch.randint(n, size, generator=generator))
        return drawn[0]

    return train(lens, model, stack, n_steps, n_rows, lr, generator, draw=draw)


@right("train_tuned_lens")
def with_a_scheduler(lens, model, stack, *, n_steps, n_rows, lr, generator):
    refuse_wrong_lens(lens, model, stack)
    rows, losses = stack.detach().reshape(len(stack), -1, stack.shape[-1]), []
    optimizer = torch.optim.Adam(lens.parameters(), lr=lr)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / n_steps)
    final = logit_lens(model, rows[-1]).detach()
    for _ in range(n_steps):
        drawn = torch.randint(rows.shape[1], (n_rows,), generator=generator)
        loss = lens_kl(logit_lens(model, lens(rows[:-1, drawn])), final[drawn]).mean(-1)
        losses.append(loss.detach().clone())
        lens.A.grad, lens.b.grad = torch.autograd.grad(loss.sum(), [lens.A, lens.b])
        optimizer.step()
        schedule.step()
    return torch.stack(losses)


@right("train_tuned_lens")
def with_backward_on_the_lens_alone(lens, model, stack, *, n_steps, n_rows, lr, generator):
    refuse_wrong_lens(lens, model, stack)
    rows, losses = stack.detach().flatten(1, 2), torch.zeros(n_steps, len(lens.A))
    optimizer = torch.optim.Adam(lens.parameters(), lr=lr)
    for step in range(n_steps):
        drawn = torch.randint(rows.shape[1], (n_rows,), generator=generator)
        for group in optimizer.param_groups:
            group["lr"] = lr * (n_steps - step) / n_steps
        optimizer.zero_grad()
        loss = lens_kl(logit_lens(model, lens(rows[:-1, drawn])), logit_lens(model, rows[-1, drawn]).detach()).mean(-1)
        loss.sum().backward(inputs=list(lens.parameters()))
        losses[step] = loss.detach()
        optimizer.step()
    return losses
