#include <png.h>

#include <algorithm>
#include <csetjmp>
#include <cstdio>
#include <cstring>
#include <new>

#include "core/check.h"
#include "io/gzip.h"
#include "lamella/data/image.h"

namespace lamella::data {
namespace {

// libpng's own default. Of one row, which may be packed to a thousandth of a byte a pixel, it makes two of up
// to eight bytes a pixel.
constexpr std::uint32_t kMaxWidth = 1'000'000;

// As in jpeg.cpp: libpng's error callback must not return, so it jumps over frames that own nothing.
struct Decoder {
  png_structp png = nullptr;
  png_infop info = nullptr;
  std::jmp_buf escape{};
  char message[128] = "";
  std::span<const std::uint8_t> rest;
  std::uint32_t width = 0, height = 0;
  std::size_t packed_row_bytes = 0;
  int passes = 1;

  explicit Decoder(std::span<const std::uint8_t> bytes) : rest(bytes) {
    png = png_create_read_struct(
        PNG_LIBPNG_VER_STRING, this, [](png_structp from, png_const_charp text) { give_up(from, text); },
        [](png_structp, png_const_charp) {});
    info = png == nullptr ? nullptr : png_create_info_struct(png);
    if (info == nullptr) {
      png_destroy_read_struct(&png, &info, nullptr);
      throw std::bad_alloc();
    }
  }
  ~Decoder() { png_destroy_read_struct(&png, &info, nullptr); }
  Decoder(const Decoder&) = delete;
  Decoder& operator=(const Decoder&) = delete;

  [[noreturn]] static void give_up(png_structp from, const char* text) {
    auto* self = static_cast<Decoder*>(png_get_error_ptr(from));
    std::snprintf(self->message, sizeof self->message, "%s", text);
    std::longjmp(self->escape, 1);
  }
  static void next_bytes(png_structp from, png_bytep out, png_size_t count) {
    auto* self = static_cast<Decoder*>(png_get_io_ptr(from));
    if (count > self->rest.size()) give_up(from, "the data ends early");
    std::memcpy(out, self->rest.data(), count);
    self->rest = self->rest.subspan(count);
  }

  // Each returns false with `message` set.
  bool read_header() {
    if (setjmp(escape) != 0) return false;
    png_set_read_fn(png, this, &next_bytes);
    png_set_user_limits(png, static_cast<png_uint_32>(kMaxPixels), static_cast<png_uint_32>(kMaxPixels));
    // Text and colour profiles are of no use here, and may be packed to a thousandth of their size.
    // Nor are most others that libpng knows, of which it takes some at the length they say they have.
    png_set_chunk_malloc_max(png, 1 << 20);
    constexpr int kAllButPixels = -1;
    png_set_keep_unknown_chunks(png, PNG_HANDLE_CHUNK_NEVER, nullptr, kAllButPixels);
    png_read_info(png, info);
    width = png_get_image_width(png, info);
    height = png_get_image_height(png, info);
    packed_row_bytes = png_get_rowbytes(png, info);
    return true;
  }
  bool prepare() {
    if (setjmp(escape) != 0) return false;
    const int color = png_get_color_type(png, info);
    png_set_scale_16(png);
    png_set_expand(png);  // palettes to RGB, grey of 1, 2 or 4 bits to 8, tRNS to alpha
    if ((color & PNG_COLOR_MASK_COLOR) == 0) png_set_gray_to_rgb(png);
    png_set_strip_alpha(png);
    passes = png_set_interlace_handling(png);
    png_read_update_info(png, info);
    if (png_get_rowbytes(png, info) != std::size_t{3} * width) give_up(png, "unexpected pixel format");
    return true;
  }
  bool read_pixels(std::uint8_t* pixels) {
    if (setjmp(escape) != 0) return false;
    // Each pass of an interlaced image adds to the rows that the earlier ones left.
    for (int pass = 0; pass < passes; ++pass)
      for (std::uint32_t y = 0; y < height; ++y)
        png_read_row(png, pixels + std::size_t{y} * width * 3, nullptr);
    png_read_end(png, nullptr);
    return true;
  }
};

/// libpng takes memory for a chunk before it sees that the file ends within: only files whose chunks are
/// there, up to the last, may come to it.
void check_chunks(std::span<const std::uint8_t> bytes, const std::string& source) {
  constexpr std::size_t kSignature = 8, kAround = 12;  // length, type and checksum
  for (auto rest = bytes.subspan(std::min(kSignature, bytes.size())); rest.size() >= kAround;) {
    const std::size_t length =
        std::size_t{rest[0]} << 24 | std::size_t{rest[1]} << 16 | std::size_t{rest[2]} << 8 | rest[3];
    LAMELLA_CHECK(IoError, length <= rest.size() - kAround, source, ": corrupt PNG: a chunk of ", length,
                  " bytes where ", rest.size() - kAround, " are left");
    if (std::memcmp(&rest[4], "IEND", 4) == 0) return;
    rest = rest.subspan(length + kAround);
  }
}

}  // namespace

Image decode_png(std::span<const std::uint8_t> bytes, const std::string& source) {
  check_chunks(bytes, source);
  Decoder decoder(bytes);
  LAMELLA_CHECK(IoError, decoder.read_header(), source, ": corrupt PNG: ", decoder.message);
  LAMELLA_CHECK(IoError,
                std::uint64_t{decoder.width} * decoder.height <= static_cast<std::uint64_t>(kMaxPixels),
                source, ": a PNG of ", decoder.height, "x", decoder.width, " pixels; at most ", kMaxPixels,
                " are decoded");
  LAMELLA_CHECK(IoError, decoder.width <= kMaxWidth, source, ": a PNG of ", decoder.height, "x",
                decoder.width, " pixels; rows of at most ", kMaxWidth, " are decoded");
  LAMELLA_CHECK(
      IoError,
      std::uint64_t{decoder.packed_row_bytes} * decoder.height <= bytes.size() * detail::kMaxDeflateRatio,
      source, ": corrupt PNG: ", bytes.size(), " bytes cannot hold ", decoder.height, "x", decoder.width,
      " pixels");
  LAMELLA_CHECK(IoError, decoder.prepare(), source, ": corrupt PNG: ", decoder.message);
  Image image;
  image.height = static_cast<int>(decoder.height);
  image.width = static_cast<int>(decoder.width);
  image.pixels.resize(std::size_t{decoder.height} * decoder.width * 3);
  LAMELLA_CHECK(IoError, decoder.read_pixels(image.pixels.data()), source,
                ": corrupt PNG: ", decoder.message);
  return image;
}

}  // namespace lamella::data
