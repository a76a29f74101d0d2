#pragma once

#include <string>

#include "lamella/layers/module.h"
#include "lamella/layers/pool.h"

namespace lamella {

/// max_pool2d() with these options: MaxPool2d({.kernel = 3, .stride = 2, .padding = 1}).
class LAMELLA_API MaxPool2d : public Module {
 public:
  /// Options are checked by forward().
  explicit MaxPool2d(const MaxPool2dOptions& options) : Module("MaxPool2d"), options_(options) {}
  Tensor forward(const Tensor& x) override;
  std::string settings() const override;

 private:
  MaxPool2dOptions options_;
};

/// avg_pool2d() with these options: AvgPool2d({.kernel = 2}).
class LAMELLA_API AvgPool2d : public Module {
 public:
  /// Options are checked by forward().
  explicit AvgPool2d(const AvgPool2dOptions& options) : Module("AvgPool2d"), options_(options) {}
  Tensor forward(const Tensor& x) override;
  std::string settings() const override;

 private:
  AvgPool2dOptions options_;
};

/// adaptive_avg_pool2d() to maps of size `output`; 1: the mean of each channel.
class LAMELLA_API AdaptiveAvgPool2d : public Module {
 public:
  /// The size is checked by forward().
  explicit AdaptiveAvgPool2d(Size2 output) : Module("AdaptiveAvgPool2d"), output_(output) {}
  Tensor forward(const Tensor& x) override;
  std::string settings() const override;

 private:
  Size2 output_;
};

}  // namespace lamella
