#include "autograd/walk.h"

#include <algorithm>

#include "core/check.h"
#include "core/profiling.h"
#include "tensor/dispatch.h"
#include "tensor/kernels/copy.h"
#include "tensor/kernels/part_sums.h"
#include "tensor/strided.h"

namespace lamella::detail {
namespace {

constexpr const char* kSums = "sums of parameters' gradients";

thread_local const char* current_operator = "";
thread_local Walk* current_walk = nullptr;
thread_local std::uint64_t current_sequence = 0;

void copy_into(const Tensor& source, const Tensor& target, GradientWrite mode) {
  LAMELLA_KERNEL(target.device(), copy(read(source), write(target, "backward"), mode));
}

/// Whether a leaf's gradient lies row-major without gaps, as sums of parts are written.
bool lies_in_order(const Edge& edge) {
  const Tensor& grad = edge.leaf->grad;
  const Strides strides = grad.defined() ? grad.strides() : dense_strides(edge.shape, edge.format);
  const auto plan = plan_strided<2>(edge.shape, {strides, dense_strides(edge.shape)});
  return plan.axes == 1 && plan.stride[0][0] == 1 && plan.stride[1][0] == 1;
}

PartSum sum_of(const GradientParts& parts, const Tensor& grad, GradientWrite mode) {
  const ConstTensorView from = read(parts.tensor());
  return {from.as<float>(), from.shape[0],           from.shape[1], parts.row(),
          from.shape[2],    write(grad, "backward"), mode};
}

/// Whether a gradient that was handed over may be written into by now: nobody else holds it any more, and it
/// lies as `edge` wants it.
bool is_ours(const Tensor& buffer, const Edge& edge) {
  const std::shared_ptr<TensorImpl>& impl = TensorDoor::handle(buffer);
  return impl.use_count() == 1 && impl->storage.use_count() == 1 && impl->pending == nullptr &&
         impl->strides == dense_strides(edge.shape, edge.format);
}

/// Gives `slot` a buffer of its own to write into and says whether to overwrite it.
GradientWrite prepare(Slot& slot, const Edge& edge) {
  if (!slot.written) {
    if (!slot.buffer.defined()) slot.buffer = allocate(edge.shape, edge.dtype, edge.device, edge.format);
    slot.written = true;
    return GradientWrite::Overwrite;
  }
  slot.sums = Tensor();
  if (slot.borrowed && !is_ours(slot.buffer, edge)) {
    Tensor own = allocate(edge.shape, edge.dtype, edge.device, edge.format);
    copy_into(slot.buffer, own, GradientWrite::Overwrite);
    slot.buffer = own;
  }
  slot.borrowed = false;
  return GradientWrite::Accumulate;
}

/// Adds a finished gradient to a tensor's grad().
void add_to_grad(TensorImpl& tensor, const Slot& slot) {
  if (tensor.grad.defined())
    copy_into(slot.buffer, tensor.grad,
              tensor.grad_stale ? GradientWrite::Overwrite : GradientWrite::Accumulate);
  else
    tensor.grad = slot.borrowed ? slot.buffer.clone() : slot.buffer;
  tensor.grad_stale = false;
}

class WalkContext final : public GradientContext {
 public:
  WalkContext(Walk& walk, Node& node, std::vector<Tensor> gradients, std::vector<Tensor> sums)
      : walk_(walk), node_(node), gradients_(std::move(gradients)), sums_(std::move(sums)) {}

  const Tensor& grad(int output) const override { return gradients_[static_cast<std::size_t>(output)]; }
  int outputs() const override { return static_cast<int>(gradients_.size()); }
  bool needs(int input) const override { return walk_.wants(edge(input)); }

  GradientTarget target(int input) override {
    if (!needs(input)) return {};
    const auto [buffer, mode] = walk_.destination(edge(input));
    const TensorView view = write(buffer, "backward");
    if (mode == GradientWrite::Accumulate && profiling::on()) profiling::count_bytes(bytes_shown(view), 0);
    return {view, mode};
  }

