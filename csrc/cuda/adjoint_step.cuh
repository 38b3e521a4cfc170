// What the backward passes of chains and of factorial chains do with a step's sums, in the scaled linear domain.
#pragma once
#include "cuda/warp.cuh"
#include "kernels/range.h"

namespace slv::cuda {

// Rounding makes the mass of a step drift from 1 as a random walk: it is set right every so many steps.
constexpr int kRenew = 32;

// Of an item whose range is `wide`, what is impossible is 0, and an entry too small makes it bad.
template <class T>
struct AdjointStep {
  bool wide = false, bad = false;
  T* masses;     // of warps, in shared memory
  T factor = 1;  // what the sums of the step after are to be multiplied by
  T mass = 0;    // of this step, what this thread saw
  SLV_DEVICE AdjointStep(Shared& shared) : masses(shared.take<T>(kMaxWarps)) {}
  // g of a state, whose marginal `mu` becomes; e: the exponential of its unary score
  SLV_DEVICE T meet(T alpha, T beta, T e, T scale, T& mu) {
    const bool live = !wide || alpha > T(0);
    const T g = live ? e * (beta * scale) : T(0);
    mu = live ? beta * alpha : T(0);
    if (wide && live && beta != T(0) && g < T(Range<T>::tiny)) bad = true;
    mass += mu;
    return g;
  }
  // The barrier at the end of step t.
  SLV_DEVICE void finish(const Thread& me, int t) {
    const bool renew = t % kRenew == 0;
    if (renew) {
      mass = warp_sum(mass);
      if (me.lane == 0) masses[me.warp] = mass;
    }
    sync_block();
    factor = 1;
    mass = 0;
    if (!renew) return;
    const T total = sum_of_parts(masses, me.warps);
    if (total > T(0.99) && total < T(1.01)) factor = 1 / total;
  }
};

}  // namespace slv::cuda
