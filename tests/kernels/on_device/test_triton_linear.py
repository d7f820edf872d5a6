"""Products of few rows: against float64, bit for bit whatever the number of rows, and their pieces in all readers."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from kernel_cases import BLOCK, INTERPRETED, error, random, rotary_table, same_bits, within_budget

from ssd_lab.kernels import row_probe
from ssd_lab.kernels.backend import choose_kernels
from ssd_lab.kernels.interface import HeadLayout, Kernels
from ssd_lab.kernels.linear import Linear
from ssd_lab.kernels.norm import RmsNorm
from ssd_lab.kernels.product import Partials, Product, whole
from ssd_lab.kernels.row_padding import MANY, RowPadding
from ssd_lab.kernels.row_probe import make_row_invariant, probe_row_padding
from ssd_lab.kernels.step_input import StepInput
from ssd_lab.kernels.triton_ops.few_rows import TritonFewRows
from ssd_lab.kernels.triton_ops.linear_rule import tuning_by_rule, tuning_of
from ssd_lab.kernels.triton_ops.linear_tuning import MEASURED, MORE, LinearTuning, Tile
from ssd_lab.kernels.triton_ops.room import rows_with_room, with_room
from ssd_lab.kernels.triton_ops.triton_kernels import TritonKernels

SHAPES = [(72, 100), (66, 520)]  # 100: lines that the copy engine cannot fetch
if not INTERPRETED:  # which takes a second for each of these
    SHAPES += [(130, 1000), (512, 1152), (1152, 512), (256, 560), (4096, 256), (192, 64)]
PIPELINES = [LinearTuning(tma=False), LinearTuning(tma=True), LinearTuning(block_out=128, block_k=256, num_warps=8)]
MOST = 130 if INTERPRETED else 300
ROW_COUNTS = (1, 5, 17, 100) if INTERPRETED else (1, 2, 5, 16, 17, 64, 100, 128, 129, 200)
DTYPES = [torch.float16, torch.bfloat16]


def exact_numbers(shape: tuple[int, ...], seed: int) -> torch.Tensor:
    """Small whole numbers: their products and sums are exact in float32 in any order."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(-3, 4, shape, generator=generator).to(torch.float16)


def weight_of(out_features: int, in_features: int, dtype: torch.dtype, seed: int = 0) -> torch.Tensor:
    return (random((out_features, in_features), seed) / in_features**0.5).to(dtype)


@pytest.mark.grid(one_of=5)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("tuning", PIPELINES)
@pytest.mark.parametrize("split_k", [1, 3])
def test_products_are_those_of_float64(
    device: torch.device, dtype: torch.dtype, shape: tuple[int, int], tuning: LinearTuning, split_k: int
) -> None:
    weight, bias = weight_of(*shape, dtype), random((shape[0],), 1, dtype)
    kernel = TritonFewRows(weight.to(device), bias.to(device), replace(tuning, split_k=split_k))
    for count in (1, 21):
        rows = random((count, shape[1]), 2, dtype)
        expected = rows.double() @ weight.double().T + bias.double()
        plain = torch.nn.functional.linear(rows, weight, bias)
        within_budget(whole(kernel(rows.to(device))), expected, plain)
        wide = kernel.wide(rows.to(device))
        assert wide.dtype == torch.float32
        assert torch.equal(wide, whole(kernel(rows.to(device))).float())


@pytest.mark.parametrize("split_k", [1, 2, 4])
@pytest.mark.parametrize("shape", SHAPES)
def test_sums_lose_nothing(device: torch.device, shape: tuple[int, int], split_k: int) -> None:
    weight, rows = exact_numbers(shape, 0), exact_numbers((7, shape[1]), 1)
    expected = (rows.double() @ weight.double().T).to(torch.float16)
    product = TritonFewRows(weight.to(device), None, LinearTuning(split_k=split_k))(rows.to(device))
    assert torch.equal(whole(product).cpu(), expected)
    assert isinstance(product, Partials) == (split_k > 1)


