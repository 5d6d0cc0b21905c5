"""Wrong and right answers for the two exercises of chapter 00."""

from copy import deepcopy
from functools import reduce

import torch
from einops import einsum
from einops import reduce as einops_reduce

from utils.course.catalogue import right, wrong


@wrong("row_means", "You average over the rows: one number for each column. The axis that disappears is the last one.")
def column_means(x):
    return x.mean(dim=-2)


@wrong("row_means", "This is the sum of each row. A mean is the sum divided by the number of columns.")
def row_sums(x):
    return einsum(x, "batch row column -> batch row")


@wrong("row_means", "The numbers are right, but the averaged axis is still there, with length 1. `keepdim` keeps it.")
def keeps_the_axis(x):
    return x.mean(dim=-1, keepdim=True)


@wrong("row_means", "You average over the batch too. Each matrix keeps its own means.")
def averages_the_batch(x):
    return x.mean(dim=(0, 2))


@wrong(
    "row_means",
    "You divide by the number of rows. For a square matrix nobody would notice; divide by "
    "the number of columns, `x.shape[-1]`.",
)
def divides_by_rows(x):
    return x.sum(dim=-1) / x.shape[-2]


@wrong("row_means", "The graph is cut: no gradient reaches x.")
def detached_means(x):
    return x.detach().mean(dim=-1)


@wrong("row_means", "You average over the batch: one matrix is left. Each matrix keeps its own means.")
def mean_matrix(x):
    return x.mean(dim=0)


@wrong("row_means", "You average over everything, and one number is left. `dim` says which axis should disappear.")
def one_number(x):
    return x.mean()


@wrong("row_means", "The numbers are right, but they come as lists. Return a tensor.")
def nested_lists(x):
    return [[(sum(row) / len(row)).item() for row in matrix] for matrix in x]


@wrong(
    "row_means", "You divide by one less than the number of columns, as a sample variance does. A mean divides by all."
)
def divides_by_one_less(x):
    return x.sum(dim=-1) / (x.shape[-1] - 1)


@wrong("row_means", "You take the median. The mean is the sum divided by the number of columns.")
def medians(x):
    return x.median(dim=-1).values


@wrong("row_means", "You hand float32 back, also where x is float64.")
def means_in_float32(x):
    return x.float().mean(dim=-1)


@right("row_means")
def with_einsum(x):
    return einsum(x, "batch row column -> batch row") / x.shape[-1]


@right("row_means")
def with_reduce(x):
    return einops_reduce(x, "batch row column -> batch row", "mean")


@right("row_means")
def with_loops(x):
    return torch.stack([torch.stack([sum(row) / len(row) for row in matrix]) for matrix in x])


@wrong(
    "record_activation",
    "Your hook stays on the model. It fires in every later run, and after ten calls "
    "there are ten of them. `register_forward_hook` returns a handle that can "
    "remove it.",
)
def leaves_its_hook(model, name, x):
    found = []
    model.get_submodule(name).register_forward_hook(lambda *arguments: found.append(arguments[-1]))
    model(x)
    return found[0]


@wrong(
    "record_activation",
    "Your hook is removed after a good run, and stays when the run raises: the line "
    "that removes it is never reached. `try` … `finally` runs it in both cases.",
)
def removes_after_success_only(model, name, x):
    found = []
    handle = model.get_submodule(name).register_forward_hook(lambda *arguments: found.append(arguments[-1]))
    model(x)
    handle.remove()
    return found[0]


def run_with(model, module, hook, x):
    handle = module.register_forward_hook(hook)
    try:
        return model(x)
    finally:
        handle.remove()


@wrong(
    "record_activation",
    "You return what goes into the submodule. A forward hook is given the inputs and the output; keep the output.",
)
def records_the_input(model, name, x):
    found = []
    run_with(model, model.get_submodule(name), lambda module, inputs, output: found.append(inputs[0]), x)
    return found[0]


@wrong(
    "record_activation",
    "You return the model's own output. The hook has what you want; what the call returns can be dropped.",
)
def returns_the_output(model, name, x):
    return run_with(model, model.get_submodule(name), lambda module, inputs, output: None, x)


@wrong(
    "record_activation",
    "What you return has no graph: no gradient can flow back through this activation. A `detach`, or a `no_grad` "
    "around the run, does that.",
)
def records_detached(model, name, x):
    found = []
    run_with(model, model.get_submodule(name), lambda module, inputs, output: found.append(output.detach().clone()), x)
    return found[0]


@wrong(
    "record_activation",
    "You look for the name among the model's children only. A name with a dot, such "
    "as block.1, is a child of a child: `named_modules` and `get_submodule` know "
    "it.",
)
def children_only(model, name, x):
    found = []
    run_with(model, getattr(model, name), lambda module, inputs, output: found.append(output), x)
    return found[0]


@wrong(
    "record_activation",
    "You clear all hooks of the submodules, also those that somebody else had put "
    "there. Remove your own, by its handle.",
)
def clears_all_hooks(model, name, x):
    found = []
    model.get_submodule(name).register_forward_hook(lambda module, inputs, output: found.append(output))
    try:
        model(x)
    finally:
        for module in model.modules():
            module._forward_hooks.clear()
    return found[0]


