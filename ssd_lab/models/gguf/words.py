"""How a byte-level tokenizer cuts text into words before it merges bytes, by the name that a GGUF file has for it.

The patterns are those published with the models, in their tokenizer.json; which names mean the same, which tokenizers
take a word that is a token as it is, and which put a begin-of-text token before a prompt is llama.cpp's knowledge
(`tokenizer.ggml.pre`).
"""

from __future__ import annotations

from dataclasses import dataclass

import tokenizers
from tokenizers import normalizers, pre_tokenizers

from ssd_lab.errors import ModelLoadError

_SHORT_FORMS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_SPACES = r"\s*[\r\n]+|\s+(?!\S)|\s+"
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_BEFORE = r"[^\r\n\p{L}\p{N}]?"  # one sign or space belongs to the word behind it


def _words(digits: str) -> str:
    return rf"{_SHORT_FORMS}|{_BEFORE}\p{{L}}+|{digits}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|{_SPACES}"


def _cased_words(digits: str, endings: str) -> str:
    """HelloWorld is two words."""
    return (
        rf"{_BEFORE}{_UPPER}*{_LOWER}+{endings}|{_BEFORE}{_UPPER}+{_LOWER}*{endings}"
        rf"|{digits}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{_SPACES}"
    )


_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_LLAMA3 = _words(r"\p{N}{1,3}")
_QWEN2 = _words(r"\p{N}")
_DEEPSEEK3 = (
    r"\p{N}{1,3}",
    "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+",
    (
        r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"
        rf"| ?[\p{{P}}\p{{S}}]+[\r\n]*|{_SPACES}"
    ),
)
_DEEPSEEK_CODER = (r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", "[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+", r"\p{N}")
_SEED_CODER = rf"{_SHORT_FORMS}|{_BEFORE}\p{{L}}+|\p{{N}}| ?[^\s\p{{L}}\p{{N}}\r\n]+|{_SPACES}"


@dataclass(frozen=True)
class WordRule:
    """patterns: applied in turn, each to what the ones before left. takes_whole_words: a word that is a token is that
    token, whatever merges say. begins: prompts begin with the begin-of-text token unless the file says otherwise.
    composes: letters and their accents are made one character first.
    """

    patterns: tuple[str, ...]
    takes_whole_words: bool = False
    begins: bool = False
    composes: bool = False

    def pre_tokenizer(self) -> pre_tokenizers.PreTokenizer:
        """As the tokenizers library has it."""
        cuts = [pre_tokenizers.Split(tokenizers.Regex(pattern), behavior="isolated") for pattern in self.patterns]
        return pre_tokenizers.Sequence([*cuts, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])

    def normalizer(self) -> normalizers.Normalizer | None:
        """What happens to a text before it is cut."""
        return normalizers.NFC() if self.composes else None


_RULES = {
    WordRule((_GPT2,)): ("default", "gpt-2", "phi-2", "mpt", "olmo", "jais", "trillion", "mellum", "exaone4"),
    WordRule((r"\p{N}", _GPT2)): (
        "smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b", "mellum2",
    ),
    WordRule((_LLAMA3,), takes_whole_words=True, begins=True): (
        "llama-bpe", "llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2",
    ),
    WordRule((_LLAMA3,)): ("dbrx", "smaug-bpe", "glm4", "chatglm-bpe"),
    WordRule((_QWEN2,), composes=True): ("qwen2", "deepseek-r1-qwen", "megrez"),
    WordRule((_QWEN2,)): ("stablelm2", "hunyuan", "solar-open", "grok-2"),
    WordRule((_cased_words(r"\p{N}", ""),), takes_whole_words=True, begins=True): ("tekken",),
    WordRule((_cased_words(r"\p{N}{1,3}", f"{_SHORT_FORMS}?"),)): ("gpt-4o", "llama4", "kanana2"),
    WordRule(_DEEPSEEK3): ("deepseek-v3", "hunyuan-dense"),
    WordRule(_DEEPSEEK_CODER): ("deepseek-coder",),
    WordRule((_SEED_CODER,)): ("seed-coder",),
}  # fmt: skip
RULES = {name: rule for rule, names in _RULES.items() for name in names}


def word_rule(name: str, source: str) -> WordRule:
    """The rule of this name. Raises ModelLoadError for one that is not known: text would be cut wrongly."""
    if name not in RULES:
        raise ModelLoadError(
            f"{source}: how its tokenizer cuts words, {name!r}, is not known ({', '.join(sorted(RULES))} are): "
            "load the safetensors checkpoint instead"
        )
    return RULES[name]
