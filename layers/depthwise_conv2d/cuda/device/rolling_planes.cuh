#pragma once

#include "rolling.cuh"

/// Rows that roll through registers (rolling.cuh), of dense planes. Neighbouring columns of a plane are
/// neighbours in memory, so here it is shared memory that neighbouring lanes read in one go, whatever is
/// skipped between columns: they have different planes, which lie so far apart that they begin in different
/// banks. Rows are copied there as they are, word by word, and are not sorted.
///
/// A block has some channels and goes through items as those of phases do (phases.cuh): some images, one
/// residue of rows, one band of targets. The next item's rows are copied while one is computed.
namespace lamella::depthwise {

/// As RollingSource, rows in shared memory, which lie there as kForm says (work.cuh).
template <class T, int kApart, int kWord, int kForm>
struct RollingSharedSource {
  const unsigned char* from;   ///< where the row would begin if it began with its first word
  const unsigned char* zeros;  ///< as many as a thread reads of a row
  int pitch, apart;            ///< bytes from one row, and numbers from one column, to the next
  unsigned exists;             ///< columns
  unsigned place, step;        ///< the row's address in the tensor, and what is between it and the next one's

  __device__ __forceinline__ void skip(int rows) {
    from += rows * pitch;
    if (kForm == kShifted) place += static_cast<unsigned>(rows) * step;
  }
  template <int kWindow>
  __device__ __forceinline__ void load(bool row_exists, unsigned (&bits)[kWindow]) {
    if constexpr (kForm == kPadded)
      load_padded(row_exists, bits);
    else
      load_some_columns<kApart>(first(), apart, row_exists ? exists : 0, bits);
    skip(1);
  }
  template <int kWindow>
  __device__ __forceinline__ void load_existing(bool row_exists, unsigned (&bits)[kWindow]) {
    if constexpr (kForm == kPadded)
      load_padded(row_exists, bits);
    else
      load_existing_columns<kApart>(first(), apart, row_exists ? exists : 0, bits);
    skip(1);
  }

 private:
  __device__ __forceinline__ const T* first() const {
    return reinterpret_cast<const T*>(kForm == kShifted ? from + place % kWord : from);
  }
  template <int kWindow>
  __device__ __forceinline__ void load_padded(bool row_exists, unsigned (&bits)[kWindow]) const {
    const T* const row = reinterpret_cast<const T*>(row_exists ? from : zeros);
    const int step = kApart > 0 ? kApart : apart;
#pragma unroll
    for (int c = 0; c < kWindow; ++c) bits[c] = load_bits(row + c * step);
  }
};

/// An item's planes of sources, or of targets, that a block has in shared memory.
template <class T, int kWord, int kForm, int kThreads>
struct RollingPlanes {
  const PhaseTensor& tensor;
  const PhaseRaw& raw;
  int first_column, every;           ///< of the tensor's
  int first_channel, channels, all;  ///< of an image: the first, those there are, and room for so many
  int plane, row;                    ///< words from one to the next
  int front;                         ///< bytes before the first
  uint4* list;                       ///< of rows
  const unsigned char* zeros;
  int count = 0;

