"""Wrong answers for hooks and metrics, each with its sentence, and right ones in another style."""

import contextlib
import functools

import torch

from utils.course.catalogue import right, wrong
from utils.patching.hooks import run_with_hooks

# run_with_hooks


def run(
    model, tokens, hooks, *, keep=False, known=True, fires=True, tensors=True, shapes=True, pre=False, safe=True,
    late=False, any_fired=False, once=False, prepend=False, tuples=True,
    named=("unknown", "silent", "returned"),
):  # fmt: skip
    """A run with hooks, with switches for what can go wrong; ``named``: which of the errors say the name."""
    modules, fired, handles = dict(model.named_modules()), set(), []
    unknown = [name for name, _ in hooks if name not in modules]
    if known and unknown:
        raise ValueError(f"unknown hook point {unknown[0] if 'unknown' in named else ''}")

    def replace(index, value):
        if once and index in fired:
            return value
        fired.add(index)
        name, edit = hooks[-1 if late else index]
        if tuples and not isinstance(value, torch.Tensor):
            raise ValueError(f"no tensor comes out of {name if 'returned' in named else ''}")
        edited = edit(value)
        if not isinstance(value, torch.Tensor):
            return edited
        if tensors and not isinstance(edited, torch.Tensor):
            raise ValueError(f"no tensor from the hook at {name if 'returned' in named else ''}")
        if shapes and isinstance(edited, torch.Tensor) and edited.shape != value.shape:
            raise ValueError(f"wrong shape from the hook at {name if 'returned' in named else ''}")
        return edited

    for index, (name, _) in enumerate(hooks):
        if name not in modules:
            continue
        if pre:
            hook = lambda module, inputs, index=index: replace(index, inputs[0])  # noqa: E731
            handles.append(modules[name].register_forward_pre_hook(hook))
        else:
            hook = lambda module, inputs, output, index=index: replace(index, output)  # noqa: E731
            handles.append(modules[name].register_forward_hook(hook, prepend=prepend))
    with contextlib.ExitStack() as stack:
        if safe:
            for handle in handles:
                stack.callback(handle.remove)
        result = model(tokens)
    if not keep:
        for handle in handles:
            handle.remove()
    silent = [name for index, (name, _) in enumerate(hooks) if name in modules and index not in fired]
    if fires and silent and not (any_fired and fired):
        raise ValueError(f"never fired: {silent[0] if 'silent' in named else ''}")
    return result


@wrong(
    "run_with_hooks",
    "All your hooks call the last function of the list. A function that is made in a loop looks its names up when it "
    "is called, and by then the loop has ended.",
)
def the_last_edit_everywhere(model, tokens, hooks):
    return run(model, tokens, hooks, late=True)


@wrong(
    "run_with_hooks",
    "Of two hooks at one name only the last one's work is left: the pairs went into a dict, or each hook was given the "
    "submodule's own output. Each is to be given what the one before it returned.",
)
def one_hook_a_name(model, tokens, hooks):
    return run(model, tokens, list(dict(hooks).items()))


@wrong(
    "run_with_hooks",
    "Your function is given what goes into the submodule, and what it returns goes in. That is the same for a bare "
    "hook point, and not for a submodule that computes something.",
)
def at_the_entrance(model, tokens, hooks):
    return run(model, tokens, hooks, pre=True)


@wrong(
    "run_with_hooks",
    "Your hooks stay on the model. Every later run goes through them too, your next 'clean' run included. Keep what "
    "`register_forward_hook` returns, and use it.",
)
def hooks_stay(model, tokens, hooks):
    return run(model, tokens, hooks, keep=True, safe=False)


@wrong(
    "run_with_hooks",
    "Your hooks are removed after a run that went well, and stay if it ends with an exception. In a notebook that is "
    "the usual case: the cell fails, you mend it, and the old hook is still there. Which keyword of Python runs "
    "something in either case?",
)
def removed_if_all_went_well(model, tokens, hooks):
    return run(model, tokens, hooks, safe=False)


@wrong(
    "run_with_hooks",
    "You look a name up when its hook's turn comes. A name that the model does not have then ends the function with "
    "the hooks before it on the model, and what would remove them has not been reached. Look all names up before the "
    "first hook, or register where the removal is sure.",
)
def looked_up_one_by_one(model, tokens, hooks):
    modules = dict(model.named_modules())
    for place, (name, _) in enumerate(hooks):
        if name not in modules:
            for earlier, edit in hooks[:place]:
                modules[earlier].register_forward_hook(lambda module, inputs, output, edit=edit: edit(output))
            raise ValueError(f"unknown hook point {name}")
    return run(model, tokens, hooks)


