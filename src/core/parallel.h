#pragma once

#include <cstdint>
#include <memory>
#include <type_traits>

namespace lamella::detail {

using ChunkFn = void (*)(void* context, std::int64_t begin, std::int64_t end);
/// Runs fn over [0, n) in chunks [k * grain, min((k + 1) * grain, n)), on the pool and the caller. The cut
/// depends on n and grain alone, never on the number of threads, so a per-chunk result is the same whoever
/// computed it. Returns when all are done; the exception of the lowest-numbered failing chunk is rethrown. A
/// call from inside a chunk runs its chunks in the caller.
void run_chunks(std::int64_t n, std::int64_t grain, ChunkFn fn, void* context);

/// parallel_for(n, grain, [&](int64_t begin, int64_t end) { … }): see run_chunks().
template <class Body>
void parallel_for(std::int64_t n, std::int64_t grain, Body&& body) {
  using Plain = std::remove_reference_t<Body>;
  const auto call = [](void* context, std::int64_t begin, std::int64_t end) {
    (*static_cast<Plain*>(context))(begin, end);
  };
  run_chunks(n, grain, call, const_cast<void*>(static_cast<const void*>(std::addressof(body))));
}

}  // namespace lamella::detail
