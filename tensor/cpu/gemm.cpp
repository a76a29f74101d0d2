#include "tensor/kernels/gemm.h"

#include <algorithm>
#include <cstddef>
#include <utility>

#include "core/parallel.h"
#include "tensor/cpu/gemm_tile.h"
#include "tensor/cpu/workspace.h"
#include "tensor/dispatch.h"

namespace lamella::cpu {
namespace {

using detail::Gemm;
using detail::GemmOperand;
using detail::GradientWrite;

constexpr std::int64_t kTaskFlops = 8'000'000;   // about a tenth of a millisecond
constexpr std::int64_t kChunkFlops = 2'000'000;  // worth handing to another thread
constexpr std::int64_t kMinRows = 192;           // below, copying B for each block of rows would tell
constexpr std::int64_t kMaxColumns = 256;
constexpr std::int64_t kMinColumns = 32;
constexpr std::int64_t kWantedTasks = 16;
constexpr std::int64_t kNarrow = 48;
constexpr std::int64_t kMinDepth = 512;  // terms that pay for writing a partial sum

std::int64_t divide_up(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }
std::int64_t round_up(std::int64_t a, std::int64_t step) { return divide_up(a, step) * step; }

Dims without(const Dims& dims, int axis) {
  Dims result = dims;
  result.erase(axis);
  return result;
}

void remove_batch_axis(Gemm& g, int axis) {
  g.batch = without(g.batch, axis);
  g.a.batch = without(g.a.batch, axis);
  g.b.batch = without(g.b.batch, axis);
  g.c_batch = without(g.c_batch, axis);
  if (g.bias.data != nullptr) g.bias.batch = without(g.bias.batch, axis);
}

/// Whether a batch axis continues an axis of `size`, operand by operand.
bool continues(std::int64_t size, std::int64_t stride, std::int64_t batch_stride) {
  return size == 1 || batch_stride == size * stride;
}

/// Turns batch axes into more rows, columns or terms where strides allow; larger products run faster.
void fold_batch(Gemm& g) {
  const auto lengthen = [](std::int64_t size, std::int64_t& stride, std::int64_t batch_stride) {
    if (size == 1) stride = batch_stride;
  };
  const bool has_bias = g.bias.data != nullptr;
  for (int axis = g.batch.size() - 1; axis >= 0; --axis) {
    const std::int64_t size = g.batch[axis];
    const std::int64_t a = g.a.batch[axis], b = g.b.batch[axis], c = g.c_batch[axis];
    const std::int64_t bias = has_bias ? g.bias.batch[axis] : 0;
    if (size == 0) continue;
    if (size == 1) {
      // Any strides will do.
    } else if (c == 0 && continues(g.k, g.a.column, a) && continues(g.k, g.b.row, b)) {
      lengthen(g.k, g.a.column, a);
      lengthen(g.k, g.b.row, b);
      g.k *= size;
    } else if (c != 0 && b == 0 && continues(g.m, g.a.row, a) && continues(g.m, g.c_row, c) &&
               (!has_bias || continues(g.m, g.bias.row, bias))) {
      lengthen(g.m, g.a.row, a);
      lengthen(g.m, g.c_row, c);
      lengthen(g.m, g.bias.row, bias);
      g.m *= size;
    } else if (c != 0 && a == 0 && continues(g.n, g.b.column, b) && continues(g.n, g.c_column, c) &&
               (!has_bias || continues(g.n, g.bias.column, bias))) {
      lengthen(g.n, g.b.column, b);
      lengthen(g.n, g.c_column, c);
      lengthen(g.n, g.bias.column, bias);
      g.n *= size;
    } else {
      continue;
    }
    remove_batch_axis(g, axis);
  }
}

void transpose(Gemm& g) {
  std::swap(g.m, g.n);
  std::swap(g.a, g.b);
  std::swap(g.a.row, g.a.column);
  std::swap(g.b.row, g.b.column);
  std::swap(g.bias.row, g.bias.column);
  std::swap(g.c_row, g.c_column);
}

/// How the product is cut. Depends on the shape and nothing else.
struct Cut {
  std::int64_t batches = 1;  ///< products with a result of their own
  std::int64_t terms = 1;    ///< products added into each
  std::int64_t rows = 0, columns = 0, parts = 1;
  std::int64_t row_blocks = 0, column_blocks = 0;

