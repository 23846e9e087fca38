#include <cstring>
#include <filesystem>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <zlib.h>

#include "penstock/base/error.h"
#include "penstock/base/file.h"
#include "penstock/tokenizer/tokenizer.h"

namespace penstock {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

class CorpusTest : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = fs::path(testing::TempDir()) / testing::UnitTest::GetInstance()->current_test_info()->name();
    fs::remove_all(folder_);
    fs::create_directories(folder_);
  }

  fs::path file(const std::string& name, const std::string& content) {
    write_file_atomically(folder_ / name, content);
    return folder_ / name;
  }
  static std::string packed(const std::string& content) {
    z_stream stream = {};
    EXPECT_EQ(deflateInit2(&stream, Z_BEST_SPEED, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY), Z_OK);
    std::string result(content.size() + 1000, '\0');
    std::string input = content;
    stream.next_in = reinterpret_cast<Bytef*>(input.data());
    stream.avail_in = static_cast<uInt>(input.size());
    stream.next_out = reinterpret_cast<Bytef*>(result.data());
    stream.avail_out = static_cast<uInt>(result.size());
    EXPECT_EQ(deflate(&stream, Z_FINISH), Z_STREAM_END);
    result.resize(stream.total_out);
    deflateEnd(&stream);
    return result;
  }
  [[nodiscard]] CorpusSettings settings(std::vector<fs::path> data, int threads = 1) const {
    CorpusSettings made;
    made.data = std::move(data);
    made.output = folder_ / "corpus";
    made.threads = threads;
    return made;
  }
  template <class Number>
  [[nodiscard]] std::vector<Number> numbers(const char* name) const {
    const std::string content = read_file(folder_ / name);
    std::vector<Number> read(content.size() / sizeof(Number));
    std::memcpy(read.data(), content.data(), content.size());
    return read;
  }
  std::string refusal_of(const CorpusSettings& asked) {
    const auto before = std::distance(fs::directory_iterator(folder_), {});
    try {
      write_corpus(tokenizer_, asked);
      return "";
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::BadInput);
      EXPECT_EQ(std::distance(fs::directory_iterator(folder_), {}), before) << "something was written";
      return error.what();
    }
  }

  fs::path folder_;
  Tokenizer tokenizer_ = load_tokenizer(fs::path(PENSTOCK_TOKENIZER_DATA) / "gpt2");
  TokenId end_ = tokenizer_.end_of_document().value();
};

TEST_F(CorpusTest, EachDocumentHasItsPlaceAndItsEnd) {
  const auto text = file("a.txt", "The pipeline\nhas stages.\n");
  const auto lines = file("b.jsonl.gz", packed("{\"text\":\"one\"}\n\n{\"text\":\"\"}\r\n{\"text\":\"two\"}"));
  const Corpus corpus = write_corpus(tokenizer_, settings({text, lines}));
  const auto tokens = numbers<std::uint16_t>("corpus.bin");
  const auto begins = numbers<std::uint64_t>("corpus.idx");
  ASSERT_EQ(corpus.documents, 4);
  ASSERT_EQ(begins.size(), 5U);
  EXPECT_EQ(begins.front(), 0U);
  EXPECT_EQ(begins.back(), tokens.size());
  EXPECT_EQ(corpus.tokens, static_cast<std::int64_t>(tokens.size()));
  const std::vector<std::string> expected{"The pipeline\nhas stages.\n", "one", "", "two"};
  for (std::size_t document = 0; document < expected.size(); ++document) {
    const std::vector<TokenId> ids(tokens.begin() + static_cast<std::ptrdiff_t>(begins[document]),
                                   tokens.begin() + static_cast<std::ptrdiff_t>(begins[document + 1]));
    EXPECT_EQ(ids.back(), end_);
    EXPECT_EQ(tokenizer_.decode(ids), expected[document]);
  }
  EXPECT_EQ(read_corpus_index(folder_ / "corpus.json"), corpus);
  EXPECT_EQ(corpus.vocabulary, static_cast<std::int64_t>(tokenizer_.vocabulary()));
  EXPECT_EQ(corpus.tokenizer_digest, tokenizer_.digest());
}

TEST_F(CorpusTest, ThreadsChangeNothing) {
  std::string lines;
  for (int line = 0; line < 20'000; ++line)
    lines +=
        R"({"body":"line )" + std::to_string(line) + std::string(static_cast<std::size_t>(line % 300), 'x') + "\"}\n";
  CorpusSettings asked = settings({file("a.ndjson", lines)}, 1);
  asked.field = "body";
  const Corpus one = write_corpus(tokenizer_, asked);
  asked.output = folder_ / "other";
  asked.threads = 4;
  std::int64_t calls = 0;
  const Corpus four = write_corpus(tokenizer_, asked, [&](const CorpusProgress& progress) {
    ++calls;
    EXPECT_LE(progress.bytes_read, progress.bytes_total);
  });
  EXPECT_EQ(one, four);
  EXPECT_GT(calls, 2);
  EXPECT_EQ(read_file(folder_ / "corpus.bin"), read_file(folder_ / "other.bin"));
  EXPECT_EQ(read_file(folder_ / "corpus.idx"), read_file(folder_ / "other.idx"));
}

TEST_F(CorpusTest, BadInputIsNamedAndNothingIsWritten) {
  const auto good = file("good.txt", std::string(3'000'000, 'a'));
  EXPECT_THAT(refusal_of(settings({good, file("a.jsonl", "{\"text\":\"x\"}\n{\"body\":\"x\"}\n")}, 2)),
              HasSubstr("a.jsonl line 2 has no \"text\""));
  const std::string whole = packed("{\"text\":\"x\"}\n");
  EXPECT_THAT(refusal_of(settings({file("cut.jsonl.gz", whole.substr(0, whole.size() - 3))})),
              HasSubstr("cut.jsonl.gz is cut short"));
  EXPECT_THAT(refusal_of(settings({file("no.gz", "plain")})), HasSubstr("not packed by gzip"));
  EXPECT_THAT(refusal_of(settings({file("empty.gz", "")})), HasSubstr("is cut short"));
  EXPECT_THAT(refusal_of(settings({folder_ / "none"})), HasSubstr("there is no file or folder"));
  CorpusSettings unknown_end = settings({good});
  unknown_end.end_of_document = "<none>";
  EXPECT_THAT(refusal_of(unknown_end), HasSubstr("\"<none>\""));
  file("corpus.idx", "mine");
  EXPECT_THAT(refusal_of(settings({good})), HasSubstr("corpus.idx is there already"));
  EXPECT_EQ(read_file(folder_ / "corpus.idx"), "mine");
}

TEST_F(CorpusTest, AnIndexThatDoesNotFitIsRefused) {
  write_corpus(tokenizer_, settings({file("a.txt", "text")}));
  file("corpus.bin", "short");
  EXPECT_THROW(static_cast<void>(read_corpus_index(folder_ / "corpus.json")), Error);
  EXPECT_THROW(static_cast<void>(read_corpus_index(file("other.json", "{}"))), Error);
}

TEST_F(CorpusTest, SeveralMembersOfGzipAreOneFile) {
  const auto data = file("a.txt.gz", packed("one ") + packed("two"));
  write_corpus(tokenizer_, settings({data}));
  const auto tokens = numbers<std::uint16_t>("corpus.bin");
  EXPECT_EQ(tokenizer_.decode(std::vector<TokenId>(tokens.begin(), tokens.end())), "one two");
}

}  // namespace
}  // namespace penstock
