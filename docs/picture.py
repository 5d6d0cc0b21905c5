"""Draw the README's picture, docs/logit-lens.png: `python docs/picture.py`. It is the first figure of part 03a."""

from pathlib import Path
from unittest import mock

import torch

from utils import plots
from utils.lenses.figures import lens_figure
from utils.lenses.stream import logit_lens, residual_stack
from utils.models.catalogue import load_model

PICTURE = Path(__file__).with_name("logit-lens.png")
TEXT = "The Eiffel Tower is located in"


def main() -> None:
    model = load_model("course-model")
    tokens = model.to_tokens(TEXT)
    words = model.to_str_tokens(TEXT)
    vocabulary = [model.to_single_str_token(i) for i in range(model.cfg.d_vocab)]
    sites = ["embeddings", *(f"layer {layer}" for layer in range(model.cfg.n_layers))]
    with torch.no_grad():
        read = logit_lens(model, residual_stack(model, tokens))[:, 0]

    def save(figure, alt: str) -> None:
        figure.savefig(PICTURE, dpi=plots.DPI, bbox_inches="tight", metadata={"Software": None})
        print(alt)

    with mock.patch.object(plots, "show", save):
        column = [vocabulary[row.argmax()].strip() for row in read[:, -1]]
        lens_figure(
            read, words, vocabulary, sites, title="What the model would say, read behind each layer", alt=str(column)
        )


if __name__ == "__main__":
    main()
