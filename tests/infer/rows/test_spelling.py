import time

import pytest

from scgan_infer.rows.spelling import fault, misspelt

MANY = 30_000


@pytest.mark.parametrize("text", ["1" * MANY + "!!", "1," * MANY + "!!", "$" + " " * MANY + "1!"])
def test_what_is_wrong_with_a_long_cell_is_found_in_a_time_that_grows_with_its_length(text):
    """Tens of seconds where a pattern tries each of the ways to part the cell."""
    began = time.process_time()
    assert fault(text, str).startswith("is text where a number belongs")
    assert not misspelt([text])
    assert time.process_time() - began < 10
