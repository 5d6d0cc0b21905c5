"""A small sparse autoencoder on one layer of the model, and which of its latents stand for a feature with a name.

Sources: Gao et al. (2024), "Scaling and evaluating sparse autoencoders", arXiv 2406.04093 (TopK, AuxK, the
initialisation); Bricken et al. (2023), "Towards Monosemanticity" (loss recovered).
"""

from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from utils.data.prompts import documents, token_labels
from utils.models.phenomena.measuring import Estimate, mean, ratio, untrained

if TYPE_CHECKING:
    from transformer_lens import HookedTransformer

LAYER = 1
N_TRAIN, N_TEST = 3200, 300
GOOD = 0.8
THRESHOLDS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6)


class TopK(NamedTuple):
    """A sparse autoencoder that keeps the k largest latents of each input.

    Attributes:
        encoder, encoder_bias: Into the latents.
        decoder: One row for each latent, of length 1.
        bias: Subtracted before encoding, added after decoding.
        k: How many latents are left.
    """

    encoder: Float[Tensor, "d_model d_sae"]
    encoder_bias: Float[Tensor, " d_sae"]
    decoder: Float[Tensor, "d_sae d_model"]
    bias: Float[Tensor, " d_model"]
    k: int

    def pre(self, x: Float[Tensor, "n d_model"]) -> Float[Tensor, "n d_sae"]:
        """The latents before the choice of the k largest."""
        return ((x - self.bias) @ self.encoder + self.encoder_bias).relu()

    def encode(self, x: Float[Tensor, "n d_model"]) -> Float[Tensor, "n d_sae"]:
        """The latents; at most k are above zero."""
        return keep_largest(self.pre(x), self.k)

    def decode(self, latents: Float[Tensor, "n d_sae"]) -> Float[Tensor, "n d_model"]:
        """The reconstruction."""
        return latents @ self.decoder + self.bias


class Match(NamedTuple):
    """The latent that stands for a label best: chosen on some documents, scored on others.

    Attributes:
        latent: Its index.
        threshold: It counts as on above this.
        f1: On the documents that it was not chosen on.
    """

    latent: int
    threshold: float
    f1: Estimate


def measure(model: "HookedTransformer", seed: int = 0) -> dict:
    """Train a dictionary on `LAYER` and judge it on documents that neither it nor the model was trained on.

    Returns:
        "layer", "d_sae", "k"; what `quality` gives; "features": by label, the "latent" that stands for it best, its
        "F1" on documents that it was not chosen on, and the "share" of tokens with this label; then the F1 of the same
        search if documents have each other's labels ("shuffled"), and in a dictionary of a random model ("untrained").
        "matched": how many latents have an F1 of at least `GOOD` for a label; also "matched, shuffled" and "matched,
        untrained".
    """
    test = documents(N_TEST, 600 + seed)
    labels = feature_labels(test)
    x, sae = residual(model, test, LAYER), train_on(model, seed)
    latents = encode_documents(sae, x)
    found = matches(latents, labels)
    shuffled = matches(latents, {name: label.roll(1, 0) for name, label in labels.items()})
    null = untrained(model, seed)
    nothing_learnt = matches(encode_documents(train_on(null, seed), residual(null, test, LAYER)), labels)
    features = {
        name: {
            "latent": match.latent,
            "F1": match.f1,
            "share": labels[name].float().mean().item(),
            "shuffled": shuffled[name].f1["value"],
            "untrained": nothing_learnt[name].f1["value"],
        }
        for name, match in found.items()
    }
    sizes = {"layer": LAYER, "d_sae": sae.decoder.shape[0], "k": sae.k}
    matched = {
        "matched": count_matched(found),
        "matched, shuffled": count_matched(shuffled),
        "matched, untrained": count_matched(nothing_learnt),
    }
    return sizes | quality(sae, model, test, x) | matched | {"features": features}


def count_matched(found: dict[str, Match]) -> int:
    """How many different latents have a high F1 for a label."""
    return len({match.latent for match in found.values() if match.f1["value"] >= GOOD})


