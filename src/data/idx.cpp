#include "lamella/data/idx.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "core/check.h"
#include "core/profiling_bytes.h"
#include "io/file.h"
#include "io/gzip.h"
#include "lamella/tensor/create.h"
#include "tensor/door.h"

namespace lamella::data {
namespace {

static_assert(std::endian::native == std::endian::little,
              "IDX files are big-endian; bytes are turned on the way");

struct IdxType {
  std::uint8_t code;
  int bytes;
  DType dtype;
};
constexpr IdxType kTypes[] = {{0x08, 1, DType::UInt8}, {0x09, 1, DType::Int32},   {0x0b, 2, DType::Int32},
                              {0x0c, 4, DType::Int32}, {0x0d, 4, DType::Float32}, {0x0e, 8, DType::Float64}};

// The content of a file, unpacked on the way if it is gzipped.
class Source {
 public:
  explicit Source(const std::filesystem::path& path)
      : name_(path.string()), bytes_(lamella::detail::read_file(path)) {
    rest_ = bytes_;
    if (lamella::detail::is_gzip(bytes_)) gzip_.emplace(bytes_, name_);
  }
  const std::string& name() const { return name_; }
  // No more than this many bytes can follow.
  std::uint64_t most() const {
    return gzip_ ? bytes_.size() * lamella::detail::kMaxDeflateRatio : rest_.size();
  }
  std::size_t read(std::uint8_t* out, std::size_t count) {
    if (gzip_) return gzip_->read(out, count);
    count = std::min(count, rest_.size());
    std::copy_n(rest_.begin(), count, out);
    rest_ = rest_.subspan(count);
    return count;
  }

