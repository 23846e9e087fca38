// Files that are damaged, foreign or made to do harm: always an Error of one line, never a crash, and no memory beyond
// what the file's own length accounts for.
#include <cstring>
#include <fmt/format.h>
#include <fstream>
#include <gmock/gmock.h>
#include <random>
#include <sys/stat.h>

#include "penstock/base/file.h"

#include "checkpoint/checkpoint_index.h"
#include "checkpoint/checksum.h"
#include "checkpoint/safetensors_header.h"
#include "checkpoint_fixture.h"
#include "largest_allocation.h"

namespace penstock {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

class Hostile : public FolderTest {
 protected:
  /// The refusal of a safetensors file with this header and so many bytes of data.
  [[nodiscard]] std::string refusal(const std::string& header, std::size_t data_bytes) const {
    const std::uint64_t length = header.size();
    std::string content(8, '\0');
    std::memcpy(content.data(), &length, sizeof(length));
    return refusal_of_file(content + header + std::string(data_bytes, 'x'));
  }

  [[nodiscard]] std::string refusal_of_file(const std::string& content) const {
    write("file", content);
    return message_of([&] { static_cast<void>(SafetensorsFile::open(folder() / "file")); });
  }

  /// Replaces a file by a new one: writing over the old one would make ext4 wait for the disk each time.
  void write(const fs::path& name, const std::string& content) const {
    fs::remove(folder() / name);
    std::ofstream(folder() / name, std::ios::binary) << content;
  }
};

std::string tensor(const std::string& fields) { return R"({"w":{)" + fields + "}}"; }

TEST_F(Hostile, EachFlawOfAHeaderHasItsOwnMessage) {
  EXPECT_THAT(refusal_of_file(""), HasSubstr("0 bytes; expected at least 10"));
  EXPECT_THAT(refusal_of_file(std::string(8, '\xff') + "{}"), HasSubstr("a header of 18446744073709551615 bytes"));
  EXPECT_THAT(refusal_of_file(std::string(16, '\0')), HasSubstr("a header of 0 bytes"));
  EXPECT_THAT(refusal_of_file("text that is no safetensors file"), HasSubstr("expected 2 to 24"));
  EXPECT_THAT(refusal("[]", 0), HasSubstr("does not begin with '{'"));
  EXPECT_THAT(refusal("{\"w\"", 0), HasSubstr("no JSON at byte"));
  EXPECT_THAT(refusal("{}x", 0), HasSubstr("no JSON at byte"));
  EXPECT_THAT(refusal("{\"\xff\":1}", 0), HasSubstr("no JSON at byte"));
  EXPECT_THAT(refusal(R"({"w":1})", 0), HasSubstr("\"w\" is no object"));
  EXPECT_THAT(refusal(R"({"w":{"dtype":{"a":{}}}})", 0), HasSubstr("unusable dtype"));
  EXPECT_THAT(refusal(tensor(R"("dtype":"F32","shape":[1])"), 4), HasSubstr("not described in full"));
  EXPECT_THAT(refusal(tensor(R"("dtype":"F4","shape":[2],"data_offsets":[0,1])"), 1), HasSubstr("the dtype \"F4\""));
  EXPECT_THAT(refusal(tensor(R"("dtype":"F32","shape":[-1],"data_offsets":[0,4])"), 4), HasSubstr("a negative number"));
  EXPECT_THAT(refusal(tensor(R"("dtype":"F32","shape":[1.0],"data_offsets":[0,4])"), 4), HasSubstr("no integer"));
  EXPECT_THAT(refusal(tensor(R"("dtype":"F32","shape":1,"data_offsets":[0,4])"), 4), HasSubstr("unusable shape"));
  EXPECT_THAT(refusal(tensor(R"("dtype":"F32","shape":[1],"shape":[1],"data_offsets":[0,4])"), 4),
              HasSubstr("every key once"));
  EXPECT_THAT(refusal(tensor(R"("dtype":"F32","shape":[1],"data_offsets":[0,4,4])"), 4),
              HasSubstr("unusable data_offsets"));
  EXPECT_THAT(refusal(tensor(R"("dtype":"F32","shape":[1],"data_offsets":[0,4],"x":1)"), 4),
              HasSubstr("unknown key \"x\""));
  EXPECT_THAT(refusal(tensor(R"("dtype":"F32","shape":[2],"data_offsets":[0,4])"), 4), HasSubstr("expected 8 bytes"));
  EXPECT_THAT(refusal(tensor(R"("dtype":"F32","shape":[1],"data_offsets":[0,4])"), 3), HasSubstr("within the 3 bytes"));
  EXPECT_THAT(refusal(tensor(R"("dtype":"F32","shape":[1],"data_offsets":[4,0])"), 4), HasSubstr("ascending places"));
  EXPECT_THAT(refusal(tensor(R"("dtype":"F32","shape":[1],"data_offsets":[0,4])"), 5), HasSubstr("5 bytes of data"));
  EXPECT_THAT(refusal(R"({"__metadata__":{"a":1}})", 0), HasSubstr("the metadata \"a\" is no text"));
  EXPECT_THAT(refusal(R"({"__metadata__":{},"__metadata__":{}})", 0), HasSubstr("__metadata__ stands twice"));
  EXPECT_THAT(refusal(R"({"__metadata__":{"a":"","a":""}})", 0), HasSubstr("\"a\" stands twice"));
}

TEST_F(Hostile, OverlapsGapsAndDoubledNames) {
  const auto two = [](const std::string& second, const std::string& begin, const std::string& end) {
    return R"({"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},)" + second +
           R"(:{"dtype":"U8","shape":[4],"data_offsets":[)" + begin + "," + end + "]}}";
  };
  EXPECT_THAT(refusal(two("\"b\"", "2", "6"), 6), HasSubstr("\"b\" begins at byte 2; expected byte 4"));
  EXPECT_THAT(refusal(two("\"b\"", "5", "9"), 9), HasSubstr("\"b\" begins at byte 5; expected byte 4"));
  EXPECT_THAT(refusal(two("\"b\"", "0", "4"), 4), HasSubstr("begins at byte 0; expected byte 4"));
  EXPECT_THAT(refusal(two("\"a\"", "4", "8"), 8), HasSubstr("\"a\" stands twice"));
  EXPECT_THAT(refusal(two(R"("\u0061")", "4", "8"), 8), HasSubstr("\"a\" stands twice")) << "the same name, escaped";
}

