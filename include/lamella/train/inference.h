#pragma once

#include <cstdint>
#include <memory>
#include <optional>

#include "lamella/core/dtype.h"
#include "lamella/core/export.h"
#include "lamella/layers/module.h"
#include "lamella/tensor/tensor.h"

namespace lamella::train {

/// How an Inference computes.
struct InferenceOptions {
  /// On a GPU: records the launches of a forward pass once and replays them (see Inference).
  bool capture = false;
  /// Computes under Autocast of this type.
  std::optional<DType> autocast = std::nullopt;
};

/// What a network says, without training it: in eval mode, with no gradient recorded.
///
///     fold_batch_norms(net);
///     train::Inference predict(net, {.capture = device.is_cuda()});
///     for (const Tensor& image : images) show(softmax(predict(image), 1));
///
/// The network is used where it is and must outlive this; calls leave it in eval mode.
///
/// With `capture`, the first input runs as always; then the forward pass is recorded, and every input of the
/// same shape, type and format is copied to where the recording reads it and replayed, with the same bits.
/// Other inputs run as always. Numbers of parameters and buffers may change in place meanwhile, as they do in
/// training. What the CPU has decided on the way must not: where a parameter or buffer has moved or has
/// another type or format, fold_batch_norms() was called, numbers of a folded norm have changed (training,
/// load_state_dict()), a module was added, or requires_grad, allow_tf32(), an Autocast around the call or the
/// seed is another, the next input runs as always and the one after that is recorded anew. Tensors that the
/// network holds otherwise than as parameters and buffers must stay where they are. The network must not read
/// values (item()) nor move tensors to another device: recording throws and says so.
class LAMELLA_API Inference {
 public:
  /// Throws DeviceError for `capture` if the network is on the CPU, Error if it has no parameters.
  explicit Inference(Module& network, InferenceOptions options = {});
  ~Inference();
  Inference(const Inference&) = delete;
  Inference& operator=(const Inference&) = delete;

  /// The output for `input`, which is moved to the device of the network's parameters. Throws what the
  /// network throws.
  Tensor operator()(const Tensor& input);

  /// Inputs replayed so far.
  std::int64_t replayed() const { return replayed_; }

 private:
  struct Recorded;
  Tensor run(const Tensor& input);

  Module& network_;
  InferenceOptions options_;
  Tensors rounded_;  ///< parameters that the last pass rounded for an Autocast
  std::int64_t replayed_ = 0;
  std::unique_ptr<Recorded> recorded_;
};

}  // namespace lamella::train