 private:
  std::string name_;
  std::vector<std::uint8_t> bytes_;
  std::span<const std::uint8_t> rest_;
  std::optional<lamella::detail::GzipReader> gzip_;
};

std::uint32_t big_endian(const std::uint8_t* bytes) {
  return std::uint32_t{bytes[0]} << 24 | std::uint32_t{bytes[1]} << 16 | std::uint32_t{bytes[2]} << 8 |
         bytes[3];
}

void reverse_elements(std::uint8_t* bytes, std::size_t total, int size) {
  for (std::size_t i = 0; i < total; i += static_cast<std::size_t>(size))
    std::reverse(bytes + i, bytes + i + size);
}

// Narrow integers become int32.
void widen(const std::vector<std::uint8_t>& bytes, int size, std::int32_t* out) {
  for (std::size_t i = 0; i < bytes.size() / static_cast<std::size_t>(size); ++i)
    out[i] =
        size == 1
            ? static_cast<std::int8_t>(bytes[i])
            : static_cast<std::int16_t>(static_cast<std::uint16_t>(bytes[2 * i] << 8 | bytes[2 * i + 1]));
}

}  // namespace

Tensor read_idx(const std::filesystem::path& path) {
  Source source(path);
  std::uint8_t head[4] = {};
  LAMELLA_CHECK(IoError, source.read(head, 4) == 4, source.name(), ": truncated IDX file: no header");
  const auto* type =
      std::find_if(std::begin(kTypes), std::end(kTypes), [&](const IdxType& t) { return t.code == head[2]; });
  LAMELLA_CHECK(IoError, head[0] == 0 && head[1] == 0 && type != std::end(kTypes) && head[3] >= 1,
                source.name(), ": not an IDX file: it begins with bytes ", int{head[0]}, " ", int{head[1]},
                " ", int{head[2]}, " ", int{head[3]});
  LAMELLA_CHECK(IoError, head[3] <= kMaxAxes, source.name(), ": an IDX file of ", int{head[3]},
                " axes; at most ", kMaxAxes, " are supported");
  Shape shape;
  // Zero sizes must not hide sizes too large to multiply.
  constexpr std::uint64_t kMost = std::uint64_t{1} << 62;
  std::uint64_t bytes = static_cast<std::uint64_t>(type->bytes);
  for (int axis = 0; axis < head[3]; ++axis) {
    std::uint8_t size[4] = {};
    LAMELLA_CHECK(IoError, source.read(size, 4) == 4, source.name(),
                  ": truncated IDX file: its header ends early");
    shape.push_back(big_endian(size));
    const std::uint64_t factor = std::max<std::uint64_t>(big_endian(size), 1);
    LAMELLA_CHECK(IoError, bytes <= kMost / factor, source.name(),
                  ": corrupt IDX file: its sizes are impossible");
    bytes *= factor;
  }
  const std::int64_t count = shape.product();
  if (count == 0) bytes = 0;
  LAMELLA_CHECK(IoError, bytes <= source.most(), source.name(),
                ": truncated or corrupt IDX file: ", shape.to_string(), " needs ", bytes,
                " bytes, more than the file can hold");

  Tensor tensor = empty(shape, {.dtype = type->dtype});
  const bool widened = type->dtype == DType::Int32 && type->bytes < 4;
  std::vector<std::uint8_t> narrow(widened ? bytes : 0);
  auto* out =
      widened ? narrow.data() : static_cast<std::uint8_t*>(lamella::detail::write(tensor, "read_idx").data);
  const std::size_t got = bytes == 0 ? 0 : source.read(out, bytes);
  LAMELLA_CHECK(IoError, got == bytes, source.name(), ": truncated IDX file: ", shape.to_string(), " needs ",
                bytes, " bytes, there are ", got);
  std::uint8_t more = 0;
  LAMELLA_CHECK(IoError, source.read(&more, 1) == 0, source.name(), ": corrupt IDX file: data follow the ",
                bytes, " bytes that ", shape.to_string(), " needs");
  if (widened) {
    widen(narrow, type->bytes, tensor.mutable_data<std::int32_t>());
  } else if (type->bytes > 1) {
    reverse_elements(out, bytes, type->bytes);
  }
  return tensor;
}

void write_idx(const std::filesystem::path& path, const Tensor& tensor) {
  LAMELLA_CHECK(Error, tensor.defined(), "write_idx: the tensor is undefined");
  LAMELLA_CHECK(DeviceError, tensor.device().is_cpu(), "write_idx: ", tensor.describe(),
                " must be on the CPU");
  const auto* type = std::find_if(std::begin(kTypes), std::end(kTypes), [&](const IdxType& t) {
    return t.dtype == tensor.dtype() && static_cast<std::size_t>(t.bytes) == size_of(t.dtype);
  });
  LAMELLA_CHECK(DTypeError, type != std::end(kTypes), "write_idx: ", tensor.describe(),
                "; the format has uint8, int32, float32 and float64");
  LAMELLA_CHECK(ShapeError, tensor.dim() >= 1, "write_idx: ", tensor.describe(),
                " must have at least one axis");
  std::vector<std::uint8_t> bytes{0, 0, type->code, static_cast<std::uint8_t>(tensor.dim())};
  for (const std::int64_t size : tensor.shape()) {
    LAMELLA_CHECK(ShapeError, size <= std::numeric_limits<std::uint32_t>::max(),
                  "write_idx: ", tensor.describe(), "; sizes must be below 2^32");
    for (const int shift : {24, 16, 8, 0}) bytes.push_back(static_cast<std::uint8_t>(size >> shift));
  }
  const Tensor dense = tensor.detach().contiguous();
  const std::size_t header = bytes.size(),
                    payload = static_cast<std::size_t>(dense.numel()) * size_of(dense.dtype());
  bytes.resize(header + payload);
  const lamella::detail::profiling::BytesApart no_kernel_reads_it;
  if (payload > 0) std::memcpy(bytes.data() + header, lamella::detail::read(dense).data, payload);
  if (type->bytes > 1) reverse_elements(bytes.data() + header, payload, type->bytes);
  lamella::detail::AtomicFile file(path);
  if (path.extension() == ".gz") bytes = lamella::detail::gzip(bytes);
  file.write(bytes.data(), bytes.size());
  file.commit();
}

DatasetPtr idx_dataset(const std::filesystem::path& images_path, const std::filesystem::path& labels_path,
                       std::vector<std::string> classes) {
  const Tensor images = read_idx(images_path), labels = read_idx(labels_path);
  constexpr std::int64_t kMost = std::numeric_limits<int>::max();
  const bool color = images.dim() == 4 && images.size(3) == 3;
  LAMELLA_CHECK(IoError,
                images.dtype() == uint8 && (images.dim() == 3 || color) && images.size(1) >= 1 &&
                    images.size(2) >= 1 && images.size(1) <= kMost && images.size(2) <= kMost,
                images_path.string(), ": holds ", images.describe(),
                "; images must be uint8 [N,H,W] or [N,H,W,3]");
  LAMELLA_CHECK(IoError, labels.dtype() == uint8 && labels.dim() == 1 && labels.size(0) == images.size(0),
                labels_path.string(), ": holds ", labels.describe(), "; labels must be uint8 [",
                images.size(0), "], one for each image of ", images_path.string());
  try {
    return memory_dataset(images.to_vector<std::uint8_t>(), static_cast<int>(images.size(1)),
                          static_cast<int>(images.size(2)), color ? 3 : 1, labels.to_vector<std::int64_t>(),
                          std::move(classes));
  } catch (const ShapeError& error) {
    throw IoError(labels_path.string() + ": " + error.what());
  }
}

}  // namespace lamella::data
