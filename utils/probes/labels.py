"""What is true of each token: the feature that the chapter's probes look for."""

import torch
from jaxtyping import Bool, Int
from torch import Tensor


def inside_quotes_labels(
    tokens: Int[Tensor, "batch pos"], opening: Int[Tensor, " n_opening"], closing: Int[Tensor, " n_closing"]
) -> Bool[Tensor, "batch pos"]:
    """Whether the text stands inside a quotation once this token has been read.

    So the mark that opens a quotation is inside, and the mark that closes it is outside: it is the state *behind* each
    token that is told, which is what a model needs for the next one.

    Each row is read from left to right by itself, with the number of open quotations, 0 at its beginning:

    - a mark of ``opening`` adds one: quotations may stand inside each other;
    - a mark of ``closing`` takes one away; where none is open, it changes nothing;
    - a mark that is in both, like the straight ``"``, closes if a quotation is open, else it opens. Of such marks alone
      there is no nesting: they open and close by turns.

    A quotation that is never closed goes on to the end of the row.

    Args:
        tokens: The texts; there may be no tokens at all (pos = 0).
        opening, closing: Ids of the tokens that are marks, all different; each may be empty. Several ids occur where a
            vocabulary has marks of several kinds, such as ``"`` with and without a space before it.

    Returns:
        True inside, False outside; on the device of ``tokens``.
    """
    depth = torch.zeros(len(tokens), dtype=torch.long, device=tokens.device)  # quotations open in each row
    inside = torch.zeros_like(tokens, dtype=torch.bool)
    for i, column in enumerate(tokens.T):
        closes = torch.isin(column, closing) & (depth > 0)
        opens = torch.isin(column, opening) & ~closes
        depth = depth + opens.long() - closes.long()
        inside[:, i] = depth > 0
    return inside
