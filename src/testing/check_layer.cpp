#include <limits>
#include <set>

#include "autograd/node.h"
#include "core/check.h"
#include "lamella/autograd/autograd.h"
#include "lamella/core/random.h"
#include "lamella/core/threads.h"
#include "lamella/layers/module.h"
#include "lamella/tensor/create.h"
#include "lamella/testing.h"
#include "tensor/door.h"

namespace lamella::testing {

namespace {

using Forward = std::function<Tensor(const Tensor&)>;

Comparison fail(const std::string& what, const Comparison& why) {
  return {false, "check_layer: " + what + ": " + why.message};
}

/// Output and every gradient of one run.
struct Run {
  Tensor output;
  Tensors gradients;  ///< of the input, then of the parameters
};

/// What a layer's run may change. Draws and running statistics begin each run where the first began, and all
/// is put back at the end, however that comes.
class Start {
 public:
  explicit Start(Module& module)
      : random_(random_state()), threads_(num_threads()), buffers_(module.named_buffers()) {
    for (const auto& [name, buffer] : buffers_) kept_.push_back(buffer.clone());
    module.apply([&](const std::string&, Module& part) { modes_.emplace_back(&part, part.is_training()); });
  }
  ~Start() {
    set_num_threads(threads_);
    restore_modes();
    restart();
  }
  Start(const Start&) = delete;
  Start& operator=(const Start&) = delete;

  void restart() {
    set_random_state(random_);
    const NoGrad no_grad;
    for (std::size_t i = 0; i < buffers_.size(); ++i) buffers_[i].second.copy_(kept_[i]);
  }
  /// Parents come before their children, which may differ from them.
  void restore_modes() {
    for (const auto& [part, training] : modes_) part->train(training);
  }
  const RandomState& random() const { return random_; }

 private:
  RandomState random_;
  int threads_;
  std::vector<std::pair<std::string, Tensor>> buffers_;
  Tensors kept_;
  std::vector<std::pair<Module*, bool>> modes_;
};

/// The layer under test: its leaves are the input and the parameters.
struct Subject {
  Forward forward;
  std::vector<std::string> names;  ///< of the leaves
  Tensor cotangent;

