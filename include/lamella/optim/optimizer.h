#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "lamella/core/export.h"
#include "lamella/layers/state_dict.h"
#include "lamella/tensor/tensor.h"

/// Optimizers, learning rate schedules, clipping of gradients, averages of parameters.
namespace lamella::optim {

/// Parameters that share settings. What is left out is the optimizer's own.
struct ParamGroup {
  Tensors params = {};                                ///< float32 or float64 leaves
  std::optional<double> lr = std::nullopt;            ///< learning rate
  std::optional<double> weight_decay = std::nullopt;  ///< what it means depends on the optimizer
};

/// At most two groups: first the weights, with `weight_decay`, then norms and biases (one axis or none, or a
/// name that is "bias" or ends in ".bias"), with none. Groups without parameters are left out. Takes what
/// Module::named_parameters() returns.
LAMELLA_API std::vector<ParamGroup> no_decay_groups(
    const std::vector<std::pair<std::string, Tensor>>& named_parameters, double weight_decay);

/// What one call of Optimizer::update() is about: those parameters of a group that have a gradient.
struct UpdateBatch {
  Tensors params = {};              ///< each with grad() of its shape, type and device; all on one device
  std::vector<Tensors> state = {};  ///< per parameter, in the order of state_names()
  Tensors steps = {};       ///< per parameter: how many updates it has had, this one included; int64 []
  Tensor lr = {};           ///< float64 []
  double weight_decay = 0;  ///< the group's
  /// int32 [], or undefined: see Optimizer::reads_skip().
  Tensor skip = {};
};

/// Changes parameters by their gradients.
///
/// It holds handles on the parameters: a module that is moved or converted by Module::to() stays attached,
/// and the optimizer's own tensors follow at the next step. Learning rate and step counts lie in memory of
/// the parameters' device, where the kernels read and count them.
class LAMELLA_API Optimizer {
 public:
  virtual ~Optimizer();
  Optimizer(const Optimizer&) = delete;
  Optimizer& operator=(const Optimizer&) = delete;

  /// One update of every parameter that has a gradient; the others stay as they are, and their step counts,
  /// too. An in-place change: a later backward through a graph that saved the old numbers throws. Throws
  /// DTypeError for a parameter converted to a half type since (keep those in float32) or a gradient of
  /// another type than its parameter's, DeviceError for a group on several devices, with nothing changed.
  void step();
  /// Tensor::zero_grad() of all parameters.
  void zero_grad();

  /// Number of parameter groups.
  std::size_t groups() const { return groups_.size(); }
  /// The parameters of a group, in the order given. Throws Error if there is no such group, here and below.
  const Tensors& params(std::size_t group = 0) const;
  /// Learning rate of a group.
  double lr(std::size_t group = 0) const;
  /// Weight decay of a group.
  double weight_decay(std::size_t group = 0) const;
  /// Sets the learning rate of one group. Throws Error unless finite and not negative.
  void set_lr(std::size_t group, double lr);
  /// Sets the learning rate of all groups. Throws as above.
  void set_lr(double lr);
  /// Updates made so far: those of the parameter that has had most. Waits for a GPU.
  std::int64_t steps() const;

  /// Goes up when the optimizer's own tensors are made, move or are loaded: launches recorded before write to
  /// memory that no longer counts.
  std::uint64_t revision() const { return revision_; }

  /// Copies of everything that a resumed run needs besides the parameters and the options: per group g
  /// "param_groups.<g>.lr" (float64), and per parameter i that has had an update, counted over all groups,
  /// "state.<i>.step" (int64) and "state.<i>.<name>" with PyTorch's names. If GradScaler skipped all of a
  /// parameter's updates, these are 0.
  StateDict state_dict() const;
  /// Takes over what state_dict() gave, converted to each parameter's type and device: training goes on with
  /// the bits of the uninterrupted run. Throws Error naming what is missing, left over or out of range,
  /// ShapeError or DTypeError naming what does not fit its parameter, with nothing changed.
  void load_state_dict(const StateDict& dict);

 protected:
  /// `kind` names the optimizer in messages and has static lifetime. Throws Error for no parameters, an empty
  /// group, a parameter given twice or that is the result of an operator, and settings out of range;
  /// DTypeError for a parameter that is not float32 or float64.
  Optimizer(const char* kind, std::vector<ParamGroup> groups, double lr, double weight_decay);

  /// Names of the tensors kept per parameter, such as "momentum_buffer". They have the parameter's shape and
  /// type, hold 0 before its first update, and are dense in its memory format.
  virtual std::vector<std::string> state_names() const = 0;
  /// Updates the parameters of one group; runs under NoGrad.
  virtual void update(const UpdateBatch& batch) = 0;
  /// Whether update() reads UpdateBatch::skip, as the optimizers of this library do: where it is defined and
  /// the number in it, which only kernels can know, is not 0, update() must leave everything as it is. For an
  /// optimizer that does not, GradScaler::step() reads the number and waits for it.
  virtual bool reads_skip() const { return false; }
  /// The name given by the class.
  const char* kind() const { return kind_; }

 private:
  friend class GradScaler;
  struct ParamState {
    Tensor step;  ///< int64 []; undefined until the first update
    Tensors values;
  };
  struct Group {
    Tensors params;
    std::vector<ParamState> state;
    double lr = 0;
    double weight_decay = 0;
    Tensor device_lr;  ///< float64 [], what kernels read
  };
  const Group& group_at(std::size_t group) const;
  std::vector<std::size_t> ready(const Group& group) const;
  void prepare(Group& group, const std::vector<std::size_t>& which);
  void step_unless(Tensor skip);
  ParamState load_param(const StateDict& dict, const std::string& prefix, const Tensor& param,
                        std::size_t& used) const;

  const char* kind_;
  std::vector<Group> groups_;
  std::uint64_t revision_ = 0;
};

}  // namespace lamella::optim
