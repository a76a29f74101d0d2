#include <utility>

#include "autograd/node.h"
#include "autograd/record.h"
#include "core/check.h"
#include "core/profiling.h"
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
  const Tensor recorded = detail::record(
      "recompute", edges, detail::Output::of(result.detach()),
      [block, saved = std::move(saved), differentiable, start](detail::GradientContext& context) {
        context.join_branches();
        Tensors given;   // to the block
        Tensors leaves;  // those of them that want gradients
        Tensor again;
        {
          const Replay replay(start);
          const EnableGrad enable;
          const detail::profiling::PassScope pass(detail::profiling::Pass::Forward, nullptr);
          for (std::size_t i = 0; i < saved.size(); ++i) {
            Tensor leaf = saved[i].get();
            if (differentiable[i]) leaves.push_back(leaf = leaf.detach().set_requires_grad());
            given.push_back(leaf);
          }
          again = block(given);
        }
        if (!again.requires_grad()) return;
        const Tensors gradients = detail::backward_of_block(again, context.grad(), leaves);
        std::size_t leaf = 0;
        for (std::size_t i = 0; i < given.size(); ++i)
          if (differentiable[i])
            if (const Tensor& gradient = gradients[leaf++]; gradient.defined())
              context.add(static_cast<int>(i), gradient);
      });
  if (const auto& node = detail::TensorDoor::impl(recorded).node) detail::hide_inputs(*node);
  return recorded;
}

}  // namespace lamella
