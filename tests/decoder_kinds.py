"""Tokenizers with each kind of decoder that checkpoints come with, over a small vocabulary."""

from __future__ import annotations

from collections.abc import Callable

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers

_PIECES = ["▁", "a", "b", "▁a", "▁b", "▁▁", "€", ".", "'s", "x▁", "\ufffd"]


def sentencepiece(decoder: decoders.Decoder) -> Tokenizer:
    """Llama 2's kind: "▁" for a space, put before the text too, and one piece for each byte."""
    pieces = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), *_PIECES]
    vocabulary = {piece: index for index, piece in enumerate(pieces)}
    merges = [("▁", "a"), ("▁", "b"), ("▁", "▁")]
    backend = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    backend.decoder = decoder
    return _with_added(backend)


def llama2() -> Tokenizer:
    """As published: the space before the text is taken away again."""
    parts = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    return sentencepiece(decoders.Sequence(parts))


def gemma() -> Tokenizer:
    """No space is taken away."""
    return sentencepiece(decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]))


def metaspace() -> Tokenizer:
    """The first piece loses its space, wherever the text begins."""
    return sentencepiece(decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace()]))


def byte_level() -> Tokenizer:
    """GPT-2's kind: every piece is bytes, characters may be cut anywhere."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    pieces = [*alphabet, "âĤ", "¬a", "ðŁĺ", "Ġa"]  # beginnings and ends of € and of an emoji
    backend = Tokenizer(models.BPE({piece: index for index, piece in enumerate(pieces)}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    return _with_added(backend)


def wordpiece() -> Tokenizer:
    """BERT's kind: a space before each word but the first, and none before a full stop."""
    pieces = ["[UNK]", "he", "##llo", "##,", ".", "!", "do", "not", "n't", "'s", "##b", "€"]
    backend = Tokenizer(models.WordPiece({piece: index for index, piece in enumerate(pieces)}, unk_token="[UNK]"))
    backend.decoder = decoders.WordPiece(prefix="##", cleanup=True)
    return _with_added(backend)


def word_ends() -> Tokenizer:
    """The first BPE's kind: a word's last piece is followed by a space once another word comes."""
    backend = Tokenizer(models.BPE({piece: index for index, piece in enumerate(["a</w>", "b", "c</w>", "€"])}, []))
    backend.decoder = decoders.BPEDecoder(suffix="</w>")
    return _with_added(backend)


def plain_words() -> Tokenizer:
    """No decoder: pieces with spaces between."""
    return _with_added(Tokenizer(models.WordLevel({"a": 0, "b": 1, "€": 2}, unk_token="a")))


def _with_added(backend: Tokenizer) -> Tokenizer:
    backend.add_special_tokens([AddedToken("</s>", special=True, normalized=False)])
    backend.add_tokens([AddedToken("<think>", special=False, normalized=False)])
    return backend


KINDS: dict[str, Callable[[], Tokenizer]] = {
    make.__name__: make for make in (llama2, gemma, metaspace, byte_level, wordpiece, word_ends, plain_words)
}
