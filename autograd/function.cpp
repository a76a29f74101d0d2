#include <mutex>
#include <set>

#include "autograd/record.h"
#include "core/check.h"
#include "lamella/autograd/autograd.h"

namespace lamella {

struct Function::State {
  Tensors to_save;
  std::vector<detail::Saved> saved;
  std::vector<bool> needs;
  bool freed = false;
};

namespace {

/// Nodes keep names of static lifetime; user functions bring theirs as strings.
const char* keep_name(const std::string& name) {
  static std::mutex mutex;
  static std::set<std::string>& names = *new std::set<std::string>;
  const std::lock_guard lock(mutex);
  return names.insert(name).first->c_str();
}

}  // namespace

Function::~Function() = default;

void Function::save_for_backward(Tensors tensors) { state_->to_save = std::move(tensors); }

Tensors Function::saved_tensors() const {
  LAMELLA_CHECK(Error, state_ != nullptr, name(), ": saved_tensors() before forward()");
  LAMELLA_CHECK(Error, !state_->freed, name(), ": its saved tensors were freed with the graph");
  Tensors tensors;
  for (const detail::Saved& saved : state_->saved) tensors.push_back(saved.get());
  return tensors;
}

bool Function::needs_input_grad(std::size_t input) const {
  return state_ && input < state_->needs.size() && state_->needs[input];
}

Tensors apply_function(std::shared_ptr<Function> function, const Tensors& inputs) {
  LAMELLA_CHECK(Error, function != nullptr, "apply_function: no function");
  LAMELLA_CHECK(Error, function->state_ == nullptr, function->name(),
                ": one Function object serves one call");
  function->state_ = std::make_shared<Function::State>();
  const std::shared_ptr<Function::State> state = function->state_;
  Tensors results;
  {
    const NoGrad no_grad;
    results = function->forward(inputs);
  }
  std::vector<detail::Output> outputs;
  for (const Tensor& result : results) {
    detail::check_defined(keep_name(function->name()), "result", result);
    outputs.push_back(
        detail::Output::of(result.detach()));  // an input returned as it is must not lose its own graph
  }
  for (const Tensor& tensor : state->to_save) state->saved.emplace_back(tensor);
  state->to_save.clear();

  // The saved tensors go with the gradient function when the graph is freed.
  struct FreeOnExit {
    explicit FreeOnExit(std::shared_ptr<Function::State> of) : state(std::move(of)) {}
    FreeOnExit(const FreeOnExit&) = delete;
    FreeOnExit& operator=(const FreeOnExit&) = delete;
    std::shared_ptr<Function::State> state;
    ~FreeOnExit() {
      state->saved.clear();
      state->freed = true;
    }
  };
  const auto guard = std::make_shared<FreeOnExit>(state);
  const std::size_t count = inputs.size();
  return detail::record_all(keep_name(function->name()), inputs, outputs,
                            [function, guard, count](detail::GradientContext& context) {
                              guard->state->needs.assign(count, false);
                              for (std::size_t i = 0; i < count; ++i)
                                guard->state->needs[i] = context.needs(static_cast<int>(i));
                              Tensors gradients;
                              for (int i = 0; i < context.outputs(); ++i)
                                gradients.push_back(context.grad(i));
                              context.join_branches();
                              const Tensors results = function->backward(gradients);
                              LAMELLA_CHECK(Error, results.size() == count, function->name(),
                                            ": backward returned ", results.size(), " gradients for ", count,
                                            " inputs");
                              for (std::size_t i = 0; i < count; ++i)
                                if (results[i].defined()) context.add(static_cast<int>(i), results[i]);
                            });
}

}  // namespace lamella
