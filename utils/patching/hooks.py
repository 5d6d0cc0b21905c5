"""Looking into a forward pass, and changing it on the way."""

from collections.abc import Callable, Sequence

from jaxtyping import Float, Int
from torch import Tensor, nn


def run_with_hooks(
    model: nn.Module, tokens: Int[Tensor, "batch pos"], hooks: Sequence[tuple[str, Callable[[Tensor], Tensor]]]
) -> Float[Tensor, "..."]:
    """Run ``model`` once while the outputs of some of its submodules are replaced.

    Hooks at one name are applied in the order given, each to what the one before it returned. Hooks that others have
    put on the model stay there and act first: yours are given what they return. Whatever happens, none of yours is left
    on the model afterwards.

    Args:
        model: Any module; its hook points are the names of ``model.named_modules()``.
        tokens: Its input, passed on as it is.
        hooks: Pairs of a name and a function that takes the submodule's output, a tensor, and returns what goes on in
            its place, a tensor of the same shape. The output of a submodule that runs several times is replaced each
            time. The returned tensor itself goes on; it is not written into the memory of the output, which may be read
            elsewhere, too.

    Returns:
        What the model puts out. Gradients are left to the caller: where they are on, they reach what the hooks
        returned, and through the hooks what came before.

    Raises:
        ValueError: If a name is not a submodule, if a submodule did not run so that its hook never fired, if it puts
            out something else than a tensor (such as a tuple), or if a hook returned no tensor or one of another shape.
            The message has the name.

    Source: Meng et al. (2022), "Locating and Editing Factual Associations in GPT", section 2.1, for the intervention.
    """
    modules, fired, handles = dict(model.named_modules()), set(), []
    unknown = [name for name, _ in hooks if name not in modules]
    if unknown:
        raise ValueError(f"the model has no hook point {unknown[0]!r}")

    def replacement(index: int, name: str, edit: Callable[[Tensor], Tensor]) -> Callable:
        def replace(module: nn.Module, inputs: tuple, output: Tensor) -> Tensor:
            fired.add(index)
            if not isinstance(output, Tensor):
                raise ValueError(f"{name!r} puts out a {type(output).__name__}; only a tensor can be replaced")
            edited = edit(output)
            if not isinstance(edited, Tensor) or edited.shape != output.shape:
                raise ValueError(f"the hook at {name!r} must return a tensor of shape {tuple(output.shape)}")
            return edited

        return replace

    try:
        for index, (name, edit) in enumerate(hooks):
            handles.append(modules[name].register_forward_hook(replacement(index, name, edit)))
        result = model(tokens)
    finally:
        for handle in handles:
            handle.remove()
    silent = [name for index, (name, _) in enumerate(hooks) if index not in fired]
    if silent:
        raise ValueError(f"the hook at {silent[0]!r} never fired: the model does not run this submodule")
    return result


def run_with_cache(
    model: nn.Module, tokens: Int[Tensor, "batch pos"], names: Sequence[str]
) -> tuple[Float[Tensor, "..."], dict[str, Tensor]]:
    """Run ``model`` once and keep what some of its submodules put out on the way.

    Hooks that others have put on the model stay there and act first: what they return is kept. Whatever happens, none
    of yours is left on the model afterwards.

    Args:
        model: Any module.
        tokens: Its input, passed on as it is.
        names: Names of the submodules whose outputs, tensors, to keep; of one that runs several times, the last.

    Returns:
        result: What the model puts out, unchanged by the listening.
        cache: The outputs by name, in the order of ``names``. They are the tensors that the run went on with, not
            copies, so that the gradient of the result with respect to them can be taken.

    Raises:
        ValueError: If a name is not a submodule, or one that does not run or puts out something else than a tensor.
    """
    kept = {}

    def keeping(name: str) -> Callable[[Tensor], Tensor]:
        def keep(activation: Tensor) -> Tensor:
            kept[name] = activation
            return activation

        return keep

    result = run_with_hooks(model, tokens, [(name, keeping(name)) for name in names])
    return result, {name: kept[name] for name in names}
