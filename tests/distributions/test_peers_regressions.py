"""Defects of neighbouring libraries, and complaints of their users, about chains and HMMs: defect -> test.

* pytorch-struct: one noise vector shared by a whole batch and all positions
  -> test_identical_items_are_sampled_differently
* pytorch-struct: an option set on the class changed existing objects -> test_objects_do_not_share_options
* pytorch-struct: validate_args=True raised without lengths; sample() needed a shape
  -> test_plain_calls_work
* pytorch-struct: max(lengths) had to be n (#101); one batch dimension only -> test_plain_calls_work
* pytorch-struct: lengths on the wrong device (#68, #111) -> test_lengths_on_another_device
* pytorch-struct: zero is -1e5, so potentials below it were replaced
  -> test_no_sentinel_stands_in_for_infinity
* pytorch-struct: log_prob(argmax) NaN where parts are -inf (0 * -inf)
  -> test_infinite_parts_never_give_nan
* pytorch-struct: requires_grad_ on the caller's tensor; a graph under no_grad (#80)
  -> test_the_caller_and_no_grad
* pytorch-struct: counts in float32 (3^26 off by 1.6e5, 20^61 infinite)
  -> test_counts_are_exact_and_do_not_overflow
* pytorch-struct: k best padded with -1e5; wrong beyond the best (#50, #59)
  -> test_k_best_beyond_the_number_of_structures
* pytorch-struct: fails under vmap; half precision summed in half -> test_vmap_and_half_precision
* pytorch-struct: float32 error growing with n -> test_single_precision_at_five_thousand_steps
* pytorch-struct #61, #46, #117: log_prob above 0 (large scores, lengths)
  -> test_log_prob_is_never_positive
* pytorch-struct #72: doubtful gradients through marginals; semiring-einsum: gradgradcheck raises
  -> test_second_order
* pytorch-struct #110, #114: a batch larger than 1 went wrong -> test_batches_and_singles_agree
* pytorch-struct #64: marginals mistaken for logs, "partition" for its exponential
  -> test_names_say_what_is_a_logarithm
* pytorch-struct: 36 times the potentials saved for backward (#115) -> test_memory_saved_for_backward
* pytorch-crf: -inf transitions give NaN gradients (#1); torch #31829, #49724
  -> test_infinite_parts_never_give_nan
* pytorch-crf: a mask with a hole is accepted silently (#46, #61, #77, #85, #97, #110)
  -> test_holes_are_labels_left_free
* pytorch-crf #89: label -100 is an IndexError; #38, #44, #75: unhelpful errors
  -> test_errors_name_the_argument
* pytorch-crf #20, #37: no marginals; #107, tf_ner #38: no k best -> test_queries_of_a_crf
* pytorch-crf #56, tensorflow addons #2231: mixed precision fails -> test_vmap_and_half_precision
* medaCy #212: which way transitions point -> test_transitions_go_from_row_to_column
* allennlp #4429: constraints not enforced -> test_constraints_are_enforced
* supar: one sample only -> test_many_samples_in_one_call
* SynJax: infinity is 1e5, nan_to_num on marginals -> test_no_sentinel_stands_in_for_infinity
* distrax #337: posteriors 0 where the sequence is shorter than the padding
  -> test_posteriors_of_padded_sequences
* pymc-extras #720: gradients NaN after about 90 steps (exp of 709)
  -> test_long_sequences_neither_overflow_nor_underflow
* hmmlearn #35, #410; pomegranate #120, #234: underflow
  -> test_long_sequences_neither_overflow_nor_underflow
* hmmlearn #76, dynamax #290: NaN for non-ergodic or sparse transitions -> test_left_to_right_models
* hmmlearn #327, pomegranate #23, dynamax #99, #301: missing data, NaN through where -> test_missing_data
* hmmlearn #249, dynamax #37, #50, pomegranate #1023: ragged batches
  -> test_posteriors_of_padded_sequences
* pomegranate #1049: a sequence of length 1 crashes -> test_sequences_of_length_one
* pomegranate #1144: uninitialised end probabilities -> test_stopping_is_off_unless_asked_for
* hmmlearn #579: filtering without look-ahead -> test_filtering_does_not_see_the_future
* TFP #876: no posterior samples of states; pomegranate #1061, pyro #1802: no Viterbi
  -> test_queries_of_an_hmm
* pyro #2742: a transition before the first observation
  -> test_the_initial_distribution_is_of_the_first_observation
* ssm #55, numpyro #1010: gradients of long chains are slow or deep graphs
  -> test_the_graph_does_not_grow_with_the_length
* pytorch: the first torch.compile turns value checks off -> test_compiling_does_not_turn_validation_off
"""

