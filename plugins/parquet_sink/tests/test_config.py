"""What of the settings is a problem."""

import re
from pathlib import Path

import pytest
from tieline_parquet.config import ParquetSinkConfig

from tieline.api import ConfigError


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({"store.url": ""}, "store.url"),
        ({"flush.size": "0"}, "flush.size"),
        ({"rotate.interval.ms": "-2"}, "rotate.interval.ms"),
        ({"parquet.codec": "lzo"}, "parquet.codec"),
        ({"time.unit": "ns"}, "time.unit"),
        ({"partition.date.name": "a/b"}, "partition.date.name"),
        ({"partition.fields": "a.x, b.x"}, "partition.fields"),
    ],
)
def test_a_problem_is_told_with_its_key(settings, key):
    with pytest.raises(ConfigError) as refused:
        ParquetSinkConfig.parse({"store.url": "/lake", **settings})
    assert [problem.key for problem in refused.value.problems] == [key]


def test_the_readme_has_every_setting_with_its_default():
    text = (Path(__file__).parents[1] / "README.md").read_text("utf-8")
    rows = dict(re.findall(r"^\| `([a-z.]+)` \| ([^|]+) \|", text, re.M))
    documented = {
        setting["name"]: "required" if setting["required"] else f"`{setting['default_value']}`"
        for setting in ParquetSinkConfig.definition()
    }
    assert rows == {
        key: "not set" if default in ("`None`", "``") else default for key, default in documented.items()
    }
