#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "lamella/core/error.h"
#include "lamella/core/export.h"
#include "lamella/layers/module.h"
#include "lamella/optim/optimizer.h"
#include "lamella/tensor/tensor.h"

namespace lamella::optim {
class Ema;
class GradScaler;
class LrScheduler;
}  // namespace lamella::optim

/// What training loops have in common: the step, metrics, progress.
namespace lamella::train {

/// A loss, parameter or buffer that is NaN or infinite.
class LAMELLA_API NonFiniteError : public Error {
 public:
  using Error::Error;
};

/// The first parameter or buffer of `module` that holds a NaN or an infinity; "" if there is none. Reads
/// every number.
LAMELLA_API std::string first_non_finite(const Module& module);

/// Throws NonFiniteError if `loss`, a single number, is NaN or infinite. The message names `step` and the
/// first parameter or buffer of `module` that is not finite either; where all of them are, it says so, and
/// whether `input` (which may be undefined) is finite. Waits for a GPU.
LAMELLA_API void check_finite(const Tensor& loss, std::int64_t step, const Module& module,
                              const Tensor& input = Tensor());

/// What a Step does besides forward, backward and update.
struct StepOptions {
  /// Scalar loss of the network's output and the targets; by default cross_entropy() as it is.
  std::function<Tensor(const Tensor& output, const Tensor& target)> loss = nullptr;
  double clip_grad_norm = 0;                ///< largest norm of all gradients together; 0: not clipped
  int accumulate = 1;                       ///< batches whose mean gradient makes one update
  std::int64_t check_every = 1;             ///< batches between calls of check_finite(); 0: never
  optim::LrScheduler* scheduler = nullptr;  ///< advanced after each update
  optim::Ema* ema = nullptr;                ///< updated after each update
  /// On a GPU: records the launches of a step once and replays them, which costs the CPU next to nothing (see
  /// Step).
  bool capture = false;
  /// Computes forward and loss under Autocast of this type. With Float16, give a scaler too: small gradients
  /// vanish otherwise.
  std::optional<DType> autocast = std::nullopt;
  /// Scales the loss before backward and unscales the gradients once an update, before they are clipped; an
  /// update with a gradient that is infinite or NaN is skipped on the device. What the step returns and
  /// checks is the loss as it was. scheduler, ema and running statistics go on after a skipped update, as in
  /// PyTorch's usual loop: only the optimizer stays where it was.
  optim::GradScaler* scaler = nullptr;
};

/// One training step of a network: forward, loss, backward and, after every `accumulate` batches, an update.
///
///     train::Step step(net, sgd, {.scheduler = &schedule});
///     for (const auto& [images, labels] : loader) meter.add(step(images, labels).loss.item());
///
/// Network, optimizer, scheduler, Ema and scaler are used where they are: they must outlive the step. Each
/// call begins a new step of the random sequence (next_random_step()).
///
/// With `capture`, the first two updates run as always; then forward, loss, backward and update are recorded,
/// and every batch of the same shapes and types is copied to where the recording reads it and replayed, with
/// the bits of a step that is not. Learning rate and random numbers go on. What the CPU decides on the way (a
/// hook, an `if` on a layer's setting) is decided once, when recording. Network, loss and hooks must not read
/// values (item()) nor move tensors to another device: recording throws and says so. Batches of other
/// shapes, such as a short last one, run as always. train() and eval() of any module, requires_grad of a
/// parameter, tensors that have moved (the Ema's, too) or have another type or format, fold_batch_norms() and
/// changed numbers of a folded norm, allow_tf32(), an Autocast around the call and another seed make the next
/// batches run as always, and then record anew. check_finite() comes after the update here.
class LAMELLA_API Step {
 public:
  /// What came of a batch.
  struct Result {
    Tensor loss;    ///< a single number, detached
    Tensor output;  ///< of the network, detached
  };

  /// Throws Error for an option out of range and for a network without parameters.
  Step(Module& network, optim::Optimizer& optimizer, StepOptions options = {});
  ~Step();
  Step(const Step&) = delete;
  Step& operator=(const Step&) = delete;

  /// Runs a batch; both tensors are moved to the device of the network's parameters. Throws NonFiniteError
  /// when check_finite() finds one, ShapeError if the loss is not a single number, and whatever network and
  /// loss throw; by then only the random step and running statistics have moved on, and nothing of the update
  /// has been done. With `capture`, NonFiniteError comes after the update; DeviceError is thrown on the CPU
  /// and for a step that reads values or moves tensors, Error for one that moves the random sequence on.
  Result operator()(const Tensor& input, const Tensor& target);

  /// Batches run so far.
  std::int64_t count() const { return count_; }
  /// Batches replayed so far: see StepOptions::capture.
  std::int64_t replayed() const { return replayed_; }

 private:
  struct Recorded;
  Result run(const Tensor& input, const Tensor& target);
  Result replay(const Tensor& input, const Tensor& target);
  void backward(const Tensor& loss);
  void update();
  Tensors state() const;
  std::uint64_t revision() const;
  bool updates_now() const { return accumulated_ + 1 == options_.accumulate; }
  void finish(const Result& result, const Tensor& input);

  Module& network_;
  optim::Optimizer& optimizer_;
  StepOptions options_;
  Tensors parameters_;
  Tensors rounded_;  ///< those that the last forward pass rounded for an Autocast
  std::int64_t count_ = 0;
  std::int64_t replayed_ = 0;
  int accumulated_ = 0;
  int run_as_always_ = 0;  ///< batches since something changed that a recording depends on
  std::unique_ptr<Recorded> recorded_;
};

}  // namespace lamella::train
