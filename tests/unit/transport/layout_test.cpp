#include "penstock/transport/layout.h"

#include <array>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <ATen/ATen.h>
#include <torch/torch.h>

#include "penstock/base/error.h"
#include "penstock/wire/strided.h"

#include "strided_tensors.h"
#include "transport/strided_tensor.h"

namespace penstock {
namespace {

using testing::HasSubstr;

const at::Device host(at::kCPU);

TEST(CopyInSameLayout, HasTheValuesSizesAndStridesInMemoryOfItsOwn) {
  for (const at::ScalarType dtype : {at::kFloat, at::kByte, at::kBFloat16, at::kComplexDouble, at::kBool}) {
    for (const auto& [name, tensor] : tensors_of_all_layouts(dtype)) {
      const at::Tensor copy = copy_in_same_layout(tensor, host);
      EXPECT_EQ(copy.sizes(), tensor.sizes()) << name;
      EXPECT_EQ(copy.strides(), tensor.strides()) << name;
      EXPECT_TRUE(same_bytes(copy, tensor)) << name;
      EXPECT_FALSE(copy.is_alias_of(tensor)) << name;
      EXPECT_EQ(copy.storage_offset(), 0) << name;
      EXPECT_EQ(copy.storage().nbytes(), extent_of(tensor).span * tensor.itemsize()) << name;
    }
  }
}

TEST(CopyInSameLayout, IsNoPartOfAGraphAndMayBeChangedAsTheOriginalMay) {
  const at::Tensor weight = at::ones({4, 3}, at::requires_grad());
  for (const at::Tensor& tensor : {(weight * 2).t(), (weight * 2).select(1, 0), (weight.sum() * 2).expand({3, 4})}) {
    const at::Tensor copy = copy_in_same_layout(tensor, host);
    EXPECT_FALSE(copy.requires_grad());
    EXPECT_EQ(copy.grad_fn(), nullptr);
    EXPECT_FALSE(copy.is_view());
  }
  const at::Tensor copy = copy_in_same_layout(at::ones({2, 3}).unfold(1, 2, 1), host);
  copy.requires_grad_();
  EXPECT_TRUE(copy.is_leaf());
  EXPECT_NO_THROW((copy * 2).sum().backward());
  EXPECT_FALSE(copy_in_same_layout(at::Tensor(), host).defined());
}

TEST(CopyInSameLayout, ShowsWhatAConjugatedOrNegatedViewShows) {
  const at::Tensor numbers = at::complex(at::rand({3, 4}), at::rand({3, 4}));
  for (const at::Tensor& tensor : {numbers.conj(), numbers.t().conj(), at::imag(numbers.conj())}) {
    const at::Tensor copy = copy_in_same_layout(tensor, host);
    EXPECT_TRUE(at::equal(copy, tensor));
    EXPECT_EQ(copy.strides(), tensor.strides());
    EXPECT_FALSE(copy.is_conj() || copy.is_neg());
  }
}

std::string refusal(const at::Tensor& tensor) {
  try {
    static_cast<void>(copy_in_same_layout(tensor, host));
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::BadInput);
    return error.what();
  }
  return "copied";
}

TEST(CopyInSameLayout, WhatIsNoPlainMemoryIsRefusedByName) {
  EXPECT_THAT(refusal(at::eye(3).to_sparse()), HasSubstr("a tensor of the layout Sparse"));
  EXPECT_THAT(refusal(at::eye(3).to_sparse_csr()), HasSubstr("a tensor of the layout SparseCsr"));
  EXPECT_THAT(refusal(at::empty({3}, at::kMeta)), HasSubstr("\"meta\""));
  EXPECT_THAT(refusal(at::quantize_per_tensor(at::rand({3}), 0.1, 0, at::kQInt8)),
              HasSubstr("a quantised tensor, of QInt8"));
  EXPECT_THAT(refusal(at::ones({1}).expand(std::vector<std::int64_t>(65, 1))), HasSubstr("65 dimensions"));
  EXPECT_THAT(refusal(at::_nested_tensor_from_tensor_list({at::ones({2}), at::ones({3})})),
              HasSubstr("a nested tensor"));
}

Extent extent(std::vector<std::int64_t> sizes, std::vector<std::int64_t> strides) {
  return extent_of(std::span<const std::int64_t>(sizes), std::span<const std::int64_t>(strides)).value();
}

TEST(Strided, TellsHowElementsLie) {
  const auto expect = [](const Extent& got, Spread spread, std::uint64_t distinct, std::uint64_t span) {
    EXPECT_EQ(got.spread, spread);
    EXPECT_EQ(got.distinct, distinct);
    EXPECT_EQ(got.span, span);
  };
  expect(extent({3, 4}, {4, 1}), Spread::Dense, 12, 12);
  expect(extent({3, 4}, {1, 3}), Spread::Dense, 12, 12);
  expect(extent({3, 4}, {5, 1}), Spread::Gaps, 12, 14);
  expect(extent({3, 4}, {0, 1}), Spread::Dense, 4, 4);
  expect(extent({3, 4}, {2, 1}), Spread::Overlaps, 8, 8);
  expect(extent({}, {}), Spread::Dense, 1, 1);
  expect(extent({0, 9}, {77, 5}), Spread::Dense, 0, 0);
  expect(extent({1, 4}, {3, 1}), Spread::Dense, 4, 4);
}

TEST(Strided, NumbersThatDoNotFitAreNone) {
  constexpr std::int64_t huge = std::int64_t{1} << 62U;
  const std::array<std::int64_t, 3> sizes{huge, 3, huge};
  const std::array<std::int64_t, 3> strides{huge, huge, 1};
  EXPECT_FALSE(extent_of(sizes, strides).has_value());
  const std::array<std::int64_t, 1> two{2};
  const std::array<std::int64_t, 1> far{9};
  EXPECT_FALSE(extent_of(two, far, 9).has_value());
  EXPECT_TRUE(extent_of(two, far, 10).has_value());
  EXPECT_FALSE(extent_of(two, far, 0).has_value());
}

}  // namespace
}  // namespace penstock
