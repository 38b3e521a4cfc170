"""What must work right after `pip install structlv`: kernels, gradients, sampling, the compiled scanner."""

from __future__ import annotations

import warnings

import torch

warnings.simplefilter("error")

import structlv  # noqa: E402
from structlv import _native  # noqa: E402
from structlv.data import _brackets, parse_tree  # noqa: E402


def main() -> None:
    assert _native.available(), "the wheel holds no kernels"
    torch.manual_seed(0)
    unary = torch.randn(3, 7, 5, requires_grad=True)
    transition = torch.randn(5, 5)
    chain = structlv.LinearChain(unary, transition, lengths=torch.tensor([7, 4, 1]))
    (gradient,) = torch.autograd.grad(chain.log_partition().sum(), unary)
    torch.testing.assert_close(gradient, chain.marginals().unary)
    assert torch.all(chain.log_prob(chain.sample((4,))) < 0)
    assert torch.all(chain.max() <= chain.log_partition())
    assert _brackets.__file__.endswith(".so"), "the wheel holds no compiled scanner of brackets"
    assert parse_tree("(S (N dogs) (V bark))").tags == ("N", "V")
    print(f"structlv {structlv.__version__} on torch {torch.__version__}, {_native.cpu_capability()}: works")


if __name__ == "__main__":
    main()