@pytest.mark.grid(one_of=3)
@pytest.mark.parametrize("tuning", [*PIPELINES, LinearTuning(split_k=2), LinearTuning(block_k=64, split_k=4)])
@pytest.mark.parametrize("shape", SHAPES)
def test_bits_of_a_row_do_not_depend_on_the_rows_beside_it(
    device: torch.device, tuning: LinearTuning, shape: tuple[int, int]
) -> None:
    if INTERPRETED:  # numpy's products do depend on it; numbers whose sums are exact still find a row that goes astray
        weight, rows = exact_numbers(shape, 0), exact_numbers((MOST, shape[1]), 1)
    else:
        weight, rows = weight_of(*shape, torch.bfloat16), random((MOST, shape[1]), 1, torch.bfloat16)
    kernel, rows = TritonFewRows(weight.to(device), None, tuning), rows.to(device)
    together = whole(kernel(rows))
    for count in ROW_COUNTS:
        for first in (3, MOST - count):
            assert same_bits(whole(kernel(rows[first : first + count])), together[first : first + count])


@pytest.mark.parametrize("tuning", [LinearTuning(split_k=2), LinearTuning()])
def test_the_probe_finds_the_kernel_invariant(device: torch.device, tuning: LinearTuning) -> None:
    weight = exact_numbers((64, 128), 0) if INTERPRETED else weight_of(1024, 2048, torch.bfloat16)
    linear = Linear(weight.to(device), few_rows=TritonFewRows(weight.to(device), None, tuning))
    if INTERPRETED:  # the probe's own numbers are not exact: only that it runs through the kernel
        linear.product(torch.zeros(2, 128, dtype=torch.float16))
    else:
        assert probe_row_padding(linear) == RowPadding(invariant=True)
        assert make_row_invariant([linear]) == RowPadding(invariant=True, together=MANY)


EARLY_TILES = [
    LinearTuning(shared_kib=48),
    LinearTuning(shared_kib=200),
    LinearTuning(split_k=2),
    LinearTuning(block_k=64, split_k=4),
    LinearTuning(block_out=128, block_k=256, num_warps=8, shared_kib=200),
]


@pytest.mark.parametrize("tuning", EARLY_TILES[:1] if INTERPRETED else EARLY_TILES)
@pytest.mark.parametrize("shape", [(72, 512)] if INTERPRETED else [(72, 512), (1024, 2048)])
def test_weights_that_are_fetched_early_change_no_bit(
    device: torch.device, tuning: LinearTuning, shape: tuple[int, int]
) -> None:
    """The interpreter knows no Gluon: there both are the plain one."""
    if not INTERPRETED and torch.cuda.get_device_capability(device) != (9, 0):
        pytest.skip("needs compute capability 9.0")
    weight, bias = weight_of(*shape, torch.bfloat16).to(device), random((shape[0],), 3, torch.bfloat16).to(device)
    rows = random((130, shape[1]), 1, torch.bfloat16).to(device)
    early, plain = (TritonFewRows(weight, bias, tuning, pdl=True, early=each) for each in (True, False))
    for count in (1, 17) if INTERPRETED else (1, 16, 17, 64, 100):
        part = rows[2 : 2 + count]
        made, expected = early(part), plain(part)
        pairs = [(early.wide(part), plain.wide(part))]
        if isinstance(made, Partials) and isinstance(expected, Partials):
            pairs.append((made.sums, expected.sums))
        else:
            pairs.append((whole(made), whole(expected)))
        if tuning.split_k == 1:
            pairs += [(early.gated(part), plain.gated(part))]
        assert all(same_bits(one, other) for one, other in pairs)


def test_a_kernel_that_was_compared_is_not_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = TritonFewRows(torch.ones(16, 64, dtype=torch.float16), None, LinearTuning())
    linear = Linear(torch.ones(16, 64, dtype=torch.float16), few_rows=kernel)
    assert not linear.is_compared  # on no CPU
    kernel.compared = True
    monkeypatch.setattr(row_probe, "probe_row_padding", None)
    assert make_row_invariant([linear]) == RowPadding(invariant=True, together=MANY)


