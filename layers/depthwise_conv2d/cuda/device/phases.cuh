#pragma once

#include "vector.cuh"

/// Planes sorted by phase: the columns of one residue modulo PhaseAxis::step() (not a phase of a barrier). In
/// shared memory a row's phases lie one behind the other, with zeros for columns outside the tensor, so that
/// neighbouring targets of a class, which have the same taps, read neighbours: a dense correlation of stride
/// 1, whatever stride and dilation were (PhaseAxis, work.cuh). Numbers are kept as float32
/// (phases_correlate.cuh, phases_weigh.cuh), or as they are, for the matrix units (phases_multiply.cuh).
///
/// A block has some channels and goes through items: some images, one residue of rows (PhaseResidue), one
/// band of targets. For each it waits for the rows, which were copied as they are; sorts them into planes;
/// begins to copy the next item's; computes; and stores the targets, which lie in shared memory in the order
/// of the tensor. weigh_phases sorts the targets, too, and keeps its sums to the end.
namespace lamella::depthwise {

/// A block's share: channels, and items.
struct PhaseShare {
  int first_channel, channels;  ///< of x
  int first, last;

  __device__ __forceinline__ explicit PhaseShare(const PhaseWork& work) {
    const int block = static_cast<int>(blockIdx.x), part = block / work.cut.channel_blocks;
    first_channel = (block - part * work.cut.channel_blocks) * work.cut.channels;
    channels = min(work.cut.channels, work.channels - first_channel);
    first = part * work.items_per_part;
    last = min(first + work.items_per_part, work.items);
  }
};

/// Images, targets and sources of an item.
struct PhaseItem {
  PhaseAxis h;  ///< rows
  int image, images;
  int residue;                   ///< of its rows
  int begin, end;                ///< targets
  int low, high;                 ///< sources that they have
  Int64 source_row, target_row;  ///< where these begin in the tensors
  int target_rows;               ///< of the tensor, with those between targets, and behind the last
  int source_step, target_step;  ///< rows of the tensors from one to the next

  __device__ __forceinline__ PhaseItem(const PhaseWork& work, int item) : h(work.h) {
    const int band_of = static_cast<int>(work.cut.by_bands.divide(static_cast<unsigned>(item)));
    const int group = static_cast<int>(work.cut.by_residues.divide(static_cast<unsigned>(band_of)));
    residue = band_of - group * work.residues;
    const PhaseResidue& of = work.rows[residue];
    h.padding = of.padding, h.sources = of.sources, h.targets = of.targets;
    image = group * work.cut.images;
    images = min(work.cut.images, work.images - image);
    begin = min((item - band_of * work.cut.bands) * work.cut.band, h.targets);
    end = min(begin + work.cut.band, h.targets);
    low = h.source_begin(begin), high = begin < end ? max(h.source_end(end), low) : low;
    source_step = h.source_every * work.residues, target_step = h.target_every * work.residues;
    source_row = of.source_first + static_cast<Int64>(low) * source_step;
    target_row = of.target_first + static_cast<Int64>(begin) * target_step;
    target_rows = (end - begin) * h.target_every;
    if (begin < end && residue + (end - 1) * work.residues == work.all_targets - 1)
      target_rows += work.target_h - work.all_targets * h.target_every;
  }
};

/// A row of an item's planes.
struct PhaseRow {
  Int64 from;  ///< in the tensor: bytes from the item's first row on
  int to;      ///< in shared memory: numbers from the first plane on

