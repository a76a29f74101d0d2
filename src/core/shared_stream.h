#pragma once

#include <cstdint>

#include "lamella/core/device.h"

namespace lamella::detail {

/// Work that has a stream to itself, whichever thread queues it.
enum class StreamFor : std::uint8_t {
  Copies,
  Beside,  ///< in a recording: see SideBranch
};

/// The one stream of a GPU for such work, made when it is first asked for. It is never given back: freed
/// memory goes back to the stream it came from, and would lie idle with one that nobody uses any more.
Stream shared_stream(Device device, StreamFor work);

}  // namespace lamella::detail
