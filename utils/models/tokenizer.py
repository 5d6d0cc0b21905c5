"""The course model's word-level tokenizer, as a fast tokenizer of the ``transformers`` library."""

from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors

from utils.data.corpus import BOS, TOKEN_PATTERN, UNKNOWN, vocabulary


def _decoder() -> decoders.Decoder:
    """Spaces between words as they are printed: none before a full stop, none behind an opening bracket."""
    spaced = decoders.Replace(Regex(r"^(?=[^.,:;)\]'])"), " ")
    tight = [("( ", "("), ("[ ", "["), (': " ', ': "'), ('. "', '."')]
    return decoders.Sequence(
        [spaced, decoders.Fuse(), *(decoders.Replace(*pair) for pair in tight), decoders.Strip(" ", 1, 0)]
    )


def save_tokenizer(folder: Path) -> None:
    """Write ``tokenizer.json`` and ``tokenizer_config.json``, from which ``transformers`` loads it offline.

    Words, ``'s`` and punctuation marks are tokens, with or without spaces between them. A word that is not in the
    vocabulary becomes ``<unk>``, a token that the model has never seen.
    """
    from transformers import PreTrainedTokenizerFast

    ids = {word: i for i, word in enumerate(vocabulary())}
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(TOKEN_PATTERN), behavior="removed", invert=True)
    tokenizer.decoder = _decoder()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A $B", special_tokens=[(BOS, ids[BOS])]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=BOS, unk_token=UNKNOWN, pad_token=BOS, eos_token=BOS
    ).save_pretrained(folder)
