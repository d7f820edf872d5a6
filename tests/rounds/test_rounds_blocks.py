"""The block manager never loses, shares or forgets a block by accident."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from ssd_lab.errors import CacheCapacityError, ConfigError
from ssd_lab.rounds.block_manager import ROOT, BlockManager

SIZE, COUNT = 4, 12


class Blocks(RuleBasedStateMachine):
    """Texts over two letters come and go; what is found must be what was registered."""

    def __init__(self) -> None:
        super().__init__()
        self.manager = BlockManager(COUNT, SIZE)
        self.texts: list[tuple[list[int], list[int]]] = []
        self.content: dict[int, tuple[int, ...]] = {}  # whole prefix that each block was last written for

    @rule(text=st.lists(st.integers(0, 1), min_size=1, max_size=20))
    def enter(self, text: list[int]) -> None:
        blocks, key = self.manager.match_prefix(text)
        for index, block in enumerate(blocks):
            assert self.content[block] == tuple(text[: (index + 1) * SIZE]), "found a block with other content"
        missing = self.manager.blocks_for(len(text)) - len(blocks)
        if missing > self.manager.num_available:
            with pytest.raises(CacheCapacityError):
                self.manager.allocate(missing)
            self.manager.release(blocks)
            return
        new = self.manager.allocate(missing)
        assert 0 not in new and len(set(new)) == len(new)
        assert not any(set(new) & set(held) for _, held in self.texts), "a block in use was handed out"
        for index in range(len(blocks), len(text) // SIZE):
            block = new[index - len(blocks)]
            self.content[block] = tuple(text[: (index + 1) * SIZE])
            key = self.manager.register(block, key, text[index * SIZE : (index + 1) * SIZE])
        self.texts.append((text, blocks + new))

    @rule(index=st.integers(0, 100))
    def leave(self, index: int) -> None:
        if self.texts:
            _, blocks = self.texts.pop(index % len(self.texts))
            self.manager.release(blocks)

    @invariant()
    def every_block_is_free_or_held(self) -> None:
        held = {block for _, blocks in self.texts for block in blocks}
        assert self.manager.num_available + len(held) == self.manager.num_usable


TestBlocks = Blocks.TestCase
TestBlocks.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


def test_the_least_recently_used_prefix_is_given_up_first() -> None:
    manager = BlockManager(4, 2)
    for letter in (1, 2, 3):
        block = manager.allocate(1)
        manager.register(block[0], ROOT, [letter, letter])
        manager.release(block)
    manager.release(manager.match_prefix([1, 1])[0])  # 1 is used again, so 2 is the oldest
    manager.allocate(1)
    assert [bool(manager.match_prefix([letter, letter])[0]) for letter in (1, 2, 3)] == [True, False, True]


def test_releasing_twice_is_an_internal_error() -> None:
    manager = BlockManager(4, 2)
    blocks = manager.allocate(1)
    manager.release(blocks)
    with pytest.raises(RuntimeError, match="more often than taken"):
        manager.release(blocks)


def test_without_reuse_nothing_is_found() -> None:
    manager = BlockManager(4, 2, prefix_reuse=False)
    manager.register(manager.allocate(1)[0], ROOT, [1, 1])
    assert manager.match_prefix([1, 1]) == ([], ROOT)


def test_a_block_whose_content_depends_on_the_token_behind_it_is_found_with_that_token_only() -> None:
    manager = BlockManager(4, 2, tokens_after=1)
    (block,) = manager.allocate(1)
    manager.register(block, ROOT, [1, 2, 3])
    assert manager.match_prefix([1, 2, 3])[0] == [block]
    assert manager.match_prefix([1, 2, 4])[0] == manager.match_prefix([1, 2])[0] == []


def test_too_few_blocks_are_refused() -> None:
    with pytest.raises(ConfigError, match="num_blocks is 1"):
        BlockManager(1, 4)
