#pragma once

#include "runs.cuh"

/// Dense planes (NCHW) in float32, for large kernels at stride 1: multiply-adds decide, so that there is
/// little else. A thread has some neighbouring columns of a plane, and walks down its rows: of a row of x it
/// takes what its columns read, once, for all rows of results that it is for. Their sums move up by a row
/// from step to step, which costs nothing, as a multiply-add may leave its sum elsewhere. So the loop is
/// short, and stays in the nearest instruction cache, where one in which the rows are unrolled does not.
///
/// A team of warps has some planes side by side, and a ring of slots in shared memory: rows of these planes,
/// copied ahead, with zeros to their left and right, which are written once. Teams know nothing of each
/// other.
namespace lamella::depthwise {

/// kColumns_: of a thread; kRows_: of x in a step, of which a ring has kSlots_; kTeam_ of the block's kWarps_
/// share one. A thread copies kCopiesX_ and kCopiesG_ times kVectorX_ and kVectorG_ neighbouring numbers of a
/// row. Results are stored kVectorG_ at a time: by the thread that has them or, if kCopiesG_ is not 0,
/// through shared memory and, as g is copied, side by side, without which short rows take too many lines of
/// memory.
template <int kColumns_, int kRows_, int kSlots_, int kTeam_, int kWarps_, int kVectorX_, int kCopiesX_,
          int kVectorG_, int kCopiesG_>
struct ColumnTile {
  static constexpr int kColumns = kColumns_, kRows = kRows_, kSlots = kSlots_;
  static constexpr int kTeam = kTeam_, kWarps = kWarps_, kMembers = 32 * kTeam_, kThreads = 32 * kWarps_;
  static constexpr int kVectorX = kVectorX_, kCopiesX = kCopiesX_;
  static constexpr int kVectorG = kVectorG_, kCopiesG = kCopiesG_;
  static constexpr int kUnit = kColumns % 4 == 0 ? 4 : kColumns % 2 == 0 ? 2 : 1;  ///< read at once
  static_assert(kWarps % kTeam == 0 && kSlots > 1);
};

/// Numbers of zeros to the left of a row whose padding is so wide.
LAMELLA_ANYWHERE constexpr int zeros_before(int padding) { return (padding + 3) / 4 * 4; }

/// What a thread's columns read of a row, behind zeros for so much padding.
template <class Tile, int kPadding, int kCount>
__device__ __forceinline__ void read_row(const float* from, float (&x)[kCount]) {
  constexpr int kUnit = Tile::kUnit, kOffset = zeros_before(kPadding) - kPadding;
  load_window<float, kUnit, kOffset % kUnit>(from + kOffset / kUnit * kUnit, x);
}

/// A thread's share of the copies of rows, kVector numbers at a time.
template <int kVector, int kCopies, int kMembers>
struct RowCopies {
  int offset[kCopies];   ///< numbers from the first plane's row; none: negative
  unsigned to[kCopies];  ///< bytes from the slot's row
  const float* from[kCopies];

