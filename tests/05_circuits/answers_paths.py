"""Wrong answers for path patching, each with its sentence, and right ones."""

import torch

from utils.course.catalogue import right, wrong
from utils.patching.hooks import run_with_cache, run_with_hooks


def outputs(model, mlps=True):
    names = dict(model.named_modules())
    kinds = ("attn.hook_z", "hook_mlp_out") if mlps else ("attn.hook_z",)
    return [name for layer in range(len(model.blocks)) for kind in kinds if (name := f"blocks.{layer}.{kind}") in names]


def mixed(activation, source, head, at):
    result = activation.clone()
    for i, row in enumerate(at):
        for p in row.nonzero().flatten().tolist():
            if head is None:
                result[i, p] = source[i, p]
            else:
                result[i, p, head] = source[i, p, head]
    return result


@torch.no_grad()
def patched(
    model, tokens, corrupted, senders, receivers, positions=None, *, frozen_mlps=True, freeze_at_corrupted=False,
    third=True, leave_senders=False, freeze_behind=False, whole_receiver=False, added=True, swap=False, freeze=True,
):  # fmt: skip
    if tokens.shape != corrupted.shape:
        raise ValueError("shapes")
    if swap:
        tokens, corrupted = corrupted, tokens
    last = f"blocks.{len(model.blocks) - 1}.hook_resid_post"
    everywhere = torch.ones(tokens.shape, dtype=torch.bool)
    at = everywhere.clone()
    if positions is not None:
        at = torch.zeros_like(everywhere)
        at[torch.arange(len(tokens)), positions] = True
    every = outputs(model)
    _, clean = run_with_cache(model, tokens, [*every, last])
    _, other = run_with_cache(model, corrupted, list(dict.fromkeys([*every, *(name for name, _ in senders)])))
    replaced = {}
    for name, head in senders:
        replaced[name] = mixed(replaced.get(name, clean[name]), other[name], head, at)
    sending = [(name, lambda _, value=value: value) for name, value in replaced.items()]
    heard = {}

    def hear(name):
        def hook(x):
            heard[name] = x
            return x

        return name, hook

    sites = [last if name == "logits" else name for name, _ in receivers]
    held = other if freeze_at_corrupted else clean
    hooks = [hear(name) for name in sites]
    for name in outputs(model, frozen_mlps) if freeze else []:
        value = replaced.get(name, held[name])
        hooks.append((name, lambda _, value=value: value))
    hooks += [pair for pair in sending if not freeze or pair[0] not in outputs(model, frozen_mlps)]
    second = run_with_hooks(model, tokens, hooks)
    if not third:
        return second
    hooks = sending if leave_senders else []
    if freeze_behind:
        hooks = [(name, lambda _, value=clean[name]: value) for name in every if (name, None) not in receivers]
    for (name, head), site in zip(receivers, sites, strict=True):
        if name == "logits":
            change = (lambda x: x + heard[last] - clean[last]) if added else (lambda x: heard[last])
            hooks = [*hooks, (last, change)]
        else:
            number = None if whole_receiver else head
            edit = lambda x, site=site, number=number: mixed(x, heard[site], number, everywhere)  # noqa: E731
            hooks = [*hooks, (name, edit)]
    return run_with_hooks(model, tokens, hooks)


@wrong(
    "path_patch",
    "You freeze nothing in the second run: what the receivers hear has also come through other parts, which the "
    "senders "
    "changed before. That is patching, not path patching.",
)
def nothing_frozen(model, tokens, corrupted, senders, receivers, *, positions=None):
    return patched(model, tokens, corrupted, senders, receivers, positions, freeze=False)


@wrong(
    "path_patch",
    "You freeze the heads and let the MLPs run: what an MLP makes of the senders reaches the receivers as well. Wang"
    " et "
    "al. do it so; here an MLP is a part like a head.",
)
def mlps_run(model, tokens, corrupted, senders, receivers, *, positions=None):
    return patched(model, tokens, corrupted, senders, receivers, positions, frozen_mlps=False)


@wrong(
    "path_patch",
    "You freeze the other parts at what they put out on the corrupted prompts: then the receivers hear all of them, "
    "and "
    "not the senders alone.",
)
def frozen_at_the_corrupted(model, tokens, corrupted, senders, receivers, *, positions=None):
    return patched(model, tokens, corrupted, senders, receivers, positions, freeze_at_corrupted=True)


