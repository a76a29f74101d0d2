#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "autograd/record.h"
#include "tensor/impl.h"

namespace lamella::detail {

/// Where the gradient of one input goes: to the operator that made it, to a leaf, or (both null) nowhere.
struct Edge {
  std::shared_ptr<Node> node;
  int output = 0;
  std::shared_ptr<TensorImpl> leaf;
  Shape shape;
  DType dtype = DType::Float32;
  Device device;
  MemoryFormat format = MemoryFormat::Contiguous;

  bool wanted() const { return node != nullptr || leaf != nullptr; }
};

/// What a node knows of its results without holding them (they hold it).
struct NodeOutput {
  Shape shape;
  DType dtype = DType::Float32;
  std::vector<GradientHook> hooks;
  std::weak_ptr<TensorImpl> retained;  ///< set by retain_grad()
  int readers = 0;                     ///< edges that ever led here, of any thread: see readers_of()
};

/// One recorded operator. The sequence number grows with every recorded operator of the process, so that
/// descending order is a topological order of any graph.
struct Node {
  Node(const char* name, std::vector<Edge> inputs);
  /// Iterative: a chain of a million operators must not overflow the stack.
  ~Node();
  Node(const Node&) = delete;
  Node& operator=(const Node&) = delete;

  const char* name;  ///< static lifetime
  std::uint64_t sequence;
  std::vector<Edge> inputs;
  std::vector<NodeOutput> outputs;
  Gradient gradient;  ///< empty once the graph was freed
  /// The gradient function reaches tensors that are not among the inputs: see backward_of_block().
  bool hidden_inputs = false;
};

/// Notes that the gradient function reaches tensors that are not among the node's inputs.
void hide_inputs(Node& node);
/// Whether there is such a node anywhere: edges do not tell then how many contributions a gradient has.
bool any_hidden_inputs();
/// How many inputs of operators the output has been.
int readers_of(const Node& node, int output);

/// The operator whose gradient function this thread is running; "" outside backward.
const char* backward_operator();

/// For gradient functions that run a block of operators again. Returns the gradients of `leaves`, which the
/// block was given; those of all else that the block used go where the walk in progress sends them.
Tensors backward_of_block(const Tensor& result, const Tensor& gradient, const Tensors& leaves);

/// True in the scope of an AnomalyMode.
bool anomaly_enabled();
/// Throws Error naming `what` if the tensor holds a NaN.
void check_no_nan(const std::string& what, const Tensor& tensor);

}  // namespace lamella::detail
