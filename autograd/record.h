#pragma once

#include <functional>
#include <initializer_list>
#include <span>
#include <vector>

#include "tensor/door.h"
#include "tensor/left_parts.h"
#include "tensor/view.h"

/// What an operator needs to say how it differentiates. The whole of an operator reads:
///
///   Tensor relu(const Tensor& x) {
///     check_floating("relu", "input", x);
///     Output y = Output::like(x);
///     LAMELLA_KERNEL(x.device(), relu_forward(read(x), y.write()));
///     return record("relu", {x}, y, [y = Saved(y)](GradientContext& context) {
///       const GradientTarget dx = context.target(0);
///       LAMELLA_KERNEL(dx.view.device,
///                      relu_backward(read(context.grad()), read(y.get()), dx.view, dx.write));
///     });
///   }
namespace lamella::detail {

/// A result that no user can see yet: only record() and without_gradient() make a Tensor of it, so no
/// operator can forget to say how it differentiates.
class Output {
 public:
  Output(const Shape& shape, DType dtype, Device device, MemoryFormat format = MemoryFormat::Contiguous)
      : tensor_(allocate(shape, dtype, device, format)) {}
  /// Shape, type, device and format of `x`.
  static Output like(const Tensor& x) { return {x.shape(), x.dtype(), x.device(), x.memory_format()}; }
  /// A view or any other tensor without a graph of its own.
  static Output of(Tensor tensor) { return Output(std::move(tensor)); }

  TensorView write() const { return detail::write(tensor_, ""); }
  /// For kernels that take a tensor, and for Saved.
  const Tensor& unrecorded() const { return tensor_; }

 private:
  explicit Output(Tensor tensor) : tensor_(std::move(tensor)) {}
  Tensor tensor_;
};

/// A tensor kept for the gradient: without its graph, with its version. Capture it in the gradient function;
/// it goes when backward is through with the node.
class Saved {
 public:
  Saved() = default;
  explicit Saved(const Tensor& tensor);
  explicit Saved(const Output& output) : Saved(output.unrecorded()) {}
  /// Nothing unless `wanted`.
  static Saved when(bool wanted, const Tensor& tensor) { return wanted ? Saved(tensor) : Saved(); }
  /// The tensor (undefined if nothing was saved). Throws Error naming the operator that saved it and the one
  /// that changed it in place since.
  Tensor get() const;

 private:
  Tensor tensor_;
  std::uint64_t version_ = 0;
};

/// Where a gradient kernel writes; `view.data` is null if this input wants no gradient.
struct GradientTarget {
  TensorView view;
  GradientWrite write = GradientWrite::Overwrite;
  explicit operator bool() const { return view.data != nullptr; }
};

/// What a gradient function sees.
class GradientContext {
 public:
  virtual ~GradientContext() = default;
  /// Gradient of an output, in the output's shape and type; any strides. Undefined only for an output of
  /// several that nobody used.
  virtual const Tensor& grad(int output = 0) const = 0;
  /// How many outputs the operator has.
  virtual int outputs() const = 0;
  /// Whether input i wants a gradient.
  virtual bool needs(int input) const = 0;
  /// Memory for the gradient of input i, of that input's shape, type and format, and whether to overwrite or
  /// add. The caller must write all of it, before it asks for another target: two inputs may be one tensor.
  virtual GradientTarget target(int input) = 0;
  /// Hands over a gradient that exists already (often a view of grad()): kept as it is where possible, added
  /// otherwise. It must have the input's shape and type. Does nothing if the input wants none.
  virtual void add(int input, const Tensor& gradient) = 0;

  /// Whether the gradient of input i goes to the operator that made it and is seen by nobody else: then
  /// where that operator's slope is 0 or 1 it may be applied already.
  virtual bool is_between_operators(int input) const = 0;
  /// The same, and nothing else is ever added to the gradient of input i: then the slope of the operator that
  /// made it may be applied already whatever it is, for it will be applied once.
  virtual bool is_sole_contribution(int input) const = 0;
  /// Leaves sums with what has just been written, as the first contribution, to target(input). They are gone
  /// when anything is added.
  virtual void leave_sums(int input, const Tensor& sums) = 0;
  /// What was left with the gradient of an output; undefined: nothing.
  virtual Tensor sums(int output = 0) const = 0;

  /// Whether the gradient of input i may be handed over in parts: it is that of a float32 leaf, which nobody
  /// looks at before backward is through.
  virtual bool takes_parts(int input) const = 0;
  /// Hands over the gradient of input i in parts, which are added up at the end, those of many inputs in a
  /// launch. Only where takes_parts().
  virtual void add_parts(int input, const GradientParts& parts) = 0;
  /// Calls `work`, which takes the memory of such parts for input i and launches what writes them, from these
  /// tensors alone: read() them before where they owe something that it would pay. Work that is too small to
  /// fill a GPU runs beside what follows, see SideBranch.
  virtual void beside(int input, const Tensors& reads, const std::function<void()>& work) = 0;
  /// Before a user's code is called, which may write to any tensor: waits for what runs beside.
  virtual void join_branches() = 0;
};

using Gradient = std::function<void(GradientContext&)>;

/// True if gradients are recorded and `tensor` leads to a leaf that wants one.
bool wants_gradient(const Tensor& tensor);

/// Makes the result visible; records `gradient` if any input wants one. `op` has static lifetime.
Tensor record(const char* op, std::initializer_list<Tensor> inputs, const Output& output, Gradient gradient);
Tensor record(const char* op, const Tensors& inputs, const Output& output, Gradient gradient);
/// The same for several results.
Tensors record_all(const char* op, const Tensors& inputs, const std::vector<Output>& outputs,
                   Gradient gradient);
/// Makes a result visible that has no gradient (comparisons, indices, …).
Tensor without_gradient(const char* op, const Output& output);

/// A leaf that wants a gradient and holds nothing: among an operator's inputs, it makes backward come by.
Tensor gradient_anchor();

/// Refuses an in-place change of a tensor whose gradient is being recorded.
void check_in_place(const char* op, const Tensor& tensor);

}  // namespace lamella::detail
