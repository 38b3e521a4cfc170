"""The CUDA part as it is compiled here, without a GPU: it loads, registers its operators, and traces.

Each test is a process of its own, as what is registered stays registered.
"""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.skipif(
    find_spec("structlv._cuda") is None, reason="the CUDA part was not compiled here"
)

SETUP = """
import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from structlv import _native
from structlv.ops import chain as ops
assert _native.load_cuda()
mode = FakeTensorMode()
def gpu(*shape, dtype=torch.float32):
    return FakeTensor(mode, torch.empty(shape, device="meta", dtype=dtype), torch.device("cuda:0"))
u, a = gpu(2, 4, 3), gpu(3, 3)
raw = torch.ops.structlv
"""


def run(code: str) -> str:
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run(
        [sys.executable, "-c", SETUP + code], capture_output=True, text=True, env=env, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_operators_have_kernels_under_the_key_cuda():
    text = run("""
for name in ("log_partition", "inside", "vjp", "marginals", "hvp", "argmax", "sample", "filter",
             "filter_inside", "filter_vjp", "relaxed", "relaxed_vjp", "sample_distinct", "topk"):
    print(torch._C._dispatch_has_kernel_for_dispatch_key(f"structlv::chain_{name}", "CUDA"))
""")
    assert text.split() == ["True"] * 13 + ["False"]


def test_the_operators_of_dense_trees_have_kernels_under_the_key_cuda():
    text = run("""
from structlv.ops import pcfg
for name in ("log_partition", "inside", "vjp", "marginals", "hvp", "argmax", "sample", "score"):
    print(torch._C._dispatch_has_kernel_for_dispatch_key(f"structlv::pcfg_{name}", "CUDA"))
""")
    assert text.split() == ["True"] * 7 + ["False"]


def test_the_operators_of_low_rank_trees_have_kernels_under_the_key_cuda():
    text = run("""
from structlv.ops import lowrank
for name in ("log_partition", "inside", "vjp", "marginals", "hvp", "sample"):
    print(torch._C._dispatch_has_kernel_for_dispatch_key(f"structlv::lowrank_{name}", "CUDA"))
""")
    assert text.split() == ["True"] * 6


def test_the_operators_of_factorial_chains_have_kernels_under_the_key_cuda():
    text = run("""
from structlv.ops import factorial
for name in ("log_partition", "inside", "vjp", "marginals", "hvp", "argmax", "sample", "score"):
    print(torch._C._dispatch_has_kernel_for_dispatch_key(f"structlv::factorial_{name}", "CUDA"))
""")
    assert text.split() == ["True"] * 7 + ["False"]


def test_sizes_of_a_factorial_chain_stay_on_the_cpu():
    text = run("""
from structlv.ops import factorial
with mode:
    sizes, joint, edges = (2, 3), gpu(2, 4, 6), gpu(13)
    results = [factorial.log_partition(joint, edges, sizes=sizes),
               *factorial.marginals(joint, edges, sizes=sizes), factorial.argmax(joint, edges, sizes=sizes),
               factorial.sample(joint, edges, sizes=sizes, num_samples=5, seed=1)]
assert all(x.device.type == "cuda" for x in results)
print([tuple(x.shape) for x in results])
""")
    assert eval(text) == [(2,), (2, 4, 6), (2, 13), (2, 4), (5, 2, 4)]


def test_noise_has_a_kernel_under_the_key_cuda():
    text = run("""
from structlv.ops.noise import gumbel
print(torch._C._dispatch_has_kernel_for_dispatch_key("structlv::gumbel", "CUDA"))
with mode:
    drawn = gumbel(u, event_dims=2, num_samples=5, seed=1)
print(drawn.device.type, tuple(drawn.shape))
""")
    assert text.splitlines() == ["True", "cuda (5, 2, 4, 3)"]


def test_fake_tensors_of_a_gpu_have_the_right_shapes():
    text = run("""
with mode:
    grad, chart = gpu(2), raw.chain_inside(u, a, None, None, None, False)[1]
    results = [ops.log_partition(u, a), *ops.marginals(u, a), ops.argmax(u, a),
               ops.sample(u, a, num_samples=5, seed=1),
               *raw.chain_vjp(grad, chart, u, a, None, None, None),
               *raw.chain_hvp(None, u, a, None, None, u, a, None, None, None),
               *ops.relaxed_sample(u, a, temperature=grad, num_samples=5, seed=1)]
assert all(x.device.type == "cuda" for x in results)
print([tuple(x.shape) for x in results])
""")
    expected = [(2,), (2, 4, 3), (2, 3, 3), (2, 4), (5, 2, 4), (2, 4, 3), (3, 3), (0,), (0,)]
    assert eval(text) == [*expected, (2,), (2, 4, 3), (3, 3), (0,), (0,), (5, 2, 4), (5, 2, 4, 3)]


def test_a_gpu_s_tensors_take_the_kernels_that_exist():
    text = run("""
from structlv.ops import _chain_ops
log_partition, topk = _chain_ops.LOG_PARTITION, _chain_ops.TOPK
print(log_partition.runs_on(u), topk.runs_on(u), topk.runs_on(torch.zeros(2)))
""")
    assert text.split() == ["True", "False", "True"]


def test_another_version_is_refused():
    text = run("""
_native.__version__ = "0.0.0"
try:
    _native.load_cuda()
except ImportError as error:
    print(error)
""")
    assert "structlv._cuda was compiled for version" in text
