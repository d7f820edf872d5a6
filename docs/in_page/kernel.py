"""The hot loops of the model in the page, as WebAssembly with SIMD, written here byte by byte, so that making the site
needs no compiler and no download.

`rows1` and `rows4` multiply one row or four with a matrix of bfloat16 weights: a weight that was read serves four rows.
Sums run in the same order in both, so a row's bits do not depend on the rows beside it: that is what makes speculative
text equal to the text without speculation, bit for bit. In C, for each of the rows:

    for (out = 0; out < outs; out++) {
        even = odd = {0, 0, 0, 0};
        for (group = 0; group < groups; group++) {   // of eight weights, in the order 0 4 1 5 2 6 3 7 (convert.py)
            w = load128(weights);                    // a bfloat16 is the upper half of a float32
            even += (w << 16) * load128(x);          // weights 0 to 3
            odd += (w & 0xffff0000) * load128(x + 16);  // weights 4 to 7
        }
        sum = even + odd;
        y[out] = (sum[0] + sum[1]) + (sum[2] + sum[3]);
    }

`scores` and `mix` are attention's: the products of one query with `count` keys, and `out += weight * value` over them.
"""

from __future__ import annotations

from collections.abc import Iterable

WIDTHS = (1, 4)  # rows at once
I32, V128 = 0x7F, 0x7B
SIMD = b"\xfd"
VOID = b"\x40"
WEIGHTS, OUTS, GROUPS, X_STRIDE, Y, Y_STRIDE, X = range(7)  # parameters; strides in bytes
PARAMETERS = 7
HEAD_DIM = 64  # of both bundled models


def module() -> bytes:
    """The whole module: it imports `env.memory` and exports the functions by their names."""
    kinds = {f"rows{width}": (0, _rows(width)) for width in WIDTHS} | {"scores": (1, _scores()), "mix": (1, _mix())}
    memory = _name("env") + _name("memory") + b"\x02\x00\x01"  # at least one page
    exports = [_name(name) + b"\x00" + _number(index) for index, name in enumerate(kinds)]
    return b"\x00asm\x01\x00\x00\x00" + b"".join(
        [
            _section(1, [b"\x60" + _vector([bytes([I32])] * count) + _vector([]) for count in (PARAMETERS, 5)]),
            _section(2, [memory]),
            _section(3, [_number(kind) for kind, _ in kinds.values()]),
            _section(7, exports),
            _section(10, [_number(len(body)) + body for _, body in kinds.values()]),
        ]
    )


def _rows(width: int) -> bytes:
    """A function of `width` rows. Its locals: pointers to each row's x and y, the group that is at hand, then sums."""
    x = [PARAMETERS + row for row in range(width)]
    y = [x[-1] + 1 + row for row in range(width)]
    group = y[-1] + 1
    even = [group + 1 + row for row in range(width)]
    odd = [even[-1] + 1 + row for row in range(width)]
    low, high = odd[-1] + 1, odd[-1] + 2
    integers, vectors = 2 * width + 1, 2 * width + 2
    declared = _vector([_number(integers) + bytes([I32]), _number(vectors) + bytes([V128])])

    to_outputs = [_set(y[row], _get(Y), _get(Y_STRIDE), _int(row), b"\x6c\x6a") for row in range(width)]
    from_start = [_set(x[row], _get(X), _get(X_STRIDE), _int(row), b"\x6c\x6a") for row in range(width)]
    zero = [_set(each, SIMD + _number(12) + bytes(16)) for each in (*even, *odd)]
    weights = _load(WEIGHTS, 0)
    halves = [
        _set(high, weights, _splat(-65536), _simd(0x4E)),  # and
        _set(low, weights, _int(16), _simd(0xAB)),  # shift to the left, in lanes of 32 bits
    ]
    sums = [
        _set(total[row], _get(total[row]), _get(half), _load(x[row], offset), _simd(0xE6), _simd(0xE4))
        for row in range(width)
        for total, half, offset in ((even, low, 0), (odd, high, 16))
    ]
    on = [_set(pointer, _get(pointer), _int(32), b"\x6a") for pointer in x]
    groups = _loop([*halves, *sums, *on, _set(WEIGHTS, _get(WEIGHTS), _int(16), b"\x6a")], group)
    kept = []
    for row in range(width):
        kept += [_store_sum(y[row], even[row], odd[row]), _set(y[row], _get(y[row]), _int(4), b"\x6a")]
    outputs = _loop([*from_start, *zero, _set(group, _get(GROUPS)), groups, *kept], OUTS)
    return declared + b"".join(to_outputs) + outputs + b"\x0b"


