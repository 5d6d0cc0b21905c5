"""The chapter's claims about training, at a size that takes seconds: one layer, a hundred steps."""

import math

import pytest
import torch

from utils.data import corpus as course_text
from utils.data.stories import encode, stories, vocabulary
from utils.models.config import TransformerConfig
from utils.models.course_model import course_model_weights
from utils.transformer.attention import attention_pattern, attention_scores, causal_mask, softmax_rows
from utils.transformer.model import Attention, Transformer
from utils.transformer.training import cross_entropy_per_token, lr_schedule, train_step

CFG = TransformerConfig(d_model=32, n_layers=1, n_heads=2, d_head=16, d_mlp=64, n_ctx=24, d_vocab=len(vocabulary()))
STEPS = 150


class FlippedAttention(Attention):
    """Attention with the mask as some lecture slides print it: 0 where i <= j."""

    def forward(self, resid):
        out = self.b_O
        for head in range(CFG.n_heads):
            scores = attention_scores(resid, self.W_Q[head], self.W_K[head], self.b_Q[head], self.b_K[head])
            values = resid @ self.W_V[head] + self.b_V[head]
            out = out + softmax_rows(scores + causal_mask(resid.shape[1]).T) @ values @ self.W_O[head]
        return out


@pytest.fixture(scope="module")
def corpus():
    return encode(stories(4000, seed=0), CFG.n_ctx), encode(stories(200, seed=1), CFG.n_ctx)


def trained(attention, tokens):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Transformer(CFG)
        for block in model.blocks:
            block.attn = attention(CFG)
    optimizer = torch.optim.AdamW(model.parameters(), betas=(0.9, 0.98))
    generator = torch.Generator().manual_seed(0)
    for step in range(STEPS):
        batch = tokens[torch.randint(len(tokens), (32,), generator=generator)]
        train_step(model, optimizer, batch, lr_schedule(step, max_lr=1e-2, n_warmup=10, n_steps=STEPS))
    return model


@pytest.fixture(scope="module")
def models(corpus):
    return {"causal": trained(Attention, corpus[0]), "flipped": trained(FlippedAttention, corpus[0])}


@torch.no_grad()
def whole_loss(model, tokens):
    return cross_entropy_per_token(model(tokens), tokens).mean().item()


@torch.no_grad()
def prefix_loss(model, tokens):
    logits = torch.stack([model(tokens[:, :n])[:, -1] for n in range(1, tokens.shape[1] + 1)], dim=1)
    return cross_entropy_per_token(logits, tokens).mean().item()


def test_training_beats_word_frequencies(models, corpus):
    tokens, held_out = corpus
    counts = torch.bincount(tokens.flatten(), minlength=CFG.d_vocab) + 1.0
    unigram = -(counts / counts.sum()).log()[held_out[:, 1:]].mean().item()
    assert whole_loss(models["causal"], held_out) < unigram


def test_a_causal_model_loses_nothing_when_the_future_is_withheld(models, corpus):
    few = corpus[1][:8]
    assert prefix_loss(models["causal"], few) == pytest.approx(whole_loss(models["causal"], few), abs=1e-4)


def test_the_flipped_mask_gives_a_better_loss_and_no_predictions(models, corpus):
    few = corpus[1][:8]
    assert whole_loss(models["flipped"], few) < 0.5 * whole_loss(models["causal"], few)
    assert prefix_loss(models["flipped"], few) > math.log(CFG.d_vocab)


@torch.no_grad()
def previous_word_scores(model, tokens):
    """Mean attention to the previous word, for each head of the first layer."""
    attn, resid = model.blocks[0].attn, model.embed["W_E"][tokens] + model.pos_embed["W_pos"][: tokens.shape[1]]
    read = model.blocks[0].ln1(resid)
    return torch.stack(
        [
            attention_pattern(read, attn.W_Q[h], attn.W_K[h], attn.b_Q[h], attn.b_K[h]).diagonal(-1, -2, -1).mean()
            for h in range(CFG.n_heads)
        ]
    )


def test_a_trained_head_looks_at_the_previous_word_more_than_any_head_of_untrained_models(models, corpus):
    few, nulls = corpus[1][:16], []
    for seed in range(60):
        with torch.random.fork_rng():
            torch.manual_seed(1000 + seed)
            nulls.append(previous_word_scores(Transformer(CFG), few).max())
    assert previous_word_scores(models["causal"], few).max() > 1.5 * max(nulls)


@pytest.mark.parametrize(
    ("step", "question", "answer", "probability"),
    [
        (None, "When Mary and Paul went to the market, Mary gave a ball to", "Paul", 0.999),
        (None, "When Mary and Paul went to the market, Paul gave a ball to", "Mary", 0.999),
        (2000, "When Mary and Paul went to the market, Paul gave a ball to", "Mary", 0.88),
        (6000, "When Mary and Paul went to the market, Mary gave a ball to", "Mary", 0.60),
        (6000, "When Mary and Paul went to the market, Paul gave a ball to", "Mary", 0.62),
        (None, "The Eiffel Tower is located in", "Paris", 0.996),
        (None, "The Eiffel Palace is located in", "Lima", 0.993),
    ],
)
def test_what_the_course_model_answers(step, question, answer, probability):
    cfg, weights = course_model_weights(step)
    model = Transformer(cfg)
    model.load_state_dict(weights)
    tokens = torch.tensor([[0, *course_text.encode(question)]])
    with torch.no_grad():
        found = model(tokens)[0, -1].softmax(-1)[course_text.encode(answer)[0]].item()
    assert found == pytest.approx(probability, abs=0.01 if step else 0.001)
