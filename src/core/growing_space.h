#pragma once

#include <cstddef>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <utility>

#include "core/allocator.h"

namespace lamella::detail {

/// The smallest multiple of `step` that has `bytes`.
constexpr std::size_t round_up(std::size_t bytes, std::size_t step) {
  return (bytes + step - 1) / step * step;
}

/// A range of a device's addresses that blocks of any size are cut from, and which memory is mapped to chunk
/// by chunk as more is needed: small chunks at first, so that small networks waste little, then larger ones,
/// so that large networks ask the device seldom. What is given back is joined with what is free beside it, so
/// that large blocks can use the room of smaller ones. Holds no device code and no lock.
class GrowingSpace {
 public:
  /// What sizes are rounded up to, and so what all blocks are aligned to.
  static constexpr std::size_t kGranule = 512;

  /// Null if `raw`, which must outlive it, cannot map memory or has no addresses left.
  static std::unique_ptr<GrowingSpace> make(RawMemory& raw);
  /// Unmaps all; no work may be under way there.
  ~GrowingSpace();
  GrowingSpace(const GrowingSpace&) = delete;
  GrowingSpace& operator=(const GrowingSpace&) = delete;

  bool contains(const void* data) const;
  /// Bytes that are mapped, and in how many chunks.
  std::size_t mapped() const { return mapped_; }
  std::size_t chunks() const { return chunks_; }
  /// Whether there are chunks without any block.
  bool has_idle() const;

  /// The smallest free piece of mapped memory that has `bytes`; null if there is none. Here and below `bytes`
  /// is a multiple of kGranule, not 0.
  void* take(std::size_t bytes);
  /// How many bytes must be mapped for a block of `bytes` that take() finds no room for; nothing if the range
  /// is too small.
  std::optional<std::size_t> growth(std::size_t bytes) const;
  /// Maps that much and takes the block. Null, and nothing has changed, if the device refuses.
  void* grow_and_take(std::size_t bytes);
  /// Takes back what take() or grow_and_take() gave.
  void give_back(void* data) noexcept;
  /// Unmaps the chunks without any block, on which no work may be under way.
  void unmap_idle() noexcept;

 private:
  using BySize = std::set<std::pair<std::size_t, std::size_t>>;  // bytes, offset
  enum class State { Used, Free, Unmapped };
  /// Pieces cover the range; neighbours that are both free or both unmapped are joined.
  struct Piece {
    std::size_t bytes = 0;
    State state = State::Unmapped;
    BySize::node_type entry;  // while it is used: giving back must not fail
  };
  using Pieces = std::map<std::size_t, Piece>;  // by offset
  struct Place {
    std::size_t offset = 0, unmapped = 0;
  };

  GrowingSpace(RawMemory& raw, char* base, std::size_t bytes, std::size_t chunk);
  /// Where the chunk begins that covers `offset`, and where the first one does from there on.
  std::size_t chunk_below(std::size_t offset) const;
  std::size_t chunk_from(std::size_t offset) const;
  /// Bytes of the chunk that covers `offset`.
  std::size_t chunk_bytes_at(std::size_t offset) const;
  bool map(std::size_t from, std::size_t to);
  void unmap(std::size_t from, std::size_t to) noexcept;
  std::optional<Place> cheapest_place(std::size_t bytes) const;
  std::size_t unmapped_within(Pieces::const_iterator piece, std::size_t from, std::size_t to) const;
  Pieces::iterator covering(std::size_t offset);
  /// Cuts the piece that covers `offset` in two there, unless it begins there; returns the one that does.
  Pieces::iterator cut_at(std::size_t offset);
  void* use(std::size_t offset, std::size_t bytes);
  void set_free(Pieces::iterator piece, BySize::node_type entry) noexcept;
  Pieces::iterator join_neighbours(Pieces::iterator piece) noexcept;

  RawMemory& raw_;
  char* const base_;
  const std::size_t bytes_, chunk_;
  std::size_t mapped_ = 0, chunks_ = 0;
  Pieces pieces_;
  BySize free_;
};

}  // namespace lamella::detail