  /// As it is kept in a list: in one piece.
  __device__ __forceinline__ void keep(uint4* at) const {
    const unsigned words[4]{static_cast<unsigned>(from), static_cast<unsigned>(from >> 32),
                            static_cast<unsigned>(to), 0};
    store_shared(shared_address(at), words);
  }
  __device__ __forceinline__ static PhaseRow of(const uint4* at) {
    const uint4 words = *at;
    return {static_cast<Int64>(static_cast<unsigned long long>(words.y) << 32 | words.x),
            static_cast<int>(words.z)};
  }
};

/// Lists the rows of an item's planes for all threads, and returns how many there are: of each image `rows`
/// of each of `channels` planes, or, where channels are neighbours (kLast), of all planes together. In shared
/// memory an image has `all` planes. place_of(row): where it is in the tensor, in rows from the first on.
template <class T, bool kLast, int kThreads, class PlaceOf>
__device__ __forceinline__ int list_rows(const PhaseTensor& tensor, const PlaceOf& place_of, int images,
                                         int all, int channels, int rows, int plane_pitch, int row_pitch,
                                         uint4* list) {
  const int of_image = kLast ? rows : channels * rows, count = images * of_image;
  for (int i = static_cast<int>(threadIdx.x); i < count; i += kThreads) {
    const int image = i / of_image, rest = i - image * of_image, channel = kLast ? 0 : rest / rows,
              row = rest - channel * rows;
    const PhaseRow entry{
        (image * tensor.image + channel * tensor.channel + static_cast<Int64>(place_of(row)) * tensor.row) *
            static_cast<int>(sizeof(T)),
        (image * all + channel) * plane_pitch + row * row_pitch};
    entry.keep(list + i);
  }
  return count;
}
template <class T>
__device__ __forceinline__ const T* at_bytes(const T* from, Int64 bytes) {
  return reinterpret_cast<const T*>(reinterpret_cast<const char*>(from) + bytes);
}

/// Planes that are copied and sorted, and how their columns lie in shared memory: see PhaseCut.
template <bool kHasBases>
struct PhasePlanes {
  const PhaseTensor& tensor;
  const PhaseRaw& raw;
  int first_w, every_w;      ///< which of the tensor's columns
  int columns, step;         ///< residues modulo `step`
  const int* bases;          ///< kHasBases; else all begin with their first
  int phase, plane, repeat;  ///< repeat: channels of the planes for one of x