  std::int64_t tasks() const { return batches * row_blocks * column_blocks * parts; }
};

Cut cut(const Gemm& g) {
  Cut cut;
  for (int axis = 0; axis < g.batch.size(); ++axis)
    (g.c_batch[axis] == 0 ? cut.terms : cut.batches) *= g.batch[axis];
  const std::int64_t depth = std::max<std::int64_t>(cut.terms * g.k, 1);
  const auto set_columns = [&](std::int64_t limit) {
    cut.columns = round_up(divide_up(g.n, divide_up(g.n, limit)), 16);
    cut.column_blocks = divide_up(g.n, cut.columns);
  };
  set_columns(kMaxColumns);
  const std::int64_t rows =
      kTaskFlops / (2 * std::max<std::int64_t>(cut.columns, 16) * std::min(depth, kTaskFlops));
  cut.row_blocks = divide_up(g.m, std::max(rows, kMinRows));
  cut.rows = round_up(divide_up(g.m, cut.row_blocks), 6);
  cut.row_blocks = divide_up(g.m, cut.rows);
  // Few tasks: narrower ones, then several to one result.
  const auto few = [&] { return cut.tasks() < kWantedTasks; };
  while (few() && cut.columns > kMinColumns && cut.rows * cut.columns * depth > kChunkFlops)
    set_columns(cut.columns - 16);
  if (few())
    cut.parts = std::clamp<std::int64_t>(divide_up(kWantedTasks, cut.tasks()), 1,
                                         std::max<std::int64_t>(depth / kMinDepth, 1));
  return cut;
}

/// Offset of batch `index` among the axes that are (or are not) summed over.
std::int64_t batch_offset(const Gemm& g, const Strides& strides, std::int64_t index, bool summed) {
  std::int64_t offset = 0;
  for (int axis = g.batch.size() - 1; axis >= 0; --axis) {
    if ((g.c_batch[axis] == 0) != summed) continue;
    offset += index % g.batch[axis] * strides[axis];
    index /= g.batch[axis];
  }
  return offset;
}

const void* at(const GemmOperand& x, std::int64_t offset) {
  return static_cast<const std::byte*>(x.data) + offset * static_cast<std::int64_t>(size_of(x.dtype));
}

/// Copies a block of `x`, from element `from` on, as T.
template <class T>
void load_block(const GemmOperand& x, const void* from, std::int64_t rows, std::int64_t columns, T* to,
                std::int64_t to_row) {
  detail::dispatch_floating(x.dtype, [&](auto tag) {
    using S = typename decltype(tag)::type;
    const S* source = static_cast<const S*>(from);
    for (std::int64_t i = 0; i < rows; ++i, source += x.row, to += to_row) {
      if (x.column == 1) {
        for (std::int64_t j = 0; j < columns; ++j) to[j] = static_cast<T>(source[j]);
      } else {
        for (std::int64_t j = 0; j < columns; ++j) to[j] = static_cast<T>(source[j * x.column]);
      }
    }
  });
}

/// A product computed in T, float or double.
template <class T>
class Product {
 public:
  explicit Product(const Gemm& g) : g_(g), cut_(cut(g)) {}

  void run() {
    const bool partial = cut_.parts > 1;
    const Workspace memory(partial ? bytes(cut_.batches * cut_.parts * g_.m * g_.n) : 0);
    T* const partials = memory.template as<T>();
    const std::int64_t depth = std::max<std::int64_t>(divide_up(cut_.terms * g_.k, cut_.parts), 1);
    const std::int64_t flops = 2 * std::max<std::int64_t>(cut_.rows * cut_.columns * depth, 1);
    detail::parallel_for(cut_.tasks(), std::max<std::int64_t>(kChunkFlops / flops, 1),
                         [&](std::int64_t begin, std::int64_t end) { run_tasks(begin, end, partials); });
    if (!partial) return;
    detail::parallel_for(cut_.batches * g_.m, std::max<std::int64_t>(65536 / (g_.n * cut_.parts), 1),
                         [&](std::int64_t begin, std::int64_t end) {
                           for (std::int64_t row = begin; row < end; ++row)
                             add_parts(partials, row / g_.m, row % g_.m);
                         });
  }

