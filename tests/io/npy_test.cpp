#include "lamella/io/npy.h"

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <numeric>

#include "lamella/core/error.h"
#include "lamella/tensor/create.h"
#include "tests/support/temp_folder.h"

namespace lamella::io {
namespace {

using Bytes = std::vector<std::uint8_t>;
const std::filesystem::path kGolden = std::filesystem::path(LAMELLA_SOURCE_DIR) / "tests/io/golden";

std::vector<double> counting(double step = 1, double begin = 0) {
  std::vector<double> values(24);
  for (std::size_t i = 0; i < 24; ++i) values[i] = begin + step * static_cast<double>(i);
  return values;
}

Bytes with_header(const std::string& dictionary, const Bytes& payload = {}) {
  std::string text = "\x93NUMPY";
  text += {'\x01', '\x00', static_cast<char>(dictionary.size() & 0xff),
           static_cast<char>(dictionary.size() >> 8)};
  text += dictionary + std::string(payload.begin(), payload.end());
  return Bytes(text.begin(), text.end());
}

class NpyTest : public testing::Test {
 protected:
  Tensor load(const Bytes& bytes) {
    test::put_file(folder / "file.npy", bytes);
    return load_npy(folder / "file.npy");
  }
  test::TempFolder folder;
};

TEST_F(NpyTest, reads_what_numpy_wrote) {
  for (const DType dtype : {uint8, int32, int64, float16, float32, float64}) {
    const char* code = dtype == uint8     ? "u1"
                       : dtype == int32   ? "i4"
                       : dtype == int64   ? "i8"
                       : dtype == float16 ? "f2"
                       : dtype == float32 ? "f4"
                                          : "f8";
    const Tensor tensor = load_npy(kGolden / (std::string(code) + ".npy"));
    EXPECT_EQ(tensor.dtype(), dtype);
    EXPECT_EQ(tensor.shape(), (Shape{2, 3, 4}));
    EXPECT_EQ(tensor.to_vector<double>(), counting()) << code;
  }
  const Tensor odd = load_npy(kGolden / "b1.npy");
  EXPECT_EQ(odd.dtype(), boolean);
  for (std::size_t i = 0; i < 24; ++i) EXPECT_EQ(odd.to_vector<std::int32_t>()[i], static_cast<int>(i % 2));
}

TEST_F(NpyTest, reads_other_orders_and_versions) {
  const Tensor fortran = load_npy(kGolden / "fortran.npy");
  EXPECT_EQ(fortran.shape(), (Shape{2, 3, 4}));
  EXPECT_TRUE(fortran.is_contiguous());
  EXPECT_EQ(fortran.to_vector<double>(), counting(0.25));
  EXPECT_EQ(load_npy(kGolden / "big_endian.npy").to_vector<double>(), counting(1, -5));
  EXPECT_EQ(load_npy(kGolden / "big_endian_half.npy").to_vector<double>(), counting(0.125));
  EXPECT_EQ(load_npy(kGolden / "version2.npy").to_vector<double>(), counting());
  const Tensor scalar = load_npy(kGolden / "scalar.npy");
  EXPECT_EQ(scalar.dim(), 0);
  EXPECT_EQ(scalar.item(), 2.5);
  EXPECT_EQ(load_npy(kGolden / "empty.npy").shape(), (Shape{0, 3}));
}

TEST_F(NpyTest, writes_numpys_own_bytes) {
  for (const DType dtype : {uint8, int32, int64, float16, float32, float64}) {
    save_npy(folder / "t.npy", arange(0, 24).to(dtype).reshape({2, 3, 4}));
    const char* code = dtype == uint8     ? "u1"
                       : dtype == int32   ? "i4"
                       : dtype == int64   ? "i8"
                       : dtype == float16 ? "f2"
                       : dtype == float32 ? "f4"
                                          : "f8";
    EXPECT_EQ(test::get_file(folder / "t.npy"), test::get_file(kGolden / (std::string(code) + ".npy")))
        << code;
  }
  save_npy(folder / "t.npy", load_npy(kGolden / "b1.npy"));
  EXPECT_EQ(test::get_file(folder / "t.npy"), test::get_file(kGolden / "b1.npy"));
  save_npy(folder / "t.npy", scalar(2.5, {.dtype = float64}));
  EXPECT_EQ(test::get_file(folder / "t.npy"), test::get_file(kGolden / "scalar.npy"));
  save_npy(folder / "t.npy", zeros({0, 3}));
  EXPECT_EQ(test::get_file(folder / "t.npy"), test::get_file(kGolden / "empty.npy"));
}

TEST_F(NpyTest, keeps_any_shape_and_layout) {
  for (const Shape& shape : {Shape{}, Shape{1}, Shape{5}, Shape{0}, Shape{1, 2, 3, 1, 2, 1, 1, 2}}) {
    const Tensor tensor = rand(shape);
    save_npy(folder / "t.npy", tensor);
    EXPECT_EQ(load_npy(folder / "t.npy").shape(), shape);
    EXPECT_EQ(load_npy(folder / "t.npy").to_vector<float>(), tensor.to_vector<float>());
    EXPECT_EQ(test::get_file(folder / "t.npy").size() % 64,
              static_cast<std::size_t>(tensor.numel()) * 4 % 64);
  }
  const Tensor view = arange(0, 24).reshape({2, 3, 4}).permute({2, 0, 1}).slice(0, {1, 4, 2});
  save_npy(folder / "t.npy", view);
  EXPECT_EQ(load_npy(folder / "t.npy").to_vector<float>(), view.to_vector<float>());
}

TEST_F(NpyTest, refuses_other_types) {
  EXPECT_THROW_WITH(load_npy(kGolden / "complex.npy"), DTypeError, "complex.npy: an NPY file of type '<c8'");
  EXPECT_THROW_WITH(load_npy(kGolden / "records.npy"), DTypeError, "records");
  EXPECT_THROW_WITH(save_npy(folder / "t.npy", zeros({2}, {.dtype = bfloat16})), DTypeError, "no bfloat16");
  EXPECT_FALSE(std::filesystem::exists(folder / "t.npy"));
  EXPECT_THROW(save_npy(folder / "t.npy", Tensor()), Error);
  for (const char* type : {"<b2", "|f4", "f4", "", "<f16", "<\\x1b[31m", "O", "<U3"})
    EXPECT_THROW(
        load(with_header("{'descr': '" + std::string(type) + "', 'fortran_order': False, 'shape': (), }")),
        DTypeError)
        << type;
}

TEST_F(NpyTest, reads_any_spelling_of_the_header) {
  const Bytes four{0, 0, 0x80, 0x3f};
  for (const char* text : {"{'descr': '<f4', 'fortran_order': False, 'shape': (1,), }",
                           "{\"shape\":(1),'fortran_order':True,'descr':'<f4'}",
                           "  {'descr':\t'=f4','shape':(1L,),'fortran_order':False,}  \n"})
    EXPECT_EQ(load(with_header(text, four)).item(), 1.0) << text;
}

TEST_F(NpyTest, refuses_hostile_headers) {
  const std::string good = "{'descr': '<f4', 'fortran_order': False, 'shape': (1,), }";
  ASSERT_NO_THROW(load(with_header(good, Bytes(4))));
  for (const char* text : {"",
                           "{",
                           "{}",
                           "}",
                           "{'descr'",
                           "{'descr':",
                           "{'descr': '<f4",
                           "[]",
                           "{'descr': '<f4', 'fortran_order': False}",
                           "{'descr': '<f4', 'fortran_order': False, 'shape': (1,)",
                           "{'descr': '<f4', 'fortran_order': False, 'shape': (1",
                           "{'descr': '<f4', 'fortran_order': 0, 'shape': (1,)}",
                           "{'descr': '<f4', 'fortran_order': False, 'shape': 1}",
                           "{'descr': '<f4', 'fortran_order': False, 'shape': (-1,)}",
                           "{'descr': '<f4', 'fortran_order': False, 'shape': (,)}",
                           "{'descr': '<f4', 'fortran_order': False, 'shape': (1.5,)}",
                           "{'descr': '<f4', 'fortran_order': False, 'shape': (0x1,)}",
                           "{'descr': '<f4', 'fortran_order': False, 'shape': (1,)} more",
                           "{'descr': '<f4', 'fortran_order': False, 'shape': (1,), 'more': 1}",
                           "{'descr': '<f4', 'descr': '<f4', 'fortran_order': False, 'shape': (1,)}",
                           "{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999999999,)}",
                           "{'descr': '<f4', 'fortran_order': False, 'shape': (9223372036854775807,)}",
                           "{'descr': '<f4', 'fortran_order': False, 'shape': (4294967296, 4294967296)}",
                           "{'descr': '<f4', 'fortran_order': False, 'shape': (0, 4294967296, 4294967296)}"})
    EXPECT_THROW_WITH(load(with_header(text, Bytes(4))), IoError, "file.npy: ") << text;
  EXPECT_THROW_WITH(
      load(with_header("{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000,)}", Bytes(4))),
      IoError, "truncated");
  EXPECT_THROW_WITH(
      load(with_header("{'descr': '<f4', 'fortran_order': False, 'shape': (1,1,1,1,1,1,1,1,1)}", Bytes(4))),
      IoError, "9 axes");
  Bytes version = with_header(good, Bytes(4));
  version[6] = 4;
  EXPECT_THROW_WITH(load(version), IoError, "NPY format 4.0");
  Bytes long_header = with_header(good, Bytes(4));
  long_header[6] = 2;
  std::fill(long_header.begin() + 8, long_header.begin() + 12, std::uint8_t{0xff});
  EXPECT_THROW_WITH(load(long_header), IoError, "a header of 4294967295 bytes");
  EXPECT_THROW_WITH(load_npy(folder / "absent.npy"), IoError, "absent.npy");
}

TEST_F(NpyTest, refuses_truncation_and_what_follows) {
  const Bytes bytes = test::get_file(kGolden / "i4.npy");
  test::for_each_truncation(bytes,
                            [&](const Bytes& part) { EXPECT_THROW_WITH(load(part), IoError, "file.npy: "); });
  Bytes more = bytes;
  more.push_back(0);
  EXPECT_THROW_WITH(load(more), IoError, "data follow the 96 bytes");
}

TEST_F(NpyTest, a_huge_file_with_a_bad_header_takes_no_memory) {
  test::put_file(folder / "f.npy",
                 with_header("{'descr': '<f4', 'fortran_order': False, 'shape': (4,)}", Bytes(16)));
  std::filesystem::resize_file(folder / "f.npy", std::uintmax_t{1} << 38);
  EXPECT_THROW_WITH(load_npy(folder / "f.npy"), IoError, "data follow the 16 bytes");
}

TEST_F(NpyTest, survives_every_damaged_byte) {
  for (const char* name : {"i4.npy", "fortran.npy", "version2.npy"}) {
    const Bytes bytes = test::get_file(kGolden / name);
    test::for_each_damage(bytes, [&](const Bytes& damaged, std::size_t position) {
      try {
        const Tensor tensor = load(damaged);
        EXPECT_EQ(static_cast<std::size_t>(tensor.numel()) * size_of(tensor.dtype()), 96u)
            << name << " byte " << position;
      } catch (const IoError&) {
      } catch (const DTypeError&) {
      }
    });
  }
}

TEST_F(NpyTest, makes_bools_of_any_byte) {
  const Tensor tensor =
      load(with_header("{'descr': '|b1', 'fortran_order': False, 'shape': (3,)}", {0, 2, 255}));
  EXPECT_EQ(tensor.to_vector<std::int32_t>(), (std::vector<std::int32_t>{0, 1, 1}));
  EXPECT_EQ(static_cast<unsigned char>(tensor.data<bool>()[2]), 1);
}

RC_GTEST_PROP(NpyFuzz, survives_random_headers, (const std::string& middle)) {
  const test::TempFolder folder;
  const std::string text = "{'descr': '<f4', 'fortran_order': False, 'shape': (" + middle + ")}";
  test::put_file(folder / "f.npy", with_header(text, Bytes(8)));
  try {
    RC_ASSERT(load_npy(folder / "f.npy").numel() == 2);
  } catch (const IoError&) {
  }
}

}  // namespace
}  // namespace lamella::io
