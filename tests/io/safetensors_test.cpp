#include "lamella/io/safetensors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <string>
#include <vector>

#include "io/safetensors_header.h"
#include "lamella/core/error.h"
#include "lamella/core/memory.h"
#include "lamella/tensor/create.h"

namespace {

namespace lm = lamella;
namespace fs = std::filesystem;
using testing::HasSubstr;

class SafetensorsTest : public testing::Test {
 protected:
  SafetensorsTest() {
    const auto* info = testing::UnitTest::GetInstance()->current_test_info();
    folder_ = fs::temp_directory_path() /
              (std::string("lamella_safetensors_") + info->name() + '_' + std::to_string(::getpid()));
    fs::remove_all(folder_);
    fs::create_directories(folder_);
    path_ = folder_ / "net.safetensors";
  }
  ~SafetensorsTest() override { fs::remove_all(folder_); }

  std::string content() const {
    std::ifstream file(path_, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
  }
  void put(const std::string& bytes) const {
    std::ofstream(path_, std::ios::binary | std::ios::trunc)
        .write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  }
  /// A file with this header and so many data bytes of 1.
  void put(const std::string& header, std::size_t data_bytes) const {
    const std::uint64_t length = header.size();
    std::string bytes(8, '\0');
    std::memcpy(bytes.data(), &length, 8);
    put(bytes + header + std::string(data_bytes, '\1'));
  }
  std::string error_of(const std::function<void()>& call) const {
    try {
      call();
    } catch (const lm::IoError& error) {
      EXPECT_THAT(error.what(), HasSubstr(path_.string()));
      return error.what();
    }
    return "no error";
  }
  std::string load_error() const {
    return error_of([this] { lm::io::load_safetensors(path_); });
  }
  std::size_t files_in_folder() const {
    return static_cast<std::size_t>(std::distance(fs::directory_iterator(folder_), fs::directory_iterator()));
  }

  fs::path folder_, path_;
};

lm::StateDict sample() {
  lm::StateDict dict;
  dict.set("tracked", lm::full({}, 7, {.dtype = lm::int64}));
  dict.set("bytes", lm::full({3}, 200, {.dtype = lm::uint8}));
  dict.set("a \"quoted\" näme\n", lm::rand({2, 3}));
  dict.set("mask", lm::ones({5}, {.dtype = lm::boolean}));
  dict.set("half", lm::rand({3}, {.dtype = lm::float16}));
  dict.set("brain", lm::rand({1, 1, 2}, {.dtype = lm::bfloat16}));
  dict.set("double", lm::rand({2, 2}, {.dtype = lm::float64}));
  dict.set("int", lm::full({2}, -5, {.dtype = lm::int32}));
  dict.set("nothing", lm::zeros({0, 4}));
  dict.set("conv", lm::rand({2, 3, 4, 5}, {.format = lm::MemoryFormat::ChannelsLast}));
  dict.set("view", lm::rand({4, 6}).transpose(0, 1).slice(0, {1, 5, 2}));
  return dict;
}

TEST_F(SafetensorsTest, gives_back_what_was_saved) {
  const lm::StateDict dict = sample();
  const lm::io::Metadata metadata = {{"epoch", "3"}, {"note", "\"Größe\"\t{}"}};
  lm::io::save_safetensors(path_, dict, metadata);
  const lm::io::SafetensorsFile file = lm::io::load_safetensors_file(path_);
  EXPECT_EQ(file.metadata, metadata);
  ASSERT_EQ(file.tensors.size(), dict.size());
  for (std::size_t i = 0; i < dict.size(); ++i) {
    EXPECT_EQ(file.tensors[i].first, dict[i].first);
    EXPECT_EQ(file.tensors[i].second.dtype(), dict[i].second.dtype()) << dict[i].first;
    EXPECT_EQ(file.tensors[i].second.shape(), dict[i].second.shape()) << dict[i].first;
    EXPECT_EQ(file.tensors[i].second.to_vector<double>(), dict[i].second.to_vector<double>())
        << dict[i].first;
  }
  EXPECT_EQ(files_in_folder(), 1u);
}

TEST_F(SafetensorsTest, an_empty_dictionary_is_a_file) {
  lm::io::save_safetensors(path_, {});
  EXPECT_TRUE(lm::io::load_safetensors(path_).empty());
  put("{}", 0);
  EXPECT_TRUE(lm::io::load_safetensors(path_).empty());
}

TEST_F(SafetensorsTest, tensors_are_aligned_in_the_file) {
  lm::io::save_safetensors(path_, sample());
  const std::string bytes = content();
  std::uint64_t length = 0;
  std::memcpy(&length, bytes.data(), 8);
  EXPECT_EQ(length % 8, 0u);
  // The only 8-byte integers come before everything smaller.
  EXPECT_THAT(bytes, HasSubstr(R"("tracked":{"dtype":"I64","shape":[],"data_offsets":[0,8]})"));
}

TEST_F(SafetensorsTest, reads_what_another_writer_wrote) {
  put(R"( {"b":{"shape":[2],"data_offsets":[4,6],"dtype":"U8"},"__metadata__":{"x":"y"},)"
      R"("a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}   )",
      6);
  const auto file = lm::io::load_safetensors_file(path_);
  EXPECT_EQ(file.tensors[0].first, "b");
  EXPECT_EQ(file.tensors[0].second.to_vector<std::uint8_t>(), (std::vector<std::uint8_t>{1, 1}));
  EXPECT_EQ(file.metadata.at("x"), "y");
}

