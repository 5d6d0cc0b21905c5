"""Wrong answers for hooks and metrics, each with its sentence, and right ones in another style."""

import contextlib
import functools

import torch

from utils.course.catalogue import right, wrong
from utils.patching.hooks import run_with_hooks

# run_with_hooks


def run(
    model, tokens, hooks, *, keep=False, known=True, fires=True, shapes=True, pre=False, safe=True, late=False,
    any_fired=False, named=True,
):  # fmt: skip
    """A run with hooks, with switches for what can go wrong."""
    modules, fired, handles = dict(model.named_modules()), set(), []
    unknown = [name for name, _ in hooks if name not in modules]
    if known and unknown:
        raise ValueError(f"unknown hook point {unknown[0] if named else ''}")

    def replace(index, value):
        fired.add(index)
        name, edit = hooks[-1 if late else index]
        edited = edit(value)
        if shapes and (not isinstance(edited, torch.Tensor) or edited.shape != value.shape):
            raise ValueError(f"wrong shape from the hook at {name if named else ''}")
        if not isinstance(edited, torch.Tensor):
            return None
        return edited.expand_as(value)

    for index, (name, _) in enumerate(hooks):
        if name not in modules:
            continue
        if pre:
            hook = lambda module, inputs, index=index: replace(index, inputs[0])  # noqa: E731
            handles.append(modules[name].register_forward_pre_hook(hook))
        else:
            hook = lambda module, inputs, output, index=index: replace(index, output)  # noqa: E731
            handles.append(modules[name].register_forward_hook(hook))
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
        raise ValueError(f"never fired: {silent[0] if named else ''}")
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
    "Two hooks at one name leave only the last one: the pairs went into a dict. Both have to be applied, one after "
    "the other.",
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
    "A hook that returns nothing passes for one that changed nothing (so PyTorch reads it), and one row is stretched "
    "over all. Look at what the function returned before it goes on.",
)
def whatever_comes_back(model, tokens, hooks):
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
    return run(model, tokens, hooks, named=False)


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
    """The functions of a name composed into one, registered in front of whatever is there."""
    modules, chains, fired = dict(model.named_modules()), {}, []
    for name, edit in hooks:
        if name not in modules:
            raise ValueError(f"{name} is not in the model")
        chains.setdefault(name, []).append(edit)

    def chained(module, inputs, output, *, name):
        fired.append(name)
        result = output
        for edit in chains[name]:
            result = edit(result)
            if getattr(result, "shape", None) != output.shape:
                raise ValueError(f"{name}: another shape")
        return result

    handles = []
    try:
        for name in chains:
            hook = functools.partial(chained, name=name)
            handles.append(modules[name].register_forward_hook(hook, prepend=True))
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


def listening(model, tokens, names, pre=False, safe=True):
    """With PyTorch's own hooks, at the exit or the entrance of the submodules."""
    modules, kept, handles = dict(model.named_modules()), {}, []
    unknown = [name for name in names if name not in modules]
    if unknown:
        raise ValueError(f"unknown hook point {unknown[0]}")
    try:
        for name in names:
            if pre:
                hook = lambda module, inputs, name=name: kept.__setitem__(name, inputs[0])  # noqa: E731
                handles.append(modules[name].register_forward_pre_hook(hook))
            else:
                hook = lambda module, inputs, output, name=name: kept.__setitem__(name, output)  # noqa: E731
                handles.append(modules[name].register_forward_hook(hook))
        result = model(tokens)
        safe = True
    finally:
        for handle in handles if safe else []:
            handle.remove()
    if len(kept) < len(set(names)):
        raise ValueError("a hook point never ran")
    return result, {name: kept[name] for name in names}


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
    result, cache = cached(model, tokens, names)
    order = [name for name, _ in model.named_modules() if name in cache]
    return result, {name: cache[name] for name in order}


@wrong(
    "run_with_cache",
    "Names that are not there are missing from your cache, and nobody is told until a KeyError somewhere else.",
)
def what_can_be_had(model, tokens, names):
    known = [name for name in dict(model.named_modules()) if name != "not_run"]
    return cached(model, tokens, [name for name in names if name in known])


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
