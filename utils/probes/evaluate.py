"""What a probe's accuracy is worth: by layer, on templates that it has not seen, and beside a task without meaning."""

from collections.abc import Callable, Mapping

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from utils.course.cases import estimate
from utils.probes.fit import Probe


def probe_by_layer(
    activations: Mapping[str, Float[Tensor, "n d"]],
    labels: Bool[Tensor, " n"],
    groups: Int[Tensor, " n"],
    fit: Callable[[Float[Tensor, "m d"], Bool[Tensor, " m"]], Probe],
) -> dict[str, Float[Tensor, " group"]]:
    """How often a probe is right on a group that it was not fitted to, by site and group.

    For each site, and each group in turn, a probe is fitted to the tokens of all other groups and tried on those of
    this one. What comes out is one number for each group, and not their mean: groups are the independent unit, and an
    interval needs all of the numbers.

    Args:
        activations: By site, such as ``collect_activations`` returns them; ``d`` may differ between sites.
        labels: Whether the feature is present.
        groups: For each token the group that it belongs to, such as its text's template: any integers.
        fit: Makes a probe of activations and labels, as ``logistic_probe`` does. Called with these two arguments.

    Returns:
        By site, in the order of ``activations``, for each group the share of its tokens on which the probe is right: a
        score above 0 where the feature is present, 0 or below where it is not. Groups in ascending order.

    Raises:
        ValueError: If there are fewer than two groups.
    """
    names = groups.unique()
    if len(names) < 2:
        raise ValueError("at least two groups are needed: one to try the probe on, the rest to fit it to")
    accuracy = {}
    for site, x in activations.items():
        shares = []
        for name in names:
            left_out = groups == name
            probe = fit(x[~left_out], labels[~left_out])
            shares.append(((probe(x[left_out]) > 0) == labels[left_out]).float().mean())
        accuracy[site] = torch.stack(shares)
    return accuracy


def control_task(
    tokens: Int[Tensor, "*shape"], d_vocab: int, share: float, generator: torch.Generator
) -> Bool[Tensor, "*shape"]:
    """Labels without meaning: each word of the vocabulary has one that was drawn at random, wherever it stands.

    Args:
        tokens: Word ids, below ``d_vocab``; of any shape.
        d_vocab: Size of the vocabulary.
        share: Chance with which a word is labelled True, from 0 to 1, for each word independently.
        generator: Of the draw. A second call with the same generator draws anew; with a generator of the same seed, a
            word gets the same label whichever other words are in ``tokens``, in the first draw and in each that
            follows, so that a second set of texts can be labelled alike.

    Returns:
        For each token its word's label.

    Source: Hewitt and Liang (2019), "Designing and Interpreting Probes with Control Tasks", section 2.
    """
    return (torch.rand(d_vocab, generator=generator) < share)[tokens]


def selectivity(task: Float[Tensor, " group"], control: Float[Tensor, "draw group"]) -> tuple[float, float]:
    """Accuracy at the task less that at control tasks: what a probe finds beyond what it could have learnt by heart.

    Task and control are compared group by group, which takes out what makes a group easy for both.

    Args:
        task: Accuracy on each group, at least two.
        control: The same for control labels, one row for each draw of them, at least one; averaged over draws first.

    Returns:
        The mean over groups of the difference, and the half-width of its 95 % interval over groups (Student's t with
        n - 1 degrees of freedom), as ``estimate`` of ``utils.course.cases`` gives it.

    Raises:
        ValueError: If there are fewer than two groups (``estimate`` would refuse them with another error), or control
            has another number of them.

    Source: Hewitt and Liang (2019), section 2, for the difference; the interval is ours.
    """
    if len(task) < 2 or control.shape[1:] != task.shape:
        raise ValueError(f"task is {tuple(task.shape)} and control {tuple(control.shape)}")
    return estimate((task - control.mean(0)).tolist())