TEST_F(SafetensorsTest, any_byte_but_zero_is_true) {
  put(R"({"m":{"dtype":"BOOL","shape":[2],"data_offsets":[0,2]}})", 2);
  std::string bytes = content();
  bytes[bytes.size() - 1] = '\x7f';
  bytes[bytes.size() - 2] = '\0';
  put(bytes);
  EXPECT_EQ(lm::io::load_safetensors(path_).at("m").to_vector<std::int64_t>(),
            (std::vector<std::int64_t>{0, 1}));
}

TEST_F(SafetensorsTest, says_what_is_wrong) {
  EXPECT_THAT(load_error(), HasSubstr("No such file"));
  put("");
  EXPECT_THAT(load_error(), HasSubstr("only 0 bytes"));
  put(std::string(8, '\xff'));
  EXPECT_THAT(load_error(),
              HasSubstr("it is no safetensors file: its header would have 18446744073709551615"));
  const auto wrong = [this](const std::string& header, std::size_t bytes) {
    put(header, bytes);
    return load_error();
  };
  EXPECT_THAT(wrong("", 0), HasSubstr("valid JSON"));
  EXPECT_THAT(wrong("[]", 0), HasSubstr("array out of place"));
  EXPECT_THAT(wrong("3", 0), HasSubstr("number out of place"));
  EXPECT_THAT(wrong("\"x\"", 0), HasSubstr("text out of place"));
  EXPECT_THAT(wrong("{}x", 0), HasSubstr("valid JSON"));
  EXPECT_THAT(wrong("{}", 1), HasSubstr("take 0 bytes, but it has 1"));
  EXPECT_THAT(wrong(std::string(100000, '['), 0), HasSubstr("array out of place"));
  EXPECT_THAT(wrong(R"({"a":)" + std::string(100000, '{'), 0), HasSubstr("valid JSON"));
  const auto tensor = [&](const std::string& dtype, const std::string& shape, const std::string& offsets) {
    return R"({"a":{"dtype":)" + dtype + R"(,"shape":)" + shape + R"(,"data_offsets":)" + offsets + "}}";
  };
  EXPECT_THAT(wrong(tensor(R"("I16")", "[1]", "[0,2]"), 2), HasSubstr("I16"));
  EXPECT_THAT(wrong(tensor("4", "[1]", "[0,2]"), 2), HasSubstr("number out of place"));
  EXPECT_THAT(wrong(tensor(R"("F32")", "[1]", "[0]"), 4), HasSubstr("two data_offsets"));
  EXPECT_THAT(wrong(tensor(R"("F32")", "1", "[0,4]"), 4), HasSubstr("number out of place"));
  EXPECT_THAT(wrong(tensor(R"("F32")", "[-1]", "[0,4]"), 4), HasSubstr("negative"));
  EXPECT_THAT(wrong(tensor(R"("F32")", "[1.0]", "[0,4]"), 4), HasSubstr("not whole"));
  EXPECT_THAT(wrong(tensor(R"("F32")", "[[1]]", "[0,4]"), 4), HasSubstr("array out of place"));
  EXPECT_THAT(wrong(tensor(R"("F32")", "[1]", "[0,8]"), 4), HasSubstr("bytes 0 to 8 of 4"));
  EXPECT_THAT(wrong(tensor(R"("F32")", "[1]", "[4,0]"), 4), HasSubstr("bytes 4 to 0"));
  EXPECT_THAT(wrong(tensor(R"("F32")", "[2]", "[0,4]"), 4), HasSubstr("takes 8"));
  EXPECT_THAT(wrong(tensor(R"("F32")", "[1]", "[2,6]"), 6), HasSubstr("begins at byte 2"));
  EXPECT_THAT(wrong(tensor(R"("F32")", "[1]", "[0,4]"), 6), HasSubstr("take 4 bytes, but it has 6"));
  EXPECT_THAT(wrong(tensor(R"("F32")", "[1,1,1,1,1,1,1,1,1]", "[0,4]"), 4), HasSubstr("more than 8"));
  EXPECT_THAT(wrong(tensor(R"("F32")", "[4611686018427387904,4]", "[0,0]"), 0), HasSubstr("overflows"));
  EXPECT_THAT(wrong(tensor(R"("F32")", "[9223372036854775808]", "[0,0]"), 0), HasSubstr("above 2^63"));
  EXPECT_THAT(wrong(tensor(R"("F32")", "[1152921504606846976]", "[0,4611686018427387904]"), 4),
              HasSubstr("of 4 in the file"));
  EXPECT_THAT(wrong(R"({"a":{"dtype":"F32","shape":[1]}})", 4), HasSubstr("lacks"));
  EXPECT_THAT(wrong(R"({"a":{"dtype":"U8","shape":[0],"shape":[1],"data_offsets":[0,1]}})", 1),
              HasSubstr("shape twice"));
  EXPECT_THAT(wrong(R"({"a":{"dtype":"U8","shape":[0],"extra":[1],"data_offsets":[0,1]}})", 1),
              HasSubstr("extra"));
  EXPECT_THAT(
      wrong(
          R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"a":{"dtype":"U8","shape":[0],"data_offsets":[1,1]}})",
          1),
      HasSubstr("\"a\" twice"));
  EXPECT_THAT(
      wrong(
          R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"b":{"dtype":"U8","shape":[2],"data_offsets":[1,3]}})",
          3),
      HasSubstr("begins at byte 1"));
  EXPECT_THAT(wrong(R"({"__metadata__":{"a":1}})", 0), HasSubstr("number out of place"));
  EXPECT_THAT(wrong(R"({"__metadata__":{"a":"b","a":"c"}})", 0), HasSubstr("twice"));
  EXPECT_THAT(wrong(R"({"a":null})", 0), HasSubstr("null"));
  fs::remove(path_);
  fs::create_directory(path_);
  EXPECT_THAT(load_error(), HasSubstr("it is a folder"));
}

