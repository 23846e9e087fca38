// Tests in double precision.
#pragma once

#include <torch/torch.h>

namespace penstock {

// What tensors are made of where nothing else is said, as long as it lives.
class DefaultDtype {
 public:
  explicit DefaultDtype(at::ScalarType dtype) { torch::set_default_dtype(c10::scalarTypeToTypeMeta(dtype)); }
  ~DefaultDtype() { torch::set_default_dtype(before_); }
  DefaultDtype(const DefaultDtype&) = delete;
  DefaultDtype& operator=(const DefaultDtype&) = delete;

 private:
  caffe2::TypeMeta before_ = torch::get_default_dtype();
};

}  // namespace penstock
