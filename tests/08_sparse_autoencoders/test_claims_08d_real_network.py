"""What part 08d says of SmolLM2-135M, measured again on other words and texts; figures are those of 4-bit weights."""

import torch
from torch.nn.utils.rnn import pad_sequence

from utils.patching.hooks import run_with_cache, run_with_hooks
from utils.sae.clamp import clamp_feature, same_length
from utils.sae.shipped import load_dictionary

PARTICIPLES = ["kept", "lost", "caught", "paid", "sent", "cut", "drawn", "signed", "named", "moved"]
ADJECTIVES = ["blue", "small", "sad", "warm", "new", "wet", "short", "busy", "early", "dark"]
STARTS = (
    "The children in the garden sang", "Before the storm arrived we had", "A few years later she moved",
    "The bread from the bakery tasted", "Most of the people who came", "On the table there were two cups",
)  # fmt: skip
LATENT = 1971


def test_a_passive_participle_and_what_it_makes_the_model_say(smollm2):
    large, by = load_dictionary("smollm2-135m"), smollm2.to_single_token(" by")

    def tokens_of(texts):
        rows = [smollm2.to_tokens(text)[0] for text in texts]
        return pad_sequence(rows, batch_first=True), torch.tensor([len(row) - 1 for row in rows])

    def at_end(frame, words):
        tokens, end = tokens_of([frame.format(word) for word in words])
        x = run_with_cache(smollm2, tokens, [large.site])[1][large.site]
        return large(x[torch.arange(len(end)), end])[1].mean(0)

    def later(edit):
        return [(large.site, lambda x: torch.cat([x[:, :1], edit(x[:, 1:])], dim=1))]

    def chance_of_by(texts, edit):
        tokens, end = tokens_of(texts)
        logits = run_with_hooks(smollm2, tokens, later(edit))[torch.arange(len(end)), end]
        return logits.softmax(-1)[:, by].mean().item()

    with torch.no_grad():
        passive = at_end("Last week it was {}", PARTICIPLES)
        others = torch.maximum(at_end("Last week she had {}", PARTICIPLES), at_end("Last week it was {}", ADJECTIVES))
        assert passive[LATENT] > 25 and others[LATENT] < passive[LATENT] / 2.5
        assert (passive - others).argmax() == LATENT
        value = 104.0
        pushed = chance_of_by(STARTS, clamp_feature(large, LATENT, value))
        arrows = same_length(large.W_dec[LATENT], 3, torch.Generator().manual_seed(3))
        controls = [chance_of_by(STARTS, lambda x, one=one: x + value * one) for one in arrows]
        assert chance_of_by(STARTS, lambda x: x) < 0.01 and pushed > 0.03 and max(controls) < pushed / 2
        passives = [f"Last week it was {word}" for word in PARTICIPLES]
        usual = chance_of_by(passives, lambda x: x)
        assert chance_of_by(passives, clamp_feature(large, LATENT, 0.0)) < 0.7 * usual
