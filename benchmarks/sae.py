"""Dictionaries: how fast our loop trains each variant, beside the trainer of ``sae_lens`` on the same activations.

    OMP_NUM_THREADS=1 python benchmarks/sae.py

Prints, for each variant, activations a second for ours and theirs (both best of several short runs, taken in turn, so
that a busy machine slows down both alike), their ratio, and which share of a step the matrix products alone would take:
two of the forward pass and three of the backward one, as activations ask for no gradient.
"""

import contextlib
import io
import time

import torch

from utils.sae.autoencoder import SparseAutoencoder, l1_objective
from utils.sae.gated import GatedSAE, gated_objective
from utils.sae.jumprelu import JumpReLUSAE, jumprelu_objective
from utils.sae.matryoshka import MatryoshkaSAE, matryoshka_objective
from utils.sae.topk import BatchTopKSAE, TopKSAE, topk_objective
from utils.sae.training import from_table, train_sae

D_IN, D_SAE, K, BATCH, STEPS, ROUNDS = 128, 1024, 16, 1024, 12, 4
WIDTHS = [128, 256, 512, 1024]


def seconds(run):
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


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
        "BatchTopK": lambda: (BatchTopKSAE(D_IN, D_SAE, K), topk_objective()),
        "Gated": lambda: (GatedSAE(D_IN, D_SAE), gated_objective(1.0)),
        "JumpReLU": lambda: (JumpReLUSAE(D_IN, D_SAE), jumprelu_objective(0.1)),
        "Matryoshka": lambda: (MatryoshkaSAE(D_IN, D_SAE, K, WIDTHS), matryoshka_objective()),
    }[variant]()
    return lambda: train_sae(sae, from_table(x, BATCH), objective, n_steps=STEPS)


def theirs(variant, x):
    import sae_lens
    from sae_lens.config import LoggingConfig, SAETrainerConfig
    from sae_lens.training.sae_trainer import SAETrainer

    kind, settings = {
        "L1": ("StandardTrainingSAE", {"l1_coefficient": 1.0}),
        "TopK": ("TopKTrainingSAE", {"k": K}),
        "BatchTopK": ("BatchTopKTrainingSAE", {"k": K}),
        "Gated": ("GatedTrainingSAE", {"l1_coefficient": 1.0}),
        "JumpReLU": ("JumpReLUTrainingSAE", {"l0_coefficient": 0.1}),
        "Matryoshka": ("MatryoshkaBatchTopKTrainingSAE", {"k": K, "matryoshka_widths": WIDTHS}),
    }[variant]
    config = getattr(sae_lens, f"{kind}Config")(d_in=D_IN, d_sae=D_SAE, device="cpu", dtype="float32", **settings)
    sae = getattr(sae_lens, kind)(config)

    def batches():
        step = 0
        while True:
            yield x[step % 4 * BATCH : (step % 4 + 1) * BATCH]
            step += 1

    trainer_config = SAETrainerConfig(
        n_checkpoints=0, checkpoint_path=None, save_final_checkpoint=False, total_training_samples=STEPS * BATCH,
        device="cpu", autocast=False, lr=1e-3, lr_end=1e-4, lr_scheduler_name="constant", lr_warm_up_steps=0,
        adam_beta1=0.9, adam_beta2=0.999, lr_decay_steps=0, n_restart_cycles=1, train_batch_size_samples=BATCH,
        dead_feature_window=1000, feature_sampling_window=2000, logger=LoggingConfig(log_to_wandb=False),
    )  # fmt: skip
    return lambda: SAETrainer(cfg=trainer_config, sae=sae, data_provider=batches()).fit()


def main():
    x = torch.randn(4 * BATCH, D_IN, generator=torch.Generator().manual_seed(0))
    print(f"{D_IN} dimensions, {D_SAE} latents, batches of {BATCH}; activations a second")
    for variant in ("L1", "TopK", "BatchTopK", "Gated", "JumpReLU", "Matryoshka"):
        times = {"products": [], "ours": [], "theirs": []}
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            for _ in range(ROUNDS):
                times["products"].append(seconds(matrix_products(x)))
                times["ours"].append(seconds(ours(variant, x)))
                times["theirs"].append(seconds(theirs(variant, x)))
        best = {name: min(values) for name, values in times.items()}
        ratios = sorted(b / a for a, b in zip(times["ours"], times["theirs"], strict=True))
        speed = {name: STEPS * BATCH / value for name, value in best.items()}
        print(
            f"  {variant:11} ours {speed['ours']:8.0f}   sae_lens {speed['theirs']:8.0f}   "
            f"ratio {best['theirs'] / best['ours']:.2f} (rounds {ratios[0]:.2f} to {ratios[-1]:.2f})   "
            f"products alone {best['products'] / best['ours']:.2f} of our step"
        )


if __name__ == "__main__":
    main()
