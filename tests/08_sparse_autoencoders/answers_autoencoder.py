"""Wrong answers for the autoencoder, its loss and its starting point, each with its sentence, and right ones."""

import torch
from torch import nn

from utils.course.catalogue import right, wrong


class Base(nn.Module):
    """What the answers share."""

    def __init__(self, d_in, d_sae, *, generator=None):
        super().__init__()
        rows = torch.randn(d_sae, d_in, generator=generator)
        rows = rows / rows.norm(dim=1, keepdim=True)
        self.W_dec = nn.Parameter(rows)
        self.W_enc = nn.Parameter(rows.T.clone())
        self.b_enc = nn.Parameter(torch.zeros(d_sae))
        self.b_dec = nn.Parameter(torch.zeros(d_in))

    def encode(self, x):
        return (x @ self.W_enc + self.b_enc).relu()

    def decode(self, z):
        return z @ self.W_dec + self.b_dec

    def forward(self, x):
        z = self.encode(x)
        return self.decode(z), z


@wrong("SparseAutoencoder", "Your latents can be negative: a ReLU is missing behind the encoder.")
class WithoutRelu(Base):
    def encode(self, x):
        return x @ self.W_enc + self.b_enc


@wrong(
    "SparseAutoencoder",
    "You subtract b_dec before the encoder, as Bricken et al. do. The form of this course reads x itself.",
)
class ReadsLessBias(Base):
    def encode(self, x):
        return ((x - self.b_dec) @ self.W_enc + self.b_enc).relu()


@wrong(
    "SparseAutoencoder", "Your call gives the latents first and the reconstruction second: it is the other way round."
)
class OtherOrder(Base):
    def forward(self, x):
        z = self.encode(x)
        return z, self.decode(z)


@wrong("SparseAutoencoder", "Your call gives the reconstruction alone. The loss needs the latents, too.")
class ReconstructionAlone(Base):
    def forward(self, x):
        return self.decode(self.encode(x))


@wrong(
    "SparseAutoencoder",
    "Your encoder's bias has no say: without it no latent has a threshold of its own to keep interference out.",
)
class WithoutEncoderBias(Base):
    def encode(self, x):
        return (x @ self.W_enc + 0 * self.b_enc).relu()


@wrong("SparseAutoencoder", "Your decoder's bias has no say in the reconstruction.")
class WithoutDecoderBias(Base):
    def decode(self, z):
        return z @ self.W_dec + 0 * self.b_dec


@wrong(
    "SparseAutoencoder",
    "Your encoder is tied to the decoder: it reads with W_dec's transpose, whatever W_enc holds. It only starts there.",
)
class Tied(Base):
    def encode(self, x):
        return (x @ self.W_dec.T + 0 * self.W_enc.sum() + self.b_enc).relu()


@wrong("SparseAutoencoder", "Your directions do not start at length 1: divide each row by its length.")
class LongRows(Base):
    def __init__(self, d_in, d_sae, *, generator=None):
        super().__init__(d_in, d_sae)
        rows = torch.randn(d_sae, d_in, generator=generator)
        self.W_dec.data, self.W_enc.data = rows, rows.T.clone()


@wrong("SparseAutoencoder", "Your start divides columns of W_dec by their lengths. Each direction is a row.")
class ColumnsOfLengthOne(Base):
    def __init__(self, d_in, d_sae, *, generator=None):
        super().__init__(d_in, d_sae)
        rows = torch.randn(d_sae, d_in, generator=generator)
        rows = rows / rows.norm(dim=0)
        self.W_dec.data, self.W_enc.data = rows, rows.T.clone()


@wrong(
    "SparseAutoencoder",
    "Your W_enc shares its memory with W_dec: whatever changes one changes the other, and they stay tied. Make a copy.",
)
class SharedMemory(Base):
    def __init__(self, d_in, d_sae, *, generator=None):
        super().__init__(d_in, d_sae, generator=generator)
        self.W_enc = nn.Parameter(self.W_dec.data.T)


