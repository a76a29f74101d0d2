#pragma once

#include "lamella/core/device.h"

namespace lamella::detail::cuda {

/// A GPU that this process uses, for calls that CUDA wants one for whichever it is: another would get a
/// context, hundreds of megabytes, for nothing. This thread's, if it is in use; else the first that is; where
/// none is yet, this thread's.
Device used_device();

}  // namespace lamella::detail::cuda