def _scores() -> bytes:
    """scores(query, keys, out, count, stride): one number for each key."""
    query, keys, out, count, stride, even, odd = range(7)
    zero = [_set(each, SIMD + _number(12) + bytes(16)) for each in (even, odd)]
    products = [
        _set(total, _get(total), _load(query, offset), _load(keys, offset), _simd(0xE6), _simd(0xE4))
        for offset, total in zip(range(0, 4 * HEAD_DIM, 16), (even, odd) * (HEAD_DIM // 8), strict=True)
    ]
    on = [_set(out, _get(out), _int(4), b"\x6a"), _set(keys, _get(keys), _get(stride), b"\x6a")]
    body = _loop([*zero, *products, _store_sum(out, even, odd), *on], count)
    return _vector([_number(2) + bytes([V128])]) + body + b"\x0b"


def _mix() -> bytes:
    """mix(weights, values, out, count, stride): in two halves, each of which stays in registers."""
    weights, values, out, count, stride, weight_at, value_at, left = range(8)
    sums, weight = range(8, 8 + HEAD_DIM // 8), 8 + HEAD_DIM // 8
    code = b""
    for first in (0, 2 * HEAD_DIM):
        starts = [_set(weight_at, _get(weights)), _set(value_at, _get(values)), _set(left, _get(count))]
        before = [_set(total, _load(out, first + 16 * i)) for i, total in enumerate(sums)]
        added = [
            _set(total, _get(total), _get(weight), _load(value_at, first + 16 * i), _simd(0xE6), _simd(0xE4))
            for i, total in enumerate(sums)
        ]
        read = _set(weight, _get(weight_at), SIMD + _number(9) + b"\x02\x00")  # one number in all lanes
        on = [_set(weight_at, _get(weight_at), _int(4), b"\x6a"), _set(value_at, _get(value_at), _get(stride), b"\x6a")]
        kept = [_get(out) + _get(total) + _simd(11) + b"\x04" + _number(first + 16 * i) for i, total in enumerate(sums)]
        code += b"".join([*starts, *before, _loop([read, *added, *on], left), *kept])
    declared = [_number(3) + bytes([I32]), _number(HEAD_DIM // 8 + 1) + bytes([V128])]
    return _vector(declared) + code + b"\x0b"


def _store_sum(place: int, even: int, odd: int) -> bytes:
    """The sum of all lanes of both goes where the local `place` points."""
    lanes = [_get(even) + _simd(0x1F) + bytes([lane]) for lane in range(4)]
    both = _set(even, _get(even), _get(odd), _simd(0xE4))
    return both + _get(place) + lanes[0] + lanes[1] + b"\x92" + lanes[2] + lanes[3] + b"\x92\x92" + b"\x38\x02\x00"


def _loop(body: Iterable[bytes], count: int) -> bytes:
    """Repeat while the local `count`, one less each time, is not 0."""
    return b"\x03" + VOID + b"".join(body) + _get(count) + _int(1) + b"\x6b\x22" + _number(count) + b"\x0d\x00\x0b"


def _get(local: int) -> bytes:
    return b"\x20" + _number(local)


def _set(local: int, *value: bytes) -> bytes:
    return b"".join(value) + b"\x21" + _number(local)


def _int(value: int) -> bytes:
    return b"\x41" + _signed(value)


def _simd(operation: int) -> bytes:
    return SIMD + _number(operation)


def _splat(value: int) -> bytes:
    return _int(value) + _simd(0x11)


def _load(pointer: int, offset: int) -> bytes:
    return _get(pointer) + _simd(0) + b"\x04" + _number(offset)  # aligned to 16 bytes


def _section(kind: int, entries: list[bytes]) -> bytes:
    content = _vector(entries)
    return bytes([kind]) + _number(len(content)) + content


def _vector(entries: list[bytes]) -> bytes:
    return _number(len(entries)) + b"".join(entries)


def _name(text: str) -> bytes:
    return _number(len(text)) + text.encode()


def _number(value: int) -> bytes:
    """Unsigned LEB128."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def _signed(value: int) -> bytes:
    """Signed LEB128."""
    out = bytearray()
    while not -64 <= value < 64:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value & 0x7F])