  /// Of so many planes, whose rows are `step` apart in a slot, behind some zeros.
  __device__ __forceinline__ RowCopies(int member, int planes, int width, int plane, int step, int zeros) {
    const int pieces = width / kVector;
#pragma unroll
    for (int i = 0; i < kCopies; ++i) {
      const int piece = member + i * kMembers, of = piece / pieces, at = (piece - of * pieces) * kVector;
      offset[i] = of < planes ? of * plane + at : -1;
      to[i] = static_cast<unsigned>(of * step + zeros + at) * 4;
    }
  }
  __device__ __forceinline__ void begin(const float* row) {
#pragma unroll
    for (int i = 0; i < kCopies; ++i) from[i] = row + offset[i];
  }
  /// Copies a row, and goes on to the next. One that does not exist becomes zeros.
  __device__ __forceinline__ void copy(unsigned row, bool exists, int width) {
#pragma unroll
    for (int i = 0; i < kCopies; ++i) {
      if (offset[i] >= 0) copy_ahead<4 * kVector>(row + to[i], from[i], exists);
      from[i] += width;
    }
  }
  /// The other way, from a slot's row.
  __device__ __forceinline__ void store(float* row, const float* from_row) const {
#pragma unroll
    for (int i = 0; i < kCopies; ++i) {
      float some[kVector];
      if (offset[i] < 0) continue;
      load<float>(from_row + to[i] / 4, some);
      lamella::depthwise::store<float>(row + offset[i], some);
    }
  }
};

/// What a team's rows are: of one image after the other, in strips.
struct Strip {
  int image, strip;
  __device__ __forceinline__ void advance(int strips) {
    if (++strip == strips) strip = 0, ++image;
  }
};

template <class Tile>
__device__ __forceinline__ void synchronize_team(int team) {
  if constexpr (Tile::kTeam == 1)
    synchronize_warp();
  else
    synchronize_some(1 + team, Tile::kMembers);
}

/// Where a thread is.
template <class Tile>
struct TeamPlace {
  int team, member, part, first_channel, planes;  ///< planes: of the team
  int plane, column;                              ///< of the thread
  bool works;
  /// False: there is nothing to do for the team.
  __device__ __forceinline__ bool begin(const PlaneWork& work) {
    const PlaneCut& cut = work.cut;
    const int thread = static_cast<int>(threadIdx.x), groups = (work.channels + cut.planes - 1) / cut.planes;
    team = thread / Tile::kMembers, member = thread % Tile::kMembers;
    const int number = static_cast<int>(blockIdx.x) * (Tile::kWarps / Tile::kTeam) + team;
    part = number / groups;
    first_channel = (number - part * groups) * cut.planes;
    planes = min(cut.planes, work.channels - first_channel);
    plane = member / cut.column_groups;
    column = (member - plane * cut.column_groups) * Tile::kColumns;
    works = plane < planes;
    if (!works) plane = 0, column = 0;
    return part * work.items_per_part < work.items;
  }
};

/// y of a correlation: the forward, or the input's gradient of the turned kernel. kPadding: of columns.
template <class T, class K, class Tile, int kPadding, int kBlocks>
__global__ void __launch_bounds__(Tile::kThreads, kBlocks) forward_columns(const PlaneWork work) {
  constexpr int kColumns = Tile::kColumns, kRows = Tile::kRows, kSlots = Tile::kSlots;
  constexpr int kZeros = zeros_before(kPadding), kKept = K::kH - 1;
  static_assert(sizeof(T) == 4 && K::kStrideH == 1 && K::kStrideW == 1 && K::kRepeat == 1);
  extern __shared__ uint4 shared[];
  const PlaneCut& cut = work.cut;
  TeamPlace<Tile> at;
  const bool has_work = at.begin(work);
  const int row_numbers = cut.input_numbers, slot_numbers = kRows * row_numbers;
  float* const ring = reinterpret_cast<float*>(shared) + at.team * cut.team_numbers;
  for (int i = at.member; i < kSlots * slot_numbers; i += Tile::kMembers) ring[i] = 0;
  wait_for_stream();
  if (!has_work) return;
  synchronize_team<Tile>(at.team);

  const int first_item = at.part * work.items_per_part,
            last_item = min(work.items, first_item + work.items_per_part);
  const int in_plane = work.h.input * work.w.input, out_plane = work.h.output * work.w.output;
  RowCopies<Tile::kVectorX, Tile::kCopiesX, Tile::kMembers> copies(at.member, at.planes, work.w.input,
                                                                   in_plane, cut.run_numbers, kZeros);
  // Rows of x that a strip reads: some before it give parts of sums that nobody wants.
  const auto begin_of = [&](const Strip& strip) {
    return max(strip.strip * cut.band_rows - work.h.padding, 0);
  };
  const auto end_of = [&](const Strip& strip) {
    const int end = min((strip.strip + 1) * cut.band_rows, work.h.output);
    return min(end - work.h.padding + K::kH - 1, work.h.input);
  };
  const auto plane_of = [&](const Strip& strip) {
    return static_cast<Int64>(strip.image) * work.channels + at.first_channel;
  };

  // What is copied is some steps ahead of what is read.
  Strip ahead{first_item / cut.bands, first_item % cut.bands};
  int ahead_item = first_item, ahead_row, ahead_end;
  const auto begin_ahead = [&] {
    ahead_row = begin_of(ahead), ahead_end = end_of(ahead);
    copies.begin(static_cast<const float*>(work.x) + plane_of(ahead) * in_plane + ahead_row * work.w.input);
  };
  begin_ahead();
  const unsigned slots = shared_address(ring);
  const auto copy_step = [&](int slot) {
    if (ahead_item < last_item) {
#pragma unroll
      for (int r = 0; r < kRows; ++r)
        copies.copy(slots + static_cast<unsigned>(slot + r * row_numbers) * 4, ahead_row + r < ahead_end,
                    work.w.input);
      ahead_row += kRows;
      if (ahead_row >= ahead_end && ++ahead_item < last_item) ahead.advance(cut.bands), begin_ahead();
    }
    end_copies();
  };
#pragma unroll 1
  for (int s = 0; s < kSlots - 1; ++s) copy_step(s * slot_numbers);

  float taps[K::kTaps];
  const int channel = at.first_channel + at.plane;
  load_taps<float>(work.taps, channel, taps);
  const float bias = load_bias<float>(work.taps, channel);
  const int mine = at.plane * cut.run_numbers + at.column;
  constexpr bool kStaged = Tile::kCopiesG > 0;
  const int out_step = cut.column_groups * kColumns, my_out = at.plane * out_step + at.column;
  const RowCopies<Tile::kVectorG, kStaged ? Tile::kCopiesG : 1, Tile::kMembers> stores(
      at.member, at.planes, work.w.output, out_plane, out_step, 0);
  float* const stage = ring + kSlots * slot_numbers;
  const int left = at.works ? work.w.output - at.column : 0;  // columns that exist
  const auto store_row = [&](float* to, const float(&row)[kColumns], int r) {
    if constexpr (kStaged) {
      const unsigned at_row =
          shared_address(stage) + static_cast<unsigned>(r * cut.output_numbers + my_out) * 4;
#pragma unroll
      for (int c = 0; Tile::kUnit < 4 && c < kColumns; ++c)
        if (at.works) stage[r * cut.output_numbers + my_out + c] = row[c];
#pragma unroll
      for (int c = 0; Tile::kUnit == 4 && c + 3 < kColumns; c += 4) {
        const unsigned some[4]{__float_as_uint(row[c]), __float_as_uint(row[c + 1]),
                               __float_as_uint(row[c + 2]), __float_as_uint(row[c + 3])};
        if (at.works) store_shared(at_row + 4 * c, some);
      }
    } else {
      constexpr int kVector = Tile::kVectorG;
      static_assert(kStaged || kColumns % kVector == 0);
#pragma unroll
      for (int c = 0; c < kColumns; c += kVector) {
        float some[kVector];
#pragma unroll
        for (int n = 0; n < kVector; ++n) some[n] = row[c + n];
        if (c < left) store<float>(to + c, some);
      }
    }
  };
  Strip strip{first_item / cut.bands, first_item % cut.bands};
  int slot = 0, freed = (kSlots - 1) * slot_numbers;
#pragma unroll 1
  for (int item = first_item; item < last_item; ++item, strip.advance(cut.bands)) {
    const int begin = begin_of(strip), end = end_of(strip), first = strip.strip * cut.band_rows,
              last = min(first + cut.band_rows, work.h.output);
    float sums[kKept > 0 ? kKept : 1][kColumns];  // of the rows of y that are not yet complete
#pragma unroll
    for (int s = 0; s < kKept; ++s)
#pragma unroll
      for (int c = 0; c < kColumns; ++c) sums[s][c] = bias;
    int out_row = begin + work.h.padding - kKept;  // the first that is complete after the next row of x
    float* to = static_cast<float*>(work.y) + plane_of(strip) * out_plane +
                static_cast<Int64>(out_row) * work.w.output;
    if constexpr (!kStaged) to += at.plane * out_plane + at.column;
#pragma unroll 1
    for (int row = begin; row < end; row += kRows) {
      wait_for_copies<kSlots - 2>();
      synchronize_team<Tile>(at.team);
      copy_step(freed);
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
        float x[kColumns + K::kW - 1], done[kColumns];
        read_row<Tile, kPadding>(ring + slot + r * row_numbers + mine, x);
#pragma unroll
        for (int s = 0; s <= kKept; ++s) {
          const int kh = kKept - s;
#pragma unroll
          for (int c = 0; c < kColumns; ++c) {
            float sum = s < kKept ? sums[s < kKept ? s : 0][c] : bias;
#pragma unroll
            for (int kw = 0; kw < K::kW; ++kw) sum += taps[kh * K::kW + kw] * x[c + kw];
            if (s == 0)
              done[c] = sum;
            else
              sums[s > 0 ? s - 1 : 0][c] = sum;
          }
        }
        if constexpr (kStaged) {
          store_row(to, done, r);
        } else {
          if (out_row >= first && out_row < last) store_row(to, done, 0);
          ++out_row, to += work.w.output;
        }
      }
      if constexpr (kStaged) {
        synchronize_team<Tile>(at.team);
#pragma unroll
        for (int r = 0; r < kRows; ++r) {
          if (out_row >= first && out_row < last) stores.store(to, stage + r * cut.output_numbers);
          ++out_row, to += work.w.output;
        }
      }
      freed = slot;
      slot = slot == (kSlots - 1) * slot_numbers ? 0 : slot + slot_numbers;
    }
    // Rows below read nothing more of x.
#pragma unroll
    for (int s = 0; s < kKept; ++s) {
      if (out_row >= first && out_row < last) {
        if constexpr (kStaged) synchronize_team<Tile>(at.team);
        store_row(to, sums[s], 0);
        if constexpr (kStaged) {
          synchronize_team<Tile>(at.team);
          stores.store(to, stage);
        }
      }
      ++out_row, to += work.w.output;
    }
  }
}