 private:
  static std::int64_t bytes(std::int64_t count) { return count * static_cast<std::int64_t>(sizeof(T)); }
  static bool converts(const GemmOperand& x) { return x.dtype != dtype_of<T>; }
  bool accumulates() const { return g_.write == GradientWrite::Accumulate; }
  bool biased() const { return g_.bias.data != nullptr && !accumulates(); }
  /// Blocks go straight into C.
  bool direct() const { return cut_.parts == 1 && g_.c_dtype == dtype_of<T> && g_.c_column == 1; }
  /// Terms multiplied at a time; bounds the converted copies.
  std::int64_t depth_step() const {
    return converts(g_.a) || converts(g_.b) ? std::min(g_.k, kTileDepth) : g_.k;
  }

  struct Scratch {
    T *tile, *result, *left, *right;
  };

  void run_tasks(std::int64_t begin, std::int64_t end, T* partials) const {
    const std::int64_t rows = std::min(cut_.rows, g_.m), columns = std::min(cut_.columns, g_.n),
                       k = depth_step();
    const std::int64_t tile = round_up(tile_workspace(rows, columns, k), 16);
    const std::int64_t result = cut_.parts == 1 && !direct() ? round_up(rows * columns, 16) : 0;
    const std::int64_t left = converts(g_.a) ? round_up(rows * k, 16) : 0;
    const std::int64_t right = converts(g_.b) ? round_up(k * columns, 16) : 0;
    const Workspace memory(bytes(tile + result + left + right));
    T* const base = memory.template as<T>();
    const Scratch scratch{base, base + tile, base + tile + result, base + tile + result + left};
    for (std::int64_t task = begin; task < end; ++task) run_task(task, scratch, partials);
  }

  void run_task(std::int64_t task, const Scratch& scratch, T* partials) const {
    // Column blocks change fastest: neighbours share rows of A.
    const std::int64_t column = task % cut_.column_blocks * cut_.columns;
    task /= cut_.column_blocks;
    const std::int64_t row = task % cut_.row_blocks * cut_.rows;
    task /= cut_.row_blocks;
    const std::int64_t part = task % cut_.parts, batch = task / cut_.parts;

    TileProduct<T> tile;
    tile.m = std::min(cut_.rows, g_.m - row);
    tile.n = std::min(cut_.columns, g_.n - column);
    tile.workspace = scratch.tile;
    if (cut_.parts > 1) {
      tile.c = partials + (batch * cut_.parts + part) * g_.m * g_.n + row * g_.n + column;
      tile.c_row = g_.n;
    } else if (direct()) {
      tile.c = static_cast<T*>(g_.c) + batch_offset(g_, g_.c_batch, batch, false) + row * g_.c_row + column;
      tile.c_row = g_.c_row;
      tile.accumulate = accumulates();
      if (biased()) {
        load_block(g_.bias, bias_at(batch, row, column), tile.m, tile.n, tile.c, tile.c_row);
        tile.accumulate = true;
      }
    } else {
      tile.c = scratch.result;
      tile.c_row = tile.n;
    }
    const std::int64_t a = batch_offset(g_, g_.a.batch, batch, false) + row * g_.a.row;
    const std::int64_t b = batch_offset(g_, g_.b.batch, batch, false) + column * g_.b.column;
    add_terms(tile, part, a, b, scratch);
    if (cut_.parts == 1 && !direct())
      for (std::int64_t i = 0; i < tile.m; ++i)
        store_row(batch, row + i, column, scratch.result + i * tile.n, tile.n);
  }

