"""A sweep over all layers and positions: ours against ``transformer_lens.patching``, in one run, on the course model.

    python benchmarks/patching.py

Prints, for the stream, attention and MLPs and for few and many prompts, the largest difference of the values and the
seconds of each; then what attribution patching costs in forward passes, how well it ranks the sites, and from where to
where the ratio of its estimate to the exact effect goes over all sites with an effect above half a nat. The rivals take
turns, so that a machine that is busy for a while slows both.
"""

import statistics
import time
import warnings

import torch

from utils.data.prompts import encode_prompts, fact_prompt, token_id
from utils.data.world import landmarks
from utils.models.course_model import load_course_model
from utils.patching.attribution import attribution_patching
from utils.patching.metrics import logit_difference
from utils.patching.sites import patch_sweep

REPEATS = 9
SWEEPS = {
    "hook_resid_pre": "get_act_patch_resid_pre",
    "hook_attn_out": "get_act_patch_attn_out",
    "hook_mlp_out": "get_act_patch_mlp_out",
}


def by_turns(*functions):
    """The median seconds of each, one run of each at a time after one to warm up; and their last results."""
    times, results = [[] for _ in functions], [function() for function in functions]
    for _ in range(REPEATS):
        for i, function in enumerate(functions):
            start = time.perf_counter()
            results[i] = function()
            times[i].append(time.perf_counter() - start)
    return [statistics.median(seconds) for seconds in times], results


def compare(model, patching, n_prompts):
    prompts = [fact_prompt(landmark, "city", 0) for landmark in landmarks()[: 2 * n_prompts]]
    clean, corrupted = encode_prompts(prompts).split(n_prompts)
    ids = torch.tensor([token_id(prompt.answer) for prompt in prompts])
    ends = torch.full((n_prompts,), clean.shape[1] - 1)

    def metric(logits):
        return logit_difference(logits, ids[:n_prompts], ids[n_prompts:], ends)

    with torch.no_grad():
        _, cache = model.run_with_cache(clean)
        start = metric(model(corrupted)).mean()
    for point, function in SWEEPS.items():
        names = [f"blocks.{layer}.{point}" for layer in range(model.cfg.n_layers)]
        their_sweep = torch.no_grad()(getattr(patching, function))
        (ours, theirs, estimating, forward), (values, wanted, found, _) = by_turns(
            lambda names=names: patch_sweep(model, corrupted, {name: cache[name] for name in names}, metric).mean(-1),
            lambda sweep=their_sweep: sweep(model, corrupted, cache, lambda logits: metric(logits).mean()),
            lambda names=names: attribution_patching(model, clean, corrupted, names, metric),
            torch.no_grad()(lambda: model(corrupted)),
        )
        estimate, exact = torch.stack([x.mean(0) for x in found.values()]), values - start
        live = exact.abs() > 1e-4
        ranks = torch.stack([x[live].argsort().argsort().double() for x in (exact, estimate)])
        ratios = (estimate / exact)[exact.abs() > 0.5]
        print(
            f"{point:>15}, {n_prompts:2} prompts: {values.numel()} sites, largest difference "
            f"{(values - wanted).abs().max():.1e}, ours {ours:.3f} s, transformer_lens {theirs:.3f} s: "
            f"{theirs / ours:.1f} times; attribution patching {estimating / forward:.1f} forward passes, "
            f"rank correlation {torch.corrcoef(ranks)[0, 1]:.2f}, estimate / exact from {ratios.min():.2f} to "
            f"{ratios.max():.2f} over {len(ratios)} sites"
        )


def main():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        from transformer_lens import patching

    patching.tqdm = lambda iterable, **settings: iterable
    model = load_course_model()
    for n_prompts in (1, 8, 32):
        compare(model, patching, n_prompts)


if __name__ == "__main__":
    main()