/// The parts of dw. A row of x is met with all rows of g that it has a tap for, which move up by a row from
/// step to step.
template <class T, class K, class Tile, int kPadding, bool kBias, int kBlocks>
__global__ void __launch_bounds__(Tile::kThreads, kBlocks) weigh_columns(const PlaneWork work) {
  constexpr int kColumns = Tile::kColumns, kRows = Tile::kRows, kSlots = Tile::kSlots;
  constexpr int kZeros = zeros_before(kPadding), kKept = K::kH - 1;
  constexpr int kAll = K::kTaps + 1;
  static_assert(sizeof(T) == 4 && K::kStrideH == 1 && K::kStrideW == 1 && K::kRepeat == 1);
  extern __shared__ uint4 shared[];
  const PlaneCut& cut = work.cut;
  TeamPlace<Tile> at;
  const bool has_work = at.begin(work);
  const int row_numbers = cut.input_numbers + cut.output_numbers, slot_numbers = kRows * row_numbers;
  float* const ring = reinterpret_cast<float*>(shared) + at.team * cut.team_numbers;
  for (int i = at.member; i < kSlots * slot_numbers; i += Tile::kMembers) ring[i] = 0;
  wait_for_stream();
  if (!has_work) return;
  synchronize_team<Tile>(at.team);

  const int first_item = at.part * work.items_per_part,
            last_item = min(work.items, first_item + work.items_per_part);
  const int in_plane = work.h.input * work.w.input, out_plane = work.h.output * work.w.output;
  const int g_step = cut.column_groups * kColumns;
  RowCopies<Tile::kVectorX, Tile::kCopiesX, Tile::kMembers> x_copies(at.member, at.planes, work.w.input,
                                                                     in_plane, cut.run_numbers, kZeros);
  RowCopies<Tile::kVectorG, Tile::kCopiesG, Tile::kMembers> g_copies(at.member, at.planes, work.w.output,
                                                                     out_plane, g_step, 0);
  const auto begin_of = [&](const Strip& strip) { return strip.strip * cut.band_rows; };
  const auto end_of = [&](const Strip& strip) {
    return min((strip.strip + 1) * cut.band_rows, work.h.input);
  };
  // Before a strip's own steps come some for rows of g alone, of which row `row` of x is the last to need
  // row `row + padding`.
  const auto early_of = [&](const Strip& strip) {
    const int begin = begin_of(strip);
    return begin - (min(kKept, begin + work.h.padding) + kRows - 1) / kRows * kRows;
  };
  const auto plane_of = [&](const Strip& strip) {
    return static_cast<Int64>(strip.image) * work.channels + at.first_channel;
  };

  Strip ahead{first_item / cut.bands, first_item % cut.bands};
  int ahead_item = first_item, ahead_row, ahead_begin, ahead_end;
  const auto begin_ahead = [&] {
    ahead_row = early_of(ahead), ahead_begin = begin_of(ahead), ahead_end = end_of(ahead);
    x_copies.begin(static_cast<const float*>(work.x) + plane_of(ahead) * in_plane + ahead_row * work.w.input);
    g_copies.begin(static_cast<const float*>(work.y) + plane_of(ahead) * out_plane +
                   (ahead_row + work.h.padding) * work.w.output);
  };
  begin_ahead();
  const unsigned slots = shared_address(ring);
  const auto copy_step = [&](int slot) {
    if (ahead_item < last_item) {
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
        const int row = ahead_row + r, g_row = row + work.h.padding;
        const unsigned to = slots + static_cast<unsigned>(slot + r * row_numbers) * 4;
        x_copies.copy(to, row >= ahead_begin && row < ahead_end, work.w.input);
        g_copies.copy(to + static_cast<unsigned>(cut.input_numbers) * 4, g_row >= 0 && g_row < work.h.output,
                      work.w.output);
      }
      ahead_row += kRows;
      if (ahead_row >= ahead_end && ++ahead_item < last_item) ahead.advance(cut.bands), begin_ahead();
    }
    end_copies();
  };