  /// Where a column lies in a row; negative: nowhere.
  __device__ __forceinline__ int place(int column) const {
    const int index = column / step, residue = column - index * step;
    const int at = kHasBases ? index - bases[residue] : index;
    return at >= 0 && at < phase ? residue * phase + at : -1;
  }
  /// Where a block's channels begin in this row of an item's planes.
  template <class T>
  __device__ __forceinline__ const char* begin(const PhaseShare& share, const PhaseItem& at,
                                               Int64 row) const {
    return reinterpret_cast<const char*>(static_cast<const T*>(tensor.data) + at.image * tensor.image +
                                         static_cast<Int64>(share.first_channel) * repeat * tensor.channel +
                                         row * tensor.row + first_w * tensor.column);
  }
  /// Bytes of the tensor from one column to the next.
  template <class T>
  __device__ __forceinline__ Int64 column_step() const {
    return every_w * tensor.column * static_cast<int>(sizeof(T));
  }
};
/// An item's sources, sorted as the groups of taps want them.
__device__ __forceinline__ PhasePlanes<true> sources_of(const PhaseWork& work, int repeat) {
  const PhaseCut& cut = work.cut;
  return {work.source,   cut.source_raw, work.w.source_first, work.w.source_every, work.w.sources,
          work.w.step(), cut.bases,      cut.phase,           cut.plane,           repeat};
}
/// An item's targets, for the weight's gradient, sorted by class.
__device__ __forceinline__ PhasePlanes<false> gradients_of(const PhaseWork& work, int repeat) {
  const PhaseCut& cut = work.cut;
  return {work.target,      cut.target_raw, work.w.target_first, work.w.target_every, work.w.targets,
          work.w.classes(), nullptr,        cut.target_phase,    cut.target_plane,    repeat};
}

/// Begins to copy planes of an item whose `count` rows, from `first_row` on, are listed; end_copies() and
/// wait_for_copies() end it. Words of kWord bytes: of those around a piece's ends no more is read than lies
/// in front of it in the same word. kAligned: pieces begin with a word.
template <class T, int kWord, bool kAligned, int kThreads, bool kHasBases>
__device__ __forceinline__ void copy_planes(const PhasePlanes<kHasBases>& of, const PhaseShare& share,
                                            const PhaseItem& at, Int64 first_row, const uint4* list,
                                            int count, unsigned char* raw) {
  const PhaseRaw& form = of.raw;
  const int lanes = form.copy_lanes, thread = static_cast<int>(threadIdx.x), group = thread / lanes,
            lane = thread - group * lanes, groups = kThreads / lanes;
  if (group >= groups) return;
  const char* const begin = of.template begin<T>(share, at, first_row);
  const int row_words = form.pieces * form.piece_words;
  const Int64 column_step = of.template column_step<T>();
  const int bytes =
      form.by_columns ? share.channels * of.repeat * static_cast<int>(sizeof(T)) : form.piece_bytes;
  for (int word = lane; word < row_words; word += lanes) {
    const int piece = word / form.piece_words, ahead = (word - piece * form.piece_words) * kWord;
    const char* const of_word = begin + piece * column_step + ahead;
    unsigned char* to = raw + (group * row_words + word) * kWord;
    const int left = bytes - ahead, next = groups * row_words * kWord;
    if (kAligned && left <= 0) continue;
    const uint4* entry = list + group;
#pragma unroll 4
    for (int row = group; row < count; row += groups, entry += groups, to += next) {
      const char* const from = of_word + PhaseRow::of(entry).from;
      if constexpr (kAligned) {
        copy_ahead_part<kWord>(to, from, min(left, kWord));
      } else {
        const int before = static_cast<int>(reinterpret_cast<unsigned long long>(from) % kWord);
        if (left + before > 0) copy_ahead_part<kWord>(to, from - before, min(left + before, kWord));
      }
    }
  }
}

/// A number as float32, or as it is.
template <class Kept, class T>
__device__ __forceinline__ Kept keep_as(T number) {
  if constexpr (sizeof(Kept) == sizeof(T))
    return number;
  else
    return widen(number);
}

/// Sorts planes that copy_planes() has brought, and keeps their numbers as float32 or as they are.
template <class T, bool kLast, int kWord, bool kAligned, int kThreads, bool kHasBases, class Kept>
__device__ __forceinline__ void sort_planes(const PhasePlanes<kHasBases>& of, const PhaseShare& share,
                                            const PhaseItem& at, Int64 first_row, const uint4* list,
                                            int count, const unsigned char* raw, Kept* planes) {
  constexpr int kTogether = 4, kRows = 2;
  const PhaseRaw& form = of.raw;
  const int lanes = form.sort_lanes, thread = static_cast<int>(threadIdx.x), group = thread / lanes,
            lane = thread - group * lanes, groups = kThreads / lanes;
  if (group >= groups) return;
  const int channels = share.channels * of.repeat, run = kLast ? of.columns * channels : of.columns;
  const int row_bytes = form.pieces * form.piece_words * kWord;
  // Where numbers begin within a word differs between rows, and between pieces.
  const unsigned begin =
      static_cast<unsigned>(reinterpret_cast<unsigned long long>(of.template begin<T>(share, at, first_row)));
  const unsigned column_step = form.by_columns ? static_cast<unsigned>(of.template column_step<T>()) : 0;
  for (int first = lane; first < run; first += lanes * kTogether) {
    Kept* places[kTogether];
    const unsigned char* numbers_at[kTogether];
    unsigned begins[kTogether];
    bool kept[kTogether];
#pragma unroll
    for (int n = 0; n < kTogether; ++n) {
      const int number = min(first + n * lanes, run - 1);  // the last stands in for those behind it
      const int column = kLast ? number / channels : number, channel = kLast ? number - column * channels : 0;
      const int place = of.place(column);
      kept[n] = place >= 0 && first + n * lanes < run;
      places[n] = planes + (kept[n] ? place + channel * of.plane : 0);
      numbers_at[n] =
          raw + group * row_bytes + column * form.column_bytes + channel * static_cast<int>(sizeof(T));
      begins[n] = begin + static_cast<unsigned>(column) * column_step;
    }
    const uint4* entry = list + group;
    int offset = 0;  // of the row
#pragma unroll 1
    for (int row = group; row < count; row += groups * kRows) {
      // All are loaded before any is stored.
      T numbers[kRows][kTogether];
      int to[kRows];
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
        if (r > 0 && row + r * groups >= count) break;
        const PhaseRow of_row = PhaseRow::of(entry + r * groups);
        to[r] = of_row.to;
#pragma unroll
        for (int n = 0; n < kTogether; ++n) {
          const unsigned of_piece = kLast ? begins[n] : begin;  // else a row is one piece
          const int before =
              kAligned ? 0 : static_cast<int>((of_piece + static_cast<unsigned>(of_row.from)) % kWord);
          numbers[r][n] =
              *reinterpret_cast<const T*>(numbers_at[n] + (offset + r * groups * row_bytes + before));
        }
      }
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
        if (r > 0 && row + r * groups >= count) break;
#pragma unroll
        for (int n = 0; n < kTogether; ++n)
          if (kept[n]) places[n][to[r]] = keep_as<Kept>(numbers[r][n]);
      }
      entry += kRows * groups, offset += kRows * groups * row_bytes;
    }
  }
}

