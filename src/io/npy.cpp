#include "lamella/io/npy.h"

#include <algorithm>
#include <bit>
#include <cstdint>
#include <vector>

#include "core/check.h"
#include "core/profiling_bytes.h"
#include "io/file.h"
#include "io/npy_header.h"
#include "lamella/tensor/create.h"
#include "tensor/door.h"

namespace lamella::io {
namespace {

static_assert(std::endian::native == std::endian::little,
              "the writer puts numbers out as they lie in memory");

}  // namespace

Tensor load_npy(const std::filesystem::path& path) {
  const std::string source = path.string();
  const lamella::detail::InputFile file(path);
  // The header alone: what it says about the numbers is checked before memory is taken for them.
  std::vector<std::uint8_t> beginning(std::min(file.bytes(), detail::kMaxNpyBeginning));
  file.read(0, beginning.data(), beginning.size());
  detail::NpyHeader header = detail::parse_npy_header(beginning, source);
  LAMELLA_CHECK(IoError, header.shape.size() <= static_cast<std::size_t>(kMaxAxes), source,
                ": an NPY file of ", header.shape.size(), " axes; at most ", kMaxAxes, " are supported");
  if (header.fortran_order) std::reverse(header.shape.begin(), header.shape.end());
  const Shape shape(header.shape);
  const std::size_t size = size_of(header.dtype), wanted = static_cast<std::size_t>(shape.product()) * size;
  const std::size_t there = file.bytes() - header.data_offset;
  LAMELLA_CHECK(IoError, there >= wanted, source, ": truncated NPY file: ", shape.to_string(), " ",
                name(header.dtype), " needs ", wanted, " bytes, there are ", there);
  LAMELLA_CHECK(IoError, there == wanted, source, ": corrupt NPY file: data follow the ", wanted,
                " bytes of ", shape.to_string(), " ", name(header.dtype));

  Tensor tensor = empty(shape, {.dtype = header.dtype});
  if (wanted > 0) {
    const lamella::detail::profiling::BytesApart no_kernel_writes_it;
    auto* out = static_cast<std::uint8_t*>(lamella::detail::write(tensor, "load_npy").data);
    file.read(header.data_offset, out, wanted);
    if (header.big_endian)
      for (std::size_t i = 0; i < wanted; i += size) std::reverse(out + i, out + i + size);
    // A bool of any other value is undefined behaviour.
    if (header.dtype == DType::Bool)
      for (std::size_t i = 0; i < wanted; ++i) out[i] = out[i] != 0 ? 1 : 0;
  }
  if (!header.fortran_order || tensor.dim() < 2) return tensor;
  Dims reversed;
  for (int axis = tensor.dim() - 1; axis >= 0; --axis) reversed.push_back(axis);
  return tensor.permute(reversed).contiguous();
}

void save_npy(const std::filesystem::path& path, const Tensor& tensor) {
  LAMELLA_CHECK(Error, tensor.defined(), "save_npy: the tensor is undefined");
  LAMELLA_CHECK(DeviceError, tensor.device().is_cpu(), "save_npy: ", tensor.describe(),
                " must be on the CPU");
  LAMELLA_CHECK(DTypeError, tensor.dtype() != bfloat16, "save_npy: ", tensor.describe(),
                "; the format has no bfloat16, convert to float32 first");
  const Tensor dense = tensor.detach().contiguous();
  const lamella::detail::profiling::BytesApart no_kernel_reads_it;
  detail::NpyHeader header;
  header.dtype = dense.dtype();
  header.shape = dense.shape().to_vector();
  const std::string text = detail::format_npy_header(header);
  lamella::detail::AtomicFile file(path);
  file.write(text.data(), text.size());
  const std::size_t bytes = static_cast<std::size_t>(dense.numel()) * size_of(dense.dtype());
  if (bytes > 0) file.write(lamella::detail::read(dense).data, bytes);
  file.commit();
}

}  // namespace lamella::io