  void add(int input, const Tensor& gradient) override {
    if (!needs(input)) return;
    const Edge& to = edge(input);
    LAMELLA_CHECK(ShapeError, gradient.shape() == to.shape, "backward of ", node_.name, ": gradient ",
                  gradient.describe(), " for input ", input, " of shape ", to.shape.to_string());
    LAMELLA_CHECK(DTypeError, gradient.dtype() == to.dtype, "backward of ", node_.name, ": gradient ",
                  gradient.describe(), " for input ", input, " of type ", name(to.dtype));
    LAMELLA_CHECK(DeviceError, gradient.device() == to.device, "backward of ", node_.name, ": gradient ",
                  gradient.describe(), " for input ", input, " on ", to.device.to_string());
    if (walk_.hand_over(to, gradient)) return;
    const auto [buffer, mode] = walk_.destination(to);
    copy_into(gradient, buffer, mode);
  }

  bool is_between_operators(int input) const override {
    return needs(input) && walk_.is_between_operators(edge(input));
  }
  bool is_sole_contribution(int input) const override {
    return is_between_operators(input) && walk_.is_sole_contribution(edge(input));
  }
  void leave_sums(int input, const Tensor& sums) override { walk_.leave_sums(edge(input), sums); }
  Tensor sums(int output) const override { return sums_[static_cast<std::size_t>(output)]; }
  bool takes_parts(int input) const override { return needs(input) && walk_.takes_parts(edge(input)); }
  void add_parts(int input, const GradientParts& parts) override { walk_.add_parts(edge(input), parts); }
  void beside(int input, const Tensors& reads, const std::function<void()>& work) override {
    // At the end of the chain there is nothing left to run beside.
    const auto goes_on = [this](const Edge& to) { return to.node && walk_.wants(to); };
    if (SideBranch::takes(reads) && std::any_of(node_.inputs.begin(), node_.inputs.end(), goes_on))
      walk_.beside(edge(input), reads, work);
    else
      work();
  }
  void join_branches() override { walk_.join_branches(); }

 private:
  const Edge& edge(int input) const { return node_.inputs[static_cast<std::size_t>(input)]; }

