"""Wrong answers for the toy models' features, modules and losses, each with its sentence, and right ones."""

import torch
from torch import nn

from utils.course.catalogue import right, wrong

# sample_features


def probabilities(n_features, p):
    """[model, feature], or ValueError."""
    p = torch.as_tensor(p, dtype=torch.float32)
    if p.ndim > 2 or (p.ndim == 2 and p.shape[1] != n_features):
        raise ValueError("p does not fit")
    if not ((p >= 0) & (p <= 1)).all():
        raise ValueError("no probability")
    return (p.reshape(1, 1) if p.ndim == 0 else p.reshape(len(p), -1)).expand(-1, n_features)


def uniform(*shape, generator):
    return torch.rand(shape, generator=generator)


@wrong(
    "sample_features",
    "Your features are off where they should be on, and on where they should be off. p is the probability of being on; "
    "the paper's S is that of being off.",
)
def p_is_off(n_features, batch, p, generator=None):
    p = probabilities(n_features, p)
    on = uniform(len(p), batch, n_features, generator=generator) >= p[:, None]
    return uniform(len(p), batch, n_features, generator=generator) * on


@wrong(
    "sample_features",
    "A feature that is on is 1 with you. It should have a size of its own, uniform between 0 and 1.",
)
def ones_when_on(n_features, batch, p, generator=None):
    p = probabilities(n_features, p)
    return (uniform(len(p), batch, n_features, generator=generator) < p[:, None]).float()


@wrong(
    "sample_features",
    "With you all features of an example are on or off together. Each has a draw of its own.",
)
def one_draw_for_all_features(n_features, batch, p, generator=None):
    p = probabilities(n_features, p)
    on = uniform(len(p), batch, 1, generator=generator) < p[:, None]
    return uniform(len(p), batch, n_features, generator=generator) * on


@wrong(
    "sample_features",
    "All your models get the same examples. Those of different models are to be drawn independently.",
)
def the_same_for_all_models(n_features, batch, p, generator=None):
    p = probabilities(n_features, p)
    on = uniform(1, batch, n_features, generator=generator) < p[:, None]
    return uniform(1, batch, n_features, generator=generator) * on


@wrong(
    "sample_features",
    "A feature's size tells how probable it is: you keep a draw where it lies below p, and so nothing that is on is "
    "larger than p. Being on and being large are two questions.",
)
def one_draw_for_both(n_features, batch, p, generator=None):
    p = probabilities(n_features, p)
    drawn = uniform(len(p), batch, n_features, generator=generator)
    return torch.where(drawn < p[:, None], drawn, 0.0)


@wrong(
    "sample_features",
    "You take a p of shape [model] for one probability for each feature. A row for features is [model, feature].",
)
def a_row_is_for_features(n_features, batch, p, generator=None):
    full = probabilities(n_features, p)
    if torch.as_tensor(p).ndim == 1 and len(full) == n_features:
        full = full.T
    on = uniform(len(full), batch, n_features, generator=generator) < full[:, None]
    return uniform(len(full), batch, n_features, generator=generator) * on


@wrong(
    "sample_features",
    "A p that is no probability goes through. Whatever lies below 0 or above 1 is to be refused.",
)
def anything_goes(n_features, batch, p, generator=None):
    full = probabilities(n_features, torch.as_tensor(p).clamp(0, 1))
    on = uniform(len(full), batch, n_features, generator=generator) < full[:, None]
    return uniform(len(full), batch, n_features, generator=generator) * on


@wrong(
    "sample_features",
    "Without a generator your features are the same at each call: the draws come from a seed of your own, and not from "
    "torch's global generator.",
)
def seed_of_its_own(n_features, batch, p, generator=None):
    generator = generator or torch.Generator().manual_seed(0)
    p = probabilities(n_features, p)
    on = uniform(len(p), batch, n_features, generator=generator) < p[:, None]
    return uniform(len(p), batch, n_features, generator=generator) * on


@right("sample_features")
def stretched(n_features, batch, p, generator=None):
    """One draw for both questions: where it lies below p, it is uniform there."""
    p = probabilities(n_features, p)[:, None]
    drawn = uniform(len(p), batch, n_features, generator=generator)
    return torch.where(drawn < p, drawn / p.clamp(min=1e-12), 0.0)


@right("sample_features")
def model_by_model(n_features, batch, p, generator=None):
    found = []
    for row in probabilities(n_features, p):
        on = torch.bernoulli(row.expand(batch, -1), generator=generator)
        found.append(on * uniform(batch, n_features, generator=generator))
    return torch.stack(found)