from __future__ import annotations

import math
import re

import pytest
import torch
import torch.distributions as td
from torch.autograd import gradcheck, gradgradcheck

from structlv.distributions import HMM, LinearChain, tagging_constraints
from tests.distributions.laws import close

INF = float("inf")


def crf(*batch: int, n: int = 5, k: int = 3, **options: object) -> LinearChain:
    return LinearChain(torch.randn(*batch, n, k).double(), torch.randn(k, k).double(), **options)  # type: ignore


def test_identical_items_are_sampled_differently() -> None:
    d = LinearChain(torch.zeros(2000, 6, 3), torch.zeros(3, 3))
    assert len(d.sample().unique(dim=0)) > 600  # of 729; one shared draw would leave 1
    positions = d.sample().double()
    correlation = torch.corrcoef(positions.mT) - torch.eye(6)
    assert correlation.abs().max() < 0.12


def test_objects_do_not_share_options() -> None:
    strict, lax = crf(2, validate_args=True), crf(2, validate_args=False)
    before = strict.log_partition()
    lax.to(torch.float32).log_partition()
    assert torch.equal(strict.log_partition(), before)
    with pytest.raises(ValueError, match="states must be"):
        strict.log_prob(torch.full((2, 5), 8))


def test_plain_calls_work() -> None:
    d = crf(2, 3, validate_args=True)
    assert d.sample().shape == (2, 3, 5)
    short = LinearChain(d.unary, d.transition, lengths=torch.full((2, 3), 2), validate_args=True)
    close(short.log_partition(), LinearChain(d.unary[..., :2, :], d.transition).log_partition())


def test_lengths_on_another_device() -> None:
    with pytest.raises(ValueError, match="lengths must be on the device of unary, cpu, found meta"):
        LinearChain(torch.zeros(2, 3, 2), torch.zeros(2, 2), lengths=torch.ones(2, device="meta").long())


@pytest.mark.parametrize("shift", [-2e5, -1e9, 2e5, 1e9])
def test_no_sentinel_stands_in_for_infinity(shift: float) -> None:
    d = crf(2)
    moved = LinearChain(d.unary + shift, d.transition)
    close(moved.log_partition(), d.log_partition() + 5 * shift)
    banned = moved.condition(allowed=torch.tensor([True, False, True]).expand(5, 3))
    assert bool((banned.marginals().unary[..., 1] == 0).all())
    assert bool((banned.max_marginals().unary[..., 1] == -INF).all())


def test_infinite_parts_never_give_nan() -> None:
    unary, transition = torch.randn(2, 4, 3), torch.randn(3, 3)
    transition[0, 1] = transition[2] = -INF
    unary[0, 1, 0] = -INF
    unary[1] = -INF
    unary.requires_grad_(), transition.requires_grad_()
    d = LinearChain(unary, transition)
    assert d.log_prob(d.argmax())[0].isfinite()
    assert d.log_prob(d.argmax())[1] == -INF
    results = (d.log_partition(), d.log_prob(d.argmax()), d.entropy(), d.kl(d), *d.marginals(), d.max())
    for result in results:
        assert not bool(result.isnan().any())
        finite = result.masked_fill(result == -INF, 0.0).sum()
        for grad in torch.autograd.grad(finite, (unary, transition), retain_graph=True):
            assert bool(grad.isfinite().all())


def test_the_caller_and_no_grad() -> None:
    unary = torch.randn(2, 4, 3)
    d = LinearChain(unary, torch.randn(3, 3))
    d.marginals(), d.argmax(), d.entropy(), d.sample(), d.topk(2)
    assert not unary.requires_grad
    assert unary.clone().requires_grad_().is_leaf
    parameter = torch.randn(2, 4, 3, requires_grad=True)
    with torch.no_grad():
        assert LinearChain(parameter, torch.zeros(3, 3)).marginals().unary.grad_fn is None