TEST_F(SafetensorsTest, sizes_that_overflow_are_errors_even_of_empty_tensors) {
  for (const char* const shape :
       {"[0,4611686018427387904,4]", "[4611686018427387904,0,4]", "[4611686018427387904,4,0]",
        "[0,9223372036854775807,9223372036854775807]"}) {
    put(std::string(R"({"a":{"dtype":"F32","shape":)") + shape + R"(,"data_offsets":[0,0]}})", 0);
    EXPECT_THAT(load_error(), HasSubstr("overflows")) << shape;
  }
  put(R"({"a":{"dtype":"F32","shape":[0,1099511627776],"data_offsets":[0,0]}})", 0);
  EXPECT_EQ(lm::io::load_safetensors(path_).at("a").shape(), lm::Shape({0, 1099511627776}));
  // Within the bytes of another, which no order of the two mends.
  put(R"({"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"b":{"dtype":"U8","shape":[0],"data_offsets":[2,2]}})",
      4);
  EXPECT_THAT(load_error(), HasSubstr("begins at byte 2"));
}

TEST_F(SafetensorsTest, nothing_hides_behind_a_zero_byte) {
  const std::string header = R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})";
  put(header + std::string(8, '\0'), 1);
  EXPECT_THAT(load_error(), HasSubstr("zero byte"));
  put(header + std::string(1, '\0') + "{\"other\": 1}", 1);
  EXPECT_THAT(load_error(), HasSubstr("zero byte"));
  put("\xef\xbb\xbf" + header, 1);
  EXPECT_THAT(load_error(), HasSubstr("byte order mark"));
  put(header + "  \n", 1);
  EXPECT_EQ(lm::io::load_safetensors(path_).size(), 1U);
}

