"""Dictionaries: how fast our loop trains each variant, beside the trainer of ``sae_lens`` on the same activations.

    OMP_NUM_THREADS=1 python benchmarks/sae.py [variant ...]

Prints, for each variant, activations a second for ours and theirs: best and median of short runs that are taken in
turn, now the one first and now the other, by the processor's time, so that a busy machine does to both alike. Then
their ratio, and which share of our step the matrix products alone would take: two of the forward pass and three of the
backward one, as activations ask for no gradient.

Alike are activations (in memory), batch, widths, float32 and Adam. Beyond that each loop does what it does by itself:
ours shuffles the table and gathers each batch's rows, keeps the rows of W_dec at length 1 and stops at a loss that is
not finite; theirs reads the table in order, clips gradients, counts how often latents are on and, in its top-k
variants, weighs latents by the length of their rows (its way of what ours does by keeping them at 1). Both keep track
of dead latents. In "TopK, dead" the bias of half the latents is so low that they are never on, and both take the
auxiliary loss with k_aux = d_in / 2; elsewhere no latent counts as dead yet.
"""

import contextlib
import io
import os
import statistics
import sys
import time

import torch

from utils.sae.autoencoder import SparseAutoencoder, l1_objective
from utils.sae.gated import GatedSAE, gated_objective
from utils.sae.jumprelu import JumpReLUSAE, jumprelu_objective
from utils.sae.matryoshka import MatryoshkaSAE, matryoshka_objective
from utils.sae.topk import BatchTopKSAE, TopKSAE, topk_objective
from utils.sae.training import from_table, train_sae

D_IN, D_SAE, K, BATCH, STEPS, ROUNDS = 128, 1024, 16, 1024, 6, 7
WIDTHS = [128, 256, 512, 1024]


def seconds(run):
    "Of the processor, so that waiting for a busy machine does not count."
    start = time.process_time()
    run()
    return time.process_time() - start


@torch.no_grad()
def kill_half(sae):
    """Never on, at any activation of the table."""
    sae.b_enc[: D_SAE // 2] = -100.0
    return sae


def matrix_products(x):
    """The five products of a step, and nothing else."""
    W, z = torch.randn(D_IN, D_SAE), torch.randn(BATCH, D_SAE)

    def run():
        for _ in range(STEPS):
            x[:BATCH] @ W
            z @ W.T
            z.T @ x[:BATCH]
            x[:BATCH] @ W
            x[:BATCH].T @ z

    return run


def ours(variant, x):
    sae, objective = {
        "L1": lambda: (SparseAutoencoder(D_IN, D_SAE), l1_objective(1.0)),
        "TopK": lambda: (TopKSAE(D_IN, D_SAE, K), topk_objective()),
        "TopK, dead": lambda: (kill_half(TopKSAE(D_IN, D_SAE, K)), topk_objective(D_IN // 2)),
        "BatchTopK": lambda: (BatchTopKSAE(D_IN, D_SAE, K), topk_objective()),
        "Gated": lambda: (GatedSAE(D_IN, D_SAE), gated_objective(1.0)),
        "JumpReLU": lambda: (JumpReLUSAE(D_IN, D_SAE), jumprelu_objective(0.1)),
        "Matryoshka": lambda: (MatryoshkaSAE(D_IN, D_SAE, K, WIDTHS), matryoshka_objective()),
    }[variant]()
    dead_after = 1 if variant == "TopK, dead" else 20_000
    return lambda: train_sae(sae, from_table(x, BATCH), objective, n_steps=STEPS, dead_after=dead_after)


def theirs(variant, x):
    import sae_lens
    from sae_lens.config import LoggingConfig, SAETrainerConfig
    from sae_lens.training.sae_trainer import SAETrainer

    kind, settings = {
        "L1": ("StandardTrainingSAE", {"l1_coefficient": 1.0}),
        "TopK": ("TopKTrainingSAE", {"k": K}),
        "TopK, dead": ("TopKTrainingSAE", {"k": K}),
        "BatchTopK": ("BatchTopKTrainingSAE", {"k": K}),
        "Gated": ("GatedTrainingSAE", {"l1_coefficient": 1.0}),
        "JumpReLU": ("JumpReLUTrainingSAE", {"l0_coefficient": 0.1}),
        "Matryoshka": ("MatryoshkaBatchTopKTrainingSAE", {"k": K, "matryoshka_widths": WIDTHS}),
    }[variant]
    config = getattr(sae_lens, f"{kind}Config")(d_in=D_IN, d_sae=D_SAE, device="cpu", dtype="float32", **settings)
    sae = getattr(sae_lens, kind)(config)
    if variant == "TopK, dead":
        kill_half(sae)

    def batches():
        step = 0
        while True:
            yield x[step % 4 * BATCH : (step % 4 + 1) * BATCH]
            step += 1

    trainer_config = SAETrainerConfig(
        n_checkpoints=0, checkpoint_path=None, save_final_checkpoint=False, total_training_samples=STEPS * BATCH,
        device="cpu", autocast=False, lr=1e-3, lr_end=1e-4, lr_scheduler_name="constant", lr_warm_up_steps=0,
        adam_beta1=0.9, adam_beta2=0.999, lr_decay_steps=0, n_restart_cycles=1, train_batch_size_samples=BATCH,
        dead_feature_window=0 if variant == "TopK, dead" else 1000, feature_sampling_window=2000,
        logger=LoggingConfig(log_to_wandb=False),
    )  # fmt: skip
    return lambda: SAETrainer(cfg=trainer_config, sae=sae, data_provider=batches()).fit()


def main():
    x = torch.randn(4 * BATCH, D_IN, generator=torch.Generator().manual_seed(0))
    print(f"{D_IN} dimensions, {D_SAE} latents, batches of {BATCH}, {torch.get_num_threads()} thread(s)")
    print("activations a processor second, best (median):")
    for variant in sys.argv[1:] or ("L1", "TopK", "TopK, dead", "BatchTopK", "Gated", "JumpReLU", "Matryoshka"):
        times = {"products": [], "ours": [], "theirs": []}
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            for turn in range(ROUNDS):
                times["products"].append(seconds(matrix_products(x)))
                pair = [("ours", ours), ("theirs", theirs)]
                for name, make in pair if turn % 2 else reversed(pair):
                    times[name].append(seconds(make(variant, x)))
        speed = {
            name: [round(STEPS * BATCH / summary(values)) for summary in (min, statistics.median)]
            for name, values in times.items()
        }
        ratio = statistics.median(b / a for a, b in zip(times["ours"], times["theirs"], strict=True))
        share = statistics.median(b / a for a, b in zip(times["ours"], times["products"], strict=True))
        print(
            f"  {variant:11} ours {speed['ours'][0]:6} ({speed['ours'][1]:6})   "
            f"sae_lens {speed['theirs'][0]:6} ({speed['theirs'][1]:6})   "
            f"ratio of best {speed['ours'][0] / speed['theirs'][0]:.2f}, median of rounds {ratio:.2f}   "
            f"products alone: best {speed['ours'][0] / speed['products'][0]:.2f}, median {share:.2f} of our step   "
            f"load {os.getloadavg()[0]:.1f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
