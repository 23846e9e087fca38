#include "penstock/checkpoint/safetensors.h"

#include <gmock/gmock.h>
#include <string_view>

#include "penstock/base/file.h"

#include "checkpoint/safetensors_header.h"
#include "checkpoint_fixture.h"
#include "every_dtype.h"

namespace penstock {
namespace {

using testing::HasSubstr;

class Safetensors : public FolderTest {};

TEST_F(Safetensors, EveryTypeAndShapeComesBack) {
  std::vector<NamedTensor> tensors = every_dtype();
  tensors.push_back({"scalar", at::scalar_tensor(3.5)});
  tensors.push_back({"empty", at::empty({3, 0, 2})});
  tensors.push_back({"transposed", at::arange(6).view({2, 3}).t()});
  tensors.push_back({"expanded", at::ones({1}).expand({4})});
  tensors.push_back({"slice", at::arange(10).slice(0, 3, 9, 2)});
  tensors.push_back({"größe \"\\\n", at::ones({1})});
  write_safetensors(folder() / "a.safetensors", tensors, {{"format", "pt"}, {"note", "\"quoted\""}});
  const SafetensorsFile file = SafetensorsFile::open(folder() / "a.safetensors");
  EXPECT_EQ(file.names().size(), tensors.size());
  EXPECT_EQ(file.metadata(), (std::map<std::string, std::string>{{"format", "pt"}, {"note", "\"quoted\""}}));
  for (const NamedTensor& named : tensors) {
    const at::Tensor read = file.read(named.name);
    EXPECT_EQ(read.scalar_type(), named.tensor.scalar_type());
    EXPECT_EQ(read.sizes(), named.tensor.sizes());
    EXPECT_TRUE(read.is_contiguous());
    const at::Tensor expected = named.tensor.contiguous();
    const auto bytes_of = [](const at::Tensor& tensor) {
      return std::string_view(static_cast<const char*>(tensor.const_data_ptr()), tensor.nbytes());
    };
    EXPECT_EQ(bytes_of(read), bytes_of(expected)) << named.name;
  }
  EXPECT_FALSE(file.contains("none"));
  EXPECT_THAT(message_of([&] { static_cast<void>(file.read("none")); }), HasSubstr("no tensor \"none\""));
}

TEST_F(Safetensors, EqualTensorsGiveEqualFilesWhoseDataIsAligned) {
  const std::vector<NamedTensor> one = {
      {"b", at::ones({3}, at::kByte)}, {"a", at::ones({3}, at::kDouble)}, {"c", at::ones({5}, at::kHalf)}};
  const std::vector<NamedTensor> other = {one[2], one[0], one[1]};
  write_safetensors(folder() / "one", one, {});
  write_safetensors(folder() / "other", other, {});
  const std::string content = read_file(folder() / "one");
  EXPECT_EQ(content, read_file(folder() / "other"));
  EXPECT_EQ(content.substr(0, 8), std::string("\xa8\0\0\0\0\0\0\0", 8)) << "168 bytes of header";
  EXPECT_EQ(content.substr(8, 61), R"({"a":{"dtype":"F64","shape":[3],"data_offsets":[0,24]},"c":{")");
}

TEST_F(Safetensors, TensorsOfTwoFilesAreCompared) {
  constexpr std::int64_t several_reads = 700'000;  // of a mebibyte
  const at::Tensor long_one = at::arange(several_reads, at::kInt);
  at::Tensor changed = long_one.clone();
  changed[several_reads - 1] = -1;
  write_safetensors(folder() / "one", std::vector<NamedTensor>{{"first", at::ones({3})}, {"a", long_one}}, {});
  write_safetensors(folder() / "other",
                    std::vector<NamedTensor>{{"b", long_one},
                                             {"changed", changed},
                                             {"of another type", long_one.to(at::kFloat)},
                                             {"of another shape", long_one.view({2, -1})}},
                    {});
  const SafetensorsFile one = SafetensorsFile::open(folder() / "one");
  const SafetensorsFile other = SafetensorsFile::open(folder() / "other");
  EXPECT_TRUE(one.holds_same("a", other, "b"));
  for (const char* name : {"changed", "of another type", "of another shape"})
    EXPECT_FALSE(one.holds_same("a", other, name)) << name;
}

TEST_F(Safetensors, WithoutTensors) {
  write_safetensors(folder() / "none", {}, {});
  EXPECT_EQ(read_file(folder() / "none"), std::string("\x08\0\0\0\0\0\0\0{}      ", 16));
  EXPECT_TRUE(SafetensorsFile::open(folder() / "none").names().empty());
}

TEST_F(Safetensors, WhatTheLayoutCannotHoldIsRefused) {
  const auto refuse = [&](const NamedTensor& named) {
    return message_of([&] { write_safetensors(folder() / "x", std::span(&named, 1), {}); });
  };
  EXPECT_THAT(refuse({"w", {}}), HasSubstr("\"w\" is undefined"));
  EXPECT_THAT(refuse({"w", at::ones({2}, at::kComplexDouble)}), HasSubstr("ComplexDouble"));
  EXPECT_THAT(refuse({"w", at::ones({2, 2}).to_sparse()}), HasSubstr("sparse"));
  EXPECT_THAT(refuse({"", at::ones({2})}), HasSubstr("a tensor named \"\""));
  EXPECT_THAT(refuse({"\xff", at::ones({2})}), HasSubstr("UTF-8"));
  EXPECT_THAT(refuse({"__metadata__", at::ones({2})}), HasSubstr("__metadata__"));
  const std::vector<NamedTensor> twice = {{"w", at::ones({2})}, {"w", at::ones({2})}};
  EXPECT_THAT(message_of([&] { write_safetensors(folder() / "x", twice, {}); }), HasSubstr("two tensors named \"w\""));
}

TEST_F(Safetensors, AFullDiskNamesTheFile) {
  const std::vector<NamedTensor> tensors = {{"w", at::ones({100'000})}};
  EXPECT_THAT(message_of([&] { write_safetensors("/dev/full", tensors, {}); }, ErrorKind::RunFailed),
              HasSubstr("/dev/full"));
}

}  // namespace
}  // namespace penstock
