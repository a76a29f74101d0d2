#pragma once

namespace lamella::detail::cuda {

/// Whether this thread records launches: see record_launches().
bool is_recording();

}  // namespace lamella::detail::cuda