@pytest.mark.parametrize(("k", "n"), [(3, 26), (20, 61), (2, 5000)])
def test_counts_are_exact_and_do_not_overflow(k: int, n: int) -> None:
    count = LinearChain(torch.randn(n, k), torch.randn(k, k)).log_count()
    assert float(count) == pytest.approx(n * math.log(k), rel=1e-12)


def test_k_best_beyond_the_number_of_structures() -> None:
    d = crf(2, n=2, k=2)
    scores, events = d.topk(7)
    assert bool((scores[4:] == -INF).all())
    assert bool((events[4:] == -1).all())
    assert bool((scores[:4] > -INF).all())
    close(scores[:4], d.score(events[:4]))
    every = torch.cartesian_prod(torch.arange(2), torch.arange(2))
    close(scores[:4, 0], d[0].score(every).sort(descending=True).values)


def test_vmap_and_half_precision() -> None:
    unary, transition = torch.randn(3, 40, 4), torch.randn(4, 4)
    mapped = torch.vmap(lambda u: LinearChain(u, transition).log_partition())(unary)
    close(mapped, LinearChain(unary, transition).log_partition())
    for dtype in (torch.bfloat16, torch.float16):
        half = LinearChain(unary.to(dtype), transition.to(dtype))
        close(half.log_partition(), half.to(torch.float32).log_partition())
        assert half.marginals().unary.dtype == dtype


def test_single_precision_at_five_thousand_steps() -> None:
    single = LinearChain(torch.randn(5000, 4), torch.randn(4, 4))
    close(single.log_partition(), single.to(torch.float64).log_partition())


def test_log_prob_is_never_positive() -> None:
    for scale in (1.0, 1e3, 8e5):
        unary = torch.randn(4, 20, 3) * scale
        d = LinearChain(unary, torch.randn(3, 3) * scale, lengths=torch.tensor([20, 7, 1, 0]))
        for event in (d.argmax(), d.sample()):
            assert bool((d.log_prob(event) <= 1e-5 * max(1.0, scale * 1e-3)).all())
        exact = d.to(torch.float64)
        assert bool((exact.log_prob(exact.argmax()) <= 1e-8 * scale).all())
        assert bool((d.marginals().unary <= 1 + 1e-5).all())


def test_second_order() -> None:
    point = torch.randn(4, 3).double().requires_grad_(), torch.randn(3, 3).double().requires_grad_()
    assert gradgradcheck(lambda u, t: LinearChain(u, t).log_partition(), point)
    assert gradcheck(lambda u, t: tuple(LinearChain(u, t).marginals()), point)
    assert gradcheck(lambda u, t: LinearChain(u, t).entropy(), point)


def test_batches_and_singles_agree() -> None:
    d = crf(5)
    for query in (LinearChain.log_partition, LinearChain.entropy, LinearChain.max):
        close(query(d), torch.stack([query(item) for item in d]))


def test_names_say_what_is_a_logarithm() -> None:
    d = LinearChain(torch.zeros(4, 3), torch.zeros(3, 3))
    close(d.log_partition(), torch.tensor(4 * math.log(3)))
    close(d.marginals().unary, torch.full((4, 3), 1 / 3))


def test_memory_saved_for_backward(native: None) -> None:
    n, k = 256, 32
    unary, transition = torch.randn(4, n, k, requires_grad=True), torch.randn(k, k, requires_grad=True)
    saved: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        LinearChain(unary, transition).log_partition()
    potentials = (unary.numel() + transition.numel()) * 4
    assert sum(saved.values()) < 5 * potentials  # 36 times there; n k^2 would be 33 times


def test_holes_are_labels_left_free() -> None:
    """There is no mask to have holes: lengths pad on the right, and a free label inside is a condition."""
    d = crf(1, n=4)
    labels = torch.tensor([[1, -1, -1, 0]])
    evidence = d.condition(states=labels).log_partition() - d.log_partition()
    events = torch.cartesian_prod(torch.tensor([1]), torch.arange(3), torch.arange(3), torch.tensor([0]))
    close(evidence, d.log_prob(events.unsqueeze(1)).logsumexp(0))