#pragma unroll 1
  for (int s = 0; s < kSlots - 1; ++s) copy_step(s * slot_numbers);

  const int my_x = at.plane * cut.run_numbers + at.column,
            my_g = cut.input_numbers + at.plane * g_step + at.column;
  float sums[K::kTaps], total = 0;
#pragma unroll
  for (int k = 0; k < K::kTaps; ++k) sums[k] = 0;
  Strip strip{first_item / cut.bands, first_item % cut.bands};
  int slot = 0, freed = (kSlots - 1) * slot_numbers;
#pragma unroll 1
  for (int item = first_item; item < last_item; ++item, strip.advance(cut.bands)) {
    const int begin = begin_of(strip), end = end_of(strip);
    float g[kKept + kRows][kColumns];
#pragma unroll
    for (int s = 0; s < kKept; ++s)
#pragma unroll
      for (int c = 0; c < kColumns; ++c) g[s][c] = 0;
#pragma unroll 1
    for (int row = early_of(strip); row < end; row += kRows) {
      wait_for_copies<kSlots - 2>();
      synchronize_team<Tile>(at.team);
      copy_step(freed);
      const float* const from = ring + slot;
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
        read_row<Tile, 0>(from + r * row_numbers + my_g, g[kKept + r]);
        if (kBias && (row >= begin || strip.strip == 0)) {
#pragma unroll
          for (int c = 0; c < kColumns; ++c) total += g[kKept + r][c];
        }
      }
      if (row >= begin) {
#pragma unroll
        for (int r = 0; r < kRows; ++r) {
          float x[kColumns + K::kW - 1];
          read_row<Tile, kPadding>(from + r * row_numbers + my_x, x);
#pragma unroll
          for (int kh = 0; kh < K::kH; ++kh)
#pragma unroll
            for (int c = 0; c < kColumns; ++c)
#pragma unroll
              for (int kw = 0; kw < K::kW; ++kw) sums[kh * K::kW + kw] += x[c + kw] * g[r + kKept - kh][c];
        }
      }
#pragma unroll
      for (int s = 0; s < kKept; ++s)
#pragma unroll
        for (int c = 0; c < kColumns; ++c) g[s][c] = g[s + kRows][c];
      freed = slot;
      slot = slot == (kSlots - 1) * slot_numbers ? 0 : slot + slot_numbers;
    }
  }

  // The threads of a plane in their order, so many taps at a time.
  wait_for_copies<0>();
  constexpr int kAtOnce = 8;
  float* const to = work.parts + (static_cast<Int64>(at.part) * work.channels + at.first_channel) * kAll;
#pragma unroll
  for (int k0 = 0; k0 < kAll; k0 += kAtOnce) {
    synchronize_team<Tile>(at.team);
#pragma unroll
    for (int k = k0; k < kAll && k < k0 + kAtOnce; ++k)
      ring[(k - k0) * Tile::kMembers + at.member] = k < K::kTaps ? sums[k < K::kTaps ? k : 0] : total;
    synchronize_team<Tile>(at.team);
    for (int i = at.member; i < at.planes * kAtOnce; i += Tile::kMembers) {
      const int p = i / kAtOnce, k = i - p * kAtOnce;
      if (k0 + k >= kAll) continue;
      float sum = 0;
      for (int t = 0; t < cut.column_groups; ++t) sum += ring[k * Tile::kMembers + p * cut.column_groups + t];
      to[p * kAll + k0 + k] = sum;
    }
  }
}

}  // namespace lamella::depthwise