# ToyModel


class Base(nn.Module):
    """What the answers share: where the weights start, and whether there is a ReLU."""

    def __init__(self, n_models, n_features, d_hidden, *, relu=True, generator=None):
        super().__init__()
        scale = (2 / (d_hidden + n_features)) ** 0.5
        self.W = nn.Parameter(scale * torch.randn(n_models, d_hidden, n_features, generator=generator))
        self.b = nn.Parameter(torch.zeros(n_models, n_features))
        self.relu = relu

    def end(self, output):
        return output.relu() if self.relu else output

    def forward(self, features):
        return self.end(features @ self.W.mT @ self.W + self.b[:, None])


@wrong("ToyModel", "Your bias has no say in the output: a feature can't be shifted below the ReLU.")
class WithoutBias(Base):
    def forward(self, features):
        return self.end(features @ self.W.mT @ self.W + 0 * self.b[:, None])


@wrong(
    "ToyModel",
    "Your ReLU is there whether `relu` says so or not, and a linear model is what we compare with.",
)
class AlwaysRelu(Base):
    def end(self, output):
        return output.relu()


@wrong("ToyModel", "There is no ReLU at the end. It is what makes small interference harmless.")
class NeverRelu(Base):
    def end(self, output):
        return output


@wrong(
    "ToyModel",
    "Your ReLU stands at the hidden dimensions as well. The paper's has none there: features are to be stored by "
    "direction, and a direction has two ends.",
)
class HiddenRelu(Base):
    def forward(self, features):
        hidden = features @ self.W.mT
        return self.end((hidden.relu() if self.relu else hidden) @ self.W + self.b[:, None])


@wrong(
    "ToyModel",
    "Your models see each other: one model's weights change another's output. Each has its own examples and its own W.",
)
class MeanOfModels(Base):
    def forward(self, features):
        W = self.W + 0.1 * (self.W.mean(0, keepdim=True) - self.W)
        return self.end(features @ W.mT @ W + self.b[:, None])


@wrong(
    "ToyModel",
    "Your weights start elsewhere than the docstring says: it scales them by sqrt(2 / (d_hidden + n_features)).",
)
class UnscaledStart(Base):
    def __init__(self, n_models, n_features, d_hidden, *, relu=True, generator=None):
        super().__init__(n_models, n_features, d_hidden, relu=relu, generator=generator)
        self.W.data.mul_((d_hidden + n_features) ** 0.5)


@wrong("ToyModel", "No gradient reaches W on the way back out: the copy that reads is cut from the one that stores.")
class Untied(Base):
    def forward(self, features):
        return self.end(features @ self.W.mT @ self.W.detach() + self.b[:, None])


@wrong(
    "ToyModel",
    "Without a generator your models start from the same weights each time: the draws come from a seed of your own, "
    "and not from torch's global generator.",
)
class SeedOfItsOwn(Base):
    def __init__(self, n_models, n_features, d_hidden, *, relu=True, generator=None):
        generator = generator or torch.Generator().manual_seed(0)
        super().__init__(n_models, n_features, d_hidden, relu=relu, generator=generator)


@wrong("ToyModel", "Your bias is added after the ReLU. There it can't hold interference below zero.")
class BiasAfterRelu(Base):
    def forward(self, features):
        return self.end(features @ self.W.mT @ self.W) + self.b[:, None]


@right("ToyModel")
class ByLoop(Base):
    def forward(self, features):
        one_by_one = zip(features, self.W, self.b, strict=True)
        return self.end(torch.stack([(W.T @ (W @ x.T)).T + b for x, W, b in one_by_one]))


@right("ToyModel")
class ByBmm(Base):
    def forward(self, features):
        hidden = torch.bmm(features, self.W.transpose(1, 2))
        output = torch.baddbmm(self.b.unsqueeze(1), hidden, self.W)
        return torch.clamp(output, min=0) if self.relu else output


# toy_loss


def weighted(errors, importance):
    """Squared errors [model, batch, feature], weighted."""
    if importance is None:
        return errors
    return errors * (importance if importance.ndim == 1 else importance[:, None])


@wrong(
    "toy_loss",
    "Your loss is a mean over features as well. Each feature's cost should not depend on how many there are.",
)
def mean_over_features(output, features, importance=None):
    return weighted((output - features).square(), importance).mean((1, 2))


@wrong("toy_loss", "Your loss is a sum over examples. It should be their mean, or it grows with the batch.")
def sum_over_examples(output, features, importance=None):
    return weighted((output - features).square(), importance).sum((1, 2))