@wrong(
    "path_patch",
    "You return the logits of the second run. In it everything is frozen but the senders: the logits are what the "
    "unembedding hears, whatever the receivers are.",
)
def the_second_run(model, tokens, corrupted, senders, receivers, *, positions=None):
    return patched(model, tokens, corrupted, senders, receivers, positions, third=False)


@wrong(
    "path_patch",
    "In your last run the senders are still corrupted: then everybody hears them, and not the receivers alone.",
)
def senders_left_corrupted(model, tokens, corrupted, senders, receivers, *, positions=None):
    return patched(model, tokens, corrupted, senders, receivers, positions, leave_senders=True)


@wrong(
    "path_patch",
    "In your last run the other parts are still frozen: nobody behind the receivers can hear what has changed in them.",
)
def frozen_behind_too(model, tokens, corrupted, senders, receivers, *, positions=None):
    return patched(model, tokens, corrupted, senders, receivers, positions, freeze_behind=True)


@wrong("path_patch", "You hand all heads of a receiver's layer what they hear, and not the one that is named.")
def all_heads_of_the_layer(model, tokens, corrupted, senders, receivers, *, positions=None):
    return patched(model, tokens, corrupted, senders, receivers, positions, whole_receiver=True)


@wrong(
    "path_patch",
    "For the unembedding you put the second run's stream in place of the last run's: what the other receivers make "
    "of what "
    "they hear is lost. Add the change.",
)
def stream_replaced(model, tokens, corrupted, senders, receivers, *, positions=None):
    return patched(model, tokens, corrupted, senders, receivers, positions, added=False)


@wrong("path_patch", "The two kinds of prompts are exchanged: your model reads the corrupted ones.")
def exchanged(model, tokens, corrupted, senders, receivers, *, positions=None):
    return patched(model, tokens, corrupted, senders, receivers, positions, swap=True)


@wrong("path_patch", "You corrupt the senders at all positions, whatever `positions` says.")
def at_all_positions(model, tokens, corrupted, senders, receivers, *, positions=None):
    return patched(model, tokens, corrupted, senders, receivers)


@wrong("path_patch", "You corrupt the first of the senders alone: all of them send in the same run.")
def only_the_first_sender(model, tokens, corrupted, senders, receivers, *, positions=None):
    return patched(model, tokens, corrupted, senders[:1], receivers, positions)


@right("path_patch")
def step_by_step(model, tokens, corrupted, senders, receivers, *, positions=None):
    return patched(model, tokens, corrupted, senders, receivers, positions)


@right("path_patch")
def with_the_models_own_hooks(model, tokens, corrupted, senders, receivers, *, positions=None):
    if tokens.shape != corrupted.shape:
        raise ValueError("shapes differ")
    known = dict(model.named_modules())
    for name, _ in [*senders, *receivers]:
        if name != "logits" and name not in known:
            raise ValueError(name)
    n_layers = model.cfg.n_layers
    end = f"blocks.{n_layers - 1}.hook_resid_post"
    with torch.no_grad():
        _, clean = model.run_with_cache(tokens)
        _, other = model.run_with_cache(corrupted)
        rows = torch.arange(len(tokens))
        held = {name: clean[name].clone() for name in outputs(model)}
        for name, head in senders:
            where = (slice(None), slice(None)) if positions is None else (rows, positions)
            place = where if head is None else (*where, head)
            held[name][place] = other[name][place]
        heard = {}

        def listen(x, hook):
            heard[hook.name] = x.clone()

        def freeze(x, hook):
            return held[hook.name].clone()

        names = [end if name == "logits" else name for name, _ in receivers]
        model.run_with_hooks(tokens, fwd_hooks=[*((n, listen) for n in set(names)), *((n, freeze) for n in held)])

        def receive(head):
            def hook(x, hook):
                x = x.clone()
                if head is None:
                    return heard[hook.name]
                x[:, :, head] = heard[hook.name][:, :, head]
                return x

            return hook

        hooks = [(name, receive(head)) for name, head in receivers if name != "logits"]
        if len(hooks) < len(receivers):
            hooks.append((end, lambda x, hook: x + (heard[end] - clean[end])))
        return model.run_with_hooks(tokens, fwd_hooks=hooks)
