"""The prompts of a run as token ids: read, wrapped in a chat template if asked, cut to length, or random."""

from __future__ import annotations

import random
from dataclasses import dataclass

from ssd_lab import demo
from ssd_lab.bench.config import EXAMPLE, RANDOM, BenchConfig, is_prompt_file
from ssd_lab.bench.data import BenchPrompt, load_prompts
from ssd_lab.common.prompt_file import read_prompt_file
from ssd_lab.errors import ConfigError, PromptError
from ssd_lab.models.loader import LoadedModel
from ssd_lab.models.text.tokenizer import Tokenizer

SYSTEM_MESSAGE = "You are a helpful assistant."  # what the reference's --chat_template says first
RANDOM_IDS = 10_001  # the reference's random prompts hold ids 0 .. 10,000


@dataclass(frozen=True)
class Input:
    """A prompt and the ids it is run as. was_cut: it was longer than `input_len`."""

    prompt: BenchPrompt
    token_ids: list[int]
    was_cut: bool = False


def load_inputs(config: BenchConfig, dataset: str, target: LoadedModel) -> list[Input]:
    """The inputs of one data set (or of `random`, or `example`), the same for every strategy and repeat.

    Raises DatasetError for a set that is not there or too small, PromptError for prompts that this target cannot take,
    ConfigError if prompt and output do not fit its context: outputs would be shorter than asked for.
    """
    if dataset == RANDOM:
        inputs = _random_inputs(config, target.config.vocab_size)
    else:
        if target.tokenizer is None:
            raise PromptError("the target has no tokenizer: give --random for random token ids")
        prompts = prompts_of(config, dataset, config.num_sequences)
        inputs = [_encode(prompt, config, target.tokenizer) for prompt in prompts]
    _check_lengths(inputs, config, target)
    return inputs


def prompts_of(config: BenchConfig, dataset: str, count: int | None) -> list[BenchPrompt]:
    """The prompts of a set, of a file of the user's (as many as are there) or canned ones, from the offset on. count:
    None takes all that are left. Raises DatasetError, PromptError, or ConfigError for too few canned ones.
    """
    if not (dataset == EXAMPLE or is_prompt_file(dataset)):
        return load_prompts(dataset, count, offset=config.prompt_offset)
    texts = demo.canned_prompts() if dataset == EXAMPLE else read_prompt_file(dataset)
    last = len(texts) if count is None else config.prompt_offset + count
    if dataset == EXAMPLE and last > len(texts):
        raise ConfigError(
            f"{count} canned prompts from number {config.prompt_offset} on were asked for and there are {len(texts)}: "
            "ask for fewer"
        )
    chosen = list(enumerate(texts))[config.prompt_offset : last]
    if not chosen or not all(isinstance(text, str) for _, text in chosen):
        raise PromptError(f"{dataset} has {len(texts)} prompts: a benchmark takes texts, and an offset below that")
    return [BenchPrompt(f"{dataset}/{number}", dataset, text) for number, text in chosen]


def _encode(prompt: BenchPrompt, config: BenchConfig, tokenizer: Tokenizer) -> Input:
    token_ids = tokenizer.encode(prompt.text)
    was_cut = config.input_len is not None and len(token_ids) > config.input_len
    token_ids = token_ids[: config.input_len]
    if not token_ids:
        raise PromptError(f"prompt {prompt.id} of {prompt.dataset} is empty: remove it from the file")
    if config.chat:
        # the text is cut and not the rendered chat, whose end asks for the answer
        text = tokenizer.decode(token_ids).rstrip("\N{REPLACEMENT CHARACTER}") if was_cut else prompt.text
        messages = [{"role": "system", "content": SYSTEM_MESSAGE}, {"role": "user", "content": text}]
        token_ids = tokenizer.encode(tokenizer.apply_chat(messages))
    return Input(prompt, token_ids, was_cut)


def _random_inputs(config: BenchConfig, vocab_size: int) -> list[Input]:
    draw = random.Random(config.seed)
    assert config.input_len is not None  # the config sees to it
    ids = min(RANDOM_IDS, vocab_size)
    every = [
        [draw.randrange(ids) for _ in range(config.input_len)]
        for _ in range(config.prompt_offset + config.num_sequences)
    ]
    return [
        Input(BenchPrompt(f"{RANDOM}/{number}", RANDOM, ""), token_ids)
        for number, token_ids in list(enumerate(every))[config.prompt_offset :]
    ]


def _check_lengths(inputs: list[Input], config: BenchConfig, target: LoadedModel) -> None:
    limit = min(config.max_model_len or target.config.max_positions, target.config.max_positions)
    longest = max(len(each.token_ids) for each in inputs)
    if longest + config.output_len > limit:
        whose = "max_model_len" if limit == config.max_model_len else "the target"
        raise ConfigError(
            f"prompts of up to {longest} tokens and {config.output_len} tokens of output do not fit the context of "
            f"{limit} tokens that {whose} allows: give a lower --output_len, or an --input_len that cuts prompts"
        )
