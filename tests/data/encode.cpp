#include "tests/data/encode.h"

#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <stdexcept>
// These need size_t and FILE before them.
#include <jpeglib.h>
#include <png.h>

#include <cmath>

#include "tests/support/temp_folder.h"

namespace lamella::test {

std::vector<std::uint8_t> encode_jpeg(const data::Image& image, const JpegOptions& options) {
  jpeg_compress_struct jpeg{};
  jpeg_error_mgr errors{};
  jpeg.err = jpeg_std_error(&errors);
  jpeg_create_compress(&jpeg);
  unsigned char* buffer = nullptr;
  unsigned long size = 0;
  jpeg_mem_dest(&jpeg, &buffer, &size);
  const int components = options.cmyk_file ? 4 : options.grey_file ? 1 : 3;
  jpeg.image_height = static_cast<JDIMENSION>(image.height);
  jpeg.image_width = static_cast<JDIMENSION>(image.width);
  jpeg.input_components = components;
  jpeg.in_color_space = components == 4 ? JCS_CMYK : components == 1 ? JCS_GRAYSCALE : JCS_RGB;
  jpeg_set_defaults(&jpeg);
  jpeg_set_quality(&jpeg, options.quality, TRUE);
  if (options.progressive) jpeg_simple_progression(&jpeg);
  std::vector<jpeg_scan_info> scans;
  if (options.many_scans) {
    scans.push_back({3, {0, 1, 2, 0}, 0, 0, 0, 0});
    for (int bit = 2; bit >= 0; --bit)
      for (int component = 0; component < 3; ++component)
        for (int k = 1; k < 64; ++k)
          scans.push_back({1, {component, 0, 0, 0}, k, k, bit == 2 ? 0 : bit + 1, bit});
    jpeg.scan_info = scans.data();
    jpeg.num_scans = static_cast<int>(scans.size());
  }
  jpeg.restart_interval = static_cast<unsigned>(options.restart_interval);
  jpeg_start_compress(&jpeg, TRUE);
  std::vector<std::uint8_t> row(static_cast<std::size_t>(image.width * components));
  for (int y = 0; y < image.height; ++y) {
    for (int x = 0; x < image.width; ++x)
      for (int c = 0; c < components; ++c) {
        const std::uint8_t* pixel = image.row(y) + x * image.channels;
        // Adobe's inverted inks: the colour itself, and no black.
        row[static_cast<std::size_t>(x * components + c)] = c == 3 ? 255 : pixel[image.channels == 1 ? 0 : c];
      }
    JSAMPROW pointer = row.data();
    jpeg_write_scanlines(&jpeg, &pointer, 1);
  }
  jpeg_finish_compress(&jpeg);
  jpeg_destroy_compress(&jpeg);
  std::vector<std::uint8_t> bytes(buffer, buffer + size);
  std::free(buffer);
  return bytes;
}

std::vector<std::uint8_t> encode_png(const RawPng& raw) {
  png_structp png = png_create_write_struct(PNG_LIBPNG_VER_STRING, nullptr, nullptr, nullptr);
  png_infop info = png_create_info_struct(png);
  std::vector<std::uint8_t> bytes;
  png_set_write_fn(
      png, &bytes,
      [](png_structp from, png_bytep data, png_size_t count) {
        auto* out = static_cast<std::vector<std::uint8_t>*>(png_get_io_ptr(from));
        out->insert(out->end(), data, data + count);
      },
      [](png_structp) {});
  png_set_IHDR(png, info, static_cast<png_uint_32>(raw.width), static_cast<png_uint_32>(raw.height),
               raw.bit_depth, raw.color_type, raw.interlaced ? PNG_INTERLACE_ADAM7 : PNG_INTERLACE_NONE,
               PNG_COMPRESSION_TYPE_DEFAULT, PNG_FILTER_TYPE_DEFAULT);
  if (!raw.palette.empty()) {
    std::vector<png_color> colors;
    for (std::size_t i = 0; i + 2 < raw.palette.size(); i += 3)
      colors.push_back({raw.palette[i], raw.palette[i + 1], raw.palette[i + 2]});
    png_set_PLTE(png, info, colors.data(), static_cast<int>(colors.size()));
  }
  if (!raw.palette_alpha.empty())
    png_set_tRNS(png, info, raw.palette_alpha.data(), static_cast<int>(raw.palette_alpha.size()), nullptr);
  png_write_info(png, info);
  const std::size_t row_bytes = png_get_rowbytes(png, info);
  if (raw.rows.size() != row_bytes * static_cast<std::size_t>(raw.height))
    throw std::runtime_error("test: wrong row size");
  std::vector<png_bytep> rows;
  for (int y = 0; y < raw.height; ++y)
    rows.push_back(const_cast<png_bytep>(raw.rows.data()) + static_cast<std::size_t>(y) * row_bytes);
  png_write_image(png, rows.data());
  png_write_end(png, info);
  png_destroy_write_struct(&png, &info);
  return bytes;
}

std::vector<std::uint8_t> encode_png(const data::Image& image, bool interlaced) {
  RawPng raw;
  raw.height = image.height;
  raw.width = image.width;
  raw.color_type = image.channels == 1 ? PNG_COLOR_TYPE_GRAY : PNG_COLOR_TYPE_RGB;
  raw.interlaced = interlaced;
  raw.rows = image.pixels;
  return encode_png(raw);
}

data::Image pattern(int height, int width, int seed, int channels) {
  data::Image image(height, width, channels);
  for (int y = 0; y < height; ++y)
    for (int x = 0; x < width; ++x)
      for (int c = 0; c < channels; ++c)
        image.row(y)[x * channels + c] = static_cast<std::uint8_t>(
            127.5 + 120.0 * std::sin(0.11 * x * (c + 1) + 0.07 * y + 0.9 * seed + c));
  return image;
}

void make_image_folder(const std::filesystem::path& root, const std::vector<std::string>& classes,
                       int per_class, int height, int width, bool jpeg) {
  int seed = 0;
  for (const std::string& name : classes)
    for (int i = 0; i < per_class; ++i, ++seed) {
      const data::Image image = pattern(height, width, seed);
      put_file(root / name / (std::to_string(1000 + i) + (jpeg ? ".jpg" : ".png")),
               jpeg ? encode_jpeg(image) : encode_png(image));
    }
}

}  // namespace lamella::test