@wrong(
    "run_with_hooks",
    "A name that the model does not have is passed over in silence. A misspelt hook point then gives the unpatched "
    "model, and the experiment shows 'no effect'.",
)
def unknown_names_are_skipped(model, tokens, hooks):
    return run(model, tokens, hooks, known=False)


@wrong(
    "run_with_hooks",
    "A hook on a submodule that exists and is never run goes unnoticed: nothing was patched, and nobody says so. "
    "Write down which hooks have fired.",
)
def silence_goes_unnoticed(model, tokens, hooks):
    return run(model, tokens, hooks, fires=False)


@wrong(
    "run_with_hooks",
    "You notice silence only if no hook fires at all. One hook that works then covers for another that does nothing. "
    "Each hook has to be accounted for.",
)
def one_speaks_for_all(model, tokens, hooks):
    return run(model, tokens, hooks, any_fired=True)


@wrong(
    "run_with_hooks",
    "Whatever a hook returns goes on: nobody looks whether it is a tensor, or of which shape. A forgotten `return` "
    "and a stretched row then look like results.",
)
def whatever_comes_back(model, tokens, hooks):
    return run(model, tokens, hooks, shapes=False, tensors=False)


@wrong(
    "run_with_hooks",
    "A hook that returns nothing passes for one that changed nothing: so PyTorch reads None. A forgotten `return` then "
    "looks like a site without an effect. Ask whether a tensor came back.",
)
def nothing_for_unchanged(model, tokens, hooks):
    return run(model, tokens, hooks, tensors=False)


@wrong(
    "run_with_hooks",
    "You see to it that a tensor comes back, and not that it has the output's shape. One row, or one column, is then "
    "stretched over all by broadcasting.",
)
def of_any_shape(model, tokens, hooks):
    return run(model, tokens, hooks, shapes=False)


@wrong(
    "run_with_hooks",
    "You take all hooks off the model, another person's included, whose experiment then goes on without them. Remove "
    "your own, by their handles.",
)
def sweeps_the_whole_house(model, tokens, hooks):
    try:
        return run(model, tokens, hooks)
    finally:
        for module in model.modules():
            module._forward_hooks.clear()


@wrong(
    "run_with_hooks",
    "You empty the list of hooks of every submodule that you hooked. Others may have hooks there as well, and "
    "those are gone with yours. Each registration returns a handle that removes that one hook.",
)
def sweeps_its_own_rooms(model, tokens, hooks):
    try:
        return run(model, tokens, hooks)
    finally:
        if all(name in dict(model.named_modules()) for name, _ in hooks):
            for name, _ in hooks:
                model.get_submodule(name)._forward_hooks.clear()


@wrong(
    "run_with_hooks",
    "Your hook acts once in a run. A submodule that runs again, as shared layers do, goes on with its own output the "
    "second time.",
)
def the_first_time_only(model, tokens, hooks):
    return run(model, tokens, hooks, once=True)


@wrong(
    "run_with_hooks",
    "Your hooks come before those that somebody else had put on the same submodule, who then changes what you put in "
    "(`prepend`). What you return is what should go on.",
)
def in_front_of_the_others(model, tokens, hooks):
    for name, _ in hooks[::-1]:
        if name not in dict(model.named_modules()):
            raise ValueError(f"unknown hook point {name}")
    chains = {}
    for name, edit in hooks:
        chains.setdefault(name, []).append(edit)

    def chained(name, x):
        if not isinstance(x, torch.Tensor):
            raise ValueError(f"no tensor comes out of {name}")
        for edit in chains[name]:
            new = edit(x)
            if not isinstance(new, torch.Tensor) or new.shape != x.shape:
                raise ValueError(f"wrong shape from the hook at {name}")
            x = new
        return x

    return run(model, tokens, [(name, functools.partial(chained, name)) for name in chains], prepend=True)


@wrong(
    "run_with_hooks",
    "A name that the model does not have ends in a KeyError from your dict. That stops the run, but a caller who is "
    "ready for the ValueError of the docstring is not ready for it. Look before you reach in.",
)
def key_error(model, tokens, hooks):
    for name, _ in hooks:
        dict(model.named_modules())[name]
    return run(model, tokens, hooks)


@wrong(
    "run_with_hooks",
    "A name that the model does not have ends in `get_submodule`'s AttributeError. Asked for is a ValueError with the "
    "whole name.",
)
def attribute_error(model, tokens, hooks):
    for name, _ in hooks:
        model.get_submodule(name)
    return run(model, tokens, hooks)


