#pragma once

#include <cstdint>
#include <vector>

#include "lamella/core/export.h"
#include "lamella/layers/state_dict.h"
#include "lamella/optim/optimizer.h"
#include "lamella/tensor/tensor.h"

namespace lamella::optim {

/// How GradScaler adapts; names and defaults are PyTorch's.
struct GradScalerOptions {
  double init_scale = 65536;            ///< what the first loss is multiplied by, in [2^-126, 2^126]
  double growth_factor = 2;             ///< the scale times this after growth_interval updates; above 1
  double backoff_factor = 0.5;          ///< the scale times this after an overflow; in (0, 1)
  std::int64_t growth_interval = 2000;  ///< updates in a row without an overflow that let it grow; at least 1
};

/// Scales losses so that small gradients survive in float16 (Micikevicius et al., "Mixed Precision Training",
/// 2018, arXiv 1710.03740), and finds the scale by itself, with the rules of PyTorch's GradScaler:
///
///   loss ← scale · loss, before backward
///   g ← g / scale, for every gradient, before the optimizer reads it
///   an update for which any g is infinite or NaN is skipped, and then scale ← backoff_factor · scale
///   after growth_interval updates in a row without one, scale ← growth_factor · scale
///
///     for (const auto& [images, labels] : loader) {
///       Tensor loss;
///       {
///         const Autocast mixed(float16);
///         loss = cross_entropy(net(images), labels);
///       }
///       sgd.zero_grad();
///       scaler.scale(loss).backward();
///       scaler.unscale_(sgd);                         // only where something reads the gradients,
///       optim::clip_grad_norm_(net.parameters(), 1);  // such as this
///       scaler.step(sgd);
///       scaler.update();
///     }
///
/// train::Step does this by itself: see StepOptions::scaler. With several optimizers, call update() once,
/// after the step() of all: each of them skips by its own gradients, and the scale falls if any did.
///
/// Nothing of this waits for a GPU: scale, counters and what was found lie in device memory, where the
/// kernels of the optimizers read whether to leave parameters, state and step counts as they are. So it can
/// be recorded and replayed. The scale is float32 and stays in [2^-126, 2^126]: neither it nor its inverse
/// leaves the normal range. With the default options it is a power of two, which rounds nothing. Only the
/// optimizer is skipped: a schedule or an Ema beside it does not know.
class LAMELLA_API GradScaler {
 public:
  /// Throws Error naming an option that is out of range: see GradScalerOptions.
  explicit GradScaler(const GradScalerOptions& options = {});
  GradScaler(const GradScaler&) = delete;
  GradScaler& operator=(const GradScaler&) = delete;

  /// The loss, of any shape, times the scale, as by mul(); call backward() on it before update(). It should
  /// be float32, as the losses under Autocast are: 65536 is infinite in float16. The scaler moves to the
  /// device of the loss. Throws DTypeError unless that is floating, DeviceError if optimizers were unscaled
  /// on another device since the last update().
  Tensor scale(const Tensor& loss);
  /// Divides the gradients of all parameters of `optimizer` by the scale, in place, and notes whether any is
  /// infinite or NaN. For those who read gradients before step(), which calls it otherwise. Throws Error if
  /// no loss was scaled since the last update(), if it was called for `optimizer` since then, and if there is
  /// no gradient; DTypeError for gradients that are not float32 or float64; DeviceError for gradients that
  /// are not on the device of the loss, with nothing changed.
  void unscale_(Optimizer& optimizer);
  /// Optimizer::step(), which changes nothing where unscale_() found a gradient that is infinite or NaN: then
  /// parameters, state and step counts keep their bits. (State that a first update makes is there, all 0.)
  /// Throws Error if it was called for `optimizer` since the last update(), and otherwise what unscale_() and
  /// Optimizer::step() throw. Waits for a GPU only for an optimizer that does not say reads_skip().
  void step(Optimizer& optimizer);
  /// Adapts the scale after the step() of every optimizer. Throws Error if none was unscaled since the last
  /// update().
  void update();
  /// Forgets that optimizers were unscaled since the last update(), whose gradients are given up: after an
  /// exception, in place of update().
  void abandon();

  /// The scale. Waits for a GPU, as the next two do.
  double scale() const;
  /// Calls of update() without an overflow since the scale was last changed.
  std::int64_t growth_tracker() const;
  /// Calls of update() that found an overflow: with one optimizer, its updates that were skipped.
  std::int64_t skipped() const;

  /// Goes up when the scaler's own tensors are made or move: launches recorded before write to memory that no
  /// longer counts.
  std::uint64_t revision() const { return revision_; }

  /// Copies of what a resumed run needs besides the options: "scale" (float32), "growth_tracker" and
  /// "skipped" (int64).
  StateDict state_dict() const;
  /// Takes over what state_dict() gave, between two updates. Throws Error naming what is missing, left over
  /// or out of range, with nothing changed.
  void load_state_dict(const StateDict& dict);

 private:
  /// An optimizer that was unscaled since the last update(); the i-th has the i-th of found_.
  struct Use {
    const Optimizer* optimizer;
    bool stepped;
  };
  std::size_t find(const Optimizer& optimizer) const;
  void unscale(const char* caller, Optimizer& optimizer);
  void make_room();

  GradScalerOptions options_;
  Tensor scale_;    ///< float32 []
  Tensor tracker_;  ///< int64 []
  Tensor skipped_;  ///< int64 []
  Tensor found_;    ///< int32 [n], 0 between two updates
  std::vector<Use> uses_;
  bool scaled_ = false;     ///< a loss, since the last update()
  bool abandoned_ = false;  ///< found_ may hold what no update() has seen
  std::uint64_t revision_ = 0;
};

}  // namespace lamella::optim
