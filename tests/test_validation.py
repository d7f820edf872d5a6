"""What is wrong with given fields is said in one line: what was given, what is allowed, what may have been meant."""

from __future__ import annotations

import pytest

import ssd_lab
from ssd_lab.errors import ConfigError


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"strategy": "sync_chain", "k": 99}, "sync_chain: k=99: Input should be less than or equal to 32"),
        ({"temperature": -1}, "sampling: temperature=-1: Input should be greater than or equal to 0"),
        ({"max_batch": 0}, "engine: max_batch=0: Input should be greater than or equal to 1"),
        ({"top_p": 2.0, "stop": 3}, "sampling: top_p=2.0: Input should be less than or equal to 1; stop=3: Input"),
        ({"strategy": "sync_chain", "maxbatch": 2}, "unknown field 'maxbatch' (did you mean 'max_batch'?); its fields"),
        ({"f": 2, "fan_out": {"kind": "uniform", "f": 3}}, "async_tree: f and fan_out both say the fan-out"),
        ({"strategy": "autoregressive", "q": 2}, "autoregressive: unknown field 'q'; its fields are none"),
        (
            {"fan_out": "geometric"},
            'fan_out="geometric": Input should be a dictionary of a kind and its fields, such as {"k',
        ),
        ({"fan_out": {"kind": "geometric"}}, 'fan_out.geometric.budget is missing in {"kind": "geometric"}'),
    ],
)
def test_wrong_fields_are_refused_in_one_line(fields: dict[str, object], message: str):
    with pytest.raises(ConfigError) as refused:
        ssd_lab.run("Hello", progress=False, **fields)  # type: ignore[arg-type]
    assert message in str(refused.value)
    assert "\n" not in str(refused.value) and "pydantic.dev" not in str(refused.value)
    assert refused.value.__suppress_context__, (
        "the sentence comes last, and nothing before it says the same in more words"
    )