@wrong(
    "run_with_hooks",
    "A submodule that puts out a tuple is let through. A tensor takes the place of the whole or of one part of it, and "
    "nobody is told which. Refuse what is no tensor.",
)
def tensors_for_tuples(model, tokens, hooks):
    return run(model, tokens, hooks, tuples=False)


@wrong(
    "run_with_hooks",
    "You write what the hook returned into the output's own memory. A bare hook point hands on the very tensor that it "
    "was given, so whatever else reads that tensor is changed too, and more is patched than the name says.",
)
def written_into(model, tokens, hooks):
    def overwriting(edit):
        def write(x):
            new = edit(x)
            return x.copy_(new) if isinstance(new, torch.Tensor) and new.shape == x.shape else new

        return write

    return run(model, tokens, [(name, overwriting(edit)) for name, edit in hooks])


@wrong(
    "run_with_hooks",
    "Your run cuts gradients off. For looking that does no harm; attribution patching and the fitting of an edit "
    "ask how the output depends on what a hook put in, and there is no answer. Whoever calls decides about gradients.",
)
def without_gradients(model, tokens, hooks):
    with torch.no_grad():
        return run(model, tokens, hooks)


@wrong(
    "run_with_hooks",
    "You raise the right error and do not say for which name. With twenty hooks the reader has to guess.",
)
def nameless_errors(model, tokens, hooks):
    return run(model, tokens, hooks, named=())


@wrong(
    "run_with_hooks",
    "Your error about a name that the model does not have leaves that name out. A misspelling is found by reading it.",
)
def nameless_if_unknown(model, tokens, hooks):
    return run(model, tokens, hooks, named=("silent", "returned"))


@wrong(
    "run_with_hooks",
    "Your error about a hook that never fired does not say which one. The others did their work; it has to be told "
    "apart from them.",
)
def nameless_if_silent(model, tokens, hooks):
    return run(model, tokens, hooks, named=("unknown", "returned"))


@wrong(
    "run_with_hooks",
    "Your errors about what goes in and out of a hook do not say at which name it sits.",
)
def nameless_if_misshapen(model, tokens, hooks):
    return run(model, tokens, hooks, named=("unknown", "silent"))


@wrong(
    "run_with_hooks",
    "Your function is given what goes into the submodule, and what it returns takes the place of what comes out. For a "
    "bare hook point the two are the same, and not for a submodule that computes something; and a second hook does not "
    "see what the first one returned.",
)
def given_what_goes_in(model, tokens, hooks):
    modules = dict(model.named_modules())
    seen = {}
    handles = [
        modules[name].register_forward_pre_hook(lambda module, inputs, name=name: seen.update({name: inputs[0]}))
        for name, _ in hooks
        if name in modules
    ]

    def on_input(name, edit):
        return lambda output: edit(seen[name])

    try:
        return run(model, tokens, [(name, on_input(name, edit)) for name, edit in hooks])
    finally:
        for handle in handles:
            handle.remove()


@wrong(
    "run_with_hooks",
    "What you hand to a hook is cut off from the graph. What the hook returns has gradients, and nothing that came "
    "before it has.",
)
def cut_before_the_hook(model, tokens, hooks):
    def on_detached(edit):
        return lambda x: edit(x.detach())

    return run(model, tokens, [(name, on_detached(edit)) for name, edit in hooks])


@wrong(
    "run_with_hooks",
    "What goes on is a copy of what the hook returned. The numbers are the same, but the run does not read the tensor "
    "that the caller has: hand on the one that came back.",
)
def a_copy_goes_on(model, tokens, hooks):
    def copying(edit, x):
        new = edit(x)
        return new.clone() if isinstance(new, torch.Tensor) else new

    return run(model, tokens, [(name, functools.partial(copying, edit)) for name, edit in hooks])


@wrong(
    "run_with_hooks",
    "You ask whether what comes back is None, and not whether it is a tensor: a number goes through, and is added "
    "to every entry.",
)
def anything_but_none(model, tokens, hooks):
    def looked_at(name, edit):
        def look(x):
            new = edit(x)
            if new is None:
                raise ValueError(f"nothing from the hook at {name}")
            return new

        return look

    return run(model, tokens, [(name, looked_at(name, edit)) for name, edit in hooks], tensors=False)


@wrong(
    "run_with_hooks",
    "You apply the hooks at one name from the last to the first. The list's order is the order of application.",
)
def last_one_first(model, tokens, hooks):
    return run(model, tokens, list(hooks)[::-1])


