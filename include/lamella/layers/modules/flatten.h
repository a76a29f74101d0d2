#pragma once

#include "lamella/layers/module.h"

namespace lamella {

/// Merges axes first … last into one; by default all but the batch.
class LAMELLA_API Flatten : public Module {
 public:
  /// Axes as for Tensor::flatten(); negative ones count from the end.
  explicit Flatten(int first = 1, int last = -1) : Module("Flatten"), first_(first), last_(last) {}
  Tensor forward(const Tensor& x) override;
  std::string settings() const override;

 private:
  int first_;
  int last_;
};

}  // namespace lamella
