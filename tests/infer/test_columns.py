import numpy as np
import pytest

from scgan_infer.columns import Column
from scgan_infer.kinds import KINDS
from scgan_infer.kinds.category import codes as code_numbers

ONE_OF_EACH = {
    "real": Column("x", unit="cm"),
    "log": Column("e", "log", decimals=0),
    "periodic": Column("phi", "periodic", period=360.0, low=0.0),
    "bounded": Column("u", "bounded", high=19.6, slack=0.1),
    "integer": Column("n", "integer"),
    "category": Column("kind", "category", categories=("a", "b")),
    "id": Column("pid", "id", low=1.0, pattern="P00"),
    "datetime": Column("day", "datetime", anchor=18_000.0, resolution="D", pattern="YYYY-MM-DD"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_to_dict_and_from_dict_are_inverse(kind):
    column = ONE_OF_EACH[kind]
    assert Column.from_dict(column.to_dict()) == column
    assert column.kind == kind


@pytest.mark.parametrize(
    "fields",
    [
        {"kind": "complex"},
        {"kind": "periodic"},
        {"kind": "periodic", "period": 0.0},
        {"kind": "periodic", "period": float("inf")},
        {"kind": "bounded"},
        {"kind": "bounded", "low": 1.0, "high": 1.0},
        {"kind": "bounded", "low": "0"},
        {"kind": "bounded", "low": True},
        {"kind": "bounded", "low": 0.1, "high": 0.9, "decimals": 0},
        {"kind": "integer", "low": 3.0, "high": 2.0},
        {"kind": "bounded", "low": 1e308, "decimals": 6},
        {"kind": "integer", "decimals": 2},
        {"kind": "periodic", "period": 0.5, "decimals": 0},
        {"decimals": 7},
        {"digits": 7},
        {"digits": 3, "decimals": 1},
        {"decimals": -1},
        {"decimals": 1.5},
        {"decimals": True},
        {"decimals": "2"},
        {"kind": "category"},
        {"anchor": float("nan")},
        {"kind": "log", "anchor": 1.0},
        {"kind": "datetime"},
        {"kind": "datetime", "resolution": "D", "pattern": "DD.MM.YYYY"},
        {"kind": "datetime", "resolution": "fortnight", "pattern": "YYYY-MM-DD"},
        {"kind": "category", "categories": ("a", "a")},
        {"kind": "category", "categories": ("a", "")},
    ],
)
def test_fields_that_describe_no_domain_are_refused_and_the_column_named(fields):
    with pytest.raises(ValueError, match="'mass'"):
        Column("mass", **fields)


@pytest.mark.parametrize(
    ("names", "codes"),
    [
        (("a", "b"), [0, 1]),
        (("2007", "2008"), [2007, 2008]),
        (("1", "1.0"), [0, 1]),
        (("1", "nan"), [0, 1]),
    ],
)
def test_categories_named_by_numbers_stand_as_those_numbers(names, codes):
    np.testing.assert_array_equal(code_numbers(Column("k", "category", categories=names)), codes)