@wrong(
    "run_with_hooks",
    "Your hook returns nothing, so the run goes on with what the submodule put out itself: PyTorch takes what a "
    "forward hook returns in its place, and None for no change. Return what the pair's function returned.",
)
def nothing_handed_on(model, tokens, hooks):
    def kept(edit):
        def apply(value):
            edited = edit(value)
            return value if isinstance(edited, torch.Tensor) and edited.shape == value.shape else edited

        return apply

    return run(model, tokens, [(name, kept(edit)) for name, edit in hooks])


@wrong(
    "run_with_hooks",
    "You register the functions of the pairs as they are. PyTorch calls a forward hook with three things, the module, "
    "its inputs and its output, and theirs take the output alone: write a hook that calls them.",
)
def registered_as_they_are(model, tokens, hooks):
    modules = dict(model.named_modules())
    unknown = [name for name, _ in hooks if name not in modules]
    if unknown:
        raise ValueError(f"no hook point {unknown[0]}")
    handles = [modules[name].register_forward_hook(edit) for name, edit in hooks]
    try:
        return model(tokens)
    finally:
        for handle in handles:
            handle.remove()


@right("run_with_hooks")
def with_an_exit_stack(model, tokens, hooks):
    counts = [0] * len(hooks)
    with contextlib.ExitStack() as stack:
        for i, (name, edit) in enumerate(hooks):
            try:
                module = model.get_submodule(name)
            except AttributeError as error:
                raise ValueError(f"no submodule {name}") from error

            def hook(module, inputs, output, i=i, name=name, edit=edit):
                counts[i] += 1
                if not torch.is_tensor(output):
                    raise ValueError(f"{name} puts out a {type(output)}")
                new = edit(output)
                if not torch.is_tensor(new) or tuple(new.shape) != tuple(output.shape):
                    raise ValueError(f"wrong shape at {name}")
                return new

            stack.callback(module.register_forward_hook(hook).remove)
        out = model(tokens)
    if not all(counts):
        raise ValueError(f"silent: {[name for (name, _), count in zip(hooks, counts, strict=True) if not count]}")
    return out


@right("run_with_hooks")
def one_pytorch_hook_a_name(model, tokens, hooks):
    """The functions of a name composed into one."""
    modules, chains, fired = dict(model.named_modules()), {}, []
    for name, edit in hooks:
        if name not in modules:
            raise ValueError(f"{name} is not in the model")
        chains.setdefault(name, []).append(edit)

    def chained(module, inputs, output, *, name):
        fired.append(name)
        result, shape = output, getattr(output, "shape", "none")
        for edit in chains[name]:
            result = edit(result) if shape != "none" else None
            if getattr(result, "shape", None) != shape:
                raise ValueError(f"{name}: another shape")
        return result

    handles = []
    try:
        for name in chains:
            hook = functools.partial(chained, name=name)
            handles.append(modules[name].register_forward_hook(hook))
        return_value = model(tokens)
    finally:
        while handles:
            handles.pop().remove()
    if missing := set(chains) - set(fired):
        raise ValueError(f"never ran: {sorted(missing)}")
    return return_value


# run_with_cache


def cached(model, tokens, names, change=lambda x: x):
    kept = {}

    def keeping(name):
        def keep(activation):
            kept[name] = change(activation)
            return activation

        return keep

    result = run_with_hooks(model, tokens, [(name, keeping(name)) for name in names])
    return result, {name: kept[name] for name in names}


def listening(
    model, tokens, names, *, pre=False, safe=True, prepend=False, known=True, fires=True, first=False, tuples=False,
    order="names", clear=False, stay=False,
):  # fmt: skip
    """With PyTorch's own hooks, at the exit or the entrance of the submodules; and switches for what can go wrong."""
    modules, kept, handles = dict(model.named_modules()), {}, []
    unknown = [name for name in names if name not in modules]
    if known and unknown:
        raise ValueError(f"unknown hook point {unknown[0]}")
    names = [name for name in names if name in modules]

    def keep(name, value):
        if not tuples and not isinstance(value, torch.Tensor):
            raise ValueError(f"{name} puts out a tuple")
        if not (first and name in kept):
            kept[name] = value

    try:
        for name in names:
            if pre:
                hook = lambda module, inputs, name=name: keep(name, inputs[0])  # noqa: E731
                handles.append(modules[name].register_forward_pre_hook(hook))
            else:
                hook = lambda module, inputs, output, name=name: keep(name, output)  # noqa: E731
                handles.append(modules[name].register_forward_hook(hook, prepend=prepend))
        result = model(tokens)
        safe = True
    finally:
        for handle in handles if safe and not stay else []:
            handle.remove()
        for name in names if clear else []:
            modules[name]._forward_hooks.clear()
    if fires and len(kept) < len(set(names)):
        raise ValueError("a hook point never ran")
    found = [name for name in names if name in kept]
    orders = {"names": found, "run": list(kept), "modules": [name for name in modules if name in kept]}
    return result, {name: kept[name] for name in orders[order]}


