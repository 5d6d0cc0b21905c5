"""Wrong and right answers for the residual MLP and its decomposition."""

import torch

from utils.course.catalogue import right, wrong
from utils.spd.gates import causal_importance
from utils.spd.losses import mean_squared_error
from utils.spd.residual_mlp import residual_mlp_forward, signed_features
from utils.spd.training import train_spd

# residual_mlp_forward


@wrong("residual_mlp_forward", "Your stream is not kept: the MLP's output is to be added to it, not to replace it.")
def without_the_stream(W_E):
    return lambda x, linear: linear("W_out", linear("W_in", x @ W_E).relu()) @ W_E.T


@wrong("residual_mlp_forward", "Your MLP has no ReLU: both matrices together are one linear map.")
def without_relu(W_E):
    def forward(x, linear):
        r = x @ W_E
        return (r + linear("W_out", linear("W_in", r))) @ W_E.T

    return forward


@wrong(
    "residual_mlp_forward",
    "You return the stream. The features are to be read back from it, by the embedding's transpose.",
)
def not_read_back(W_E):
    def forward(x, linear):
        r = x @ W_E
        return r + linear("W_out", linear("W_in", r).relu())

    return forward


@wrong(
    "residual_mlp_forward",
    "A ReLU stands behind your W_out as well: the MLP could then only ever add, along each dimension of the stream.",
)
def relu_behind(W_E):
    def forward(x, linear):
        r = x @ W_E
        return (r + linear("W_out", linear("W_in", r).relu()).relu()) @ W_E.T

    return forward


@wrong(
    "residual_mlp_forward",
    "You add the inputs at the end, in place of the stream. Where embeddings are not at right angles, reading back "
    "what was embedded does not give the features.",
)
def features_added(W_E):
    return lambda x, linear: x + linear("W_out", linear("W_in", x @ W_E).relu()) @ W_E.T


@wrong("residual_mlp_forward", "Your inputs may have one batch dimension alone: with two, or none, it fails.")
def with_mm(W_E):
    def forward(x, linear):
        r = torch.mm(x, W_E)
        return torch.mm(r + linear("W_out", linear("W_in", r).relu()), W_E.T)

    return forward


@wrong(
    "residual_mlp_forward",
    "Your network gives the right numbers, and no gradient gets back through its MLP: nothing could be trained.",
)
def cut_off(W_E):
    def forward(x, linear):
        r = x @ W_E
        return (r + linear("W_out", linear("W_in", r).relu()).detach()) @ W_E.T

    return forward


@right("residual_mlp_forward")
def by_einsum(W_E):
    def forward(x, linear):
        stream = torch.einsum("...f,fd->...d", x, W_E)
        hidden = torch.clamp(linear("W_in", stream), min=0)
        return torch.einsum("...d,fd->...f", stream + linear("W_out", hidden), W_E)

    return forward


# residual_mlp_spd


def spd(W_E, weights, *, C, price, n_steps, lr=8e-3, batch=256, seed=0, forward=None, draw=None, **more):
    return train_spd(
        forward or residual_mlp_forward(W_E),
        weights,
        draw or signed_features(len(W_E), batch),
        C=C,
        price=price,
        n_steps=n_steps,
        lr=lr,
        seed=seed,
        **more,
    )


@wrong("residual_mlp_spd", "Your inputs come with another probability than the one that signed_features has by itself.")
def rarer(W_E, weights, *, batch=256, **settings):
    return spd(W_E, weights, draw=signed_features(len(W_E), batch, 0.45), **settings)


@wrong("residual_mlp_spd", "Your exponent of the price is 2, as in the paper's residual MLPs; here it is 1.")
def squared_price(W_E, weights, **settings):
    return spd(W_E, weights, p=2.0, **settings)


@wrong("residual_mlp_spd", "You hand over a batch size that is always the same, whatever the caller asks for.")
def own_batch(W_E, weights, *, batch=256, **settings):
    return spd(W_E, weights, batch=256, **settings)


@wrong("residual_mlp_spd", "You use your own seed in place of the one that is given.")
def own_seed(W_E, weights, *, seed=0, **settings):
    return spd(W_E, weights, seed=12345, **settings)


@wrong(
    "residual_mlp_spd",
    "Your batches have as many features as the stream has dimensions. There are as many as the embedding has rows.",
)
def dimensions_for_features(W_E, weights, *, batch=256, **settings):
    draw = signed_features(W_E.shape[1], batch)
    return spd(W_E, weights, draw=lambda generator: draw(generator)[:, : len(W_E)], **settings)


@right("residual_mlp_spd")
def spelt_out(W_E, weights, *, C, price, n_steps, lr=8e-3, batch=256, seed=0):
    source = signed_features(W_E.shape[0], batch=batch)
    return train_spd(
        residual_mlp_forward(W_E), dict(weights), lambda g: source(g), C=C, price=price, p=1.0, n_steps=n_steps, lr=lr,
        distance=mean_squared_error, weigh={"faithfulness": 1.0, "stochastic": 1.0, "layerwise": 1.0}, seed=seed,
    )  # fmt: skip


# importance_by_feature


@wrong("importance_by_feature", "You try the features at 1 alone: the values that are given have no say.")
def at_one(gates, components, W_E, values=(-0.9, -0.5, 0.5, 0.9)):
    return causal_importance(gates, components.V, W_E)[0].clamp(min=0)


@wrong(
    "importance_by_feature",
    "You take the mean over the values. A component that is needed for one sign alone is then half needed.",
)
def mean_over_values(gates, components, W_E, values=(-0.9, -0.5, 0.5, 0.9)):
    return torch.stack([causal_importance(gates, components.V, v * W_E)[0] for v in values]).mean(0).clamp(min=0)


@wrong(
    "importance_by_feature", "Your importances go below 0: the lower-leaky sigmoid does, and here it is to be cut off."
)
def below_zero(gates, components, W_E, values=(-0.9, -0.5, 0.5, 0.9)):
    return torch.stack([causal_importance(gates, components.V, v * W_E)[0] for v in values]).amax(0)


@wrong("importance_by_feature", "You use the upper-leaky importances, which are for the price and go above 1.")
def upper(gates, components, W_E, values=(-0.9, -0.5, 0.5, 0.9)):
    return torch.stack([causal_importance(gates, components.V, v * W_E)[1] for v in values]).amax(0).clamp(min=0)


@wrong("importance_by_feature", "Your negative values have no say. A component may be needed for negative values only.")
def largest_alone(gates, components, W_E, values=(-0.9, -0.5, 0.5, 0.9)):
    return causal_importance(gates, components.V, max(values) * W_E)[0].clamp(min=0)


@right("importance_by_feature")
def one_batch(gates, components, W_E, values=(-0.9, -0.5, 0.5, 0.9)):
    inputs = torch.tensor(values)[:, None, None] * W_E
    lower, _ = causal_importance(gates, components.V, inputs)
    return lower.relu().max(dim=0).values
