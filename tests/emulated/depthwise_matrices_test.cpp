#include "depthwise_case.h"
#include "layers/depthwise_conv2d/cuda/cut_matrices.h"
#include "layers/depthwise_conv2d/cuda/device/matrices_forward.cuh"

namespace lamella::depthwise::checks {
namespace {

constexpr unsigned kSeeds = 20;

/// Rows of x have kIn numbers; with kInRows all planes have as many rows, and kPadding above them.
/// kConsumers: warps that compute.
template <class T, class K, int kIn, int kOut, class Tile, int kConsumers, int kInRows = 0, int kOutRows = 0,
          int kPadding = 0>
void forward() {
  constexpr int kColumnPadding = (kOut - kIn + K::kW - 1) / 2, kMatrixThreads = 32 * (kConsumers + 1);
  for_seeds(kSeeds, [=](Draw& draw) {
    Wanted wanted{Case<T, K>::kSizes};
    wanted.width = kIn, wanted.out_width = kOut, wanted.most_images = 2 * Tile::kImages + 1;
    wanted.padding_w = kColumnPadding, wanted.spread_h = wanted.spread_w = 1;
    if (kInRows > 0) wanted.padding_h = kPadding;
    Geometry g{};
    do g = draw_geometry(draw, wanted);
    while (g.w != kIn || g.out_w != kOut || (kIn % 2 == 1 && g.channels * g.h % 2 == 1) ||
           (kInRows > 0 && (g.h != kInRows || g.out_h != kOutRows)));
    SCOPED_TRACE(to_string(g));
    Case<T, K> problem(draw, g, {false, 2, kOut % 2 == 0 ? 2 : 1});
    problem.never_add();
    PlaneWork work;
    problem.describe(work, false);
    const Launch launch = cut_forward_matrices(
        work, g.batch, g.channels, problem.kSizes,
        {Tile::kColumns, Tile::kRead, Tile::kImages, Tile::kHeld, Tile::kWarps, Tile::kPages}, kMatrixThreads,
        kInRows > 0 ? 1 : draw(1, 3), kInRows > 0 ? std::int64_t{1} << 16 : draw(1, 12) * std::int64_t{1000},
        draw(1, 20));
    if (launch.blocks == 0) return false;
    problem.forward(work, launch, false, [&] {
      using Plane = MatrixPlane<kIn, kOut, kInRows, kOutRows, kPadding>;
      if constexpr (kInRows == 0)
        if (work.cut.bands > 1) return forward_matrices<T, K, Plane, Tile, true, kMatrixThreads, 1>(work);
      forward_matrices<T, K, Plane, Tile, false, kMatrixThreads, 1>(work);
    });
    return true;
  });
}

// MatrixTile: columns, columns of a window, images, channels of a warp, warps of a channel, pages.
TEST(Matrices, forward_3x3) {
  forward<BFloat16, Kernel<3, 3, 1, 1>, 14, 14, MatrixTile<4, 8, 2, 1, 1, 2>, 4>();
}
TEST(Matrices, forward_3x3_one_image) {
  forward<Float16, Kernel<3, 3, 1, 1>, 14, 14, MatrixTile<4, 8, 1, 2, 2, 3>, 4>();
}
TEST(Matrices, forward_3x3_wide) {
  forward<Float16, Kernel<3, 3, 1, 1>, 28, 28, MatrixTile<4, 8, 1, 1, 4, 2>, 4>();
}
TEST(Matrices, forward_3x3_several_passes) {
  forward<BFloat16, Kernel<3, 3, 1, 1>, 46, 46, MatrixTile<4, 8, 2, 1, 2, 2>, 2>();
}
TEST(Matrices, forward_3x3_odd_rows) {
  forward<BFloat16, Kernel<3, 3, 1, 1>, 7, 7, MatrixTile<4, 8, 4, 2, 1, 2>, 4>();
}
TEST(Matrices, forward_3x3_odd_rows_few_images) {
  forward<Float16, Kernel<3, 3, 1, 1>, 7, 7, MatrixTile<4, 8, 2, 1, 2, 4>, 4>();
}
TEST(Matrices, forward_3x3_without_padding) {
  forward<Float16, Kernel<3, 3, 1, 1>, 13, 11, MatrixTile<4, 8, 2, 1, 1, 2>, 2>();
}
TEST(Matrices, forward_5x5) {
  forward<BFloat16, Kernel<5, 5, 1, 1>, 14, 14, MatrixTile<4, 8, 4, 1, 1, 2>, 2>();
}
TEST(Matrices, forward_5x5_odd_rows) {
  forward<Float16, Kernel<5, 5, 1, 1>, 13, 13, MatrixTile<8, 16, 4, 1, 2, 2>, 4>();
}
TEST(Matrices, forward_7x7) {
  forward<BFloat16, Kernel<7, 7, 1, 1>, 14, 14, MatrixTile<8, 16, 4, 1, 1, 2>, 2>();
}
TEST(Matrices, forward_7x7_odd_rows) {
  forward<Float16, Kernel<7, 7, 1, 1>, 7, 7, MatrixTile<8, 16, 8, 1, 1, 2>, 2>();
}
TEST(Matrices, forward_7x7_wide) {
  forward<BFloat16, Kernel<7, 7, 1, 1>, 30, 30, MatrixTile<8, 16, 2, 1, 2, 2>, 4>();
}
TEST(Matrices, forward_3x5) {
  forward<Float16, Kernel<3, 5, 1, 1>, 30, 30, MatrixTile<4, 8, 1, 1, 1, 2>, 2>();
}
TEST(Matrices, forward_5x3) {
  forward<BFloat16, Kernel<5, 3, 1, 1>, 14, 14, MatrixTile<4, 8, 2, 1, 2, 2>, 2>();
}
TEST(Matrices, forward_even_kernel) {
  forward<BFloat16, Kernel<2, 4, 1, 1>, 14, 13, MatrixTile<4, 8, 2, 1, 1, 2>, 2>();
}
TEST(Matrices, forward_more_columns_than_the_input) {
  forward<Float16, Kernel<3, 4, 1, 1>, 9, 14, MatrixTile<8, 16, 4, 1, 1, 2>, 2>();
}
TEST(Matrices, forward_of_one_column) {
  forward<BFloat16, Kernel<3, 1, 1, 1>, 2, 2, MatrixTile<4, 8, 8, 1, 1, 2>, 2>();
}

TEST(Matrices, forward_known_planes) {
  forward<BFloat16, Kernel<3, 3, 1, 1>, 14, 14, MatrixTile<4, 8, 4, 2, 1, 2>, 4, 14, 14, 1>();
}
TEST(Matrices, forward_known_odd_planes) {
  forward<BFloat16, Kernel<3, 3, 1, 1>, 7, 7, MatrixTile<4, 8, 8, 2, 2, 2>, 4, 7, 7, 1>();
}
TEST(Matrices, forward_known_planes_without_padding) {
  forward<Float16, Kernel<5, 5, 1, 1>, 16, 12, MatrixTile<4, 8, 2, 1, 1, 3>, 2, 13, 9, 0>();
}
TEST(Matrices, forward_known_planes_of_wide_kernels) {
  forward<Float16, Kernel<7, 7, 1, 1>, 14, 14, MatrixTile<8, 16, 4, 1, 1, 2>, 2, 10, 10, 3>();
}

}  // namespace
}  // namespace lamella::depthwise::checks