def test_errors_name_the_argument() -> None:
    d = crf(1)
    with pytest.raises(ValueError, match=r"states must be in -1..2, found values from -100"):
        d.log_prob(torch.tensor([[0, 1, 2, -100, -100]]))
    with pytest.raises(TypeError, match="lengths must be a tensor of integers"):
        LinearChain(d.unary, d.transition, lengths=torch.tensor([5.0]))


def test_queries_of_a_crf() -> None:
    d = crf(2)
    assert d.marginals().unary.shape == (2, 5, 3)
    assert d.edge_marginals().shape == (2, 4, 3, 3)
    assert d.topk(4)[1].shape == (4, 2, 5)
    assert d.max_marginals().unary.shape == (2, 5, 3)
    assert d.posterior_decode().shape == (2, 5)


def test_transitions_go_from_row_to_column() -> None:
    transition = torch.full((3, 3), -INF)
    transition[0, 1] = transition[1, 2] = 0.0
    assert LinearChain(torch.zeros(3, 3), transition).argmax().tolist() == [0, 1, 2]


def test_constraints_are_enforced() -> None:
    labels = ["O", "B-X", "I-X", "B-Y", "I-Y"]
    unary = torch.zeros(3, 5)
    unary[:, 2] = 1e6  # however much I-X is wanted
    d = LinearChain(unary, torch.zeros(5, 5)).condition(**tagging_constraints(labels)._asdict())
    assert d.argmax().tolist() == [1, 2, 2]


def test_many_samples_in_one_call() -> None:
    assert crf(2).sample((1000,)).shape == (1000, 2, 5)
    assert crf(2).sample((10, 20)).shape == (10, 20, 2, 5)


def test_posteriors_of_padded_sequences() -> None:
    hmm = HMM(torch.randn(3), torch.randn(3, 3), torch.randn(3, 4))
    x = torch.tensor([[0, 1, 2, 3, 0, 0], [1, 1, 0, 0, 0, 0]])
    posterior = hmm.posterior(x, torch.tensor([4, 2])).marginals().unary
    close(posterior[0, :4], hmm.posterior(x[0, :4]).marginals().unary)
    close(posterior[1, :2], hmm.posterior(x[1, :2]).marginals().unary)
    close(posterior.sum(-1), (torch.arange(6) < torch.tensor([[4], [2]])).float())


@pytest.mark.parametrize("level", [-50.0, 50.0])
def test_long_sequences_neither_overflow_nor_underflow(level: float) -> None:
    mean = torch.tensor([0.0, 5.0], requires_grad=True)
    hmm = HMM(torch.zeros(2), torch.zeros(2, 2), td.Normal(mean, 1.0))
    x = torch.full((2000,), level)
    log_prob = hmm.log_prob(x)
    assert log_prob.isfinite()
    log_prob.backward()
    assert mean.grad is not None
    assert mean.grad.isfinite().all()
    chain = LinearChain(torch.full((500, 2), level), torch.zeros(2, 2))
    close(chain.log_partition(), torch.tensor(500 * (level + math.log(2))))


def test_left_to_right_models() -> None:
    k, n = 4, 12
    transition = torch.full((k, k), -INF)
    for i in range(k):
        transition[i, i : i + 2] = 0.0
    initial = torch.tensor([0.0, -INF, -INF, -INF])
    emission = torch.randn(k, 5, requires_grad=True)
    leaves = [transition.requires_grad_(), initial.requires_grad_(), emission]
    final = torch.tensor([-INF, -INF, -INF, 0.0])
    posterior = HMM(initial, transition, emission, final_logits=final).posterior(torch.randint(0, 5, (n,)))
    path = posterior.argmax()
    assert bool((path[1:] - path[:-1] >= 0).all())
    assert path[0] == 0
    assert path[-1] == k - 1
    assert float(posterior.log_count().exp()) == pytest.approx(math.comb(n - 1, k - 1))
    for grad in torch.autograd.grad(posterior.log_partition() + posterior.entropy(), leaves):
        assert bool(grad.isfinite().all())
    impossible = HMM(initial, transition, emission, final_logits=final).log_prob(torch.zeros(2).long())
    assert impossible == -INF


