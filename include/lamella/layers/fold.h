#pragma once

#include "lamella/core/export.h"
#include "lamella/layers/module.h"

namespace lamella {

/// Makes each BatchNorm2d that follows a Conv2d part of it, for evaluation: the convolution's weight takes
/// over the scale, the norm keeps an addition (weight 1, mean 0, variance 1 − eps, the rest in its bias), and
/// in eval mode the two are one convolution with a bias. Results stay the same but for rounding. Returns how
/// many were folded that were not before. What it throws (OutOfMemoryError, as a network may be large, or a
/// GPU's error) leaves the network as it was.
///
/// Pairs are those in ConvNormActivation, in DepthwiseSeparable and next to each other in a Sequential (not
/// in classes derived from these, which may compute otherwise), where the convolution has no bias and the
/// norm is affine with running statistics. Left alone is
///  - what `module` holds in more than one place: a convolution or norm that is used twice, or one whose
///    weight, bias or statistics share their memory with another's. A block held twice counts once: its pair
///    stays together. What modules outside of `module` share is not seen: fold the whole network;
///  - what would not be the same but for rounding: numbers that are not finite, and those that leave the
///    range of a half type.
///
/// Parameters and buffers stay the network's own and get new memory: what else holds the old one, such as a
/// state_dict() taken before, keeps the numbers from before, and load_state_dict() of it undoes the folding.
/// Loading numbers, training or a move to another device or type leaves two operators again, which compute
/// the right thing for whatever numbers are there; calling this again folds them. Loading only a part (with
/// `strict` off) must bring both of a pair: a convolution's own numbers do not go with a folded norm.
///
/// Fold where the network will run, and fold a clone() of one that is still trained or averaged: in training
/// mode the scale that the norm has given away is missing, and an optim::Ema would mix the numbers of before
/// with those of after.
LAMELLA_API int fold_batch_norms(Module& module);

}  // namespace lamella
