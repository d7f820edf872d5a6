"""Answers that a target gives through the engine: right, whole, repeatable, and ended by the clock or by Ctrl-C."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from ssd_lab.errors import ConfigError, PromptError
from ssd_lab.llm import LLM
from ssd_lab.models.config import ModelConfig
from ssd_lab.training import own_answers as module
from ssd_lab.training.config import AnswerSettings
from ssd_lab.training.hf_files import load_hf, save_hf
from ssd_lab.training.kept_answers import KeptAnswers
from ssd_lab.training.model import new_model
from ssd_lab.training.own_answers import Question, answering, answers, every_pass, greedy_answers, own_answers

END = 2
PROMPTS = [[3, 5, 9], [4, 8], [7, 7, 7, 2], [11, 3], [5, 6, 1, 9, 8], [40, 41, 42, 43]]
SETTINGS = AnswerSettings(max_batch=2, max_length_tokens=32, max_prompt_tokens=20, max_new_tokens=6)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random target whose greedy answers end now and then."""
    shape = ModelConfig(
        model_type="llama", hidden_size=32, num_layers=2, num_heads=2, num_kv_heads=1, head_dim=16, mlp_size=48,
        vocab_size=64, max_positions=64, tie_embeddings=False, eos_token_ids=(END,), bos_token_id=0,
    )  # fmt: skip
    model = new_model(shape, seed=3, device="cpu")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(6 if parameter.ndim == 2 else 1)
        model.lm_head.weight[END] *= 2
    path = tmp_path_factory.mktemp("target")
    save_hf(model, path)
    return path


@pytest.fixture
def llm(folder: Path) -> Iterator[LLM]:
    with answering(str(folder), SETTINGS, device="cpu") as made:
        yield made


@torch.no_grad()
def one_at_a_time(folder: Path, prompt: list[int]) -> list[int]:
    """By whole forwards of the model that is trained on."""
    model, tokens = load_hf(folder, device="cpu", dtype=torch.float32), list(prompt)
    while len(tokens) - len(prompt) < SETTINGS.max_new_tokens:
        starts = torch.tensor([0, len(tokens)], dtype=torch.int32)
        hidden = model.hidden(torch.tensor(tokens), torch.arange(len(tokens)), starts, 32)
        tokens.append(int(model.logits(hidden[-1:]).argmax()))
        if tokens[-1] == END:
            break
    return tokens[len(prompt) :]


def test_greedy_answers_are_those_of_the_model_that_is_trained_on(folder: Path, llm: LLM) -> None:
    expected = [one_at_a_time(folder, prompt) for prompt in PROMPTS]
    assert greedy_answers(llm, PROMPTS, SETTINGS) == expected
    assert len({line[-1] == END for line in expected}) == 2, "some end, some are cut"


def test_the_same_questions_are_answered_the_same_way_again(llm: LLM, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many are given to the engine together; another seed draws otherwise."""

    def drawn(seed: int) -> list[list[int]]:
        settings = AnswerSettings(max_length_tokens=32, max_new_tokens=6, seed=seed)
        return [a.token_ids for batch in answers(llm, every_pass(PROMPTS, (1.0,), 2), settings) for a in batch]

    first = drawn(0)
    assert first[: len(PROMPTS)] != first[len(PROMPTS) :], "each pass draws anew"
    monkeypatch.setattr(module, "BATCHES_AT_ONCE", 1)
    assert drawn(0) == first and drawn(1) != first


def test_a_corpus_joins_prompts_and_answers_and_leaves_out_long_prompts(llm: LLM) -> None:
    corpus = own_answers(llm, [*PROMPTS, [9] * 21, [9]], SETTINGS, passes=1, progress=False)
    assert corpus.prompt_lengths.tolist() == [len(prompt) for prompt in PROMPTS]
    greedy = greedy_answers(llm, PROMPTS, SETTINGS)
    for index in (0, 2):  # greedy ones, of the temperatures in turn
        text = corpus.tokens[corpus.starts[index] : corpus.starts[index + 1]].tolist()
        assert text == PROMPTS[index] + greedy[index]
    with pytest.raises(PromptError, match="none of 1 prompts"):
        own_answers(llm, [[9] * 21], SETTINGS, progress=False)


def test_what_is_under_way_when_the_time_is_over_is_dropped(llm: LLM, monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that goes on by a second with each step of the engine."""
    clock = iter(range(10_000))
    monkeypatch.setattr(module, "monotonic", lambda: float(next(clock)))
    questions = list(every_pass(PROMPTS, (0.0,), 50))
    found = [a for batch in answers(llm, questions, SETTINGS, budget_s=30.0) for a in batch]
    assert 2 <= len(found) < len(questions)
    whole = {tuple(prompt): line for prompt, line in zip(PROMPTS, greedy_answers(llm, PROMPTS, SETTINGS), strict=True)}
    for answer in found:
        assert answer.token_ids == whole[tuple(PROMPTS[answer.index])]
        assert answer.finished == (answer.token_ids[-1] == END)


def test_an_interruption_is_none_of_the_clock(llm: LLM, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C makes the engine give back what there is: a training run must not go on with that."""
    run = llm.run

    def interrupted(prompts, params, on_step=None):
        return run(prompts, params, on_step=lambda number, totals: number < 2)

    monkeypatch.setattr(llm, "run", interrupted)
    with pytest.raises(KeyboardInterrupt):
        list(answers(llm, [Question(0, PROMPTS[0], 0.0), Question(1, PROMPTS[1], 0.0)], SETTINGS))


def test_answers_that_were_finished_are_kept_and_the_rest_is_asked_for(
    llm: LLM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = own_answers(llm, PROMPTS, SETTINGS, passes=2, progress=False)
    path, run, asked = tmp_path / "work" / "so_far.jsonl", llm.run, []

    def counted(prompts, params, on_step=None):
        asked.append(len(prompts))
        return run(prompts, params, on_step=None if len(asked) > 1 else lambda number, totals: number < 8)

    monkeypatch.setattr(llm, "run", counted)
    with pytest.raises(KeyboardInterrupt, match=r"\d answers are kept"):
        own_answers(llm, PROMPTS, SETTINGS, passes=2, progress=False, kept=KeptAnswers(path, "key"))
    before = len(KeptAnswers(path, "key"))
    assert 0 < before < 2 * len(PROMPTS)
    again = own_answers(llm, PROMPTS, SETTINGS, passes=2, progress=False, kept=KeptAnswers(path, "key"))
    assert asked == [2 * len(PROMPTS), 2 * len(PROMPTS) - before]
    assert again.tokens.tolist() == whole.tokens.tolist(), "the same text as without an interruption"
    with pytest.raises(ConfigError, match="other prompts"):
        KeptAnswers(path, "another")