TEST_F(Hostile, SizesThatDoNotFitIntoMemoryAreNotTried) {
  const std::string large = "4611686018427387904";  // 2 to the power of 62
  for (const std::string& shape : {fmt::format("{0},{0}", large), fmt::format("0,{0},{0}", large), large + ",4",
                                   std::string("18446744073709551615"), std::string("99999999999999999999")}) {
    reset_largest_allocation();
    EXPECT_FALSE(refusal(tensor(R"("dtype":"F32","shape":[)" + shape + R"(],"data_offsets":[0,0])"), 0).empty());
    EXPECT_LT(largest_allocation(), 65'536) << shape;
  }
  std::string ones = "1";
  for (int more = 0; more < 64; ++more) ones += ",1";
  EXPECT_THAT(refusal(tensor(R"("dtype":"U8","shape":[)" + ones + R"(],"data_offsets":[0,1])"), 1),
              HasSubstr("at most 64 dimensions"));
  EXPECT_THAT(refusal(std::string(1'000'000, '{'), 0), HasSubstr("no JSON"));
  std::string deep;
  for (int level = 0; level < 100'000; ++level) deep += R"({"a":)";
  EXPECT_THAT(refusal(deep, 0), HasSubstr("unknown key")) << "no recursion that a file could drive";
}

/// One random damage: a truncation, flipped bits, a number at the end of its range, a piece that is doubled, moved or
/// lost.
std::string mutated(std::string content, std::mt19937& random) {
  const auto below = [&random](std::size_t limit) {
    return std::uniform_int_distribution<std::size_t>(0, std::max<std::size_t>(limit, 1) - 1)(random);
  };
  const std::size_t changes = 1 + below(3);
  for (std::size_t change = 0; change < changes && !content.empty(); ++change) {
    const std::size_t place = below(content.size());
    const std::size_t length = std::min(1 + below(16), content.size() - place);
    switch (below(6)) {
      case 0:
        content.resize(place);
        break;
      case 1:
        content[place] = static_cast<char>(content[place] ^ (1 << below(8)));
        break;
      case 2:
        content.replace(place, length, std::string(length, below(2) == 0 ? '\xff' : '\0'));
        break;
      case 3:
        content.insert(place, content.substr(below(content.size()), length));
        break;
      case 4:
        content.erase(place, length);
        break;
      default: {
        const std::string digits = "0123456789{}[]\",:-e.";
        content[place] = digits[below(digits.size())];
      }
    }
  }
  return content;
}

TEST_F(Hostile, SeededMutationsOfAFileAreReadOrRefused) {
  constexpr unsigned seed = 4711;
  std::mt19937 random(seed);
  write_safetensors(folder() / "whole", stage_tensors(3, 1, 10), {{"format", "pt"}, {"note", "x"}});
  const std::string whole = read_file(folder() / "whole");
  const std::size_t header = 8 + 256;  // damage the header most of the time, the data has no structure
  int refused = 0;
  for (int variant = 0; variant < 4000; ++variant) {
    SCOPED_TRACE("seed " + std::to_string(seed) + ", variant " + std::to_string(variant));
    const std::size_t kept = std::min(whole.size(), variant % 4 == 0 ? std::size_t{0} : header);
    const std::string content =
        kept == 0 ? mutated(whole, random) : mutated(whole.substr(0, kept), random) + whole.substr(kept);
    write("file", content);
    reset_largest_allocation();
    try {
      const SafetensorsFile file = SafetensorsFile::open(folder() / "file");
      for (const std::string& name : file.names()) EXPECT_LE(file.read(name).nbytes(), content.size());
    } catch (const Error& error) {
      ++refused;
      EXPECT_EQ(error.kind(), ErrorKind::BadInput);
      EXPECT_EQ(std::string(error.what()).find('\n'), std::string::npos) << error.what();
    }
    EXPECT_LE(largest_allocation(), 4096 + 2 * content.size());
  }
  EXPECT_GT(refused, 2000) << "most damage is seen";
}

TEST_F(Hostile, EveryMutationOfACheckpointIsRefused) {
  constexpr unsigned seed = 815;
  std::mt19937 random(seed);
  write_checkpoint(folder(), 1, 1, 10);
  const CheckpointId id{1, folder() / "step-00000001"};
  for (const char* name : {"index.json", "stage-000.safetensors"}) {
    const std::string whole = read_file(id.path / name);
    for (int variant = 0; variant < 1000; ++variant) {
      SCOPED_TRACE("seed " + std::to_string(seed) + ", variant " + std::to_string(variant));
      const std::string content = mutated(whole, random);
      if (content == whole) continue;
      write(id.path / name, content);
      EXPECT_THAT(message_of([&] { const CheckpointReader reader(id); }), HasSubstr(name));
    }
    write(id.path / name, whole);
  }
  expect_checkpoint(id, 1, 10);
}

/// An index whose last line fits, so that what is within has to stand on its own.
std::string sealed(const std::string& body) {
  Checksum checksum;
  checksum.add(body.data(), body.size());
  return body + R"("xxh64": ")" + checksum.text() + "\"}\n";
}

TEST_F(Hostile, AnIndexWithAFittingChecksumIsReadOrRefused) {
  constexpr unsigned seed = 99;
  std::mt19937 random(seed);
  const CheckpointIndex index{
      7, R"({"a": 1})", {{"stage-000.safetensors", {12, "0123456789abcdef"}}}, {{"w", "stage-000.safetensors"}}};
  const std::string text = format_index(index);
  EXPECT_EQ(parse_index(text, "index"), index);
  const std::string body = text.substr(0, text.rfind(R"("xxh64": ")"));
  EXPECT_EQ(sealed(body), text);
  for (int variant = 0; variant < 4000; ++variant) {
    const std::string content = sealed(mutated(body, random));
    reset_largest_allocation();
    try {
      static_cast<void>(parse_index(content, "index"));
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::BadInput) << "seed " << seed << ", variant " << variant;
    }
    EXPECT_LE(largest_allocation(), 4096 + 2 * content.size());
  }
}

TEST_F(Hostile, AnIndexOfAnotherProgramOrVersion) {
  const auto refuse = [](const std::string& body) {
    return message_of([&] { static_cast<void>(parse_index(sealed(body), "index")); });
  };
  EXPECT_THAT(refuse(R"({"format": "other",)"), HasSubstr("the format \"other\""));
  EXPECT_THAT(refuse(R"({"format": "penstock checkpoint", "version": 2,)"), HasSubstr("version 2 of the format"));
  EXPECT_THAT(refuse("{"), HasSubstr("an index without format"));
  const std::string begin = R"({"format": "penstock checkpoint", "version": 1, "step": 1, "metadata": "", )";
  EXPECT_THAT(refuse(begin + R"("files": {}, "files": {}, "tensors": {},)"), HasSubstr("unusable \"files\""));
  EXPECT_THAT(refuse(begin + R"("files": {"../x": {"bytes": 1, "xxh64": "0123456789abcdef"}}, "tensors": {},)"),
              HasSubstr("\"../x\""));
  EXPECT_THAT(refuse(begin + R"("files": {}, "tensors": {"w": "x"},)"), HasSubstr("\"w\" in the file \"x\""));
}

TEST_F(Hostile, APipeAndAFolderAreNoFiles) {
  ASSERT_EQ(::mkfifo((folder() / "pipe").c_str(), 0600), 0);
  for (const auto& path : {folder() / "pipe", folder()})
    EXPECT_THAT(message_of([&] { static_cast<void>(SafetensorsFile::open(path)); }), HasSubstr("no regular file"));
  EXPECT_THAT(message_of([&] { static_cast<void>(SafetensorsFile::open(folder() / "none")); }),
              HasSubstr("No such file"));
}

}  // namespace
}  // namespace penstock
