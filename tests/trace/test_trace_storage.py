"""A saved trace comes back equal, or loading says what is wrong with the file."""

from __future__ import annotations

import dataclasses
import gzip
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from trace_samples import async_trace, request, round_record, sequence_round

from ssd_lab.errors import TraceFormatError
from ssd_lab.trace import (
    Activity,
    Position,
    RequestRecord,
    RoundRecord,
    SequenceRound,
    Trace,
    TreeRecord,
    load_trace,
)

ids = st.lists(st.integers(0, 200_000), max_size=4)
numbers = st.floats(allow_nan=False, allow_infinity=False)
probs = st.lists(st.floats(0, 1), max_size=4)
text = st.text(max_size=8)
plain = st.recursive(
    st.none() | st.booleans() | st.integers() | numbers | text,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(text, inner, max_size=2),
    max_leaves=5,
)
dictionaries = st.dictionaries(text, plain, max_size=3)
activities = st.builds(Activity, text, text, numbers, numbers)
trees = st.builds(TreeRecord, ids, ids, probs, st.none() | st.lists(st.none() | st.floats(0, 1), max_size=4))
positions = st.builds(Position, ids, probs, st.none() | probs, st.none() | probs)
sequences = st.builds(
    SequenceRound,
    request_id=st.integers(0),
    position=st.integers(0),
    draft_tokens=ids,
    draft_probs=probs,
    target_probs=probs,
    num_accepted=st.integers(0, 9),
    recovery_token=st.integers(0),
    recovery_prob=st.floats(0, 1),
    num_emitted=st.integers(0, 9),
    origin=text,
    cache_hit=st.none() | st.booleans(),
    tree=st.none() | trees,
    coins=st.none() | probs,
    recovery_coin=st.none() | st.floats(0, 1),
    recovery_rank=st.none() | st.integers(0),
    fan_out=st.none() | st.lists(st.integers(0, 9), max_size=4),
    alternatives=st.none() | st.lists(positions, max_size=2),
)
rounds = st.builds(
    RoundRecord, st.integers(0), numbers, numbers, st.lists(sequences, max_size=2), st.lists(activities, max_size=2)
)
requests = st.builds(
    RequestRecord,
    request_id=st.integers(0),
    prompt=st.none() | text,
    prompt_ids=ids,
    token_ids=ids,
    text=text,
    finish_reason=st.none() | text,
    arrival_s=numbers,
    first_token_s=st.none() | numbers,
    end_s=st.none() | numbers,
    params=dictionaries,
)
traces = st.builds(
    Trace, dictionaries, st.lists(requests, max_size=2), st.lists(rounds, max_size=3), st.lists(activities, max_size=2)
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("traces")


@settings(max_examples=60, deadline=None)
@given(trace=traces, name=st.sampled_from(["trace.jsonl", "trace.jsonl.gz"]))
def test_loading_gives_back_an_equal_trace(folder: Path, trace: Trace, name: str):
    trace.save(folder / name)
    assert load_trace(folder / name) == trace


def test_a_gz_name_is_compressed_and_nothing_else_is_left_behind(tmp_path: Path):
    async_trace().save(tmp_path / "a.jsonl.gz")
    with gzip.open(tmp_path / "a.jsonl.gz", "rt") as file:
        assert json.loads(file.readline())["schema_version"] == 1
    assert [p.name for p in tmp_path.iterdir()] == ["a.jsonl.gz"]


def test_nan_is_never_written_and_the_old_file_survives(tmp_path: Path):
    path = tmp_path / "a.jsonl"
    async_trace().save(path)
    bad = async_trace()
    bad.requests.append(request(1, request_id=5, arrival_s=float("nan")))
    with pytest.raises(TraceFormatError, match="request 5"):
        bad.save(path)
    assert load_trace(path) == async_trace()
    assert [p.name for p in tmp_path.iterdir()] == ["a.jsonl"]


def test_objects_without_a_json_form_are_named(tmp_path: Path):
    with pytest.raises(TraceFormatError, match=r"meta .*Path"):
        Trace({"where": tmp_path}).save(tmp_path / "a.jsonl")


def test_a_missing_file_is_named(tmp_path: Path):
    with pytest.raises(TraceFormatError, match=r"nowhere\.jsonl: the file does not exist"):
        load_trace(tmp_path / "nowhere.jsonl")


@pytest.mark.parametrize("content", [b"", b"hello\n", b"[1]\n", b'{"kind":"round"}\n', b"\xff\xfe\x00"])
def test_other_files_are_not_traces(tmp_path: Path, content: bytes):
    path = tmp_path / "other"
    path.write_bytes(content)
    with pytest.raises(TraceFormatError, match=r"not a trace|cannot be read"):
        load_trace(path)


def test_a_newer_schema_says_what_to_do(tmp_path: Path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"kind":"trace","schema_version":2,"meta":{}}\n')
    with pytest.raises(TraceFormatError, match=r"schema version 2.*install a newer ssd_lab"):
        load_trace(path)


@pytest.mark.parametrize(
    "damaged", ['{"kind":"round"', '{"kind":"round"}', '{"kind":"song"}', "7", '{"kind":"prefill","lane":"x"}']
)
def test_a_damaged_line_is_numbered(tmp_path: Path, damaged: str):
    path = tmp_path / "a.jsonl"
    async_trace().save(path)
    lines = path.read_text().splitlines()
    lines[3] = damaged
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(TraceFormatError, match="line 4 is damaged"):
        load_trace(path)


def test_a_file_cut_at_a_line_is_noticed(tmp_path: Path):
    path = tmp_path / "a.jsonl"
    async_trace().save(path)
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-2]))
    with pytest.raises(TraceFormatError, match="cut short"):
        load_trace(path)


