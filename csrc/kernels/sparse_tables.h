// From the list of rules to the tables that the kernels of the sparse PCFG look rules up in. Compiled with the
// operators, not once per instruction set.
#pragma once
#include <algorithm>
#include <numeric>
#include <string>
#include <vector>

#include "kernels/sparse_pcfg.h"

namespace slv {

// Checks every row, so that no value can cause a bad read, and that unary rules have no cycle.
class RuleTables {
 public:
  SparseGrammar grammar{};
  int64_t depth = 0;    // unary rules in the longest chain of them
  std::string problem;  // what is wrong with the rows; then there are no tables

  // rows: (rules, 3), each A, y, z with z = -1 in a unary rule; there are fewer than 2^31 rules and symbols
  RuleTables(const int64_t* rows, int64_t rules, int64_t nonterminals, int64_t symbols) : row_(rows) {
    grammar.rules = rules, grammar.nonterminals = nonterminals, grammar.symbols = symbols;
    check();
    if (problem.empty()) number_symbols();
    if (!problem.empty()) return;
    list_up();
    list_down();
    point();
  }
  RuleTables(const RuleTables&) = delete;

 private:
  using Ints = std::vector<int32_t>;

  void check() {
    const int64_t nt = grammar.nonterminals, s = grammar.symbols;
    for (int64_t r = 0; r < grammar.rules; r++) {
      const int64_t *rule = row_ + 3 * r, a = rule[0], y = rule[1], z = rule[2];
      if (a < 0 || a >= nt)
        problem = "parents in 0.." + std::to_string(nt - 1) + ", found " + std::to_string(a);
      else if (y < 0 || y >= s || z < -1 || z >= s)
        problem = "children in 0.." + std::to_string(s - 1) + " (or -1 as the second one of a unary rule), found " +
                  std::to_string(y) + ", " + std::to_string(z);
    }
  }
  int64_t place_of(int32_t r, int c) const { return place_[row_[3 * r + c]]; }
  bool unary(int32_t r) const { return row_[3 * r + 2] < 0; }
  // Rows in the order of key(row) in 0..buckets-1, equals as they were; begin: where each key's rows begin.
  template <class K>
  static void sort(Ints& rows, int64_t buckets, K&& key, Ints* begin = nullptr) {
    Ints start(buckets + 1), out(rows.size());
    for (int32_t r : rows) start[key(r) + 1]++;
    std::partial_sum(start.begin(), start.end(), start.begin());
    if (begin) *begin = start;
    for (int32_t r : rows) out[start[key(r)]++] = r;
    rows.swap(out);
  }

  // Symbols by the length of the longest chain of unary rules under them: so each rule leads to a higher place.
  void number_symbols() {
    const int64_t s = grammar.symbols;
    for (int64_t r = 0; r < grammar.rules; r++) (unary(r) ? unary_ : binary_).push_back(r);
    sort(unary_, s, [&](int32_t r) { return row_[3 * r + 1]; }, &up_);
    Ints waiting(s), level(s), order(s);
    for (int32_t r : unary_) waiting[row_[3 * r]]++;
    int64_t known = 0;
    for (int64_t y = 0; y < s; y++)
      if (waiting[y] == 0) order[known++] = y;
    for (int64_t done = 0; done < known; done++) {
      const int64_t y = order[done];
      depth = std::max<int64_t>(depth, level[y]);
      for (int32_t u = up_[y]; u < up_[y + 1]; u++) {
        const int64_t a = row_[3 * unary_[u]];
        level[a] = std::max(level[a], level[y] + 1);
        if (--waiting[a] == 0) order[known++] = a;
      }
    }
    if (known < s) problem = "unary rules without a cycle, found one";
    if (known < s) return;
    symbol_.resize(s), place_.resize(s);
    std::iota(symbol_.begin(), symbol_.end(), 0);
    sort(symbol_, depth + 1, [&](int32_t y) { return level[y]; });
    for (int64_t p = 0; p < s; p++) place_[symbol_[p]] = p;
  }
  void list_up() {
    const int64_t s = grammar.symbols;
    sort(unary_, s, [&](int32_t r) { return place_of(r, 1); }, &up_);
    for (int32_t r : unary_) up_parent_.push_back(place_of(r, 0));
    sort(binary_, s, [&](int32_t r) { return place_of(r, 0); });
    sort(binary_, s, [&](int32_t r) { return place_of(r, 2); });
    sort(binary_, s, [&](int32_t r) { return place_of(r, 1); });
    left_.assign(s + 1, 0);
    for (size_t q = 0; q < binary_.size(); q++) {
      const int32_t r = binary_[q];
      if (q == 0 || place_of(r, 1) != place_of(binary_[q - 1], 1) || place_of(r, 2) != right_.back()) {
        left_[place_of(r, 1) + 1]++;
        right_.push_back(place_of(r, 2));
        uses_.push_back(q);
      }
      parent_.push_back(place_of(r, 0));
      pair_.push_back(right_.size() - 1);
    }
    uses_.push_back(binary_.size());
    std::partial_sum(left_.begin(), left_.end(), left_.begin());
  }
  void list_down() {
    const int64_t s = grammar.symbols;
    Ints use(grammar.rules);
    for (size_t q = 0; q < binary_.size(); q++) use[binary_[q]] = q;
    for (size_t u = 0; u < unary_.size(); u++) use[unary_[u]] = u;
    down_rule_.resize(grammar.rules);
    std::iota(down_rule_.begin(), down_rule_.end(), 0);
    sort(down_rule_, s + 1, [&](int32_t r) { return row_[3 * r + 2] + 1; });
    sort(down_rule_, s, [&](int32_t r) { return row_[3 * r + 1]; });
    sort(down_rule_, 2, [&](int32_t r) { return int(unary(r)); });
    sort(down_rule_, s, [&](int32_t r) { return place_of(r, 0); }, &down_);
    for (int32_t r : down_rule_) {
      first_.push_back(place_of(r, 1));
      second_.push_back(unary(r) ? -1 : place_of(r, 2));
      down_use_.push_back(use[r]);
    }
  }
  void point() {
    SparseGrammar& g = grammar;
    g.binary = binary_.size(), g.pairs = right_.size();
    g.place = place_.data(), g.symbol = symbol_.data();
    g.left = left_.data(), g.right = right_.data(), g.uses = uses_.data();
    g.parent = parent_.data(), g.rule = binary_.data(), g.pair = pair_.data();
    g.up = up_.data(), g.up_parent = up_parent_.data(), g.up_rule = unary_.data();
    g.down = down_.data(), g.first = first_.data(), g.second = second_.data();
    g.down_rule = down_rule_.data(), g.down_use = down_use_.data();
  }

  const int64_t* row_ = nullptr;
  Ints binary_, unary_;  // rows of the index
  Ints place_, symbol_, left_, right_, uses_, parent_, pair_, up_, up_parent_, down_, first_, second_, down_rule_,
      down_use_;
};

}  // namespace slv
