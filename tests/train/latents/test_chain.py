from __future__ import annotations

import subprocess
import sys

LINEAR = """
import sys, torch
from scgan_train.latents.chain import RIDGE, _tilted

generator = torch.Generator().manual_seed(0)
f = torch.randn(500, 2, generator=generator).double()
table = torch.tensor([[-1.0], [0.0], [1.0]]).double()
logits = (f[:, :1] * table.T).float()
outcome = torch.multinomial(logits.softmax(1), 1, generator=generator)[:, 0]
weight = _tilted(torch.zeros(500, 3).double(), f, table, outcome)
shares = (f @ weight @ table.T).softmax(1)
rest = f.T @ (table[outcome] - shares @ table) - RIDGE * weight
assert rest.abs().max() < 0.05, rest
assert abs(weight[0, 0] - 1) < 0.3 and abs(weight[1, 0]) < 0.3, weight
assert _tilted(torch.zeros(500, 3).double(), f, table, outcome.flip(0)) is None
assert "torch._dynamo" not in sys.modules
"""


def test_linear_terms_match_the_moments_without_importing_a_compiler() -> None:
    """At the maximum, moments of generated outcomes are those of the rows; torch's compiler takes seconds to import."""
    subprocess.run([sys.executable, "-c", LINEAR], check=True)