@wrong("SparseAutoencoder", "There is a ReLU on your reconstruction. Activations may be negative.")
class ReluAtTheEnd(Base):
    def decode(self, z):
        return (z @ self.W_dec + self.b_dec).relu()


@wrong(
    "SparseAutoencoder",
    "Your ReLU stands in forward alone. Whoever calls encode gets pre-activations, many of them below 0, for latents.",
)
class ReluInForwardAlone(Base):
    def encode(self, x):
        return x @ self.W_enc + self.b_enc

    def forward(self, x):
        z = self.encode(x).relu()
        return self.decode(z), z


@right("SparseAutoencoder")
class WithLinear(Base):
    def encode(self, x):
        return nn.functional.linear(x, self.W_enc.T, self.b_enc).clamp(min=0)

    def decode(self, z):
        return nn.functional.linear(z, self.W_dec.T, self.b_dec)


@right("SparseAutoencoder")
class WithEinsum(Base):
    def forward(self, x):
        z = torch.einsum("...d,ds->...s", x, self.W_enc) + self.b_enc
        z = torch.where(z > 0, z, torch.zeros_like(z))
        return torch.einsum("...s,sd->...d", z, self.W_dec) + self.b_dec, z


# l1_sae_loss


@wrong(
    "l1_sae_loss",
    "Your squared error is a mean over dimensions. As a sum, λ means the same whatever the number of dimensions.",
)
def mean_over_dimensions(x, x_hat, z, W_dec, l1_coefficient):
    return (x - x_hat).square().mean() + l1_coefficient * (z @ W_dec.norm(dim=1)).mean()


@wrong("l1_sae_loss", "Your price leaves the rows' lengths out: it can be dodged by small latents with long rows.")
def without_lengths(x, x_hat, z, W_dec, l1_coefficient):
    return (x - x_hat).square().sum(1).mean() + l1_coefficient * z.sum(1).mean()


@wrong(
    "l1_sae_loss", "Your price is a mean over latents. Each latent costs what it costs, however many others there are."
)
def mean_over_latents(x, x_hat, z, W_dec, l1_coefficient):
    return (x - x_hat).square().sum(1).mean() + l1_coefficient * (z * W_dec.norm(dim=1)).mean()


@wrong("l1_sae_loss", "Your loss is a sum over the batch, so that it grows with the batch's size.")
def sum_over_batch(x, x_hat, z, W_dec, l1_coefficient):
    return (x - x_hat).square().sum() + l1_coefficient * (z @ W_dec.norm(dim=1)).sum()


@wrong(
    "l1_sae_loss",
    "You take the length of columns of W_dec, one for each dimension of x. A latent's direction is a row.",
)
def lengths_of_columns(x, x_hat, z, W_dec, l1_coefficient):
    columns = W_dec.norm(dim=0)
    price = z.sum(1) * columns.mean()
    return ((x - x_hat).square().sum(1) + l1_coefficient * price).mean()


@wrong("l1_sae_loss", "You price squared latents: that makes all of them small, and none of them 0.")
def squared_latents(x, x_hat, z, W_dec, l1_coefficient):
    return ((x - x_hat).square().sum(1) + l1_coefficient * (z.square() @ W_dec.norm(dim=1))).mean()


@wrong("l1_sae_loss", "You take the length of the error and not its square.")
def not_squared(x, x_hat, z, W_dec, l1_coefficient):
    error = ((x - x_hat).square().sum(1) + 1e-12).sqrt()
    return (error + l1_coefficient * (z @ W_dec.norm(dim=1))).mean()


@wrong("l1_sae_loss", "The decoder gets no gradient from your price: its lengths are taken as constants.")
def lengths_detached(x, x_hat, z, W_dec, l1_coefficient):
    lengths = W_dec.detach().norm(dim=1) + 0 * W_dec.sum(1)
    return ((x - x_hat).square().sum(1) + l1_coefficient * (z @ lengths)).mean()


