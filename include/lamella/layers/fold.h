#pragma once

#include "lamella/core/export.h"
#include "lamella/layers/module.h"

namespace lamella {

/// Makes each BatchNorm2d that follows a Conv2d part of it, for evaluation: the convolution's weight takes
/// over the scale, the norm keeps an addition (weight 1, mean 0, variance 1 − eps, the rest in its bias), and
/// in eval mode the two are one convolution with a bias. Results stay the same but for rounding. Pairs are
/// those in ConvNormActivation, in DepthwiseSeparable and next to each other in a Sequential, where the
/// convolution has no bias and the norm is affine with running statistics; a parameter that two of them share
/// is not expected. Returns how many were folded that were not before.
///
/// Fold where the network will run: moved to another device, cloned or loaded afterwards it computes the
/// same, as two operators again. Training goes on from the same function, but not with the same steps.
LAMELLA_API int fold_batch_norms(Module& module);

}  // namespace lamella