  /// The first number of the block's first channel.
  __device__ __forceinline__ const T* begin(const PhaseItem& at, Int64 first_row) const {
    return static_cast<const T*>(tensor.data) + at.image * tensor.image + first_channel * tensor.channel +
           first_row * tensor.row + first_column * tensor.column;
  }
  /// Lists `rows` rows of each plane, so many of the tensor's apart.
  __device__ __forceinline__ void list_all(const PhaseItem& at, int rows, int step) {
    count = list_rows<T, false, kThreads>(
        tensor, [&](int number) { return number * step; }, at.images, all, channels, rows, plane, row, list);
  }
  /// Begins to copy what is listed; end_copies() and wait_for_copies() end it. Whole words, of which what
  /// lies in front of a row, and behind it, comes along: planes are dense, so there is nothing behind the
  /// tensor's last row alone. of_last: these planes may have it.
  __device__ __forceinline__ void copy(const PhaseItem& at, Int64 first_row, bool of_last,
                                       unsigned char* to) const {
    if (kForm != kShifted || !of_last)
      copy_words<true>(at, first_row, to);
    else
      copy_words<false>(at, first_row, to);
  }
  /// Columns of rows of a plane of image `image` and channel `channel` of the item. step: rows that are there
  /// from one to the next, of which each is `row_step` of the tensor from the one before.
  template <int kApart>
  __device__ __forceinline__ RollingSharedSource<T, kApart, kWord, kForm> source(
      const PhaseItem& at, Int64 first_row, const unsigned char* planes, int image, int channel,
      int row_number, int column, int row_step, int step, int apart, unsigned exists) const {
    RollingSharedSource<T, kApart, kWord, kForm> of{};
    of.from = planes + front + ((image * all + channel) * plane + row_number * row) * 4 +
              column * every * static_cast<int>(sizeof(T));
    of.zeros = zeros, of.pitch = step * row * 4, of.apart = apart * every, of.exists = exists;
    if (kForm == kShifted) {
      // Only the last digits matter.
      const unsigned row_bytes =
          static_cast<unsigned>(tensor.row) * static_cast<unsigned>(row_step) * unsigned{sizeof(T)};
      of.place = static_cast<unsigned>(reinterpret_cast<unsigned long long>(begin(at, first_row))) +
                 (static_cast<unsigned>(image) * static_cast<unsigned>(tensor.image) +
                  static_cast<unsigned>(channel) * static_cast<unsigned>(tensor.channel)) *
                     unsigned{sizeof(T)} +
                 static_cast<unsigned>(row_number) * row_bytes;
      of.step = static_cast<unsigned>(step) * row_bytes;
    }
    return of;
  }

 private:
  template <bool kWhole>
  __device__ __forceinline__ void copy_words(const PhaseItem& at, Int64 first_row,
                                             unsigned char* to_planes) const {
    const int lanes = raw.copy_lanes, thread = static_cast<int>(threadIdx.x), group = thread / lanes,
              lane = thread - group * lanes, groups = kThreads / lanes;
    if (group >= groups) return;
    const char* const first = reinterpret_cast<const char*>(begin(at, first_row));
    for (int word = lane; word < raw.piece_words; word += lanes) {
      const int ahead = word * kWord, left = raw.piece_bytes - ahead;
      const char* const of_word = first + ahead;
      unsigned char* const to = to_planes + front + ahead;
      const uint4* entry = list + group;
#pragma unroll 4
      for (int n = group; n < count; n += groups, entry += groups) {
        const PhaseRow of_row = PhaseRow::of(entry);
        const char* const from = of_word + of_row.from;
        const int before =
            kForm != kShifted ? 0 : static_cast<int>(reinterpret_cast<unsigned long long>(from) % kWord);
        if constexpr (kWhole) {
          copy_ahead<kWord>(to + of_row.to * 4, from - before, true);
        } else if (left + before > 0) {
          copy_ahead_part<kWord>(to + of_row.to * 4, from - before, min(left + before, kWord));
        }
      }
    }
  }
};

/// Sixteen bytes divide the number, and the address.
template <int kThreads>
__device__ __forceinline__ void clear_shared(unsigned char* from, int bytes) {
  uint4* const all = reinterpret_cast<uint4*>(from);
  for (int i = static_cast<int>(threadIdx.x); i < bytes / 16; i += kThreads) all[i] = uint4{};
}

/// Whether an item has rows of the last plane of a tensor.
__device__ __forceinline__ bool has_last_plane(const PhaseWork& work, const PhaseShare& share,
                                               const PhaseItem& at) {
  return at.image + at.images == work.images && share.first_channel + share.channels == work.channels;
}

__device__ __forceinline__ int rolling_units_of_item(const PhaseWork& work) {
  const PhaseCut& cut = work.cut;
  return cut.images * cut.tiles * work.w.classes() * cut.row_groups * work.h.classes();
}

}  // namespace lamella::depthwise