@wrong(
    "run_with_cache",
    "What you keep is cut off from the graph. For looking that is enough; for asking how the output depends on an "
    "activation, as attribution patching will, it is not.",
)
def detached(model, tokens, names):
    return cached(model, tokens, names, lambda x: x.detach())


@wrong(
    "run_with_cache",
    "You keep a copy, and the run goes on with the original. The numbers are the same, but the output does not depend "
    "on your copy, so its gradient with respect to it does not exist.",
)
def copied(model, tokens, names):
    return cached(model, tokens, names, lambda x: x.clone())


@wrong(
    "run_with_cache",
    "You keep a detached leaf and let the run go on with it. Its own gradient exists, but the graph is cut at every "
    "name that you keep: an earlier activation no longer reaches the output by the ways that lead through it.",
)
def fresh_leaves(model, tokens, names):
    kept = {}

    def keeping(name):
        def keep(activation):
            kept[name] = activation.detach().requires_grad_()
            return kept[name]

        return keep

    result = run_with_hooks(model, tokens, [(name, keeping(name)) for name in names])
    return result, {name: kept[name] for name in names}


@wrong(
    "run_with_cache",
    "You keep the first prompt of the batch only. A patch for the other prompts then has nothing to put in, or puts "
    "the first one's activation into all.",
)
def first_prompt(model, tokens, names):
    return cached(model, tokens, names, lambda x: x[:1])


@wrong(
    "run_with_cache",
    "Your cache has the order in which the model computes. Whoever zips it with the names gets the wrong pairs.",
)
def in_the_models_order(model, tokens, names):
    return listening(model, tokens, names, order="run")


@wrong(
    "run_with_cache",
    "Your cache has the order in which `named_modules` lists the submodules. Whoever zips it with the names gets the "
    "wrong pairs.",
)
def in_the_order_of_the_list(model, tokens, names):
    return listening(model, tokens, names, order="modules")


@wrong(
    "run_with_cache",
    "A name that the model does not have is missing from your cache, and nobody is told until a KeyError somewhere "
    "else.",
)
def unknown_names_are_left_out(model, tokens, names):
    return listening(model, tokens, names, known=False)


@wrong(
    "run_with_cache",
    "A submodule that is there and never runs is missing from your cache, and nobody is told until a KeyError "
    "somewhere else.",
)
def silent_names_are_left_out(model, tokens, names):
    return listening(model, tokens, names, fires=False)


@wrong(
    "run_with_cache",
    "What never came ends in a KeyError of your own cache. Asked for is a ValueError: the caller is to learn that the "
    "model does not run this submodule.",
)
def key_error_if_silent(model, tokens, names):
    result, kept = listening(model, tokens, names, fires=False)
    return result, {name: kept[name] for name in names}


@wrong(
    "run_with_cache",
    "A name that the model does not have ends in a KeyError from your dict of submodules. Asked for is a ValueError.",
)
def key_error_if_unknown(model, tokens, names):
    for name in names:
        dict(model.named_modules())[name]
    return listening(model, tokens, names)


@wrong(
    "run_with_cache",
    "You listen before the hooks that are already there have acted (`prepend`), and so keep what the run did not go on "
    "with.",
)
def hears_it_before_the_others(model, tokens, names):
    return listening(model, tokens, names, prepend=True)


@wrong(
    "run_with_cache",
    "Of a submodule that runs several times you keep the first output. The docstring has the last.",
)
def the_first_of_two(model, tokens, names):
    return listening(model, tokens, names, first=True)


@wrong(
    "run_with_cache",
    "A tuple is kept as it is. Whoever patches with your cache expects tensors, and fails far from here.",
)
def tuples_too(model, tokens, names):
    return listening(model, tokens, names, tuples=True)


@wrong(
    "run_with_cache",
    "Behind the run you empty the hooks of every submodule that you listened at. Others may have hooks there, and "
    "those are gone with yours. Each registration returns a handle that removes that one hook.",
)
def clears_others_hooks(model, tokens, names):
    return listening(model, tokens, names, clear=True)


@wrong(
    "run_with_cache",
    "Your hooks stay on the model, run or no run, and go on writing into an old cache ever after. Keep what "
    "`register_forward_hook` returns, and use it.",
)
def never_removed(model, tokens, names):
    return listening(model, tokens, names, stay=True)


