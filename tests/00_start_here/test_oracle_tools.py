"""Chapter 00's references against numpy and ``torch.fx``; its table of names against ``transformer_lens``."""

import re
import secrets

import numpy as np
import torch
from torch import fx, nn

from utils.course.paths import master_path
from utils.models.config import TransformerConfig
from utils.models.hooked import hooked_transformer
from utils.start.tools import record_activation, row_means
from utils.transformer.model import Transformer


def seeded():
    seed = secrets.randbelow(2**31)
    print(f"seed {seed}")
    return torch.Generator().manual_seed(seed)


def test_row_means_equal_those_of_numpy():
    x = torch.randn(3, 4, 7, generator=seeded(), dtype=torch.float64)
    np.testing.assert_allclose(row_means(x).numpy(), np.mean(x.numpy(), axis=2), rtol=1e-12)


class Recorder(fx.Interpreter):
    """Runs a traced model and keeps the value of every node that calls a module."""

    def run_node(self, node):
        value = super().run_node(node)
        self.values = getattr(self, "values", {}) | {node.target: value}
        return value


def test_recorded_activations_equal_those_of_a_traced_run():
    model = nn.Sequential(nn.Linear(3, 6), nn.Sequential(nn.Tanh(), nn.Linear(6, 4)), nn.LayerNorm(4))
    x = torch.randn(5, 3, generator=seeded())
    recorder = Recorder(fx.symbolic_trace(model))
    recorder.run(x)
    for name in ("0", "1.0", "1.1", "2"):
        torch.testing.assert_close(record_activation(model, name, x), recorder.values[name])


def test_the_names_in_the_chapter_exist_in_transformer_lens():
    cfg = TransformerConfig(d_model=8, n_layers=1, n_heads=2, d_head=4, d_mlp=16, n_ctx=5, d_vocab=11)
    model = hooked_transformer(cfg, Transformer(cfg).state_dict())
    known = {*model.state_dict(), *model.hook_dict}
    text = master_path("00_start_here", "00_start_here").read_text(encoding="utf-8")
    named = set(re.findall(r"(?:blocks\.0|embed|pos_embed|unembed)\.[\w.]*(?:[Wb]_\w+|hook_\w+)", text))
    named |= set(re.findall(r"(?<![\w.])hook_\w+(?=\n)", text))
    assert len(named) >= 20
    assert named <= known, named - known
    _, cache = model.run_with_cache(torch.zeros(3, 5, dtype=torch.long))
    lengths = {"batch": 3, "pos": 5, "query": 5, "key": 5, "n_ctx": 5} | vars(cfg)
    shapes = re.findall(r"^\| (`.+?`) \| (`\[.+?\]`) \|", text.split("## Tools 3")[1], re.MULTILINE)
    assert len(shapes) == 10
    for names, written in shapes:
        names, written = re.findall(r"`([^`]+)`", names), re.findall(r"\[([^\]]+)\]", written)
        for name, axes in zip(names, written * (len(names) if len(written) == 1 else 1), strict=True):
            value = cache[name] if "hook_" in name else model.state_dict()[name]
            assert tuple(value.shape) == tuple(lengths[axis] for axis in axes.split(", ")), name
