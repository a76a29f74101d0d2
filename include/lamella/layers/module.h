#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <typeinfo>
#include <utility>
#include <vector>

#include "lamella/core/error.h"
#include "lamella/core/export.h"
#include "lamella/layers/state_dict.h"
#include "lamella/tensor/tensor.h"

namespace lamella {

class Module;

namespace detail {

struct ModuleState;

/// A tensor that a module holds in a member. A copy is another handle on it; a copy made by clone() is a
/// handle on the clone's own tensor.
class LAMELLA_API HeldTensor {
 public:
  HeldTensor() = default;
  HeldTensor(const HeldTensor& other);
  HeldTensor& operator=(const HeldTensor& other) = default;

  operator const Tensor&() const { return tensor_; }  // NOLINT(google-explicit-constructor)
  const Tensor& get() const { return tensor_; }
  const Tensor* operator->() const { return &tensor_; }
  /// False for what was left out, as the bias of a layer without one.
  bool defined() const { return tensor_.defined(); }

 protected:
  friend class ::lamella::Module;
  explicit HeldTensor(Tensor tensor) : tensor_(std::move(tensor)) {}

 private:
  Tensor tensor_;
};

/// While it lives, copies of modules and held tensors that this thread makes are deep: one new object for
/// each old one.
class LAMELLA_API CloneScope {
 public:
  CloneScope();
  ~CloneScope();
  CloneScope(const CloneScope&) = delete;
  CloneScope& operator=(const CloneScope&) = delete;

 private:
  struct Map;
  friend class HeldTensor;
  friend class ::lamella::Module;
  static CloneScope* current();
  Tensor copy_of(const Tensor& tensor);
  std::shared_ptr<ModuleState> copy_of(const std::shared_ptr<ModuleState>& state);

  std::unique_ptr<Map> map_;
  CloneScope* before_;
};

}  // namespace detail

/// A learned tensor in a member of a module: see Module::add_parameter().
class Parameter : public detail::HeldTensor {
 public:
  Parameter() = default;

 private:
  friend class Module;
  using HeldTensor::HeldTensor;
};

/// A tensor of a module that is not learned, as running statistics: see Module::add_buffer().
class Buffer : public detail::HeldTensor {
 public:
  Buffer() = default;

 private:
  friend class Module;
  using HeldTensor::HeldTensor;
};

/// How load_state_dict() takes names and shapes that do not fit.
struct LoadOptions {
  bool strict = true;  ///< throw; else leave those out and report them
};

/// Part of a network: parameters, buffers, and other modules. Layers and networks derive from it:
///
///   struct Net : lm::Module {
///     lm::Conv2d conv{3, 8, 3};
///     lm::Linear classify{8, 10};
///     Net() : Module("Net") {
///       add("conv", conv);
///       add("classify", classify);
///     }
///     lm::Tensor forward(const lm::Tensor& x) override {
///       return classify(lm::mean(conv(x), {.axes = {2, 3}}));
///     }
///   };
///
/// A module is a handle, as a Tensor is: copies share parameters, buffers, children and the training mode;
/// clone() makes an independent one. Members that are neither modules, Parameters nor Buffers are copied as
/// C++ copies them, by clone() too: keep tensors that belong to the module in a Parameter or Buffer.
///
/// Names are PyTorch's: parameters and buffers of a child come as "child.name".
class LAMELLA_API Module {
 public:
  virtual ~Module();

  /// What the module computes. By default it throws Error: a module with several inputs defines its own
  /// functions instead.
  virtual Tensor forward(const Tensor& x);
  /// forward(x). Call modules like this, not by forward(): summarize() sees these calls only.
  Tensor operator()(const Tensor& x);

  // ---- What it holds. A tensor or module held under two names is listed once, under the first. ----

  /// All parameters, its own first, then those of the children, in the order they were added.
  Tensors parameters() const;
  /// The same with their dotted names, as "features.0.weight".
  std::vector<std::pair<std::string, Tensor>> named_parameters() const;
  /// All buffers with their dotted names, in the same order, persistent or not.
  std::vector<std::pair<std::string, Tensor>> named_buffers() const;
  /// The direct children, in the order they were added.
  std::vector<std::pair<std::string, Module*>> children() const;
  /// A module below this one by its dotted path, as "features.0"; "" is this one. Throws Error naming what
  /// there is.
  Module& child(const std::string& path);
  /// Calls fn(path, module) for this module (path "") and every one below it, parents first.
  void apply(const std::function<void(const std::string& path, Module& module)>& fn);
  /// Number of elements of all parameters.
  std::int64_t num_parameters() const;

