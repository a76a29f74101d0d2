#include <csetjmp>
#include <cstddef>
#include <cstdio>
// jpeglib.h needs size_t and FILE before it.
#include <jpeglib.h>

#include <limits>

#include "core/check.h"
#include "lamella/data/image.h"

namespace lamella::data {
namespace {

// A progressive file may ask for any number of passes over the image; real ones have about ten.
constexpr int kMaxScans = 200;

// libjpeg reports errors by a callback that must not return. Exceptions must not cross C code, so it jumps;
// between setjmp and longjmp lie only frames of libjpeg and of run(), none of which owns anything.
struct Decoder {
  jpeg_error_mgr errors{};
  jpeg_progress_mgr progress{};
  jpeg_decompress_struct jpeg{};
  std::jmp_buf escape{};
  char message[JMSG_LENGTH_MAX] = "";
  int width = 0, height = 0;

  Decoder() {
    jpeg.err = jpeg_std_error(&errors);
    errors.error_exit = [](j_common_ptr info) { give_up(info); };
    errors.emit_message = [](j_common_ptr info, int level) {
      if (level < 0) give_up(info);
    };
    errors.output_message = [](j_common_ptr) {};
    progress.progress_monitor = [](j_common_ptr info) {
      auto* decoder = reinterpret_cast<j_decompress_ptr>(info);
      if (decoder->input_scan_number > kMaxScans) give_up(info, "too many scans");
    };
    jpeg.client_data = this;
  }
  ~Decoder() { jpeg_destroy_decompress(&jpeg); }
  Decoder(const Decoder&) = delete;
  Decoder& operator=(const Decoder&) = delete;

  [[noreturn]] static void give_up(j_common_ptr info, const char* text = nullptr) {
    auto* self = static_cast<Decoder*>(info->client_data);
    if (text != nullptr) {
      std::snprintf(self->message, sizeof self->message, "%s", text);
    } else {
      info->err->format_message(info, self->message);
    }
    std::longjmp(self->escape, 1);
  }

  // Each returns false with `message` set.
  bool read_header(std::span<const std::uint8_t> bytes) {
    if (setjmp(escape) != 0) return false;
    jpeg_create_decompress(&jpeg);
    jpeg.progress = &progress;
    jpeg_mem_src(&jpeg, bytes.data(), static_cast<unsigned long>(bytes.size()));
    jpeg_read_header(&jpeg, TRUE);
    const bool cmyk = jpeg.jpeg_color_space == JCS_CMYK || jpeg.jpeg_color_space == JCS_YCCK;
    jpeg.out_color_space = cmyk ? JCS_CMYK : JCS_RGB;
    width = static_cast<int>(jpeg.image_width);
    height = static_cast<int>(jpeg.image_height);
    return true;
  }
  bool read_pixels(std::uint8_t* pixels) {
    if (setjmp(escape) != 0) return false;
    jpeg_start_decompress(&jpeg);
    const std::size_t row_bytes =
        static_cast<std::size_t>(width) * static_cast<std::size_t>(jpeg.output_components);
    while (jpeg.output_scanline < jpeg.output_height) {
      JSAMPROW row = pixels + jpeg.output_scanline * row_bytes;
      jpeg_read_scanlines(&jpeg, &row, 1);
    }
    jpeg_finish_decompress(&jpeg);
    return true;
  }
};

std::uint8_t multiply(int a, int b) { return static_cast<std::uint8_t>((a * b + 127) / 255); }

// Adobe's files hold the inverse of each ink: 255 is no ink.
std::vector<std::uint8_t> cmyk_to_rgb(const std::vector<std::uint8_t>& cmyk, bool inverted) {
  const int flip = inverted ? 0 : 255;
  std::vector<std::uint8_t> rgb(cmyk.size() / 4 * 3);
  for (std::size_t i = 0; i < cmyk.size() / 4; ++i) {
    const int black = cmyk[4 * i + 3] ^ flip;
    for (std::size_t c = 0; c < 3; ++c) rgb[3 * i + c] = multiply(cmyk[4 * i + c] ^ flip, black);
  }
  return rgb;
}

}  // namespace

Image decode_jpeg(std::span<const std::uint8_t> bytes, const std::string& source) {
  LAMELLA_CHECK(IoError, !bytes.empty(), source, ": corrupt JPEG: the file is empty");
  LAMELLA_CHECK(IoError, bytes.size() <= std::numeric_limits<unsigned long>::max(), source,
                ": too large for a JPEG");
  Decoder decoder;
  LAMELLA_CHECK(IoError, decoder.read_header(bytes), source, ": corrupt JPEG: ", decoder.message);
  LAMELLA_CHECK(IoError, std::int64_t{decoder.width} * decoder.height <= kMaxPixels, source, ": a JPEG of ",
                decoder.height, "x", decoder.width, " pixels; at most ", kMaxPixels, " are decoded");
  // Huffman coding spends at least one bit on each block of 8x8 pixels.
  LAMELLA_CHECK(IoError,
                decoder.jpeg.arith_code == TRUE ||
                    std::uint64_t(decoder.width) * std::uint64_t(decoder.height) / 512 <= bytes.size(),
                source, ": corrupt JPEG: ", bytes.size(), " bytes cannot hold ", decoder.height, "x",
                decoder.width, " pixels");
  Image image;
  image.height = decoder.height;
  image.width = decoder.width;
  const bool cmyk = decoder.jpeg.out_color_space == JCS_CMYK;
  image.pixels.resize(static_cast<std::size_t>(image.height) * static_cast<std::size_t>(image.width) *
                      (cmyk ? 4 : 3));
  LAMELLA_CHECK(IoError, decoder.read_pixels(image.pixels.data()), source,
                ": corrupt JPEG: ", decoder.message);
  if (cmyk) image.pixels = cmyk_to_rgb(image.pixels, decoder.jpeg.saw_Adobe_marker == TRUE);
  return image;
}

}  // namespace lamella::data
