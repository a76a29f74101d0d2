#pragma once

#include "lamella/core/device.h"

namespace lamella::detail::cuda {

/// Whether this thread records launches: see record_launches().
bool is_recording();

/// Makes this thread's next early launch on `stream` a plain one (see launch_early()): there the stream has
/// been made to wait for another. A recording has edges in place of that, and those to a kernel that begins
/// early would not be full ones.
void launch_plainly_next(Stream stream);

}  // namespace lamella::detail::cuda
