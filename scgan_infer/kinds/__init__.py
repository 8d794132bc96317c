"""The kinds of columns: one class each, in a file of its own.

| kind     | domain                          | fields used                |
| -------- | ------------------------------- | -------------------------- |
| real     | any finite number               | rounding, anchor           |
| log      | positive numbers                | decimals, grid, origin     |
| periodic | [low, low + period)             | period, low, decimals, grid, origin |
| bounded  | [low, high], either open        | those two, low, high, slack |
| integer  | whole numbers, -2**24 to 2**24  | low, high, slack, anchor, grid, origin |
| datetime | dates and times                 | those, resolution, pattern |
| category | 0..C-1, index into names        | categories                 |
| id       | 0; numbered where it is written | low, pattern               |

Rounding is one of decimals, digits, or grid and origin.

A new kind is a subclass of `Kind` and a line in `KINDS`; a form of its own, if it needs one, has
its graph in `scgan_train.coordinates.forms.GRAPHS`.
"""

from __future__ import annotations

from scgan_infer.kinds.base import BadCellError, Form, Kind
from scgan_infer.kinds.bounded import Bounded
from scgan_infer.kinds.category import Category
from scgan_infer.kinds.datetime import Datetime
from scgan_infer.kinds.id import Id
from scgan_infer.kinds.integer import Integer
from scgan_infer.kinds.log import Log
from scgan_infer.kinds.periodic import Periodic
from scgan_infer.kinds.real import Real

__all__ = ["KINDS", "BadCellError", "Form", "Kind"]

# Where several kinds fit the cells of a column, the last of them is taken.
KINDS: dict[str, Kind] = {
    "real": Real(),
    "log": Log(),
    "periodic": Periodic(),
    "bounded": Bounded(),
    "integer": Integer(),
    "category": Category(),
    "datetime": Datetime(),
    "id": Id(),
}