@wrong(
    "record_activation",
    "You clear all hooks of this submodule. Somebody else may have one there too: take away your own, by its handle.",
)
def clears_the_submodules_hooks(model, name, x):
    found = []
    module = model.get_submodule(name)
    module.register_forward_hook(lambda module, inputs, output: found.append(output))
    try:
        model(x)
    finally:
        module._forward_hooks.clear()
    return found[0]


@wrong(
    "record_activation",
    "You put the model into evaluation mode, and there it stays: whoever goes on training it does so without dropout. "
    "A function that only listens leaves the mode as it is.",
)
def switches_to_evaluation(model, name, x):
    found = []
    model.eval()
    run_with(model, model.get_submodule(name), lambda module, inputs, output: found.append(output), x)
    return found[0]


@wrong(
    "record_activation",
    "You run a deep copy of the model. The values are the same, but the graph ends at the copy's weights: no gradient "
    "reaches those of the model that you were given.",
)
def runs_a_copy(model, name, x):
    found, twin = [], deepcopy(model)
    run_with(twin, twin.get_submodule(name), lambda module, inputs, output: found.append(output), x)
    return found[0]


@wrong(
    "record_activation",
    "You switch off the gradients of the model's parameters, and they stay off: nobody can train it any more.",
)
def freezes_the_model(model, name, x):
    found = []
    model.requires_grad_(False)
    run_with(model, model.get_submodule(name), lambda module, inputs, output: found.append(output), x)
    return found[0]


@wrong(
    "record_activation",
    "You put the whole model into training mode in the end, whatever mode its parts had before.",
)
def back_to_training(model, name, x):
    found = []
    model.eval()
    try:
        run_with(model, model.get_submodule(name), lambda module, inputs, output: found.append(output), x)
    finally:
        model.train()
    return found[0]


@wrong(
    "record_activation",
    "Your hook returns something, and what a hook returns replaces the module's output: the rest of the model "
    "computes with it. A hook that listens returns nothing.",
)
def hook_with_a_result(model, name, x):
    found = []
    run_with(model, model.get_submodule(name), lambda module, inputs, output: found.append(output) or 2 * output, x)
    return found[0]


@wrong(
    "record_activation",
    "Your hook hands on another output than the one that it was given: what a hook returns, however little it differs, "
    "replaces the module's output. A hook that listens returns nothing.",
)
def hook_hands_on_half_precision(model, name, x):
    found = []

    def keep(module, inputs, output):
        found.append(output)
        return output.half().to(output.dtype)

    run_with(model, model.get_submodule(name), keep, x)
    return found[0]


@wrong(
    "record_activation",
    "You run the model in evaluation mode and put its mode back afterwards. In training mode, dropout and batch norm "
    "give other activations; run the model in the mode in which you were given it.",
)
def evaluates_for_a_while(model, name, x):
    found, modes = [], [(module, module.training) for module in model.modules()]
    module = model.get_submodule(name)
    model.eval()
    try:
        run_with(model, module, lambda module, inputs, output: found.append(output), x)
    finally:
        for module, mode in modes:
            module.training = mode
    return found[0]


@wrong(
    "record_activation",
    "You run the model twice. One run, the one your hook listens to, is enough, and hooks of others fire once.",
)
def runs_twice(model, name, x):
    found = []
    model.get_submodule(name)
    model(x)
    run_with(model, model.get_submodule(name), lambda module, inputs, output: found.append(output), x)
    return found[0]


@wrong(
    "record_activation",
    "The hooks of the model itself do not run: you go past them, by `model.forward(x)` or by calling the model's "
    "parts one after the other. `model(x)` runs them.",
)
def past_the_models_hooks(model, name, x):
    found = []
    run_with(model.forward, model.get_submodule(name), lambda module, inputs, output: found.append(output), x)
    return found[0]


@wrong(
    "record_activation",
    "You pass over the exception of a run that fails. Clean up, and let it come through: `finally` does both.",
)
def swallows_the_exception(model, name, x):
    found = []
    module = model.get_submodule(name)
    try:
        run_with(model, module, lambda module, inputs, output: found.append(output), x)
    except RuntimeError:
        return None
    return found[0]


@wrong(
    "record_activation",
    "An unknown name ends in a KeyError. `get_submodule` raises the AttributeError that the docstring promises.",
)
def looks_the_name_up_in_a_dict(model, name, x):
    found = []
    module = dict(model.named_modules())[name]
    run_with(model, module, lambda module, inputs, output: found.append(output), x)
    return found[0]


@wrong(
    "record_activation",
    "You catch the submodule's input and call it again yourself, so that it runs twice. The hook is given the output.",
)
def calls_the_submodule_again(model, name, x):
    found, module = [], model.get_submodule(name)
    run_with(model, module, lambda module, inputs, output: found.append(inputs[0]), x)
    return module(found[0])


@wrong(
    "record_activation",
    "You detach x before the run: gradients reach the weights, and not the input.",
)
def detaches_the_input(model, name, x):
    found = []
    run_with(model, model.get_submodule(name), lambda module, inputs, output: found.append(output), x.detach())
    return found[0]


@right("record_activation")
def walks_the_name(model, name, x):
    found = {}
    module = reduce(getattr, name.split("."), model)
    run_with(model, module, lambda module, inputs, output: found.update(out=output), x)
    return found["out"]


@right("record_activation")
def copies(model, name, x):
    found = []
    module = dict(model.named_modules()).get(name)
    if module is None:
        raise AttributeError(f"no submodule {name}")
    run_with(model, module, lambda module, inputs, output: found.append(output.clone()), x)
    return found[0]