@wrong(
    "run_with_cache",
    "You keep what goes into a submodule, not what comes out of it. Bare hook points hide the difference.",
)
def inputs_instead(model, tokens, names):
    return listening(model, tokens, names, pre=True)


@wrong(
    "run_with_cache",
    "Your hooks stay on the model if the run fails, and go on writing into an old cache ever after.",
)
def stays_after_failure(model, tokens, names):
    return listening(model, tokens, names, safe=False)


@wrong(
    "run_with_cache",
    "What you return as the model's output is an activation: the last one that you kept. The output is what `model` "
    "itself returns at the end of the run.",
)
def the_last_activation(model, tokens, names):
    result, cache = cached(model, tokens, names)
    return (cache[names[-1]] if names else result), cache


@wrong(
    "run_with_cache",
    "The output that you return is cut off from the graph. For looking that is enough; for asking how it depends "
    "on what you kept it is not.",
)
def output_detached(model, tokens, names):
    result, cache = listening(model, tokens, names)
    return result.detach(), cache


@wrong(
    "run_with_cache",
    "You ask whether anything at all was kept. One name that ran then covers for another that did not, whose "
    "absence is found out by a KeyError later.",
)
def one_is_enough(model, tokens, names):
    result, cache = listening(model, tokens, names, fires=False)
    if names and not cache:
        raise ValueError("nothing ran")
    return result, cache


@right("run_with_cache")
def by_listening(model, tokens, names):
    return listening(model, tokens, names)


@right("run_with_cache")
def one_hook_for_all(model, tokens, names):
    modules = dict(model.named_modules())
    if not set(names) <= set(modules):
        raise ValueError("unknown hook point")
    cache, by_module, handles = {}, {modules[name]: name for name in names}, []

    def listen(module, inputs, output):
        if isinstance(output, tuple):
            raise ValueError("no tensor")
        cache[by_module[module]] = output

    try:
        handles = [module.register_forward_hook(listen) for module in by_module]
        logits = model(tokens)
    finally:
        [handle.remove() for handle in handles]
    if len(cache) < len(by_module):
        raise ValueError("a hook point never ran")
    return logits, {name: cache[name] for name in names}


# logit_difference


def refuse(logits, positions):
    if (positions < 0).any() or (positions >= logits.shape[1]).any():
        raise ValueError("position outside")


def picked(logits, tokens, positions):
    rows = torch.arange(len(logits))
    return logits[rows, positions, tokens]


@wrong(
    "logit_difference",
    "You read every prompt at the last column of the batch. Shorter prompts end earlier, and what stands behind their "
    "end is padding.",
)
def last_column(logits, answers, foils, positions):
    refuse(logits, positions)
    end = torch.full_like(positions, logits.shape[1] - 1)
    return picked(logits, answers, end) - picked(logits, foils, end)


@wrong(
    "logit_difference",
    "Foil minus answer: a model that is right gets a negative number from you, and every map of this chapter changes "
    "its colours.",
)
def other_way_round(logits, answers, foils, positions):
    refuse(logits, positions)
    return picked(logits, foils, positions) - picked(logits, answers, positions)


@wrong(
    "logit_difference",
    "You compare probabilities. Their difference is squeezed towards 0 and 1 and depends on all other tokens; logits "
    "are what the model's parts add up to.",
)
def of_probabilities(logits, answers, foils, positions):
    refuse(logits, positions)
    return picked(logits.softmax(-1), answers, positions) - picked(logits.softmax(-1), foils, positions)


@wrong(
    "logit_difference",
    "You go by way of the probabilities and take their logarithms. That is the same number until one of them is too "
    "small for a float: it rounds to 0, and its logarithm is minus infinity. The logits themselves have it already.",
)
def logarithms_of_probabilities(logits, answers, foils, positions):
    refuse(logits, positions)
    return (picked(logits.softmax(-1), answers, positions) / picked(logits.softmax(-1), foils, positions)).log()


@wrong(
    "logit_difference",
    "You average over the prompts, and one number is left. The spread between prompts is what every interval later on "
    "is made from: give each prompt its own.",
)
def averaged(logits, answers, foils, positions):
    refuse(logits, positions)
    return (picked(logits, answers, positions) - picked(logits, foils, positions)).mean()


@wrong(
    "logit_difference",
    "You use the answer and the foil of the first prompt for all prompts, so the others are asked about a city that "
    "is not theirs. Rows, positions and tokens belong together, one of each for every prompt.",
)
def first_prompts_answer(logits, answers, foils, positions):
    refuse(logits, positions)
    rows = torch.arange(len(logits))
    return logits[rows, positions, answers[0]] - logits[rows, positions, foils[0]]