@pytest.mark.parametrize(
    "tuning", [LinearTuning(), LinearTuning(tma=False), LinearTuning(split_k=2, block_k=64), LinearTuning(split_k=3)]
)
def test_many_rows_are_several_tiles_of_whole_sums(device: torch.device, tuning: LinearTuning) -> None:
    weight, rows = exact_numbers((96, 448), 0).to(device), exact_numbers((300, 448), 1).to(device)
    linear = Linear(weight, few_rows=TritonFewRows(weight, None, tuning))
    expected = (rows.double() @ weight.double().T).to(torch.float16)
    assert torch.equal(linear(rows), expected)
    assert torch.equal(whole(linear.unsummed(rows)), expected)
    assert torch.equal(linear.wide(rows), expected.float())
    assert torch.equal(linear.product(rows), expected)
    assert isinstance(linear.unsummed(rows), torch.Tensor), "no pieces are left to the reader"


def test_many_gated_rows_have_the_bits_of_few(device: torch.device, triton_kernels: Kernels) -> None:
    weight, rows = (exact_numbers((128, 64), 0) / 8).to(device), (exact_numbers((200, 64), 1) / 8).to(device)
    linear = Linear(weight, few_rows=TritonFewRows(weight, None, LinearTuning()))
    together = linear.gated(rows, triton_kernels.gated_silu)
    for first in (0, 128, 195):
        part = rows[first : first + 5]
        assert same_bits(linear.gated(part, triton_kernels.gated_silu), together[first : first + 5])


def test_what_lies_behind_the_rows_reaches_no_result(device: torch.device) -> None:
    """Products of many rows fetch whole tiles where there is room for them; here it holds no numbers."""
    torch.manual_seed(0)
    plain = rows_with_room((70, 128), torch.bfloat16, device).copy_(torch.randn(70, 128))
    weight = torch.randn(192, 128).to(device, torch.bfloat16)
    roomy = with_room(plain, 128)
    assert roomy.shape == (128, 128) and roomy.data_ptr() == plain.data_ptr()
    assert with_room(plain.clone(), 128).shape == (70, 128)
    roomy[70:] = torch.nan
    for tuning in (LinearTuning(split_k=2), LinearTuning()):
        product = TritonFewRows(weight, None, tuning)
        assert torch.equal(product.wide(plain), product.wide(plain.clone()))


@pytest.mark.parametrize("padding", [RowPadding(24, 1, invariant=True), RowPadding(1, 1, 8, invariant=True)])
def test_padding_comes_before_the_kernel(device: torch.device, padding: RowPadding) -> None:
    weight, rows = exact_numbers((96, 64), 0).to(device), exact_numbers((17, 64), 1).to(device)
    linear = Linear(weight, few_rows=TritonFewRows(weight, None, LinearTuning(split_k=2)))
    linear.padding = padding
    product = linear.unsummed(rows)
    assert isinstance(product, torch.Tensor)
    assert torch.equal(product, (rows.double() @ weight.double().T).to(torch.float16))


@pytest.mark.parametrize("tuning", PIPELINES)
@pytest.mark.parametrize("size", [64, 560])
def test_gate_and_up_together_are_the_activation_of_the_product(
    device: torch.device, triton_kernels: Kernels, tuning: LinearTuning, size: int
) -> None:
    weight, rows = exact_numbers((2 * size, 100), 0) / 8, exact_numbers((19, 100), 1) / 8
    bias = exact_numbers((2 * size,), 2)
    linear = Linear(weight.to(device), few_rows=TritonFewRows(weight.to(device), bias.to(device), tuning))
    fused = linear.gated(rows.to(device), triton_kernels.gated_silu)
    assert same_bits(fused, triton_kernels.gated_silu(linear(rows.to(device))))
    gate, up = (rows.double() @ weight.double().T + bias.double()).chunk(2, -1)
    assert error(fused, gate * gate.sigmoid() * up) < 1e-3


def test_a_cut_gate_product_is_activated_by_its_reader(device: torch.device, triton_kernels: Kernels) -> None:
    weight, rows = exact_numbers((128, 256), 0).to(device), (exact_numbers((3, 256), 1) / 16).to(device)
    kernel = TritonFewRows(weight, None, LinearTuning(split_k=2))
    assert kernel.gated(rows) is None
    gated = Linear(weight, few_rows=kernel).gated(rows, triton_kernels.gated_silu)
    assert same_bits(gated, triton_kernels.gated_silu(whole(kernel(rows))))


def pieces(shape: tuple[int, int], splits: int, device: torch.device, dtype: torch.dtype) -> Partials:
    return Partials(random((splits, *shape), 7).to(device), dtype)