@wrong(
    "toy_loss",
    "You add up over models: training needs one number, but a comparison of starts needs each model's own.",
)
def over_models(output, features, importance=None):
    return weighted((output - features).square(), importance).mean(1).sum()


@wrong("toy_loss", "Importance does not count with you.")
def unweighted(output, features, importance=None):
    return weighted((output - features).square(), None).mean(1).sum(-1)


@wrong("toy_loss", "You weight before you square: an importance of 0.5 then counts 0.25.")
def weighted_before_squaring(output, features, importance=None):
    return weighted(output - features, importance).square().mean(1).sum(-1)


@wrong("toy_loss", "Your errors are absolute ones, where the docstring says squared.")
def absolute(output, features, importance=None):
    return weighted((output - features).abs(), importance).mean(1).sum(-1)


@right("toy_loss")
def by_loop(output, features, importance=None):
    losses = []
    for m in range(len(output)):
        total = 0.0
        for i in range(output.shape[-1]):
            weight = 1.0 if importance is None else importance[i] if importance.ndim == 1 else importance[m, i]
            total = total + weight * ((features[m, :, i] - output[m, :, i]) ** 2).mean()
        losses.append(total)
    return torch.stack(losses)


@right("toy_loss")
def by_einsum(output, features, importance=None):
    n_models, batch, n_features = output.shape
    weights = torch.ones(n_models, n_features) if importance is None else importance.expand(n_models, n_features)
    return torch.einsum("mbf,mf->m", (output - features) ** 2, weights) / batch


# best_linear_loss


def lost(costs, d_hidden):
    return costs.sort(dim=-1, descending=True).values[..., d_hidden:].sum(-1)


def times(costs, importance):
    return costs if importance is None else costs * importance


@wrong(
    "best_linear_loss",
    "You take the mean square of a feature, p / 3. A bias can give back the mean for nothing, so that "
    "only the variance "
    "around it is lost: less.",
)
def mean_square(p, d_hidden, importance=None):
    return lost(times(p / 3, importance), d_hidden)


@wrong("best_linear_loss", "You add up what is kept. The loss is what finds no place.")
def what_is_kept(p, d_hidden, importance=None):
    costs = times(p / 3 - p**2 / 4, importance)
    return costs.sum(-1) - lost(costs, d_hidden)


@wrong("best_linear_loss", "You keep the features that cost least. The dimensions go to those that cost most.")
def least_first(p, d_hidden, importance=None):
    return times(p / 3 - p**2 / 4, importance).sort(dim=-1).values[..., d_hidden:].sum(-1)


@wrong(
    "best_linear_loss",
    "You choose whom to keep by variance alone, and weight afterwards. A feature is worth its importance "
    "times its variance.",
)
def by_variance_alone(p, d_hidden, importance=None):
    costs = p / 3 - p**2 / 4
    order = costs.argsort(dim=-1, descending=True)
    return times(costs, importance).gather(-1, order)[..., d_hidden:].sum(-1)


@wrong(
    "best_linear_loss",
    "You choose whom to keep by importance alone. A feature that is hardly ever on loses little, however important.",
)
def by_importance_alone(p, d_hidden, importance=None):
    weights = torch.ones_like(p) if importance is None else importance.expand_as(p)
    order = (weights + 1e-9 * p * weights).argsort(dim=-1, descending=True, stable=True)
    costs = times(p / 3 - p**2 / 4, importance)
    if importance is None:
        return lost(costs, d_hidden)
    return costs.gather(-1, order)[..., d_hidden:].sum(-1)


@wrong(
    "best_linear_loss",
    "Your variance is p (1 - p), that of a feature that is 0 or 1. Ours has sizes between 0 and 1.",
)
def variance_of_a_coin(p, d_hidden, importance=None):
    return lost(times(p * (1 - p), importance), d_hidden)


@right("best_linear_loss")
def all_less_the_largest(p, d_hidden, importance=None):
    costs = times(p * (4 - 3 * p) / 12, importance)
    kept = costs.topk(min(d_hidden, p.shape[-1]), dim=-1).values.sum(-1)
    return (costs.sum(-1) - kept).clamp(min=0)


@right("best_linear_loss")
def row_by_row(p, d_hidden, importance=None):
    rows = times(p / 3 - p**2 / 4, importance).reshape(-1, p.shape[-1])
    found = torch.tensor([sum(sorted(row.tolist())[: max(0, len(row) - d_hidden)]) for row in rows])
    return found.reshape(p.shape[:-1])
