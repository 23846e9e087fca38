#include "penstock/exec/boundary.h"

#include <gtest/gtest.h>

#include <ATen/ATen.h>

namespace penstock {
namespace {

TEST(Boundary, OnlyFloat32IsNarrowedAndComesBackAsWhatItWas) {
  const at::Tensor exact = at::tensor({1.0F, -2.5F, 65536.0F}).requires_grad_();
  const at::Tensor inexact = at::tensor({1.001F, 3.3F});
  const at::Tensor native = at::tensor({1.5F}).to(at::kBFloat16).requires_grad_();
  const at::Tensor whole = at::tensor({std::int64_t{1} << 40});
  const Tensors sent = narrowed({exact, inexact, native, whole, at::Tensor()});
  ASSERT_EQ(sent.size(), 6U);
  EXPECT_EQ(sent[0].scalar_type(), at::kBFloat16);
  EXPECT_TRUE(sent[0].requires_grad());
  EXPECT_FALSE(sent[1].requires_grad());
  EXPECT_TRUE(sent[3].is_same(whole));

  const Tensors back = widened(sent, at::kCPU);
  ASSERT_EQ(back.size(), 5U);
  EXPECT_EQ(back[0].scalar_type(), at::kFloat);
  EXPECT_TRUE(at::equal(back[0], exact));
  EXPECT_TRUE(back[0].requires_grad());
  EXPECT_TRUE(back[0].is_leaf());
  EXPECT_FALSE(at::equal(back[1], inexact));
  EXPECT_TRUE(at::allclose(back[1], inexact, 1.0 / 256));
  EXPECT_FALSE(back[1].requires_grad());
  EXPECT_EQ(back[2].scalar_type(), at::kBFloat16);
  EXPECT_TRUE(back[2].requires_grad());
  EXPECT_TRUE(at::equal(back[3], whole));
  EXPECT_FALSE(back[4].defined());
}

}  // namespace
}  // namespace penstock
