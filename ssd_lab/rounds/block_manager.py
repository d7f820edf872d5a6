"""Paged KV memory: which blocks are free, shared, or kept for reuse. Knows tokens and block numbers, no tensors."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from ssd_lab.errors import CacheCapacityError, ConfigError

ROOT = 0  # key of the empty prefix


class BlockManager:
    """Hands out blocks of `block_size` tokens, counts their users, and finds blocks that already hold a prefix.

    Block 0 is never handed out: padding rows write there. A block whose content is registered stays findable after its
    last user left, until it is needed for something else, least recently used first. A prefix is identified by the
    chain of its blocks' tokens, compared token by token, so two prefixes never share a block by accident.

    tokens_after: how many tokens behind a block its content depends on (a head's last row joins the block's last
    feature with the token after it). They are part of the block's name, so they must be equal, too.
    """

    def __init__(self, num_blocks: int, block_size: int, *, prefix_reuse: bool = True, tokens_after: int = 0) -> None:
        if num_blocks < 2:
            raise ConfigError(
                f"num_blocks is {num_blocks}; at least 2 are needed (block 0 is reserved): raise num_blocks"
            )
        self.num_blocks = num_blocks
        self.block_size = block_size
        self.tokens_after = tokens_after
        self._prefix_reuse = prefix_reuse
        self._free: deque[int] = deque(range(1, num_blocks))
        self._users = [0] * num_blocks
        self._idle: OrderedDict[int, None] = OrderedDict()  # registered blocks without users, oldest first
        self._block_of: dict[tuple[int, tuple[int, ...]], int] = {}
        self._name_of: dict[int, tuple[int, tuple[int, ...]]] = {}
        self._key_of: dict[int, int] = {}
        self._next_key = ROOT + 1

    @property
    def num_available(self) -> int:
        """Blocks that can be allocated now, counting those kept only for reuse."""
        return len(self._free) + len(self._idle)

    @property
    def num_usable(self) -> int:
        """All blocks that can ever be allocated."""
        return self.num_blocks - 1

    def blocks_for(self, num_tokens: int) -> int:
        """Blocks that hold `num_tokens` tokens."""
        return -(-num_tokens // self.block_size)

    @contextmanager
    def without_reuse(self) -> Iterator[None]:
        """Within this no prefix is found, and none is registered."""
        before, self._prefix_reuse = self._prefix_reuse, False
        try:
            yield
        finally:
            self._prefix_reuse = before

    def allocate(self, count: int) -> list[int]:
        """Take `count` blocks. Raises CacheCapacityError, taking none, if there are not that many."""
        if count > self.num_available:
            raise CacheCapacityError(
                f"{count} KV blocks were asked for and {self.num_available} are free: raise num_blocks"
            )
        blocks = []
        for _ in range(count):
            if self._free:
                block = self._free.popleft()
            else:
                block, _ = self._idle.popitem(last=False)
                self._forget(block)
            self._users[block] = 1
            blocks.append(block)
        return blocks

    def match_prefix(self, token_ids: Sequence[int]) -> tuple[list[int], int]:
        """Take the registered blocks that hold the longest prefix of `token_ids`, and the key of that prefix."""
        blocks: list[int] = []
        key = ROOT
        if not self._prefix_reuse:
            return blocks, key
        named = self.block_size + self.tokens_after
        for start in range(0, len(token_ids) - named + 1, self.block_size):
            block = self._block_of.get((key, tuple(token_ids[start : start + named])))
            if block is None:
                break
            if self._users[block] == 0:
                del self._idle[block]
            self._users[block] += 1
            blocks.append(block)
            key = self._key_of[block]
        return blocks, key

    def register(self, block: int, parent_key: int, token_ids: Sequence[int]) -> int:
        """Make a full block findable as the prefix `parent_key` extended by `token_ids`; returns that prefix's key.

        token_ids: the block's own, and `tokens_after` more.
        """
        name = (parent_key, tuple(token_ids))
        if not self._prefix_reuse:
            return ROOT
        if name in self._block_of:  # another sequence computed the same prefix; its block stays the one that is found
            return self._key_of[self._block_of[name]]
        key = self._next_key
        self._next_key += 1
        self._block_of[name], self._name_of[block], self._key_of[block] = block, name, key
        return key

    def release(self, blocks: Sequence[int]) -> None:
        """Give up one use of each block. The end of a sequence is reused first: its beginning is likelier to be
        shared.
        """
        for block in reversed(blocks):
            if self._users[block] <= 0:
                raise RuntimeError(f"block {block} was released more often than taken")
            self._users[block] -= 1
            if self._users[block] == 0:
                if block in self._name_of:
                    self._idle[block] = None
                else:
                    self._free.append(block)

    def discard(self, blocks: Sequence[int]) -> list[int]:
        """Release blocks whose content is worthless; returns those without users left, which nobody will find again."""
        self.release(blocks)
        unused = [block for block in blocks if self._users[block] == 0]
        for block in unused:
            if block in self._idle:
                del self._idle[block]
                self._forget(block)
                self._free.append(block)
        return unused

    def _forget(self, block: int) -> None:
        del self._block_of[self._name_of.pop(block)]
        del self._key_of[block]
