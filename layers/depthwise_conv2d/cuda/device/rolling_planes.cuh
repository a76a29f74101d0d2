#pragma once

#include "rolling_correlate.cuh"

/// Rows that roll through registers (rolling.cuh), of dense planes. Neighbouring columns of a plane are
/// neighbours in memory, so here it is shared memory that neighbouring lanes read in one go, whatever is
/// skipped between columns: they have different planes, which lie so far apart that they begin in different
/// banks. Rows are copied there as they are, word by word, and are not sorted.
///
/// A block has some channels and goes through items as those of phases do (phases.cuh): some images, one
/// residue of rows, one band of targets. The next item's rows are copied while one is computed.
namespace lamella::depthwise {

/// Rows in shared memory, which lie there as kForm says (work.cuh).
template <class T, int kApart, int kWord, int kForm>
struct RollingRaw {
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
  __device__ __forceinline__ RollingRaw<T, kApart, kWord, kForm> source(
      const PhaseItem& at, Int64 first_row, const unsigned char* planes, int image, int channel,
      int row_number, int column, int row_step, int step, int apart, unsigned exists) const {
    RollingRaw<T, kApart, kWord, kForm> of{};
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

/// Targets of one class, or strips of them, of an item: neighbours have the next image's, then the next
/// tile's.
struct RollingPlaneUnit {
  int image, tile, class_w, row_group, class_h;
  __device__ __forceinline__ RollingPlaneUnit(const PhaseWork& work, int number) {
    const PhaseCut& cut = work.cut;
    image = take_digit(number, cut.images, cut.by_images);
    tile = take_digit(number, cut.tiles, cut.by_tiles);
    class_w = take_digit(number, work.w.classes(), cut.by_classes_w);
    row_group = take_digit(number, cut.row_groups, cut.by_row_groups);
    class_h = number;
  }
};
__device__ __forceinline__ int rolling_units_of_item(const PhaseWork& work) {
  const PhaseCut& cut = work.cut;
  return cut.images * cut.tiles * work.w.classes() * cut.row_groups * work.h.classes();
}

/// Lists the groups of taps of all residues and classes of rows, then those of columns.
template <int kThreads>
__device__ __forceinline__ void list_rolling_groups(const PhaseWork& work, PhaseAxis::Group* of_rows,
                                                    PhaseAxis::Group* of_columns) {
  const PhaseAxis &h = work.h, &w = work.w;
  const int groups_h = h.groups(), groups_w = w.groups(), of_residue = h.classes() * groups_h;
  for (int i = static_cast<int>(threadIdx.x); i < work.residues * of_residue; i += kThreads) {
    PhaseAxis rows = h;
    rows.padding = work.rows[i / of_residue].padding;
    of_rows[i] = rows.group(i % of_residue / groups_h, i % groups_h);
  }
  for (int i = static_cast<int>(threadIdx.x); i < w.classes() * groups_w; i += kThreads)
    of_columns[i] = w.group(i / groups_w, i % groups_w);
}

/// kRepeat: output channels of one of x. kScatters: the input's gradient. kWord: bytes of sources that
/// are copied at once; kForm: how they lie. kStore: targets that are stored together.
/// kApart: numbers of a source from one column of a window to the next, or 0, if they are not known. Channels
/// of the work are those of targets.
template <class T, class Tile, int kRepeat, bool kScatters, int kWord, int kForm, int kStore, int kApart,
          int kThreads, int kBlocks>
__global__ void __launch_bounds__(kThreads, kBlocks) correlate_rolling_planes(const PhaseWork work) {
  constexpr int kRows = Tile::kRows, kColumns = Tile::kColumns;
  constexpr int kSources = phase_channels(kScatters, kRepeat), kTargets = phase_channels(!kScatters, kRepeat);
  extern __shared__ uint4 shared[];
  const PhaseAxis &h = work.h, &w = work.w;
  const PhaseCut& cut = work.cut;
  const PhaseShare share(work);
  const int classes_h = h.classes(), classes_w = w.classes(), groups_h = h.groups(), groups_w = w.groups();
  PhaseAxis::Group* const groups_of_rows = reinterpret_cast<PhaseAxis::Group*>(shared);
  PhaseAxis::Group* const groups_of_columns = groups_of_rows + work.residues * classes_h * groups_h;
  const int quads = w.sets() * Tile::kQuads * cut.channels;  // of a row of taps
  uint4* const taps = shared + work.residues * classes_h * groups_h + classes_w * groups_w;
  uint4* const source_list = taps + kSources * h.kernel * quads;
  uint4* const target_list = source_list + cut.source_list;
  unsigned char* const zeros = reinterpret_cast<unsigned char*>(target_list + cut.target_list);
  unsigned char* const raw = zeros + cut.zero_bytes;
  T* const targets = reinterpret_cast<T*>(raw + cut.buffers * cut.source_bytes);
  const int thread = static_cast<int>(threadIdx.x);
  // Numbers of the tensor between targets stay zero.
  if (kScatters && h.target_every * w.target_every > 1)
    for (int i = thread; i < cut.images * cut.channels * cut.target_plane; i += kThreads)
      targets[i] = narrow<T>(0.0f);
  if (kForm == kPadded) clear_shared<kThreads>(zeros, cut.zero_bytes + cut.buffers * cut.source_bytes);
  list_rolling_groups<kThreads>(work, groups_of_rows, groups_of_columns);
  RollingPlanes<T, kWord, kForm, kThreads> sources{work.source,
                                                   cut.source_raw,
                                                   w.source_first,
                                                   w.source_every,
                                                   share.first_channel * kSources / kTargets,
                                                   share.channels * kSources / kTargets,
                                                   cut.channels * kSources / kTargets,
                                                   cut.plane,
                                                   cut.row,
                                                   cut.source_front,
                                                   source_list,
                                                   zeros};
  const auto begin_copies = [&](int item, unsigned char* to) {
    if (item >= share.last) return;
    const PhaseItem at(work, item);
    sources.list_all(at, at.high - at.low, at.source_step);
    __syncthreads();
    sources.copy(at, at.source_row, has_last_plane(work, share, at), to);
    end_copies();
  };
  wait_for_stream();
  begin_copies(share.first, raw);
  make_rolling_taps<T, Tile, kSources, kThreads>(work, share, taps);

  const int units = rolling_units_of_item(work) * cut.channels;
  int buffer = 0;
#pragma unroll 1
  for (int item = share.first; item < share.last; ++item) {
    const PhaseItem at(work, item);
    const unsigned char* const planes = raw + buffer * cut.source_bytes;
    wait_for_copies<0>();
    __syncthreads();
    if (cut.buffers > 1) {
      buffer ^= 1;
      begin_copies(item + 1, raw + buffer * cut.source_bytes);
    }
    const auto place_of = [&](int row) {
      const int every = at.h.target_every,
                target = every == 1 ? row : min(row / every, at.end - at.begin - 1);
      return row + target * (at.target_step - every);
    };
    const int target_rows =
        list_rows<T, false, kThreads>(work.target, place_of, at.images, cut.channels, share.channels,
                                      at.target_rows, cut.target_plane, work.target_w, target_list);
#pragma unroll 1
    for (int n = thread; n < units; n += kThreads) {
      int number = n;
      const int channel = take_digit(number, cut.channels, cut.by_channels);
      const RollingPlaneUnit of(work, number);
      // The first row of the unit, of its class.
      const int top =
          static_cast<int>(cut.by_classes_h.divide(static_cast<unsigned>(at.begin))) + of.row_group * kRows;
      const int rows_left = at.end - of.class_h - top * classes_h;  // of all classes
      const int left = of.tile * kColumns, columns = w.targets_of(of.class_w) - left;
      if (channel >= share.channels || of.image >= at.images || rows_left <= 0 || columns <= 0) continue;

      RollingSums<T, Tile> result;
      result.fill(kScatters ? 0.0f : load_bias<T>(work.taps, share.first_channel + channel));
#pragma unroll 1
      for (int group_w = 0; group_w < groups_w; ++group_w) {
        const PhaseAxis::Group by_w = groups_of_columns[of.class_w * groups_w + group_w];
        if (by_w.taps == 0) continue;
        const int column = by_w.first + left * w.step();
        const unsigned exists = existing_columns(column, w.step(), cut.by_step_w, w.sources, Tile::kWindow);
        if (exists == 0) continue;
        const int set = w.scatters ? by_w.tap % w.stride : by_w.tap;
#pragma unroll 1
        for (int group_h = 0; group_h < groups_h; ++group_h) {
          const PhaseAxis::Group by_h =
              groups_of_rows[(at.residue * classes_h + of.class_h) * groups_h + group_h];
          const int row = by_h.first + top * h.step() - at.low;
          const RollingRows rows(row, h.step(), cut.by_step_h, at.high - at.low);
#pragma unroll 1
          for (int source = 0; source < kSources; ++source)
            result.add(
                sources.template source<kApart>(at, at.source_row, planes, of.image,
                                                channel * kSources / kTargets + source, row, column,
                                                at.source_step, h.step(), w.step(), exists),
                rows,
                taps + (source * h.kernel + by_h.tap) * quads + set * Tile::kQuads * cut.channels + channel,
                by_h.tap_step * quads, cut.channels, by_h.taps, by_w.taps == Tile::kTaps);
        }
      }
      const int row = h.target_first + (of.class_h + top * classes_h - at.begin) * h.target_every;
      const int column = w.target_first + (of.class_w + left * classes_w) * w.target_every;
      const int next_row = classes_h * h.target_every * work.target_w, next = classes_w * w.target_every;
      T* to = targets + (of.image * cut.channels + channel) * cut.target_plane + row * work.target_w + column;
#pragma unroll
      for (int r = 0; r < kRows; ++r, to += next_row) {
        if (r * classes_h >= rows_left) break;
#pragma unroll
        for (int c = 0; c < kColumns; ++c) {
          if (c >= columns) break;
          to[c * next] = narrow<T>(result.sums[r][c]);
        }
      }
    }
    __syncthreads();
    if (cut.buffers == 1) begin_copies(item + 1, raw);
    store_targets<T, false, kStore, kThreads>(work, share, at, 1, target_list, target_rows, targets);
  }
}

}  // namespace lamella::depthwise
