#include "autograd/node.h"

#include <atomic>
#include <utility>

#include "core/check.h"
#include "core/profiling.h"
#include "lamella/autograd/autograd.h"

namespace lamella::detail {

namespace {

std::uint64_t next_sequence() {
  static std::atomic<std::uint64_t> counter{0};
  return counter.fetch_add(1, std::memory_order_relaxed);
}

std::atomic<int> hidden_nodes{0};

Edge edge_to(const Tensor& input) {
  Edge edge;
  if (!input.defined()) return edge;
  const TensorImpl& impl = TensorDoor::impl(input);
  edge.shape = impl.shape;
  edge.dtype = impl.dtype;
  edge.device = impl.storage->device;
  edge.format = input.memory_format();
  if (impl.node) {
    edge.node = impl.node;
    edge.output = impl.output;
    std::atomic_ref(impl.node->outputs[static_cast<std::size_t>(impl.output)].readers)
        .fetch_add(1, std::memory_order_relaxed);
  } else if (impl.requires_grad) {
    edge.leaf = TensorDoor::handle(input);
  }
  return edge;
}

}  // namespace

Node::Node(const char* name, std::vector<Edge> inputs)
    : name(name), sequence(next_sequence()), inputs(std::move(inputs)) {}

void hide_inputs(Node& node) {
  if (!std::exchange(node.hidden_inputs, true)) hidden_nodes.fetch_add(1, std::memory_order_relaxed);
}
bool any_hidden_inputs() { return hidden_nodes.load(std::memory_order_relaxed) > 0; }
int readers_of(const Node& node, int output) {
  // atomic_ref takes no const before C++26.
  auto& readers = const_cast<int&>(node.outputs[static_cast<std::size_t>(output)].readers);
  return std::atomic_ref(readers).load(std::memory_order_relaxed);
}

Node::~Node() {
  if (hidden_inputs) hidden_nodes.fetch_sub(1, std::memory_order_relaxed);
  // Nodes that die with this one queue up here instead of recursing through their own destructors.
  thread_local std::vector<std::shared_ptr<Node>>* queue = nullptr;
  const auto take_inputs = [this](std::vector<std::shared_ptr<Node>>& into) {
    for (Edge& edge : inputs)
      if (edge.node) into.push_back(std::move(edge.node));
  };
  if (queue != nullptr) {
    take_inputs(*queue);
    return;
  }
  std::vector<std::shared_ptr<Node>> local;
  queue = &local;
  take_inputs(local);
  while (!local.empty()) {
    const std::shared_ptr<Node> next = std::move(local.back());
    local.pop_back();
  }
  queue = nullptr;
}

bool wants_gradient(const Tensor& tensor) {
  return grad_enabled() && tensor.defined() && tensor.requires_grad();
}

Tensors record_all(const char* op, const Tensors& inputs, const std::vector<Output>& outputs,
                   Gradient gradient) {
  if (profiling::on()) profiling::end_operator(op);
  Tensors results;
  results.reserve(outputs.size());
  for (const Output& output : outputs) results.push_back(output.unrecorded());
  if (anomaly_enabled())
    for (const Tensor& result : results) check_no_nan(std::string(op) + ": its result", result);

  bool wanted = false;
  if (grad_enabled())
    for (const Tensor& input : inputs) wanted = wanted || (input.defined() && input.requires_grad());
  if (!wanted) return results;

  std::vector<Edge> edges;
  edges.reserve(inputs.size());
  for (const Tensor& input : inputs) edges.push_back(edge_to(input));
  auto node = std::make_shared<Node>(op, std::move(edges));
  node->gradient = std::move(gradient);
  for (std::size_t i = 0; i < results.size(); ++i) {
    TensorImpl& impl = TensorDoor::impl(results[i]);
    node->outputs.push_back({impl.shape, impl.dtype, {}, {}, 0});
    if (!is_floating(impl.dtype)) continue;
    impl.node = node;
    impl.output = static_cast<int>(i);
  }
  return results;
}

Tensor record(const char* op, const Tensors& inputs, const Output& output, Gradient gradient) {
  return record_all(op, inputs, {output}, std::move(gradient))[0];
}

Tensor record(const char* op, std::initializer_list<Tensor> inputs, const Output& output, Gradient gradient) {
  return record_all(op, Tensors(inputs), {output}, std::move(gradient))[0];
}

Tensor without_gradient(const char* op, const Output& output) {
  if (profiling::on()) profiling::end_operator(op);
  if (anomaly_enabled()) check_no_nan(std::string(op) + ": its result", output.unrecorded());
  return output.unrecorded();
}

Tensor gradient_anchor() {
  Tensor anchor = allocate({0}, DType::Float32, Device::cpu());
  return anchor.set_requires_grad();
}

void check_in_place(const char* op, const Tensor& tensor) {
  check_defined(op, "tensor", tensor);
  LAMELLA_CHECK(Error, !(grad_enabled() && tensor.requires_grad()), op, ": in-place change of ",
                tensor.describe(), ", which requires a gradient; use NoGrad or detach()");
}

// ---- Saved ----

Saved::Saved(const Tensor& tensor) {
  if (!tensor.defined()) return;
  tensor_ = alias(tensor);
  version_ = TensorDoor::impl(tensor_).storage->version.load(std::memory_order_relaxed);
}

Tensor Saved::get() const {
  if (!tensor_.defined()) return tensor_;
  const TensorImpl& impl = TensorDoor::impl(tensor_);
  // An applied pending tensor starts at version 0; its stored values keep their own count.
  const bool applied = impl.pending && !is_pending(tensor_);
  const Storage& storage = applied ? *impl.pending->applied : *impl.storage;
  const std::uint64_t expected = applied ? 0 : version_;
  const std::uint64_t now = storage.version.load(std::memory_order_relaxed);
  LAMELLA_CHECK(Error, now == expected, "backward of ", backward_operator(), ": the tensor ",
                tensor_.describe(), " it saved was changed in place by ", storage.last_change.load(),
                " (version ", now, ", saved at ", expected, ")");
  return tensor_;
}

}  // namespace lamella::detail