TEST_F(SafetensorsTest, numbers_beyond_64_bits_and_other_types_are_errors) {
  const auto wrong = [this](const std::string& value) {
    put(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":)" + value + "}}", 4);
    return load_error();
  };
  EXPECT_THAT(wrong("[0,18446744073709551616]"), HasSubstr("not whole, or too large"));
  EXPECT_THAT(wrong("[0,1e400]"), HasSubstr("its header"));
  EXPECT_THAT(wrong("[0,4e0]"), HasSubstr("not whole"));
  EXPECT_THAT(wrong("[0,-4]"), HasSubstr("negative"));
  EXPECT_THAT(wrong("[0,\"4\"]"), HasSubstr("text out of place"));
  EXPECT_THAT(wrong("[0,true]"), HasSubstr("boolean"));
  EXPECT_THAT(wrong("[0,4,8]"), HasSubstr("two data_offsets"));
  EXPECT_THAT(wrong("{}"), HasSubstr("object out of place"));
  EXPECT_THAT(wrong("[18446744073709551612,0]"), HasSubstr("above 2^63"));
}

TEST_F(SafetensorsTest, messages_hold_nothing_that_steers_a_terminal) {
  put(R"({"\u001b[2J\u0007\u009b1m":{"dtype":"F32","shape":[1],"data_offsets":[0,8]}})", 4);
  const std::string message = load_error();
  EXPECT_THAT(message, HasSubstr("\"?[2J??1m\" has bytes 0 to 8"));
  put("{\"" + std::string(1 << 20, 'x') +
          "\":{\"dtype\":\"\\u001b]0;\",\"shape\":[],\"data_offsets\":[0,4]}}",
      4);
  EXPECT_THAT(load_error(), HasSubstr("xxx...\" the type ?]0;"));
  EXPECT_LT(load_error().size(), 1000U);
}

TEST_F(SafetensorsTest, a_header_that_nobody_would_read_is_not_written) {
  const std::string most(100'000'000, 'x');  // NOLINT(bugprone-string-constructor): as long as is meant
  EXPECT_THROW(lm::io::save_safetensors(path_, {}, {{"text", most}}), lm::Error);
  EXPECT_FALSE(fs::exists(path_));
}

TEST_F(SafetensorsTest, what_is_no_file_does_not_make_it_wait) {
  ASSERT_EQ(::mkfifo(path_.c_str(), 0600), 0);
  EXPECT_THAT(load_error(), HasSubstr("not a regular file"));
}

TEST_F(SafetensorsTest, a_huge_file_with_a_bad_header_takes_no_memory) {
  put("{}", 0);
  fs::resize_file(path_, std::uintmax_t{1} << 38);
  EXPECT_THAT(load_error(), HasSubstr("take 0 bytes"));
  // One good tensor, and then one that is not: nothing is taken for the first either.
  const auto before = lm::memory_stats(lm::Device::cpu());
  put(R"({"a":{"dtype":"U8","shape":[1048576],"data_offsets":[0,1048576]},)"
      R"("b":{"dtype":"F64","shape":[137438953472],"data_offsets":[1048576,1099512676352]}})",
      1 << 20);
  EXPECT_THAT(load_error(), HasSubstr("\"b\" has bytes 1048576 to 1099512676352 of 1048576"));
  EXPECT_EQ(lm::memory_stats(lm::Device::cpu()).allocations, before.allocations);
}

TEST_F(SafetensorsTest, every_truncation_is_an_error) {
  lm::io::save_safetensors(path_, sample(), {{"key", "value"}});
  for (std::uintmax_t length = fs::file_size(path_); length-- > 0;) {
    fs::resize_file(path_, length);
    EXPECT_NE(load_error(), "no error") << length;
  }
}

TEST_F(SafetensorsTest, changed_bytes_of_the_length_are_errors) {
  lm::io::save_safetensors(path_, sample());
  for (int bit = 0; bit < 64; ++bit) {
    std::string bytes = content();
    bytes[static_cast<std::size_t>(bit / 8)] =
        static_cast<char>(bytes[static_cast<std::size_t>(bit / 8)] ^ (1 << bit % 8));
    put(bytes);
    EXPECT_NE(load_error(), "no error") << bit;
    bytes[static_cast<std::size_t>(bit / 8)] =
        static_cast<char>(bytes[static_cast<std::size_t>(bit / 8)] ^ (1 << bit % 8));
    put(bytes);
  }
}

TEST_F(SafetensorsTest, changed_headers_are_errors_or_fill_the_file) {
  lm::io::save_safetensors(path_, sample(), {{"key", "value"}});
  const std::string bytes = content();
  std::uint64_t length = 0;
  std::memcpy(&length, bytes.data(), 8);
  const std::string header = bytes.substr(8, length);
  const std::uint64_t data = bytes.size() - 8 - length;
  std::size_t loaded = 0, refused = 0;
  for (std::size_t at = 0; at < header.size(); ++at)
    for (int bit = 0; bit < 8; ++bit) {
      std::string changed = header;
      changed[at] = static_cast<char>(changed[at] ^ (1 << bit));
      try {
        std::uint64_t sum = 0;
        for (const auto& entry : lm::io::detail::parse_safetensors_header(changed, data, "changed").entries) {
          EXPECT_EQ(entry.end - entry.begin,
                    static_cast<std::uint64_t>(entry.shape.product()) * lm::size_of(entry.dtype));
          sum += entry.end - entry.begin;
        }
        EXPECT_EQ(sum, data);
        ++loaded;
      } catch (const lm::IoError&) {
        ++refused;
      }
    }
  EXPECT_GT(refused, loaded);  // what loads has another name or text
}

TEST_F(SafetensorsTest, a_checksum_finds_a_changed_bit_anywhere) {
  lm::StateDict tensors = sample();
  tensors.set("\"lamella.crc32c\":\"00000000\"", lm::ones({1}));  // a name that looks like it
  lm::io::save_safetensors(path_, tensors, {{"key", "value"}}, {.checksum = true});
  const lm::io::SafetensorsFile file = lm::io::load_safetensors_file(path_);
  EXPECT_TRUE(file.checked);
  EXPECT_EQ(file.metadata, (lm::io::Metadata{{"key", "value"}}));
  EXPECT_EQ(file.tensors.size(), tensors.size());
  const std::string bytes = content();
  for (std::size_t at = 0; at < bytes.size(); ++at) {
    std::string changed = bytes;
    changed[at] = static_cast<char>(changed[at] ^ (1 << (at % 8)));
    put(changed);
    try {
      // Where the checksum's own name has changed there is none.
      EXPECT_FALSE(lm::io::load_safetensors_file(path_).checked) << at;
    } catch (const lm::IoError&) {
    }
  }
  std::string data_changed = bytes;
  data_changed.back() = static_cast<char>(data_changed.back() ^ 4);
  put(data_changed);
  EXPECT_THAT(load_error(), HasSubstr("the file is damaged, or was changed and kept its lamella.crc32c"));
}

TEST_F(SafetensorsTest, a_checksum_is_the_files_own) {
  lm::io::save_safetensors(path_, sample(), {}, {.checksum = true});
  const auto length = fs::file_size(path_);
  lm::io::save_safetensors(path_, sample());
  EXPECT_FALSE(lm::io::load_safetensors_file(path_).checked);
  EXPECT_LT(fs::file_size(path_), length);
  lm::io::save_safetensors(path_, {}, {}, {.checksum = true});
  EXPECT_TRUE(lm::io::load_safetensors_file(path_).checked);
  EXPECT_THROW(lm::io::save_safetensors(path_, sample(), {{"lamella.crc32c", "00000000"}}), lm::Error);
  // As another program may keep it: the text is not what a checksum looks like.
  put(R"({"__metadata__":{"lamella.crc32c":"123"}})", 0);
  EXPECT_THAT(load_error(), HasSubstr("but it says 123"));
}

TEST_F(SafetensorsTest, refuses_what_cannot_be_saved_and_keeps_the_old_file) {
  lm::io::save_safetensors(path_, {{"old", lm::ones({1})}});
  EXPECT_THROW(lm::io::save_safetensors(path_, {{"a", lm::Tensor()}}), lm::Error);
  EXPECT_THROW(lm::io::save_safetensors(path_, {{"__metadata__", lm::ones({1})}}), lm::Error);
  EXPECT_THROW(lm::io::save_safetensors(path_, {{"\xff", lm::ones({1})}}), lm::Error);
  EXPECT_THROW(lm::io::save_safetensors(path_, {}, {{"a", "\xc3"}}), lm::Error);
  EXPECT_TRUE(lm::io::load_safetensors(path_).contains("old"));
  EXPECT_EQ(files_in_folder(), 1u);
  EXPECT_THROW(lm::io::save_safetensors(folder_ / "absent" / "x", {}), lm::IoError);
}

/// Lets files grow to `bytes` only, as a full disk would.
class FileSizeLimit {
 public:
  explicit FileSizeLimit(rlim_t bytes) {
    signal(SIGXFSZ, SIG_IGN);
    getrlimit(RLIMIT_FSIZE, &before_);
    const rlimit limit{bytes, before_.rlim_max};
    setrlimit(RLIMIT_FSIZE, &limit);
  }
  ~FileSizeLimit() {
    setrlimit(RLIMIT_FSIZE, &before_);
    signal(SIGXFSZ, SIG_DFL);
  }

 private:
  rlimit before_{};
};

TEST_F(SafetensorsTest, a_full_disk_leaves_the_old_file) {
  lm::io::save_safetensors(path_, {{"old", lm::ones({1})}});
  {
    const FileSizeLimit limit(1000);
    EXPECT_NE(error_of([this] { lm::io::save_safetensors(path_, {{"new", lm::ones({1000})}}); }), "no error");
  }
  EXPECT_TRUE(lm::io::load_safetensors(path_).contains("old"));
  EXPECT_EQ(files_in_folder(), 1u);
}

}  // namespace