def test_a_cut_compressed_file_is_noticed(tmp_path: Path):
    path = tmp_path / "a.jsonl.gz"
    async_trace().save(path)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(TraceFormatError, match="cannot be read"):
        load_trace(path)
    path.write_text("not compressed")
    with pytest.raises(TraceFormatError, match="cannot be read"):
        load_trace(path)


def test_fields_of_a_later_ssd_lab_are_left_out(tmp_path: Path):
    path = tmp_path / "a.jsonl"
    async_trace().save(path)
    path.write_text(path.read_text().replace('"num_accepted":', '"added_later":1,"num_accepted":'))
    assert load_trace(path) == async_trace()


def test_a_trace_from_before_the_details_were_recorded_is_read(tmp_path: Path):
    path = tmp_path / "a.jsonl"
    trace = async_trace()
    tree = TreeRecord(tokens=[10, 11], parents=[-1, 0], draft_probs=[0.5, 0.25])
    trace.rounds.append(round_record(3, 5.5, 6.0, sequence_round(1, tree=tree)))
    trace.save(path)
    later = ("coins", "recovery_coin", "recovery_rank", "fan_out", "alternatives")
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    for sequence in (sequence for line in lines for sequence in line.get("sequences", [])):
        for name in later:
            del sequence[name]
        if sequence["tree"] is not None:
            del sequence["tree"]["target_probs"]
    path.write_text("\n".join(json.dumps(line) for line in lines) + "\n")
    assert load_trace(path) == trace


def test_details_of_a_position_come_back_as_records(tmp_path: Path):
    place = Position(tokens=[10, 99], target_probs=[0.25, 0.5], draft_probs=[0.5, 0.1], draft_raw_probs=[0.7, 0.1])
    detailed = dataclasses.replace(
        sequence_round(0),
        coins=[0.6, 0.1, 0.9],
        recovery_coin=0.5,
        recovery_rank=4,
        fan_out=[4, 2, 1, 1],
        alternatives=[place] * 4,
    )
    Trace({}, rounds=[round_record(0, 0.0, 1.0, detailed)]).save(tmp_path / "a.jsonl")
    [loaded] = load_trace(tmp_path / "a.jsonl").rounds[0].sequences
    assert loaded == detailed and isinstance(loaded.alternatives[0], Position)


def test_importing_traces_imports_no_torch():
    import subprocess
    import sys

    code = "import sys, ssd_lab.trace, ssd_lab.results, ssd_lab.simulate; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