@right("l1_sae_loss")
def two_terms(x, x_hat, z, W_dec, l1_coefficient):
    batch = len(x)
    error = torch.nn.functional.mse_loss(x_hat, x, reduction="sum") / batch
    return error + l1_coefficient * (z.abs() * torch.linalg.vector_norm(W_dec, dim=1)).sum() / batch


@right("l1_sae_loss")
def row_by_row(x, x_hat, z, W_dec, l1_coefficient):
    rows = [((a - b) ** 2).sum() + l1_coefficient * (c * (W_dec**2).sum(1).sqrt()).sum()
            for a, b, c in zip(x, x_hat, z, strict=True)]  # fmt: skip
    return sum(rows) / len(rows)


# geometric_median


def weiszfeld(x, n_steps, start, weigh):
    place = start
    for _ in range(n_steps):
        weights = weigh((x - place).norm(dim=1))
        place = (weights[:, None] * x).sum(0) / weights.sum()
    return place


@wrong("geometric_median", "You return the mean. A few far points drag it along.")
def the_mean(x, n_steps=100, eps=1e-6):
    return x.mean(0)


@wrong("geometric_median", "You return the median of each dimension by itself: it changes if the axes are turned.")
def dimension_by_dimension(x, n_steps=100, eps=1e-6):
    return x.median(0).values


@wrong("geometric_median", "Where a point lies at the present place you divide by 0.")
def without_eps(x, n_steps=100, eps=1e-6):
    return weiszfeld(x, n_steps, x.mean(0), lambda d: 1 / (d if eps < 1e-3 else d.clamp(min=eps)))


@wrong("geometric_median", "You weigh by the inverse of the squared distance. That looks for another point.")
def squared_distances(x, n_steps=100, eps=1e-6):
    return weiszfeld(x, n_steps, x.mean(0), lambda d: 1 / d.clamp(min=eps) ** 2)


@wrong("geometric_median", "You take one step too few.")
def one_step_less(x, n_steps=100, eps=1e-6):
    return weiszfeld(x, n_steps - 1, x.mean(0), lambda d: 1 / d.clamp(min=eps))


@wrong("geometric_median", "You weigh once, from the mean. Each step has to weigh anew, from where it stands.")
def weighed_once(x, n_steps=100, eps=1e-6):
    weights = 1 / (x - x.mean(0)).norm(dim=1).clamp(min=eps)
    return (weights @ x) / weights.sum() if n_steps else x.mean(0)


@wrong("geometric_median", "You take one step too many.")
def one_step_more(x, n_steps=100, eps=1e-6):
    return weiszfeld(x, n_steps + 1, x.mean(0), lambda d: 1 / d.clamp(min=eps))


@wrong("geometric_median", "You start at the first point and not at the mean.")
def from_the_first(x, n_steps=100, eps=1e-6):
    return weiszfeld(x, n_steps, x[0], lambda d: 1 / d.clamp(min=eps))


@wrong("geometric_median", "You add eps to the distances: a point at least eps away should count with its distance.")
def eps_added(x, n_steps=100, eps=1e-6):
    return weiszfeld(x, n_steps, x.mean(0), lambda d: 1 / (d + eps))


@wrong("geometric_median", "You weigh by the distance, so that far points count most.")
def by_distance(x, n_steps=100, eps=1e-6):
    return weiszfeld(x, n_steps, x.mean(0), lambda d: d.clamp(min=eps))


@right("geometric_median")
def with_softmax(x, n_steps=100, eps=1e-6):
    place = x.mean(0)
    for _ in range(n_steps):
        distance = torch.cdist(x[None], place[None, None], compute_mode="donot_use_mm_for_euclid_dist")[0, :, 0]
        place = torch.softmax(-distance.clamp(min=eps).log(), 0) @ x
    return place


@right("geometric_median")
def by_steps(x, n_steps=100, eps=1e-6):
    """The same as a step down the gradient of the sum of distances."""
    place = x.mean(0)
    for _ in range(n_steps):
        away = x - place
        distance = away.square().sum(1).sqrt().clamp(min=eps)
        place = place + (away / distance[:, None]).sum(0) / (1 / distance).sum()
    return place