# the interpreter cuts bfloat16 off where torch rounds it
CONSUMED = [torch.float16, torch.float32] if INTERPRETED else [torch.float16, torch.float32, torch.bfloat16]


@pytest.mark.parametrize("dtype", CONSUMED)
@pytest.mark.parametrize("splits", [2, 3, 8])
def test_readers_of_pieces_read_their_rounded_sum(
    device: torch.device, kernels: Kernels, dtype: torch.dtype, splits: int
) -> None:
    norm = RmsNorm(random((200,), 2, dtype).to(device), 1e-5)
    hidden, delta = random((5, 200), 0, dtype).to(device), pieces((5, 200), splits, device, dtype)
    for ours, expected in zip(
        kernels.add_rms_norm(hidden, delta, norm), kernels.add_rms_norm(hidden, delta.total(), norm), strict=True
    ):
        assert same_bits(ours, expected)
    gate_up = pieces((5, 2 * 1100), splits, device, dtype)
    assert same_bits(kernels.gated_silu(gate_up), kernels.gated_silu(gate_up.total()))


@pytest.mark.parametrize("dtype", CONSUMED)
@pytest.mark.parametrize("with_norms", [False, True])
def test_rotation_of_pieces_is_that_of_their_rounded_sum(
    device: torch.device, kernels: Kernels, dtype: torch.dtype, with_norms: bool
) -> None:
    layout, table = HeadLayout(4, 2, 80), rotary_table(80, device)
    positions, slots = torch.arange(5, device=device) * 20, torch.arange(5, device=device) + BLOCK
    ones = torch.ones(1, 5, dtype=torch.int64, device=device)
    step = StepInput(ones, positions[None], slots[None], ones[:, :1], ones, 1)
    norms = [RmsNorm((1 + 0.1 * random((80,), seed)).to(dtype).to(device), 1e-6) for seed in (1, 2)]
    qkv = pieces((5, 8 * 80), 4, device, dtype)

    def rotated(product: Product) -> list[torch.Tensor]:
        cache = torch.zeros(4 * BLOCK, 4, 80, dtype=dtype, device=device)
        plan = kernels.plan(step, BLOCK, layout, table, dtype)
        return [kernels.rope_and_write(product, cache, plan, *(norms if with_norms else [])), cache]

    for ours, expected in zip(rotated(qkv), rotated(qkv.total()), strict=True):
        assert same_bits(ours, expected)


def test_the_library_does_what_has_no_tuning_or_no_tensor_cores(device: torch.device) -> None:
    weight = torch.zeros(64, 64, device=device)
    tuned = TritonKernels(linear_tuning=tuning_for)
    assert choose_kernels(device, "torch").few_rows(weight.half(), None) is None
    assert TritonKernels(linear_tuning=lambda out_features, in_features: None).few_rows(weight.half(), None) is None
    assert tuned.few_rows(weight, None) is None
    assert tuned.few_rows(weight.half(), None) is not None


