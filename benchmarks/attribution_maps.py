"""Processor time of attribution maps, against captum, for the same result.

    python benchmarks/attribution_maps.py

Both get the digit network, the same images, and the same number of images at a time. Their results are compared before
their times are. Times are of the processor, on one thread, so that what else the machine does counts for neither.
Captum's Occlusion is timed as it comes (one square at a time) and with as many images at a time as ours.
"""

import statistics
import time
from collections.abc import Callable

import torch
from captum.attr import IntegratedGradients, Occlusion
from torch import Tensor

from utils.attribution.gradients import integrated_gradients
from utils.attribution.occlusion import occlusion_map
from utils.models.digits_cnn import load_digits_cnn

BATCH, SIZE, ROUNDS, AT_ONCE = 16, 16, 9, 256


def seconds(run: Callable[[], Tensor]) -> float:
    start = time.process_time()
    run()
    return time.process_time() - start


def compare(name: str, ours: Callable[[], Tensor], theirs: Callable[[], Tensor]) -> None:
    torch.testing.assert_close(ours(), theirs(), rtol=1e-4, atol=1e-5)
    times = [(seconds(ours), seconds(theirs)) for _ in range(ROUNDS)]
    mine, captums = (statistics.median(column) for column in zip(*times, strict=True))
    ratio = statistics.median(b / a for a, b in times)
    print(f"{name:35} ours {mine * 1e3:8.1f} ms   captum {captums * 1e3:8.1f} ms   {ratio:.2f}×")


def main() -> None:
    torch.set_num_threads(1)
    model = load_digits_cnn()
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(BATCH, 1, SIZE, SIZE, generator=generator)
    targets = torch.randint(10, (BATCH,), generator=generator)
    compare(
        "integrated_gradients",
        lambda: integrated_gradients(model, images, targets, n_steps=64, batch_size=AT_ONCE),
        lambda: IntegratedGradients(model).attribute(
            images, target=targets, n_steps=64, method="riemann_middle", internal_batch_size=AT_ONCE
        ),
    )
    for patch, stride in ((1, 1), (4, 2)):
        for name, at_once in (("as it comes", 1), ("in batches", AT_ONCE // BATCH)):
            compare(
                f"occlusion_map, {patch} by {patch}, {name}",
                lambda patch=patch, stride=stride: occlusion_map(
                    model, images, targets, patch=patch, stride=stride, batch_size=AT_ONCE
                ),
                lambda patch=patch, stride=stride, at_once=at_once: Occlusion(model).attribute(
                    images,
                    target=targets,
                    sliding_window_shapes=(1, patch, patch),
                    strides=(1, stride, stride),
                    perturbations_per_eval=at_once,
                )[:, 0],
            )


if __name__ == "__main__":
    main()