def train_on(model: "HookedTransformer", seed: int, layer: int = LAYER) -> TopK:
    """A dictionary for the residual stream behind a layer, trained on 300,000 tokens."""
    return train_topk(residual(model, documents(N_TRAIN, 500 + seed), layer)[:, 1:].flatten(0, 1), seed)


@torch.no_grad()
def residual(
    model: "HookedTransformer", tokens: Int[Tensor, "batch pos"], layer: int
) -> Float[Tensor, "batch pos d_model"]:
    """The residual stream behind a layer; the layers above are not computed."""
    return torch.cat([model(part, stop_at_layer=layer + 1) for part in tokens.split(32)])


def keep_largest(latents: Float[Tensor, "n d_sae"], k: int) -> Float[Tensor, "n d_sae"]:
    """Zero for all but the k largest entries of each row."""
    values, indices = latents.topk(k, dim=1, sorted=False)
    return torch.zeros_like(latents).scatter(1, indices, values)


def train_topk(x: Float[Tensor, "n d_model"], seed: int, d_sae: int = 512, k: int = 16, n_steps: int = 600) -> TopK:
    """Train a TopK autoencoder on activations.

    The loss is the squared error as a share of the variance, plus 1/32 of the error with which latents that have not
    fired for a while reconstruct what is left over (AuxK).

    Args:
        x: Activations.
        seed: Of the initial weights and the order of the activations.
        d_sae: Number of latents.
        k: How many are on at a time.
        n_steps: Steps of Adam, 1024 activations each; the learning rate falls linearly to zero.
    """
    generator = torch.Generator().manual_seed(seed)
    centre = x.mean(0)
    scale = (x - centre).square().mean().sqrt()
    decoder = F.normalize(torch.randn(d_sae, x.shape[1], generator=generator), dim=1)
    sae = TopK(decoder.T.clone(), torch.zeros(d_sae), decoder, torch.zeros(x.shape[1]), k)
    weights = [weight.requires_grad_() for weight in sae[:4]]
    optimizer = torch.optim.Adam(weights, lr=2e-3, betas=(0.9, 0.99))
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, n_steps)
    silent = torch.zeros(d_sae)  # steps since each latent fired
    for _ in range(n_steps):
        rows = torch.randint(len(x), (1024,), generator=generator)
        loss, fired = topk_loss(sae, (x[rows] - centre) / scale, silent > 50)
        silent = torch.where(fired, 0, silent + 1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        with torch.no_grad():
            sae.decoder.copy_(F.normalize(sae.decoder, dim=1))
    encoder, encoder_bias, decoder, bias = (weight.detach() for weight in weights)
    return TopK(encoder, scale * encoder_bias, decoder, scale * bias + centre, k)


def topk_loss(
    sae: TopK, x: Float[Tensor, "n d_model"], dead: Bool[Tensor, " d_sae"]
) -> tuple[Float[Tensor, ""], Bool[Tensor, " d_sae"]]:
    """The training loss on a batch, and which latents fired."""
    pre = sae.pre(x)
    latents = keep_largest(pre, sae.k)
    error = x - sae.decode(latents)
    variance = (x - x.mean(0)).square().sum()
    loss = error.square().sum() / variance
    if dead.any():
        left_over = error.detach()
        of_dead = keep_largest(pre[:, dead], min(2 * sae.k, int(dead.sum())))
        loss = loss + (left_over - of_dead @ sae.decoder[dead]).square().sum() / left_over.square().sum() / 32
    return loss, (latents > 0).any(0).detach()


@torch.no_grad()
def encode_documents(sae: TopK, x: Float[Tensor, "batch pos d_model"]) -> Float[Tensor, "batch inner d_sae"]:
    """The latents at all positions but the first, which the dictionary was not trained on."""
    return sae.encode(x[:, 1:].flatten(0, 1)).view(len(x), -1, len(sae.decoder))


@torch.no_grad()
def quality(
    sae: TopK,
    model: "HookedTransformer",
    tokens: Int[Tensor, "batch pos"],
    x: Float[Tensor, "batch pos d_model"],
    layer: int = LAYER,
) -> dict:
    """How much of the activations, and of what the model makes of them, the dictionary keeps.

    The first position, `<bos>`, is left as it is.

    Args:
        sae, model: The dictionary, and its model.
        tokens: Documents.
        x: Their residual stream behind ``layer``, where the dictionary belongs.

    Returns:
        "loss": the model's next-token loss in nats; "loss, spliced": with the reconstruction in place of the
        activations; "loss, mean": with their mean; "loss recovered": (mean - spliced) / (mean - loss). "L0": latents on
        at a token; "variance unexplained": squared error over variance; "dead": share of latents that are never on.
    """
    latents, inner = encode_documents(sae, x), x[:, 1:]
    decoded, centre = sae.decode(latents), inner.mean((0, 1))
    variants = {"loss": inner, "loss, spliced": decoded, "loss, mean": centre.expand_as(inner)}
    losses = {name: _loss_from(model, torch.cat([x[:, :1], y], 1), tokens, layer) for name, y in variants.items()}
    recovered = losses["loss, mean"] - losses["loss, spliced"]
    errors, variance = ((inner - guess).square().sum((1, 2)) for guess in (decoded, centre))
    return {name: mean(loss) for name, loss in losses.items()} | {
        "loss recovered": ratio(recovered, losses["loss, mean"] - losses["loss"]),
        "L0": mean((latents > 0).sum(2).float().mean(1)),
        "variance unexplained": ratio(errors, variance),
        "dead": (latents > 0).any(0).any(0).logical_not().float().mean().item(),
    }


def _loss_from(
    model: "HookedTransformer", x: Float[Tensor, "batch pos d_model"], tokens: Int[Tensor, "batch pos"], layer: int
) -> Float[Tensor, " batch"]:
    """Each document's next-token loss if the residual stream behind ``layer`` were this."""
    losses = []
    for part, wanted in zip(x.split(32), tokens.split(32), strict=True):
        logits = model(part, start_at_layer=layer + 1)
        losses.append(F.cross_entropy(logits[:, :-1].transpose(1, 2), wanted[:, 1:], reduction="none").mean(1))
    return torch.cat(losses)


def feature_labels(tokens: Int[Tensor, "batch pos"]) -> dict[str, Bool[Tensor, "batch inner"]]:
    """`token_labels` of all tokens but the first; the last token, whose next word is not known, has no "next: …"."""
    return {name: label[:, 1:] for name, label in token_labels(tokens).items()}


def matches(
    latents: Float[Tensor, "batch pos d_sae"], labels: dict[str, Bool[Tensor, "batch pos"]]
) -> dict[str, Match]:
    """For each label the latent that stands for it best, chosen on the first half of the documents.

    Hundreds of latents are tried for each label, so the F1 that counts is that on the second half.
    """
    half = len(latents) // 2
    wanted = torch.stack([label[:half].flatten() for label in labels.values()])
    chosen = best_latents(latents[:half].flatten(0, 1), wanted)
    return {
        name: Match(latent, threshold, f1_by_document(latents[half:, :, latent] > threshold, label[half:]))
        for (name, label), (latent, threshold) in zip(labels.items(), chosen, strict=True)
    }


def best_latents(latents: Float[Tensor, "n d_sae"], labels: Bool[Tensor, "labels n"]) -> list[tuple[int, float]]:
    """For each label the latent and the threshold with the highest F1.

    Thresholds are `THRESHOLDS` times the latent's largest activation.
    """
    highest, wanted = latents.amax(0), labels.float()
    scores = []
    for share in THRESHOLDS:
        on = (latents > share * highest).float()
        scores.append(2 * (wanted @ on) / (on.sum(0) + wanted.sum(1, keepdim=True)).clamp(min=1))
    best = torch.stack(scores, dim=1).flatten(1).argmax(1)
    places = [divmod(index, latents.shape[1]) for index in best.tolist()]
    return [(latent, THRESHOLDS[threshold] * highest[latent].item()) for threshold, latent in places]


def f1_by_document(on: Bool[Tensor, "batch pos"], label: Bool[Tensor, "batch pos"]) -> Estimate:
    """F1 = 2 TP / (2 TP + FP + FN) over all tokens, with an interval over documents."""
    return ratio(2 * (on & label).sum(1).float(), (on.sum(1) + label.sum(1)).float())