  Walk& walk_;
  Node& node_;
  std::vector<Tensor> gradients_, sums_;
};

}  // namespace

const char* backward_operator() { return current_operator; }

Walk::Walk(Nested)
    : retain_graph_(false), collect_only_(true), around_(current_walk), block_start_(current_sequence) {}

Walk& Walk::keeper(const Edge& edge) {
  const bool outside = around_ != nullptr && (edge.node ? edge.node->sequence < block_start_
                                                        : !collected_leaves_.contains(edge.leaf.get()));
  return outside ? around_->keeper(edge) : *this;
}

Slot& Walk::arrive(const std::shared_ptr<Node>& node, int output) {
  auto [it, fresh] = arrivals_.try_emplace(node.get());
  if (fresh) {
    it->second.node = node;
    it->second.slots.resize(node->outputs.size());
    queue_.push(node.get());
  }
  return it->second.slots[static_cast<std::size_t>(output)];
}

bool Walk::wants(const Edge& edge) {
  if (!edge.wanted()) return false;
  if (Walk& walk = keeper(edge); &walk != this) return walk.wants(edge);
  if (!collect_only_) return true;
  if (edge.leaf) return collected_leaves_.contains(edge.leaf.get());
  if (around_ != nullptr || collected_outputs_.contains(edge.node.get())) return true;
  explore(edge.node);  // a block that runs again may use results that no edge led to
  return leads_to_collected_.contains(edge.node.get());
}

void Walk::find_paths(const Tensors& roots) {
  for (const Tensor& root : roots)
    if (root.defined()) explore(TensorDoor::impl(root).node);
}

void Walk::explore(const std::shared_ptr<Node>& start) {
  std::vector<Node*> found;
  const auto meet = [&](const std::shared_ptr<Node>& node) {
    if (node && explored_.insert(node.get()).second) found.push_back(node.get());
  };
  meet(start);
  if (found.empty()) return;
  explored_from_.push_back(start);
  for (std::size_t i = 0; i < found.size(); ++i)
    for (const Edge& edge : found[i]->inputs) meet(edge.node);
  std::sort(found.begin(), found.end(),
            [](const Node* a, const Node* b) { return a->sequence < b->sequence; });
  for (Node* node : found) {
    if (node->hidden_inputs) leads_to_collected_.insert(node);
    for (const Edge& edge : node->inputs)
      if (wants(edge)) leads_to_collected_.insert(node);
  }
}

Slot* Walk::slot_of(const Edge& edge) {
  if (Walk& walk = keeper(edge); &walk != this) return walk.slot_of(edge);
  if (edge.node) return &arrive(edge.node, edge.output);
  if (collect_only_) return &collected_leaves_[edge.leaf.get()];
  if (edge.leaf->hooks.empty()) return nullptr;
  auto [it, fresh] = hooked_leaves_.try_emplace(edge.leaf.get());
  if (fresh) hooked_order_.push_back(edge.leaf);
  return &it->second;
}

std::pair<Tensor, GradientWrite> Walk::destination(const Edge& edge) {
  if (Slot* slot = slot_of(edge)) {
    const GradientWrite mode = prepare(*slot, edge);
    return {slot->buffer, mode};
  }
  // A leaf: kernels write straight into its gradient.
  TensorImpl& leaf = *edge.leaf;
  Walk& walk = keeper(edge);
  walk.add_up(leaf);
  if (leaf.grad.defined()) walk.branch_.settle(leaf.grad);
  return destination(leaf, edge);
}

std::pair<Tensor, GradientWrite> Walk::destination(TensorImpl& leaf, const Edge& edge) {
  if (leaf.grad.defined() && !leaf.grad_stale) return {leaf.grad, GradientWrite::Accumulate};
  if (!leaf.grad.defined()) leaf.grad = allocate(edge.shape, edge.dtype, edge.device, edge.format);
  leaf.grad_stale = false;
  return {leaf.grad, GradientWrite::Overwrite};
}

bool Walk::hand_over(const Edge& edge, const Tensor& gradient) {
  if (!edge.node) return false;
  Slot& slot = *slot_of(edge);
  if (slot.written) return false;
  slot = {gradient.detach(), true, true, {}};
  return true;
}

bool Walk::is_between_operators(const Edge& edge) {
  if (!edge.node || around_ != nullptr || collected_outputs_.contains(edge.node.get())) return false;
  const NodeOutput& output = edge.node->outputs[static_cast<std::size_t>(edge.output)];
  return output.hooks.empty() && output.retained.expired();
}

bool Walk::is_sole_contribution(const Edge& edge) {
  return edge.node && readers_of(*edge.node, edge.output) == 1 && !any_hidden_inputs();
}

void Walk::leave_sums(const Edge& edge, const Tensor& sums) {
  if (Slot* const slot = slot_of(edge)) slot->sums = sums;
}

bool Walk::takes_parts(const Edge& edge) {
  if (edge.node || edge.dtype != DType::Float32 || anomaly_enabled()) return false;
  if (Walk& walk = keeper(edge); walk.collect_only_ || !edge.leaf->hooks.empty()) return false;
  constexpr std::int64_t kMost = 1 << 30;
  return edge.shape.product() < kMost && lies_in_order(edge);
}

void Walk::add_parts(const Edge& edge, const GradientParts& parts) {
  // As much as two or three large layers leave: memory that is taken on top of the activations'.
  constexpr std::int64_t kMostBytes = 32 << 20;
  // Enough to keep a GPU busy for a while; what is left at the end is waited for.
  constexpr std::int64_t kEnoughBeside = 4 << 20;
  Walk& walk = keeper(edge);
  walk.add_up(*edge.leaf);
  walk.later_.push_back({edge, parts});
  walk.later_bytes_ += parts.tensor().numel() * static_cast<std::int64_t>(sizeof(float));
  if (walk.later_bytes_ > kMostBytes)
    walk.add_up();
  else if (walk.later_bytes_ > kEnoughBeside)
    walk.add_up_beside();
}

void Walk::beside(const Edge& edge, const Tensors& reads, const std::function<void()>& work) {
  keeper(edge).branch_.add(reads, work);
}

void Walk::join_branches() {
  for (Walk* walk = this; walk != nullptr; walk = walk->around_) walk->branch_.join();
}

void Walk::add_up(const TensorImpl& leaf) {
  for (const Later& later : later_)
    if (later.edge.leaf.get() == &leaf) return add_up();
}

void Walk::add_up() {
  branch_.join();
  if (later_.empty()) return;
  const profiling::PassScope pass(profiling::Pass::Gradient, kSums);
  const std::vector<Later> all = std::exchange(later_, {});
  later_bytes_ = 0;
  for (std::size_t first = 0, last = 0; first < all.size(); first = last) {
    const Device device = all[first].edge.device;
    std::vector<PartSum> sums;
    std::vector<std::pair<Tensor, Edge>> moved;  // of gradients that a hook has replaced by others since
    for (; last < all.size() && all[last].edge.device == device; ++last) {
      const auto& [edge, parts] = all[last];
      if (lies_in_order(edge)) {
        const auto [grad, mode] = destination(edge);
        sums.push_back(sum_of(parts, grad, mode));
      } else {
        moved.emplace_back(allocate(edge.shape, edge.dtype, device), edge);
        sums.push_back(sum_of(parts, moved.back().first, GradientWrite::Overwrite));
      }
    }
    LAMELLA_KERNEL(device, add_part_sums(sums));
    for (const auto& [sum, edge] : moved) {
      const auto [grad, mode] = destination(edge);
      copy_into(sum, grad, mode);
    }
  }
}

void Walk::add_up_beside() {
  const Device device = later_.front().edge.device;
  for (const auto& [edge, parts] : later_)  // hooks may have come since, or another gradient
    if (!branch_.has_work(edge.device) || !edge.leaf->hooks.empty() || !lies_in_order(edge)) return;
  const profiling::PassScope pass(profiling::Pass::Gradient, kSums);
  Tensors reads, writes;
  std::vector<PartSum> sums;
  for (const auto& [edge, parts] : std::exchange(later_, {})) {
    const auto [grad, mode] = destination(*edge.leaf, edge);
    sums.push_back(sum_of(parts, grad, mode));
    reads.push_back(parts.tensor());
    writes.push_back(grad);
  }
  later_bytes_ = 0;
  branch_.add(
      reads, [&] { LAMELLA_KERNEL(device, add_part_sums(sums)); }, writes);
}

Tensor Walk::arrived(const Edge& edge) {
  const Slot* slot = slot_of(edge);
  if (slot) return slot->written ? slot->buffer : Tensor();
  return edge.leaf->grad_stale ? Tensor() : edge.leaf->grad;
}

void Walk::seed(const Tensor& root, const Tensor& gradient) {
  check_defined("backward", "root", root);
  LAMELLA_CHECK(Error, root.requires_grad(), "backward: ", root.describe(),
                " does not require a gradient and was not computed from anything that does");
  Tensor start = gradient;
  if (!start.defined()) {
    LAMELLA_CHECK(ShapeError, root.numel() == 1, "backward: ", root.describe(),
                  " has more than one element; pass the gradient to start from");
    start = allocate(root.shape(), root.dtype(), root.device(), root.memory_format());
    LAMELLA_KERNEL(start.device(), fill(write(start, "backward"), 1));
  }
  LAMELLA_CHECK(ShapeError, start.shape() == root.shape(), "backward: gradient ", start.describe(),
                " for root ", root.describe());
  LAMELLA_CHECK(DTypeError, start.dtype() == root.dtype(), "backward: gradient ", start.describe(),
                " for root ", root.describe());
  check_same_device("backward", start, root);
  Edge edge;
  const TensorImpl& impl = TensorDoor::impl(root);
  edge.shape = root.shape();
  edge.dtype = root.dtype();
  edge.device = root.device();
  edge.format = root.memory_format();
  if (impl.node)
    edge.node = impl.node, edge.output = impl.output;
  else
    edge.leaf = TensorDoor::handle(root);
  if (!wants(edge)) return;
  if (hand_over(edge, start)) return;
  const auto [buffer, mode] = destination(edge);
  copy_into(start, buffer, mode);
}

void Walk::collect(const Tensor& input) {
  check_defined("gradients_of", "input", input);
  const TensorImpl& impl = TensorDoor::impl(input);
  if (impl.node)
    collected_outputs_[impl.node.get()].emplace_back(impl.output, Tensor());
  else
    collected_leaves_[TensorDoor::handle(input).get()];
}

Tensor Walk::collected(const Tensor& input) {
  const TensorImpl& impl = TensorDoor::impl(input);
  if (!impl.node) return collected_leaves_[TensorDoor::handle(input).get()].buffer;
  for (auto& [output, gradient] : collected_outputs_[impl.node.get()])
    if (output == impl.output) return gradient;
  return {};
}

void Walk::run_hooks(const std::vector<GradientHook>& hooks, Slot& slot, const Shape& shape, DType dtype) {
  if (!hooks.empty()) join_branches();
  for (const GradientHook& hook : hooks) {
    const Tensor changed = hook(slot.buffer);
    if (!changed.defined()) continue;
    LAMELLA_CHECK(ShapeError, changed.shape() == shape, "backward: a hook returned ", changed.describe(),
                  " for a gradient of shape ", shape.to_string());
    LAMELLA_CHECK(DTypeError, changed.dtype() == dtype, "backward: a hook returned ", changed.describe(),
                  " for a gradient of type ", name(dtype));
    slot = {changed.detach(), true, true, {}};
  }
}

void Walk::visit(Arrival& arrival) {
  Node& node = *arrival.node;
  std::vector<Tensor> gradients, sums;
  gradients.reserve(arrival.slots.size());
  for (std::size_t i = 0; i < arrival.slots.size(); ++i) {
    Slot& slot = arrival.slots[i];
    const NodeOutput& output = node.outputs[i];
    if (slot.written) {
      run_hooks(output.hooks, slot, output.shape, output.dtype);
      if (const std::shared_ptr<TensorImpl> kept = output.retained.lock(); kept && !collect_only_) {
        slot.borrowed = true;  // the gradient goes on to the node, too
        add_to_grad(*kept, slot);
      }
    }
    gradients.push_back(std::move(slot.buffer));
    sums.push_back(std::move(slot.sums));
  }
  arrival.slots.clear();
  if (const auto it = collected_outputs_.find(&node); it != collected_outputs_.end())
    for (auto& [output, gradient] : it->second) gradient = gradients[static_cast<std::size_t>(output)];

  if (collect_only_ && around_ == nullptr && !leads_to_collected_.contains(&node)) return;
  LAMELLA_CHECK(Error, node.gradient != nullptr, "backward: the graph of ", node.name,
                " was freed by an earlier backward; pass retain_graph there to go over it twice");

  struct Restore {
    const char* name = current_operator;
    Walk* walk = current_walk;
    std::uint64_t sequence = current_sequence;
    ~Restore() {
      current_operator = name;
      current_walk = walk;
      current_sequence = sequence;
    }
  } restore;
  current_operator = node.name;
  current_walk = this;
  current_sequence = node.sequence;
  const profiling::PassScope pass(profiling::Pass::Gradient, node.name);
  WalkContext context(*this, node, std::move(gradients), std::move(sums));
  if (retain_graph_) {
    node.gradient(context);
  } else {
    const Gradient gradient = std::exchange(node.gradient, nullptr);
    gradient(context);
  }
  if (anomaly_enabled())
    for (std::size_t i = 0; i < node.inputs.size(); ++i) {
      const Edge& edge = node.inputs[i];
      if (!wants(edge)) continue;
      if (const Tensor gradient = arrived(edge); gradient.defined())
        check_no_nan(
            std::string("backward of ") + node.name + ": its gradient for input " + std::to_string(i),
            gradient);
    }
}

void Walk::run() {
  while (!queue_.empty()) {
    Node* const node = queue_.top();
    queue_.pop();
    Arrival arrival = std::move(arrivals_.at(node));
    arrivals_.erase(node);
    visit(arrival);
  }
  add_up();
  finish_leaves();
}

void Walk::finish_leaves() {
  for (const std::shared_ptr<TensorImpl>& leaf : hooked_order_) {
    Slot& slot = hooked_leaves_.at(leaf.get());
    run_hooks(leaf->hooks, slot, leaf->shape, leaf->dtype);
    slot.borrowed = true;  // a hook may have kept it, and later gradients are added in place
    add_to_grad(*leaf, slot);
  }
}

}  // namespace lamella::detail
