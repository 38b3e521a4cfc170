"""Filtering, relaxed samples, samples without replacement on a GPU beside the CPU's: values and gradients."""

import pytest
import torch

from structlv.ops import chain as ops
from tests.cases import SHARINGS, chain
from tests.gpu.test_chain import SIZES, on
from tests.tolerance import assert_filtered, assert_perturbed, assert_probabilities, assert_second_order

dtypes = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["f32", "f64"])


@pytest.mark.parametrize("scale", [1.0, 60.0])  # the second leaves the scaled domain
@pytest.mark.parametrize("sharing", SHARINGS)
@pytest.mark.parametrize("k", SIZES)
@dtypes
def test_the_same_as_on_the_cpu(k, sharing, scale, dtype, gpu):
    case = chain(batch=(3,), n=9, k=k, sharing=sharing, scale=scale, dtype=dtype, seed=k)
    heat = torch.tensor([0.5, 0.8, 1.2], dtype=dtype)
    results = []
    for x, device in ((on(case, gpu), gpu), (case, torch.device("cpu"))):
        leafy, leaves = x.leaves()
        rows = ops.filter(*leafy)
        states, soft = ops.relaxed_sample(*leafy, temperature=heat.to(device), num_samples=4, seed=11)
        weight = torch.linspace(-1, 1, soft.numel(), dtype=dtype, device=device).view(soft.shape)
        total = (soft * weight).sum() + (rows.exp() * weight[0]).sum()
        gradients = torch.autograd.grad(total, leaves)
        results.append([states.cpu(), rows.cpu(), soft.cpu(), [g.cpu() for g in gradients]])
    mine, theirs = results
    assert_filtered(mine[1], theirs[1])
    same = (mine[0] == theirs[0]).all(-1)
    assert same.double().mean() > 0.99
    assert_probabilities(mine[2][same], theirs[2][same], dtype)
    if bool(same.all()):
        for a, b in zip(mine[3], theirs[3], strict=True):
            assert_second_order(a, b, dtype)


@pytest.mark.parametrize("sharing", SHARINGS)
@dtypes
def test_without_replacement(sharing, dtype, gpu):
    case = chain(batch=(5,), n=12, k=17, sharing=sharing, holes=0.1, dtype=dtype, seed=3)
    states, perturbed = ops.sample_distinct(*on(case, gpu), k=20, seed=7)
    expected = ops.sample_distinct(*case, k=20, seed=7)
    assert_perturbed(perturbed.cpu(), expected[1], torch.float64)
    assert torch.equal(states.cpu(), expected[0])
