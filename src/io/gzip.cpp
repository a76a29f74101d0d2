#include "io/gzip.h"

#include <zlib.h>

#include <algorithm>
#include <limits>
#include <new>
#include <utility>

#include "core/check.h"

namespace lamella::detail {
namespace {

constexpr int kGzipWindow = 15 + 16;  // 32 KiB window, gzip wrapper
constexpr std::size_t kMaxPiece = std::numeric_limits<uInt>::max() / 2;

}  // namespace

bool is_gzip(std::span<const std::uint8_t> bytes) {
  return bytes.size() >= 2 && bytes[0] == 0x1f && bytes[1] == 0x8b;
}

struct GzipReader::State {
  z_stream stream{};
  std::span<const std::uint8_t> rest;
  std::string source;
  bool finished = false;
};

GzipReader::GzipReader(std::span<const std::uint8_t> bytes, std::string source)
    : state_(std::make_unique<State>()) {
  state_->rest = bytes;
  state_->source = std::move(source);
  if (inflateInit2(&state_->stream, kGzipWindow) != Z_OK) throw std::bad_alloc();
}

GzipReader::~GzipReader() { inflateEnd(&state_->stream); }

std::size_t GzipReader::read(std::uint8_t* out, std::size_t bytes) {
  z_stream& stream = state_->stream;
  std::size_t done = 0;
  while (!state_->finished && done < bytes) {
    const std::size_t offered = std::min(state_->rest.size(), kMaxPiece);
    const std::size_t wanted = std::min(bytes - done, kMaxPiece);
    stream.next_in = const_cast<Bytef*>(state_->rest.data());
    stream.avail_in = static_cast<uInt>(offered);
    stream.next_out = out + done;
    stream.avail_out = static_cast<uInt>(wanted);
    const int result = inflate(&stream, Z_NO_FLUSH);
    state_->rest = state_->rest.subspan(offered - stream.avail_in);
    done += wanted - stream.avail_out;
    if (result == Z_STREAM_END) {
      if (state_->rest.empty()) {
        state_->finished = true;
      } else {
        LAMELLA_CHECK(IoError, is_gzip(state_->rest), state_->source,
                      ": corrupt gzip data: ", state_->rest.size(), " bytes that are no gzip follow the end");
        inflateReset(&stream);
      }
      continue;
    }
    if (result == Z_MEM_ERROR) throw std::bad_alloc();
    LAMELLA_CHECK(IoError,
                  result != Z_BUF_ERROR && !(result == Z_OK && state_->rest.empty() && stream.avail_out > 0),
                  state_->source, ": truncated gzip data");
    LAMELLA_CHECK(IoError, result == Z_OK, state_->source,
                  ": corrupt gzip data: ", stream.msg != nullptr ? stream.msg : "unknown format");
  }
  return done;
}

std::vector<std::uint8_t> gzip(std::span<const std::uint8_t> bytes) {
  z_stream stream{};
  if (deflateInit2(&stream, Z_BEST_COMPRESSION, Z_DEFLATED, kGzipWindow, 9, Z_DEFAULT_STRATEGY) != Z_OK)
    throw std::bad_alloc();
  struct Cleanup {
    z_stream* stream;
    ~Cleanup() { deflateEnd(stream); }
  } cleanup{&stream};
  std::vector<std::uint8_t> packed(deflateBound(&stream, bytes.size()));
  std::size_t in = 0, out = 0;
  int result = Z_OK;
  while (result == Z_OK) {
    const std::size_t offered = std::min(bytes.size() - in, kMaxPiece);
    const std::size_t room = std::min(packed.size() - out, kMaxPiece);
    stream.next_in = const_cast<Bytef*>(bytes.data() + in);
    stream.avail_in = static_cast<uInt>(offered);
    stream.next_out = packed.data() + out;
    stream.avail_out = static_cast<uInt>(room);
    result = deflate(&stream, in + offered == bytes.size() ? Z_FINISH : Z_NO_FLUSH);
    in += offered - stream.avail_in;
    out += room - stream.avail_out;
  }
  LAMELLA_CHECK(Error, result == Z_STREAM_END, "gzip: packing ", bytes.size(), " bytes failed");
  packed.resize(out);
  return packed;
}

}  // namespace lamella::detail