/// What a block reads, item by item: sources, or, for the weight's gradient, targets. That of the next item
/// is copied while one is computed. Calls are by all threads; between them and what others do to the same
/// memory the caller synchronizes.
template <class T, bool kAreSources, bool kLast, int kWord, bool kAligned, int kThreads>
struct PhaseStream {
  const PhaseWork& work;
  const PhaseShare& share;
  const PhasePlanes<kAreSources> planes;
  uint4* const rows;
  unsigned char* const raw;
  int count = 0;  ///< of rows

  __device__ __forceinline__ void list(const PhaseItem& at) {
    const int step = kAreSources ? at.source_step : at.target_step;
    count = list_rows<T, kLast, kThreads>(
        planes.tensor, [&](int row) { return row * step; }, at.images, work.cut.channels * planes.repeat,
        share.channels * planes.repeat, kAreSources ? at.high - at.low : at.end - at.begin, planes.plane,
        kAreSources ? work.cut.row : work.cut.target_row, rows);
  }
  /// To be followed by end_copies(), and wait_for_copies() before sort().
  __device__ __forceinline__ void copy(const PhaseItem& at) const {
    copy_planes<T, kWord, kAligned, kThreads>(planes, share, at, first_row(at), rows, count, raw);
  }
  template <class Kept>
  __device__ __forceinline__ void sort(const PhaseItem& at, Kept* to) const {
    sort_planes<T, kLast, kWord, kAligned, kThreads>(planes, share, at, first_row(at), rows, count, raw, to);
  }

 private:
  __device__ __forceinline__ static Int64 first_row(const PhaseItem& at) {
    return kAreSources ? at.source_row : at.target_row;
  }
};

/// Lists the rows of the tensor that an item's targets are in: with those between them, and behind the last.
template <class T, bool kLast, int kThreads>
__device__ __forceinline__ int list_targets(const PhaseWork& work, const PhaseShare& share,
                                            const PhaseItem& at, int repeat, uint4* list) {
  const int all = work.cut.channels * repeat, every = at.h.target_every, last = at.end - at.begin - 1;
  const auto place_of = [&](int row) {
    const int target = every == 1 ? row : min(row / every, last);
    return row + target * (at.target_step - every);
  };
  return list_rows<T, kLast, kThreads>(work.target, place_of, at.images, all, share.channels * repeat,
                                       at.target_rows, work.cut.target_rows * work.target_w,
                                       (kLast ? all : 1) * work.target_w, list);
}

/// Stores an item's targets, whose rows are listed. They lie in shared memory in the order of the tensor:
/// rows of columns of channels (kLast), or planes of rows of columns. kVector numbers at once; what is added
/// to one by one.
template <class T, bool kLast, int kVector, int kThreads>
__device__ __forceinline__ void store_targets(const PhaseWork& work, const PhaseShare& share,
                                              const PhaseItem& at, int repeat, const uint4* list, int count,
                                              const T* targets) {
  const PhaseCut& cut = work.cut;
  const int all = cut.channels * repeat, channels = share.channels * repeat;
  const int thread = static_cast<int>(threadIdx.x), lane = thread % cut.store_lanes,
            group = thread / cut.store_lanes, groups = kThreads / cut.store_lanes;
  if (group >= groups) return;  // threads that do not suffice for a row
  const int run = kLast ? work.target_w * channels : work.target_w;
  T* const to = static_cast<T*>(work.target.data) + at.image * work.target.image +
                share.first_channel * repeat * work.target.channel + at.target_row * work.target.row;
  for (int first = lane * kVector; first < run; first += cut.store_lanes * kVector) {
    const int column = kLast ? first / channels : first, channel = kLast ? first - column * channels : 0;
    const T* const of_column = to + channel * work.target.channel + column * work.target.column;
    const T* const of_targets = targets + (kLast ? column * all + channel : column);
#pragma unroll 4
    for (int row = group; row < count; row += groups) {
      const PhaseRow entry = PhaseRow::of(list + row);
      T* const at_row = const_cast<T*>(at_bytes(of_column, entry.from));
      const T* const from = of_targets + entry.to;
      if (work.accumulate) {
#pragma unroll
        for (int v = 0; v < kVector; ++v) at_row[v] = narrow<T>(widen(at_row[v]) + widen(from[v]));
      } else if constexpr (kVector * sizeof(T) < 4) {
        *at_row = *from;
      } else {
        store_words(at_row, load_words<kVector* static_cast<int>(sizeof(T))>(from));
      }
    }
  }
}