def tuning_for(out_features: int, in_features: int) -> LinearTuning:
    """As many splits as keep 256 programs at once, each with at least four steps of 128 inputs."""
    tiles, split = -(-out_features // 64), 1
    while tiles * split * 2 <= 256 and in_features // (split * 2) >= 4 * 128:
        split *= 2
    return LinearTuning(split_k=split)


LLAMA_SHAPES = [(6144, 4096), (4096, 4096), (28672, 4096), (4096, 14336), (128256, 4096)]
LLAMA_SHAPES += [(3072, 2048), (2048, 2048), (16384, 2048), (2048, 8192), (128256, 2048), (128256, 8192), (1, 1)]


@pytest.mark.parametrize("shape", LLAMA_SHAPES)
def test_tunings_fit_the_device_for_every_number_of_rows(shape: tuple[int, int]) -> None:
    tuning = tuning_for(*shape)
    assert -(-shape[0] // tuning.block_out) * tuning.split_k <= 256 or tuning.split_k == 1
    for each in (tuning, LinearTuning(block_k=256, shared_kib=200), LinearTuning(block_out=128, num_warps=8)):
        for rows in (1, 16, 17, 64, 65, 128, 129, 300, 513, 2000):
            for tiles in (1, 2):
                tile = each.tile(shape[1], rows, gated=tiles == 2).within(227 * 1024, tiles)
                assert tile.stages * (tiles * tile.block_out + tile.rows) * tile.block_k * 2 <= 227 * 1024
                assert each.split_inputs(shape[1]) % tile.block_k == 0  # where splits are cut does not follow from rows
                assert each.split_inputs(shape[1]) * each.split_k >= shape[1]


OTHERS = [
    (4096, 1024),
    (1024, 2048),
    (6144, 1024),
    (1024, 3072),
    (12288, 2048),
    (2048, 6144),
    (5120, 25600),
    (34816, 5120),
]
TUNINGS = [*MEASURED.values(), *(tuning_by_rule(*shape) for shape in OTHERS)]
TILES = {tile for tuning in TUNINGS for tiles in (tuning.many, tuning.gated) for _, tile in tiles}


@pytest.mark.parametrize("shape", [*OTHERS, (1536, 1536), (151936, 1024), (2560, 9728), *MEASURED])
def test_a_rule_cuts_weights_that_were_not_measured(shape: tuple[int, int]) -> None:
    """Pieces are not too short, and whatever number of rows has a tile that its sums allow."""
    tuning = tuning_by_rule(*shape)
    assert tuning.split_k == 1 or shape[1] >= 256 * tuning.split_k
    assert tuning_of(*shape) == MEASURED.get(shape, tuning)
    for tiles in (tuning.many, tuning.gated):
        assert [most for most, _ in tiles] == sorted({most for most, _ in tiles}) and tiles[-1][0] == MORE
    if tuning.split_k == 1:
        assert all(tile.whole for _, tile in tuning.many)


def test_the_rule_finds_what_was_measured_of_many_rows() -> None:
    """Of Llama 8B's products that are split: the tile, or one as large."""
    for shape in [(4096, 14336), (6144, 4096), (4096, 4096)]:
        for rows in (512, 1024, 2048):
            ruled, measured = (each.tile(shape[1], rows) for each in (tuning_by_rule(*shape), MEASURED[shape]))
            assert (ruled.block_out, ruled.rows) == (measured.block_out, measured.rows)


def test_small_weights_are_left_to_the_library() -> None:
    assert tuning_of(960, 960) is None and tuning_of(4096, 512) is None


@pytest.mark.grid(one_of=5)
@pytest.mark.parametrize("tile", sorted(TILES, key=str), ids=str)
@pytest.mark.parametrize("split_k", [1, 3])
def test_bits_do_not_depend_on_the_tile(device: torch.device, tile: Tile, split_k: int) -> None:
    if INTERPRETED:
        weight, rows = (exact_numbers((130, 520), 0) / 16).to(device), exact_numbers((70, 520), 1).to(device)
    else:
        weight = weight_of(1024, 4096, torch.bfloat16).to(device)
        rows = random((600, 4096), 1, torch.bfloat16).to(device)
    bias = exact_numbers((weight.shape[0],), 2).to(device, weight.dtype)
    tile = replace(tile, stages=2)
    tuning = LinearTuning(split_k=split_k, many=((MORE, tile),), gated=((MORE, replace(tile, whole=False)),))
    kernel = TritonFewRows(weight, bias, tuning)
    few = torch.cat([whole(kernel(part)) for part in rows.split(16)])
    assert same_bits(whole(kernel(rows)), few)
    assert same_bits(kernel.wide(rows), few.float())
    if split_k == 1:
        assert same_bits(kernel.gated(rows), torch.cat([kernel.gated(part) for part in rows.split(16)]))


def test_a_device_with_less_shared_memory_gets_fewer_stages() -> None:
    tile = Tile(128, 256, 64, 4, 8)
    assert [tile.within(size * 1024).stages for size in (227, 163, 99, 40)] == [4, 3, 2, 1]
    assert tile.within(163 * 1024, weights=2).stages == 2


def test_gate_and_up_are_not_made_of_whole_sums() -> None:
    with pytest.raises(ValueError, match="give whole=False"):
        LinearTuning(gated=((MORE, Tile(128, 128, 64, 4, 8, whole=True)),))


@pytest.mark.parametrize("wrong", [{"block_out": 32}, {"block_out": 64, "num_warps": 8}, {"block_k": 96}])
def test_tiles_that_no_product_instruction_takes_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="must be at least 64"):
        LinearTuning(**wrong)