def test_missing_data() -> None:
    x = torch.randn(2, 6, 3)
    x[0, 2] = torch.nan
    x[1, 4:] = torch.nan
    mask = ~x.isnan().any(-1)
    mean = torch.randn(4, 3, requires_grad=True)
    hmm = HMM(torch.randn(4), torch.randn(4, 4), td.Independent(td.Normal(mean, 1.0), 1))
    log_prob = hmm.log_prob(x, mask=mask)
    (grad,) = torch.autograd.grad(log_prob.sum(), mean)
    assert bool(grad.isfinite().all())
    close(log_prob[1], hmm.log_prob(x[1, :4]))
    assert hmm.posterior(x, mask=mask).marginals().unary.sum(-1).allclose(torch.ones(2, 6))


def test_sequences_of_length_one() -> None:
    hmm = HMM(torch.randn(3), torch.randn(3, 3), torch.randn(3, 4))
    posterior = hmm.posterior(torch.tensor([[2]]))
    close(posterior.log_partition(), (hmm.initial_logits + hmm.emission[:, 2]).logsumexp(-1, keepdim=True))
    assert posterior.argmax().shape == posterior.sample().shape == (1, 1)
    assert hmm.sample((), 1).shape == (1,)


def test_stopping_is_off_unless_asked_for() -> None:
    logits = torch.randn(2), torch.randn(2, 2), torch.randn(2, 3)
    every = torch.cartesian_prod(torch.arange(3), torch.arange(3))
    close(HMM(*logits).log_prob(every).logsumexp(0), torch.tensor(0.0))
    stops = HMM(*logits, final_logits=torch.randn(2)).log_prob(every).logsumexp(0)
    assert stops < -0.01


def test_filtering_does_not_see_the_future() -> None:
    hmm = HMM(torch.randn(3), torch.randn(3, 3), torch.randn(3, 4))
    x = torch.randint(0, 4, (2, 8))
    other = x.clone()
    other[:, 5:] = 3 - x[:, 5:]
    assert torch.equal(hmm.filter(x)[:, :5], hmm.filter(other)[:, :5])


def test_queries_of_an_hmm() -> None:
    posterior = HMM(torch.randn(3), torch.randn(3, 3), torch.randn(3, 4)).posterior(
        torch.randint(0, 4, (2, 8))
    )
    assert posterior.sample((5,)).shape == (5, 2, 8)
    assert posterior.argmax().shape == (2, 8)
    assert posterior.topk(3)[1].shape == (3, 2, 8)
    assert posterior.entropy().shape == (2,)


def test_the_initial_distribution_is_of_the_first_observation() -> None:
    certain = torch.eye(2).log()
    flip = torch.tensor([[0.0, 1.0], [1.0, 0.0]]).log()
    hmm = HMM(torch.tensor([0.0, -INF]), flip, certain)
    assert hmm.log_prob(torch.tensor([0, 1, 0])) == 0
    assert hmm.log_prob(torch.tensor([1, 0, 1])) == -INF


def test_the_graph_does_not_grow_with_the_length(native: None) -> None:
    sizes = []
    for n in (10, 1000):
        log_z = LinearChain(torch.randn(n, 3, requires_grad=True), torch.randn(3, 3)).log_partition()
        seen, stack = set(), [log_z.grad_fn]
        while stack:
            node = stack.pop()
            if node is not None and node not in seen:
                seen.add(node)
                stack.extend(parent for parent, _ in node.next_functions)
        sizes.append(len(seen))
    assert sizes[0] == sizes[1] <= 6


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
def test_compiling_does_not_turn_validation_off() -> None:
    torch.compile(lambda x: x + 1, backend="eager")(torch.zeros(1))
    with pytest.raises(ValueError, match="NaN"):
        LinearChain(torch.full((2, 2), torch.nan), torch.zeros(2, 2))


def test_the_table_is_complete() -> None:
    listed = set(re.findall(r"-> (test_\w+)", __doc__ or ""))
    defined = {name for name in globals() if name.startswith("test_")} - {"test_the_table_is_complete"}
    assert listed == defined