  Run run(const Tensors& leaves) const {
    Run result;
    result.output = forward(leaves[0]);
    if (result.output.requires_grad()) backward({result.output}, {cotangent});
    for (const Tensor& leaf : leaves)
      result.gradients.push_back(leaf.grad().defined() ? leaf.grad().clone() : Tensor());
    return result;
  }
};

/// Leaves every gradient to be overwritten, where `old` is found by whoever reads it all the same.
void forget(const Tensors& leaves, double old) {
  for (Tensor leaf : leaves) {
    if (!leaf.requires_grad()) continue;
    leaf.set_grad(empty_like(leaf).fill_(old));
    leaf.zero_grad();
  }
}

Comparison same_gradients(const Subject& subject, const std::string& what, const Run& actual,
                          const Run& expected) {
  for (std::size_t i = 0; i < expected.gradients.size(); ++i)
    if (const Comparison c = equal_bits(actual.gradients[i], expected.gradients[i]); !c)
      return fail(what + subject.names[i], c);
  return {};
}

/// Runs three times: repeated, overwriting and adding up.
Comparison check_runs(const Subject& subject, const Tensors& leaves, const std::string& where, Run& first) {
  forget(leaves, 0);
  first = subject.run(leaves);
  forget(leaves, std::numeric_limits<double>::quiet_NaN());
  const Run second = subject.run(leaves);
  if (const Comparison c = equal_bits(second.output, first.output); !c)
    return fail(where + "a second run gave other bits", c);
  if (const Comparison c = same_gradients(
          subject, where + "a second run after zero_grad() gave other gradients of ", second, first);
      !c)
    return c;

  const Run added = subject.run(leaves);
  for (std::size_t i = 0; i < leaves.size(); ++i) {
    if (!first.gradients[i].defined()) continue;
    auto twice = first.gradients[i].to_vector<double>();
    for (double& value : twice) value *= 2;
    if (const Comparison c =
            all_close(added.gradients[i], from_vector(twice, leaves[i].shape()), {1e-12, 1e-12});
        !c)
      return fail(where + "two backward passes did not add up for " + subject.names[i], c);
  }
  return {};
}

Comparison check_threads(const Subject& subject, const Tensors& leaves, const Run& first) {
  const int before = num_threads();
  for (const int threads : {1, 2, 5}) {
    if (threads == before) continue;
    set_num_threads(threads);
    forget(leaves, 0);
    const Run run = subject.run(leaves);
    if (const Comparison c = equal_bits(run.output, first.output); !c)
      return fail("the number of threads changed the output", c);
    if (const Comparison c =
            same_gradients(subject, "the number of threads changed the gradient of ", run, first);
        !c)
      return c;
  }
  set_num_threads(before);
  return {};
}

Comparison check_format(const Subject& subject, const Tensors& leaves, const Run& first) {
  const Tensor& x = leaves[0];
  if (x.dim() != 4) return {};
  const bool rows = x.memory_format() == MemoryFormat::Contiguous;
  const std::string name = rows ? "a channels_last input" : "a contiguous input";
  Tensors other = leaves;
  other[0] = x.detach().contiguous(rows ? MemoryFormat::ChannelsLast : MemoryFormat::Contiguous).clone();
  if (x.requires_grad()) other[0].set_requires_grad();
  Run run;
  if (const Comparison c = check_runs(subject, other, "with " + name + ", ", run); !c) return c;
  if (const Comparison c = all_close(run.output, first.output, {1e-9, 1e-9}); !c)
    return fail(name + " gave another output", c);
  for (std::size_t i = 0; i < leaves.size(); ++i)
    if (const Comparison c = all_close(run.gradients[i], first.gradients[i], {1e-9, 1e-9}); !c)
      return fail(name + " gave another gradient of " + subject.names[i], c);
  return {};
}

/// A learned tensor that the module does not know would be missing in every checkpoint.
Comparison check_registered(const Tensor& output, const Tensors& leaves) {
  std::set<const lamella::detail::TensorImpl*> known;
  for (const Tensor& leaf : leaves) known.insert(&lamella::detail::TensorDoor::impl(leaf));
  std::vector<const lamella::detail::Node*> nodes;
  std::set<const lamella::detail::Node*> seen;
  const auto meet = [&](const lamella::detail::Node* node) {
    if (node != nullptr && seen.insert(node).second) nodes.push_back(node);
  };
  meet(lamella::detail::TensorDoor::impl(output).node.get());
  for (std::size_t i = 0; i < nodes.size(); ++i)
    for (const lamella::detail::Edge& edge : nodes[i]->inputs) {
      meet(edge.node.get());
      if (edge.leaf && edge.shape.product() > 0 && !known.contains(edge.leaf.get()))
        return {false, lamella::detail::concat(
                           "check_layer: the output depends on a tensor ", edge.shape.to_string(),
                           " that requires a gradient but is neither the input nor a parameter")};
    }
  return {};
}

/// Whatever the layer's runs change must come back with its state, for training and for evaluation.
Comparison check_state(const Forward& forward, Module& module, const Tensor& x, Start& start,
                       const Run& first) {
  start.restart();
  const StateDict state = module.state_dict().clone();
  const auto loaded = [&] {
    module.load_state_dict(state);
    set_random_state(start.random());
    return forward(x);
  };
  const auto evaluated = [&] {
    module.eval();
    Tensor y = loaded().detach().clone();
    start.restore_modes();
    return y;
  };
  const Tensor before = evaluated();

  Tensor other = x.detach();
  if (is_floating(x.dtype())) {
    auto values = x.to_vector<double>();
    for (double& value : values) value *= 0.5;  // stays where the layer is defined
    other = from_vector(values, x.shape()).to(x.device());
  }
  module.train();
  forward(other);
  start.restore_modes();
  {
    const NoGrad no_grad;
    for (const auto& [name, parameter] : module.named_parameters()) Tensor(parameter).fill_(3);
    for (const auto& [name, buffer] : module.named_buffers()) Tensor(buffer).fill_(3);
  }
  if (const Comparison c = equal_bits(loaded(), first.output); !c)
    return fail("load_state_dict() of the layer's own state_dict() changed the output", c);
  if (const Comparison c = equal_bits(evaluated(), before); !c)
    return fail("load_state_dict() of the layer's own state_dict() changed the output in evaluation", c);
  return {};
}

}  // namespace

Comparison check_layer(const Forward& forward, Module& module, const Tensor& input,
                       const GradcheckOptions& options) {
  LAMELLA_CHECK(Error, input.defined(), "check_layer: input is an undefined tensor");
  const EnableGrad enable;
  module.to(DType::Float64);
  Tensors leaves{is_floating(input.dtype()) ? input.detach().to(DType::Float64).clone().set_requires_grad()
                                            : input.detach()};
  Start start(module);
  Subject subject;
  subject.names = {"the input"};
  for (const auto& [name, parameter] : module.named_parameters()) {
    leaves.push_back(parameter);
    subject.names.push_back("parameter " + name);
  }
  subject.forward = [&](const Tensor& at) {
    start.restart();
    return forward(at);
  };

  if (const Comparison c =
          gradcheck([&](const Tensors& in) { return subject.forward(in[0]); }, leaves, options);
      !c)
    return fail("gradient (input 0 is the layer's input, then the parameters)", c);
  const Tensor output = subject.forward(leaves[0]);
  subject.cotangent =
      random_tensor(output.shape(), options.seed + 2, {.dtype = output.dtype()}).to(output.device());

  Run first;
  Comparison result = check_runs(subject, leaves, "", first);
  if (result) result = check_threads(subject, leaves, first);
  if (result) result = check_format(subject, leaves, first);
  if (result) result = check_registered(output, leaves);
  if (result) result = check_state(forward, module, leaves[0], start, first);
  for (Tensor leaf : leaves)
    if (leaf.requires_grad()) leaf.set_grad(Tensor());
  return result;
}

Comparison check_layer(Module& module, const Tensor& input, const GradcheckOptions& options) {
  return check_layer([&module](const Tensor& x) { return module(x); }, module, input, options);
}

}  // namespace lamella::testing