/// Tap `number` of a set of columns, in the order in which their sources lie; zero behind the last.
template <class T>
__device__ __forceinline__ float load_phase_tap(const PhaseWork& work, int channel, int row, int set,
                                                int number) {
  const PhaseAxis &h = work.h, &w = work.w;
  const int count = w.taps_of_set(set), all = h.kernel * w.kernel;
  if (number < 0 || number >= count) return 0;
  const int at = row * w.kernel + set + (w.scatters ? count - 1 - number : number) * w.stride;
  return load_parameter<T>(work.taps.taps, work.taps.taps_are_float32,
                           static_cast<Int64>(channel) * all + (work.taps.turned ? all - 1 - at : at));
}

/// A group of taps of a class, as threads want it: places of taps are counted from their channel's on.
struct alignas(16) PhaseGroupOfRows {
  int first;  ///< row of the class's first target, and first tap
  int tap, tap_pitch, taps;
};
struct alignas(16) PhaseGroupOfColumns {
  int first;  ///< where the columns of tile 0 begin in a row
  int lead;   ///< so many of them come before the class's first target
  int tap, taps;
};

/// Lists the groups of all residues and classes, rows first. A set's row of taps has `pitch` words.
template <int kThreads>
__device__ __forceinline__ void list_groups(const PhaseWork& work, int pitch, PhaseGroupOfRows* of_rows,
                                            PhaseGroupOfColumns* of_columns) {
  const PhaseAxis &h = work.h, &w = work.w;
  const int groups_h = h.groups(), groups_w = w.groups(), of_row = w.sets() * pitch;
  const int of_residue = h.classes() * groups_h;
  for (int i = static_cast<int>(threadIdx.x); i < work.residues * of_residue; i += kThreads) {
    PhaseAxis rows = h;
    rows.padding = work.rows[i / of_residue].padding;
    const PhaseAxis::Group group = rows.group(i % of_residue / groups_h, i % groups_h);
    of_rows[i] = {group.first, group.tap * of_row, group.tap_step * of_row, group.taps};
  }
  for (int i = static_cast<int>(threadIdx.x); i < w.classes() * groups_w; i += kThreads) {
    const PhaseAxis::Group group = w.group(i / groups_w, i % groups_w);
    const int index = Axis::floor(group.first, w.step()), residue = group.first - index * w.step();
    const int set = w.scatters ? group.tap % w.stride : group.tap;
    PhaseGroupOfColumns& to = of_columns[i];
    to.first = residue * work.cut.phase;
    to.lead = group.taps > 0 ? index - work.cut.bases[residue] : 0;
    to.tap = set * pitch, to.taps = group.taps;
  }
}

/// How correlate_phases and multiply_phases lay out shared memory: lists, rows as they are, a row of zeros
/// (for rows that do not exist, of multiply_phases), planes, taps, targets.
template <class T, class Kept, class Tap>
struct PhaseMemory {
  PhaseGroupOfRows* groups_of_rows;
  PhaseGroupOfColumns* groups_of_columns;
  uint4 *sources_list, *targets_list;
  unsigned char* raw;
  Kept *zeros, *planes;
  Tap* taps;
  T* targets;

  /// source_planes, outputs: planes of sources, and output channels, that a block has at a time.
  __device__ __forceinline__ PhaseMemory(const PhaseWork& work, uint4* shared, int source_planes,
                                         int outputs) {
    const PhaseAxis &h = work.h, &w = work.w;
    groups_of_rows = reinterpret_cast<PhaseGroupOfRows*>(shared);
    groups_of_columns =
        reinterpret_cast<PhaseGroupOfColumns*>(groups_of_rows + work.residues * h.classes() * h.groups());
    sources_list = reinterpret_cast<uint4*>(groups_of_columns + w.classes() * w.groups());
    targets_list = sources_list + work.cut.source_list;
    raw = reinterpret_cast<unsigned char*>(targets_list + work.cut.target_list);
    zeros = reinterpret_cast<Kept*>(raw + work.cut.source_bytes);
    planes = zeros + work.cut.row;
    taps = reinterpret_cast<Tap*>(planes + source_planes * work.cut.plane);
    targets = reinterpret_cast<T*>(taps + outputs * work.cut.taps);
  }
};

}  // namespace lamella::depthwise