  /// The part's share of all terms, into tile.c; a and b are the offsets of the block in the first term.
  void add_terms(TileProduct<T>& tile, std::int64_t part, std::int64_t a, std::int64_t b,
                 const Scratch& scratch) const {
    const std::int64_t total = cut_.terms * g_.k;
    // Whole products to a part where there are enough of them.
    const std::int64_t unit = cut_.terms >= 4 * cut_.parts ? std::max<std::int64_t>(g_.k, 1) : 1;
    std::int64_t position = total / unit * part / cut_.parts * unit;
    const std::int64_t end = total / unit * (part + 1) / cut_.parts * unit;
    if (position == end && !tile.accumulate)
      for (std::int64_t i = 0; i < tile.m; ++i) std::fill_n(tile.c + i * tile.c_row, tile.n, T(0));
    while (position < end) {
      const std::int64_t term = position / g_.k, first = position % g_.k;
      tile.k = std::min({g_.k - first, end - position, depth_step()});
      const void* const a_block =
          at(g_.a, a + batch_offset(g_, g_.a.batch, term, true) + first * g_.a.column);
      const void* const b_block = at(g_.b, b + batch_offset(g_, g_.b.batch, term, true) + first * g_.b.row);
      tile.a = static_cast<const T*>(a_block);
      tile.a_row = g_.a.row;
      tile.a_column = g_.a.column;
      tile.b = static_cast<const T*>(b_block);
      tile.b_row = g_.b.row;
      tile.b_column = g_.b.column;
      if (converts(g_.a)) {
        load_block(g_.a, a_block, tile.m, tile.k, scratch.left, tile.k);
        tile.a = scratch.left;
        tile.a_row = tile.k;
        tile.a_column = 1;
      }
      if (converts(g_.b)) {
        load_block(g_.b, b_block, tile.k, tile.n, scratch.right, tile.n);
        tile.b = scratch.right;
        tile.b_row = tile.n;
        tile.b_column = 1;
      }
      multiply_tile(tile);
      tile.accumulate = true;
      position += tile.k;
    }
  }

  const void* bias_at(std::int64_t batch, std::int64_t row, std::int64_t column) const {
    return at(g_.bias,
              batch_offset(g_, g_.bias.batch, batch, false) + row * g_.bias.row + column * g_.bias.column);
  }

  /// Gives results of one row to C: adds the bias or what C holds, rounds.
  void store_row(std::int64_t batch, std::int64_t row, std::int64_t column, T* values,
                 std::int64_t count) const {
    if (biased()) {
      detail::dispatch_floating(g_.bias.dtype, [&](auto tag) {
        using S = typename decltype(tag)::type;
        const S* const bias = static_cast<const S*>(bias_at(batch, row, column));
        for (std::int64_t j = 0; j < count; ++j) values[j] += static_cast<T>(bias[j * g_.bias.column]);
      });
    }
    const std::int64_t offset =
        batch_offset(g_, g_.c_batch, batch, false) + row * g_.c_row + column * g_.c_column;
    detail::dispatch_floating(g_.c_dtype, [&](auto tag) {
      using C = typename decltype(tag)::type;
      C* const c = static_cast<C*>(g_.c) + offset;
      for (std::int64_t j = 0; j < count; ++j) {
        C& to = c[j * g_.c_column];
        const T sum = accumulates() ? values[j] + static_cast<T>(to) : values[j];
        to = static_cast<C>(static_cast<detail::ComputeType<C>>(sum));
      }
    });
  }

  void add_parts(T* partials, std::int64_t batch, std::int64_t row) const {
    T* const sum = partials + batch * cut_.parts * g_.m * g_.n + row * g_.n;
    for (std::int64_t part = 1; part < cut_.parts; ++part) {
      const T* const next = sum + part * g_.m * g_.n;
      for (std::int64_t j = 0; j < g_.n; ++j) sum[j] += next[j];
    }
    store_row(batch, row, 0, sum, g_.n);
  }

  const Gemm& g_;
  const Cut cut_;
};

}  // namespace

void gemm(const Gemm& problem) {
  Gemm g = problem;
  fold_batch(g);
  // The strides of an axis of size 1 say nothing.
  if (g.n == 1) g.c_column = 1;
  if (g.k == 1) g.a.column = 1;
  const bool column_major = g.c_column != 1 && g.c_row == 1;
  // A single row times a transposed matrix is that matrix times a column.
  const bool row_times_matrix = g.m == 1 && g.n > 1 && g.b.row == 1;
  if (column_major || row_times_matrix) transpose(g);
  // Long sums from two row-major stacks: whole lines of the wider one are read, once for each few rows of the
  // other.
  if (g.a.row == 1 && g.a.column != 1 && g.b.column == 1 && g.m > g.n && g.n <= kNarrow && g.k >= kMinDepth)
    transpose(g);
  if (g.n == 1) g.c_column = 1;
  std::int64_t results = g.m * g.n;
  for (int axis = 0; axis < g.batch.size(); ++axis)
    if (g.c_batch[axis] != 0) results *= g.batch[axis];
  if (results == 0) return;
  if (g.c_dtype == DType::Float64)
    Product<double>(g).run();
  else
    Product<float>(g).run();
}

}  // namespace lamella::cpu
