"""Two small tools to try the course's machinery on."""

from jaxtyping import Float
from torch import Tensor, nn


def row_means(x: Float[Tensor, "batch row column"]) -> Float[Tensor, "batch row"]:
    """Average each row of each matrix in a batch.

    Args:
        x: A batch of matrices [batch, row, column].

    Returns:
        The mean over the columns, for every row of every matrix: [batch, row], in the dtype of ``x``. Gradients flow
        back to ``x``.
    """
    return x.mean(dim=-1)


def record_activation(model: nn.Module, name: str, x: Tensor) -> Tensor:
    """Run ``model`` on ``x``, once, and return what one of its submodules puts out on the way.

    The model itself is run, and no copy of it, in the mode that it is in, and is left as it was: its mode, its weights,
    and the hooks of others. A forward hook listens during this one run, and changes nothing in it. Afterwards it is
    gone, also if the run ends with an exception.

    Args:
        model: Any module; its own output is not needed here.
        name: Name of the submodule, as in ``model.named_modules()``, for example ``"0"`` or ``"block.mlp"``.
        x: Input for the model.

    Returns:
        The submodule's output tensor, still attached to the graph, so that gradients can flow back through it to ``x``
        and to the model's own weights.

    Raises:
        AttributeError: If the model has no submodule of this name.
    """
    found = []

    def keep(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        found.append(output)

    handle = model.get_submodule(name).register_forward_hook(keep)
    try:
        model(x)
    finally:
        handle.remove()
    return found[0]
