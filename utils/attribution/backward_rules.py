"""Attribution by hooks: a changed rule for the way back, and the gradient at a layer inside."""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from utils.attribution.gradients import gradient_saliency


def guided_backprop(
    model: nn.Module,
    images: Float[Tensor, "batch channel height width"],
    targets: Int[Tensor, " batch"],
) -> Float[Tensor, "batch channel height width"]:
    """The gradient with a changed rule: on the way back, each ReLU lets positive signals through only.

    With z the input of a ReLU and R the signal that arrives from above, the rules are

        gradient:            R * (z > 0)
        guided backprop:     R * (z > 0) * (R > 0).

    Every ``nn.ReLU`` in the model gets the rule for this one call, and so does every ``nn.ReLU6``, whose output is
    capped at 6 (for it, z > 0 becomes 0 < z < 6). Afterwards the model is as it was, also if the call ends with an
    exception: the hooks of this call are gone and no others, weights have the ``grad`` that they had, and the ReLUs
    that worked in place, and only these, do so again (hooks can't watch those, so that they have to work out of place
    meanwhile).

    Args:
        model: From images [batch, channel, height, width] to logits [batch, class], in evaluation mode.
        images: Images [batch, channel, height, width].
        targets: The class whose logit the signal starts from, for each image [batch].

    Returns:
        Map [batch, channel, height, width], without a graph. Not a derivative of anything, so without units.

    Raises:
        ValueError: If the model has no such module (a call of ``F.relu`` can't be hooked), or the shapes of images and
            targets don't fit.

    Source: Springenberg et al. (2014), "Striving for Simplicity: The All Convolutional Net", arXiv 1412.6806,
    section 3.4.
    """
    # Given: the ReLUs of the model, and whether each of them works in place.
    relus = [module for module in model.modules() if isinstance(module, nn.ReLU | nn.ReLU6)]
    if not relus:
        raise ValueError("model must have nn.ReLU or nn.ReLU6 modules, and has none; calls of F.relu can't be hooked")
    in_place = [relu.inplace for relu in relus]
    # Yours: hook them, take the gradient, and clean up whatever happens.
    handles = []
    try:
        for relu in relus:
            relu.inplace = False
            hook = relu.register_full_backward_hook(lambda module, below, above: (below[0].clamp(min=0),))
            handles.append(hook)
        return gradient_saliency(model, images, targets)
    finally:
        for handle in handles:
            handle.remove()
        for relu, value in zip(relus, in_place, strict=True):
            relu.inplace = value


def grad_cam(
    model: nn.Module,
    images: Float[Tensor, "batch channel height width"],
    targets: Int[Tensor, " batch"],
    layer: str,
) -> Float[Tensor, "batch height width"]:
    """Where a convolutional layer holds evidence for the target, by gradient-weighted class activation mapping.

    With A [batch, k, i, j] the output of the layer (its own, also if a ReLU after it works in place), K channels of
    size h by w,

        weight_k = 1 / (h w) * sum over i, j of d logit_target / d A_kij,
        CAM_ij   = ReLU(sum over k of weight_k * A_kij),

    enlarged to the size of the image by bilinear interpolation (``align_corners=False``), after the ReLU. Works also
    with frozen weights and within ``torch.no_grad()``. Afterwards the model is as it was, also if the call ends with an
    exception: the hook of this call is gone and no others, and weights have the ``grad`` that they had.

    Args:
        model: From images [batch, channel, height, width] to logits [batch, class], in evaluation mode.
        images: Images [batch, channel, height, width].
        targets: The class whose logit is differentiated, for each image [batch].
        layer: Name of a submodule as in ``model.named_modules()``, with an output [batch, k, i, j]; its last one, if
            the model runs it more than once.

    Returns:
        Map [batch, height, width], zero or positive, without a graph.

    Raises:
        ValueError: If the model has no such layer or never runs it, or its output is not a tensor [batch, k, i, j], or
            the shapes of images and targets don't fit.

    Source: Selvaraju et al. (2017), "Grad-CAM", arXiv 1610.02391, equations 1 and 2.
    """
    # Given: the inputs are checked.
    if images.ndim != 4 or targets.shape != images.shape[:1]:
        raise ValueError(
            "images must be [batch, channel, height, width] and targets [batch], "
            f"got {tuple(images.shape)} and {tuple(targets.shape)}"
        )
    if layer not in dict(model.named_modules()):
        raise ValueError(f"layer must be the name of a submodule, got {layer!r}")
    # Yours: listen at the layer, differentiate with respect to what it put out, weight, rectify, enlarge.
    seen = []

    def keep(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        if not isinstance(output, Tensor) or output.ndim != 4:
            raise ValueError(f"layer {layer!r} must put out a tensor [batch, k, i, j]")
        seen.append(output)
        return output.clone()  # an operation in place after the layer would overwrite what we keep

    handle = model.get_submodule(layer).register_forward_hook(keep)
    try:
        with torch.inference_mode(False), torch.enable_grad():  # the first, and copies, for callers in inference mode
            inputs, classes = images.detach().clone().requires_grad_(), targets.clone()
            total = model(inputs).gather(1, classes[:, None]).sum()
    finally:
        handle.remove()
    if not seen:
        raise ValueError(f"the model never runs the layer {layer!r}")
    activations = seen[-1]
    [gradient] = torch.autograd.grad(total, activations)
    weights = gradient.mean(dim=(2, 3), keepdim=True)
    cam = (weights * activations.detach()).sum(dim=1, keepdim=True).relu()
    return F.interpolate(cam, size=images.shape[2:], mode="bilinear", align_corners=False)[:, 0]
