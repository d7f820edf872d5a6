"""Requests that leave an engine at every point of a round, and what must be true of it afterwards."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ssd_lab import LLM, SamplingParams
from ssd_lab.results import RunResult
from ssd_lab.rounds.sequence import Sequence

# chunks of prompts are seen one by one
SMALL = {"max_batch": 3, "num_blocks": 70, "block_size": 4, "max_model_len": 56, "max_prefill_tokens": 3}
LENGTH = 36  # tokens of each text


class Visit:
    """An engine driven step by step."""

    def __init__(self, llm: LLM, prompts: list[list[int]]) -> None:
        self.llm, self.engine, self.prompts = llm, llm._engine, prompts
        self.stayed: list[Sequence] = []

    def enter(self, *numbers: int) -> list[Sequence]:
        """Submit these prompts, greedy."""
        params = SamplingParams(max_tokens=LENGTH, ignore_eos=True)
        ids = [self.engine.submit(self.prompts[number], params, seed=0) for number in numbers]
        self.stayed += [self.engine.sequence(own) for own in ids]
        return self.stayed[-len(ids) :]

    def step_until(self, reached: Callable[[], bool]) -> None:
        """Step by step until something is so."""
        for _ in range(400):
            if reached():
                return
            self.engine.step()
        raise AssertionError("it never came to that")

    def leave(self, sequence: Sequence) -> None:
        """End it now."""
        assert self.engine.cancel(sequence.request_id) is sequence
        self.stayed.remove(sequence)

    def is_in_the_air(self, sequence: Sequence) -> bool:
        """Is a round of it launched, and not the first?"""
        flight = self.engine._flight
        return flight is not None and sequence in flight.sequences and len(sequence.output_ids) > 0

    def put_off(self) -> Sequence:
        """Enter three and take all other blocks away until one has given up its own, in the middle of its text; then
        give them back, with nothing of it in them.
        """
        sequences, blocks, taken = self.enter(0, 1, 4), self.engine._blocks, []
        self.step_until(lambda: all(map(self.is_in_the_air, sequences)))
        while not any(sequence.num_preemptions for sequence in self.engine._scheduler.waiting):
            taken += blocks.allocate(blocks.num_available)
            self.engine.step()
        taken += blocks.allocate(blocks.num_available)
        blocks.release(taken)
        return self.engine._scheduler.waiting[0]


def right_after_it_entered(visit: Visit) -> None:
    visit.leave(visit.enter(0, 1)[0])


def after_a_chunk_of_its_prompt(visit: Visit) -> None:
    (one,) = visit.enter(max(range(len(visit.prompts)), key=lambda number: len(visit.prompts[number])))
    visit.engine.step()
    assert one.num_cached > 0 and not one.is_prefilled
    visit.leave(one)


def after_its_first_round(visit: Visit) -> None:
    one = visit.enter(0, 1)[0]
    visit.step_until(lambda: len(one.output_ids) > 0)
    visit.leave(one)


def with_a_round_in_the_air(visit: Visit) -> None:
    (one,) = visit.enter(1)
    visit.step_until(lambda: visit.is_in_the_air(one))
    visit.leave(one)


def as_the_first_row_of_a_round_in_the_air(visit: Visit) -> None:
    one, two, three = visit.enter(0, 1, 3)
    visit.step_until(lambda: all(map(visit.is_in_the_air, (one, two, three))))
    visit.leave(one)


def as_the_last_row_of_a_round_in_the_air(visit: Visit) -> None:
    one, two, three = visit.enter(0, 1, 3)
    visit.step_until(lambda: all(map(visit.is_in_the_air, (one, two, three))))
    visit.leave(three)


def all_rows_of_a_round_in_the_air(visit: Visit) -> None:
    sequences = visit.enter(0, 1, 3)
    visit.step_until(lambda: all(map(visit.is_in_the_air, sequences)))
    for sequence in sequences:
        visit.leave(sequence)


def with_another_in_its_place_at_once(visit: Visit) -> None:
    two = visit.enter(0, 1, 3)[1]
    visit.step_until(lambda: visit.is_in_the_air(two))
    visit.leave(two)
    visit.enter(1, 4)


def while_it_is_put_off(visit: Visit) -> None:
    visit.leave(visit.put_off())


def as_it_comes_back(visit: Visit) -> None:
    one = visit.put_off()
    visit.step_until(lambda: bool(one.blocks) and not one.is_prefilled)
    visit.leave(one)


def four_times_after_two_rounds(visit: Visit) -> None:
    for _ in range(4):
        (one,) = visit.enter(1)
        visit.step_until(lambda one=one: visit.is_in_the_air(one))
        visit.engine.step()
        visit.leave(one)


def four_times_after_two_chunks_of_a_stream(visit: Visit) -> None:
    for _ in range(4):
        chunks = visit.llm.stream(visit.prompts[1], SamplingParams(max_tokens=LENGTH, ignore_eos=True))
        next(chunks), next(chunks)
        chunks.close()


MOMENTS: dict[str, Callable[[Visit], None]] = {
    moment.__name__.replace("_", " "): moment
    for moment in (
        right_after_it_entered,
        after_a_chunk_of_its_prompt,
        after_its_first_round,
        with_a_round_in_the_air,
        as_the_first_row_of_a_round_in_the_air,
        as_the_last_row_of_a_round_in_the_air,
        all_rows_of_a_round_in_the_air,
        with_another_in_its_place_at_once,
        while_it_is_put_off,
        as_it_comes_back,
        four_times_after_two_rounds,
        four_times_after_two_chunks_of_a_stream,
    )
}


def generated(llm: LLM, prompts: list[list[int]]) -> RunResult:
    """All prompts: the even ones greedy, the odd ones sampled."""
    params = [
        SamplingParams(max_tokens=LENGTH, temperature=float(number % 2), seed=number, ignore_eos=True)
        for number in range(len(prompts))
    ]
    return llm.run(prompts, params)


def drafted(result: RunResult) -> list[list[tuple[Any, ...]]]:
    """Of each request its rounds: where, by which path, on what draft, with what outcome."""
    rows = [row for record in result.trace.rounds for row in record.sequences]
    return [
        [
            (row.position, row.origin, row.cache_hit, row.draft_tokens, row.num_accepted, row.recovery_token)
            for row in rows
            if row.request_id == output.request_id
        ]
        for output in result.outputs
    ]
