#include <utility>

#include "autograd/record.h"
#include "core/check.h"
#include "lamella/autograd/autograd.h"
#include "lamella/core/random.h"

namespace lamella {

namespace {

thread_local bool second_run = false;

/// Puts the random sequence where the first run began, and back.
class Replay {
 public:
  explicit Replay(const RandomState& start) : now_(random_state()), before_(std::exchange(second_run, true)) {
    set_random_state(start);
  }
  ~Replay() {
    set_random_state(now_);
    second_run = before_;
  }
  Replay(const Replay&) = delete;
  Replay& operator=(const Replay&) = delete;

 private:
  RandomState now_;
  bool before_;
};

}  // namespace

bool recomputing() { return second_run; }

Tensor recompute(const std::function<Tensor(const Tensors&)>& block, const Tensors& inputs) {
  const RandomState start = random_state();
  Tensor result;
  {
    const NoGrad no_grad;
    result = block(inputs);
  }
  detail::check_defined("recompute", "result of the block", result);
  if (!grad_enabled()) return result;

  std::vector<detail::Saved> saved;
  std::vector<bool> differentiable;
  for (const Tensor& input : inputs) {
    saved.emplace_back(input);
    differentiable.push_back(input.defined() && input.requires_grad());
  }
  // Parameters inside the block are not among the inputs, so the result wants a gradient whether or not these
  // do.
  Tensors edges = inputs;
  edges.push_back(detail::gradient_anchor());
  return detail::record(
      "recompute", edges, detail::Output::of(result.detach()),
      [block, saved = std::move(saved), differentiable, start](detail::GradientContext& context) {
        Tensors leaves;
        Tensor again;
        {
          const Replay replay(start);
          const EnableGrad enable;
          for (std::size_t i = 0; i < saved.size(); ++i) {
            Tensor leaf = saved[i].get();
            if (differentiable[i]) leaf = leaf.detach().set_requires_grad();
            leaves.push_back(leaf);
          }
          again = block(leaves);
        }
        if (!again.requires_grad()) return;
        backward({again}, {context.grad()});
        for (std::size_t i = 0; i < leaves.size(); ++i)
          if (differentiable[i] && leaves[i].grad().defined())
            context.add(static_cast<int>(i), leaves[i].grad());
      });
}

}  // namespace lamella