  // ---- Mode ----

  /// Switches training behaviour (dropout, batch statistics) on or off, here and below. On at first.
  void train(bool on = true);
  /// train(false).
  void eval() { train(false); }
  /// Whether training behaviour is on in this module.
  bool is_training() const;
  /// Whether backward computes gradients for the parameters of floating type. Freezes a network or a part of
  /// it: net.child("features").set_requires_grad(false).
  void set_requires_grad(bool on = true);
  /// Tensor::zero_grad() of all parameters.
  void zero_grad();

  // ---- Conversions, in place: tensors held elsewhere (by an optimizer) stay this module's parameters ----

  /// Moves parameters, gradients and buffers. Throws DeviceError for a device that this build or machine does
  /// not have.
  void to(Device device);
  /// Converts the floating ones and their gradients. Throws DTypeError unless `dtype` is floating.
  void to(DType dtype);
  /// Lays out the four-axis ones and their gradients in `format`.
  void to(MemoryFormat format);

  // ---- Saving ----

  /// Parameters and persistent buffers under PyTorch's names in PyTorch's order: detached handles on the
  /// module's own memory (StateDict::clone() copies them). A tensor held under two names is listed under
  /// both.
  StateDict state_dict() const;
  /// Copies numbers in, converting type and device. Where names or shapes do not fit: throws Error listing
  /// all of them, with nothing changed, if strict; else leaves them out. Returns what did not fit.
  LoadReport load_state_dict(const StateDict& dict, const LoadOptions& options = {});

  // ---- Printing ----

  /// The name given by the class.
  const std::string& type_name() const;
  /// The settings of this module alone, as "3, 8, kernel_size=(3, 3)"; empty by default.
  virtual std::string settings() const;
  /// The tree, in PyTorch's layout.
  std::string to_string() const;

 protected:
  /// A new module, in training mode; `type_name` is what messages and to_string() call it.
  explicit Module(std::string type_name);
  /// Another handle on the same module; in clone() an independent copy.
  Module(const Module& other);
  /// Makes this a handle on what `other` is a handle on. Throws Error for a registered child unless `other`
  /// is one, too: its parent would go on with the old one.
  Module& operator=(const Module& other);

  /// Registers a parameter; floating tensors then require a gradient. An undefined one (no bias) registers
  /// nothing. Keep the result in a member. Throws Error if the name is taken, empty or has a dot, or if the
  /// tensor is the result of an operator.
  Parameter add_parameter(const std::string& name, const Tensor& tensor);
  /// Registers a buffer; `persistent` ones are part of state_dict(). An undefined one registers nothing.
  /// Throws Error if the name is taken, empty or has a dot.
  Buffer add_buffer(const std::string& name, const Tensor& tensor, bool persistent = true);
  /// Registers a child. The module keeps a handle of its own: later assignments to the member are refused.
  /// Throws Error if the name is taken, empty or has a dot, if M is only a base of the module's class, or if
  /// the module holds this one.
  template <class M>
  void add(const std::string& name, const M& module) {
    add_child(name, Child{std::make_shared<M>(module), &copy_child<M>}, typeid(module) == typeid(M));
  }

 private:
  friend struct detail::ModuleState;
  friend class detail::CloneScope;
  friend class Sequential;

  /// A module of some derived class and how to copy it as that class.
  struct Child {
    std::shared_ptr<Module> module;
    std::shared_ptr<Module> (*copy)(const Module& module);
  };
  template <class M>
  static std::shared_ptr<Module> copy_child(const Module& module) {
    return std::make_shared<M>(static_cast<const M&>(module));
  }
  void add_child(const std::string& name, Child child, bool exact);
  void check_name(const std::string& name) const;
  void for_each_tensor(const std::function<void(const Tensor&)>& fn) const;

  std::shared_ptr<detail::ModuleState> state_;
};

/// An independent copy: new parameters and buffers with the same numbers, the same modes, no gradients.
/// Modules and tensors shared within the original are shared within the copy. Throws Error if `module` is of
/// a class derived from M.
template <class M>
M clone(const M& module) {
  if (typeid(module) != typeid(M))
    throw Error("clone: the module's class is derived from the one to be copied");
  const detail::CloneScope scope;
  return M(module);
}

}  // namespace lamella