@wrong(
    "logit_difference",
    "Position -1 is accepted, and counts from the end: Python's convention turns a mistake into a number.",
)
def from_the_end(logits, answers, foils, positions):
    if (positions >= logits.shape[1]).any():
        raise ValueError("position outside")
    return picked(logits, answers, positions) - picked(logits, foils, positions)


@wrong(
    "logit_difference",
    "The values are right, but something cuts them off from the logits. Attribution patching needs this metric's "
    "gradient, and would find none.",
)
def without_gradient(logits, answers, foils, positions):
    refuse(logits, positions)
    return (picked(logits, answers, positions) - picked(logits, foils, positions)).detach()


@wrong(
    "logit_difference",
    "A position behind the last one ends in PyTorch's IndexError. Asked for is a ValueError that says what is allowed.",
)
def index_error(logits, answers, foils, positions):
    if (positions < 0).any():
        raise ValueError("position outside")
    return picked(logits, answers, positions) - picked(logits, foils, positions)


@wrong(
    "logit_difference",
    "You read one position too early: there the model predicts the token that the prompt ends with. The prediction of "
    "what comes after a position stands at that position.",
)
def one_too_early(logits, answers, foils, positions):
    refuse(logits, positions)
    return picked(logits, answers, positions - 1) - picked(logits, foils, positions - 1)


@wrong("logit_difference", "You read all prompts at the first prompt's position; each has one of its own.")
def first_prompts_end(logits, answers, foils, positions):
    refuse(logits, positions)
    end = positions[:1].expand_as(positions)
    return picked(logits, answers, end) - picked(logits, foils, end)


@wrong(
    "logit_difference",
    "You take the difference's size and lose its sign: a model that prefers the foil looks like one that prefers the "
    "answer.",
)
def size_alone(logits, answers, foils, positions):
    refuse(logits, positions)
    return (picked(logits, answers, positions) - picked(logits, foils, positions)).abs()


@wrong(
    "logit_difference",
    "You add the prompts up, and one number is left. The spread between prompts is what every interval later on is "
    "made from: give each prompt its own.",
)
def added_up(logits, answers, foils, positions):
    refuse(logits, positions)
    return (picked(logits, answers, positions) - picked(logits, foils, positions)).sum()


@wrong(
    "logit_difference",
    "`logits[:, positions, answers]` reads every prompt at all prompts' positions and tokens, [batch, batch]. Each "
    "prompt has one of each: a row number belongs beside them.",
)
def every_prompt_everywhere(logits, answers, foils, positions):
    refuse(logits, positions)
    return logits[:, positions, answers] - logits[:, positions, foils]


@wrong(
    "logit_difference",
    "Every row of yours is read from the first prompt's logits: one index for the rows is missing, or it is 0 "
    "throughout.",
)
def first_prompts_logits(logits, answers, foils, positions):
    refuse(logits, positions)
    return logits[0, positions, answers] - logits[0, positions, foils]


@right("logit_difference")
def by_gather(logits, answers, foils, positions):
    refuse(logits, positions)
    end = logits.gather(1, positions[:, None, None].expand(-1, 1, logits.shape[2]))[:, 0].log_softmax(-1)
    return (end.gather(1, answers[:, None]) - end.gather(1, foils[:, None]))[:, 0]


@right("logit_difference")
def row_by_row(logits, answers, foils, positions):
    if not all(0 <= p < logits.shape[1] for p in positions.tolist()):
        raise ValueError("position outside")
    return torch.stack([row[p, a] - row[p, f] for row, a, f, p in zip(logits, answers, foils, positions, strict=True)])


# normalized_patching_metric


def gap(clean, corrupted, guard=True):
    if guard and abs(float(clean.mean() - corrupted.mean())) < 1e-6:
        raise ValueError("no gap")
    return clean.mean() - corrupted.mean()


@wrong(
    "normalized_patching_metric",
    "You take the ratio for each prompt and average the ratios. One prompt with almost no gap then outweighs all the "
    "others. Average first, divide afterwards.",
)
def mean_of_ratios(patched, clean, corrupted):
    gap(clean, corrupted)
    return ((patched - corrupted) / (clean - corrupted)).mean(-1)


@wrong(
    "normalized_patching_metric",
    "Your scale runs the other way: the clean run gets 0 and the corrupted one 1, and a patch that repairs everything "
    "looks like one that does nothing.",
)
def share_that_is_lost(patched, clean, corrupted):
    return (clean.mean() - patched.mean(-1)) / gap(clean, corrupted)


