#include "core/growing_space.h"

#include <algorithm>
#include <functional>
#include <iterator>
#include <new>
#include <vector>

namespace lamella::detail {
namespace {

// Of the device's chunks: how many small ones there are, and how many make a large one.
constexpr std::size_t kSmallOnes = 64, kLargeOne = 8;

}  // namespace

std::unique_ptr<GrowingSpace> GrowingSpace::make(RawMemory& raw) {
  const std::size_t chunk = raw.chunk_bytes();
  if (chunk == 0) return nullptr;
  // Twice the memory: blocks that stay leave addresses around them that are of no use to larger ones.
  const std::size_t bytes = round_up(2 * raw.capacity(), kLargeOne * chunk);
  void* const base = bytes == 0 ? nullptr : raw.reserve(bytes);
  if (base == nullptr) return nullptr;
  return std::unique_ptr<GrowingSpace>(new GrowingSpace(raw, static_cast<char*>(base), bytes, chunk));
}

GrowingSpace::GrowingSpace(RawMemory& raw, char* base, std::size_t bytes, std::size_t chunk)
    : raw_(raw), base_(base), bytes_(bytes), chunk_(chunk) {
  pieces_[0].bytes = bytes;
}

GrowingSpace::~GrowingSpace() {
  std::size_t end = 0;  // a chunk that several pieces share is unmapped once
  for (const auto& [offset, piece] : pieces_) {
    if (piece.state == State::Unmapped) continue;
    const std::size_t from = std::max(end, chunk_below(offset));
    end = chunk_from(offset + piece.bytes);
    unmap(from, end);
  }
  raw_.unreserve(base_, bytes_);
}

bool GrowingSpace::contains(const void* data) const {
  const std::less<const void*> before;
  return !before(data, base_) && before(data, base_ + bytes_);
}

bool GrowingSpace::has_idle() const {
  return std::any_of(free_.begin(), free_.end(), [&](const auto& piece) {
    return chunk_from(piece.second) < chunk_below(piece.second + piece.first);
  });
}

std::size_t GrowingSpace::chunk_bytes_at(std::size_t offset) const {
  return offset < kSmallOnes * chunk_ ? chunk_ : kLargeOne * chunk_;
}

std::size_t GrowingSpace::chunk_below(std::size_t offset) const {
  return offset / chunk_bytes_at(offset) * chunk_bytes_at(offset);
}

std::size_t GrowingSpace::chunk_from(std::size_t offset) const {
  const std::size_t below = chunk_below(offset);
  return below == offset ? offset : below + chunk_bytes_at(offset);
}

bool GrowingSpace::map(std::size_t from, std::size_t to) {
  for (std::size_t at = from; at < to; at += chunk_bytes_at(at)) {
    if (!raw_.map(base_ + at, chunk_bytes_at(at))) {
      unmap(from, at);
      return false;
    }
    mapped_ += chunk_bytes_at(at);
    ++chunks_;
  }
  return true;
}

void GrowingSpace::unmap(std::size_t from, std::size_t to) noexcept {
  for (std::size_t at = from; at < to; at += chunk_bytes_at(at)) {
    raw_.unmap(base_ + at, chunk_bytes_at(at));
    mapped_ -= chunk_bytes_at(at);
    --chunks_;
  }
}

void* GrowingSpace::take(std::size_t bytes) {
  const auto found = free_.lower_bound({bytes, 0});
  return found == free_.end() ? nullptr : use(found->second, bytes);
}

std::optional<std::size_t> GrowingSpace::growth(std::size_t bytes) const {
  const std::optional<Place> place = cheapest_place(bytes);
  return place ? std::optional(place->unmapped) : std::nullopt;
}

void* GrowingSpace::grow_and_take(std::size_t bytes) {
  const std::optional<Place> place = cheapest_place(bytes);
  if (!place) return nullptr;
  struct Gap {
    Pieces::iterator piece;
    BySize::node_type entry;
  };
  std::vector<Gap> gaps;
  const std::size_t end = place->offset + bytes;
  for (std::size_t at = place->offset; at < end;) {
    const auto covers = covering(at);
    const std::size_t covered = covers->first + covers->second.bytes;
    if (covers->second.state == State::Unmapped) {
      // Such pieces begin and end where chunks do.
      const auto piece = cut_at(chunk_below(at));
      cut_at(std::min(chunk_from(end), covered));
      BySize entry{{0, 0}};
      gaps.push_back({piece, entry.extract(entry.begin())});
    }
    at = covered;
  }
  for (std::size_t i = 0; i < gaps.size(); ++i) {
    const auto& [offset, piece] = *gaps[i].piece;
    if (map(offset, offset + piece.bytes)) continue;
    for (std::size_t j = 0; j < i; ++j)
      unmap(gaps[j].piece->first, gaps[j].piece->first + gaps[j].piece->second.bytes);
    for (const Gap& gap : gaps) join_neighbours(gap.piece);
    return nullptr;
  }
  for (Gap& gap : gaps) set_free(gap.piece, std::move(gap.entry));
  return use(place->offset, bytes);
}

void GrowingSpace::give_back(void* data) noexcept {
  const auto piece = pieces_.find(static_cast<std::size_t>(static_cast<char*>(data) - base_));
  set_free(piece, std::move(piece->second.entry));
}

void GrowingSpace::unmap_idle() noexcept {
  for (auto piece = pieces_.begin(); piece != pieces_.end(); ++piece) {
    if (piece->second.state != State::Free) continue;
    const std::size_t from = chunk_from(piece->first), to = chunk_below(piece->first + piece->second.bytes);
    if (from >= to) continue;
    try {
      cut_at(to);
      piece = cut_at(from);
    } catch (const std::bad_alloc&) {
      return;
    }
    unmap(from, to);
    free_.erase({to - from, from});
    piece->second.state = State::Unmapped;
    piece = join_neighbours(piece);
  }
}

std::optional<GrowingSpace::Place> GrowingSpace::cheapest_place(std::size_t bytes) const {
  std::optional<Place> best;
  for (auto first = pieces_.begin(); first != pieces_.end();) {
    if (first->second.state == State::Used) {
      ++first;
      continue;
    }
    auto last = first;
    std::size_t end = first->first;
    for (; last != pieces_.end() && last->second.state != State::Used; ++last) end += last->second.bytes;
    const auto consider = [&](std::size_t offset) {
      const std::size_t unmapped = unmapped_within(first, offset, offset + bytes);
      if (!best || unmapped < best->unmapped) best = {offset, unmapped};
    };
    if (end - first->first >= bytes)
      for (auto piece = first; piece != last; ++piece) {
        const std::size_t piece_end = piece->first + piece->second.bytes;
        if (end - piece->first >= bytes) consider(piece->first);
        // Not at the range's end: what lies there alone can be joined with nothing.
        if (piece_end != bytes_ && piece_end - first->first >= bytes) consider(piece_end - bytes);
      }
    first = last;
  }
  return best;
}

std::size_t GrowingSpace::unmapped_within(Pieces::const_iterator piece, std::size_t from,
                                          std::size_t to) const {
  std::size_t bytes = 0;
  for (; piece != pieces_.end() && piece->first < to; ++piece) {
    const std::size_t end = piece->first + piece->second.bytes;
    if (piece->second.state == State::Unmapped && end > from)
      bytes += chunk_from(std::min(to, end)) - chunk_below(std::max(from, piece->first));
  }
  return bytes;
}

GrowingSpace::Pieces::iterator GrowingSpace::covering(std::size_t offset) {
  return std::prev(pieces_.upper_bound(offset));
}

GrowingSpace::Pieces::iterator GrowingSpace::cut_at(std::size_t offset) {
  if (offset == bytes_) return pieces_.end();
  const auto left = covering(offset);
  if (left->first == offset) return left;
  const std::size_t bytes = left->second.bytes, kept = offset - left->first;
  BySize entry;
  if (left->second.state == State::Free) entry.insert({bytes - kept, offset});
  const auto right =
      pieces_.emplace_hint(std::next(left), offset, Piece{bytes - kept, left->second.state, {}});
  left->second.bytes = kept;
  if (left->second.state == State::Free) {
    auto shorter = free_.extract({bytes, left->first});
    shorter.value().first = kept;
    free_.insert(std::move(shorter));
    free_.merge(entry);
  }
  return right;
}

void* GrowingSpace::use(std::size_t offset, std::size_t bytes) {
  const auto piece = cut_at(offset);
  cut_at(offset + bytes);
  piece->second.entry = free_.extract({bytes, offset});
  piece->second.state = State::Used;
  return base_ + offset;
}

void GrowingSpace::set_free(Pieces::iterator piece, BySize::node_type entry) noexcept {
  const auto forget = [&](const Pieces::value_type& neighbour) {
    if (neighbour.second.state == State::Free) free_.erase({neighbour.second.bytes, neighbour.first});
  };
  if (piece != pieces_.begin()) forget(*std::prev(piece));
  if (std::next(piece) != pieces_.end()) forget(*std::next(piece));
  piece->second.state = State::Free;
  piece = join_neighbours(piece);
  entry.value() = {piece->second.bytes, piece->first};
  free_.insert(std::move(entry));
}

GrowingSpace::Pieces::iterator GrowingSpace::join_neighbours(Pieces::iterator piece) noexcept {
  const auto joins = [&](Pieces::iterator left, Pieces::iterator right) {
    if (left->second.state != right->second.state || left->second.state == State::Used) return false;
    left->second.bytes += right->second.bytes;
    pieces_.erase(right);
    return true;
  };
  if (std::next(piece) != pieces_.end()) joins(piece, std::next(piece));
  if (piece != pieces_.begin()) {
    const auto before = std::prev(piece);
    if (joins(before, piece)) return before;
  }
  return piece;
}

}  // namespace lamella::detail