@wrong(
    "normalized_patching_metric",
    "You cut the shares off at 0 and 1. A patch that overshoots, or makes things worse than the corruption, is a "
    "finding, and you hide it.",
)
def clipped(patched, clean, corrupted):
    return ((patched.mean(-1) - corrupted.mean()) / gap(clean, corrupted)).clamp(0, 1)


@wrong(
    "normalized_patching_metric",
    "You divide by the clean value. The way to go is from the corrupted run to the clean one, and it is 1 only if "
    "the corrupted run is at 0.",
)
def share_of_the_clean_value(patched, clean, corrupted):
    gap(clean, corrupted)
    return (patched.mean(-1) - corrupted.mean()) / clean.mean()


@wrong(
    "normalized_patching_metric",
    "You divide by the size of the gap, without its sign. With a metric that is lower on the clean run, such as a "
    "loss, your shares are negative.",
)
def gap_without_sign(patched, clean, corrupted):
    return (patched.mean(-1) - corrupted.mean()) / gap(clean, corrupted).abs()


@wrong(
    "normalized_patching_metric",
    "Where the two runs have the same mean you divide by nearly nothing, and noise comes out as an enormous effect.",
)
def no_guard(patched, clean, corrupted):
    return (patched.mean(-1) - corrupted.mean()) / gap(clean, corrupted, guard=False)


@wrong(
    "normalized_patching_metric",
    "Your guard refuses every metric that is lower on the clean run, such as a loss: there the gap is negative, and "
    "large. Too small is a gap whose size is nearly zero.",
)
def refuses_losses(patched, clean, corrupted):
    if clean.mean() - corrupted.mean() < 1e-6:
        raise ValueError("no gap")
    return (patched.mean(-1) - corrupted.mean()) / (clean.mean() - corrupted.mean())


@wrong(
    "normalized_patching_metric",
    "You refuse the whole batch because one prompt has no gap of its own. What is divided by is the gap between the "
    "means, and that is there as long as the other prompts have one.",
)
def refuses_for_one_prompt(patched, clean, corrupted):
    if ((clean - corrupted).abs() < 1e-6).any():
        raise ValueError("a prompt has no gap")
    return (patched.mean(-1) - corrupted.mean()) / gap(clean, corrupted)


@wrong(
    "normalized_patching_metric",
    "You average over the patches as well as the prompts, and one number is left of the whole sweep. Which of the "
    "dimensions is the prompts'?",
)
def over_everything(patched, clean, corrupted):
    return (patched.mean() - corrupted.mean()) / gap(clean, corrupted)


@wrong(
    "normalized_patching_metric",
    "Your guard wants a gap that is exactly zero. Means that should be equal differ by rounding, and you divide by "
    "that.",
)
def exactly_zero(patched, clean, corrupted):
    if clean.mean() == corrupted.mean():
        raise ValueError("no gap")
    return (patched.mean(-1) - corrupted.mean()) / gap(clean, corrupted, guard=False)


@wrong(
    "normalized_patching_metric",
    "You refuse small gaps that are gaps. The docstring draws the line at 1e-6.",
)
def refuses_small_gaps(patched, clean, corrupted):
    if gap(clean, corrupted).abs() < 1e-2:
        raise ValueError("no gap")
    return (patched.mean(-1) - corrupted.mean()) / gap(clean, corrupted)


@wrong(
    "normalized_patching_metric",
    "Your shares are right, and cut off from what they were made of: no gradient reaches the patched metric.",
)
def shares_without_gradient(patched, clean, corrupted):
    return (patched.detach().mean(-1) - corrupted.mean()) / gap(clean, corrupted)


@wrong(
    "normalized_patching_metric",
    "You average over the first dimension. Of several patches that is the patches; the prompts are the last.",
)
def over_the_first_dimension(patched, clean, corrupted):
    return (patched.mean(0) - corrupted.mean()) / gap(clean, corrupted)


@right("normalized_patching_metric")
def by_sums(patched, clean, corrupted):
    total = (clean - corrupted).sum()
    if total.abs() / len(clean) < 1e-6:
        raise ValueError("no gap")
    return (patched - corrupted).sum(-1) / total


@right("normalized_patching_metric")
def patch_by_patch(patched, clean, corrupted):
    if torch.isclose(clean.mean(), corrupted.mean(), rtol=0, atol=1e-6):
        raise ValueError("no gap")
    shares = [1 - (clean.mean() - row.mean()) / (clean - corrupted).mean() for row in patched.reshape(-1, len(clean))]
    return torch.stack(shares).reshape(patched.shape[:-1])
