// The files are exchanged with Python's safetensors package in both directions.
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <gtest/gtest.h>

#include "checkpoint_fixture.h"
#include "every_dtype.h"

namespace penstock {
namespace {

class Python : public FolderTest {};

constexpr const char* script = R"(
import sys
try:
    from safetensors import safe_open
    from safetensors.torch import load_file, save_file
    import torch
except ImportError as missing:
    print(missing)
    sys.exit(77)
ours, theirs = sys.argv[1:]
tensors = load_file(ours)
for name, dtype in [("BFloat16", torch.bfloat16), ("Half", torch.float16), ("Float", torch.float32), ("Long", torch.int64),
                    ("Double", torch.float64), ("Int", torch.int32), ("Byte", torch.uint8)]:
    tensor = tensors["t." + name]
    assert tensor.dtype == dtype, (name, tensor.dtype)
    assert tensor.tolist() == [[0, 1], [2, 100]], (name, tensor)
assert tensors["t.Bool"].tolist() == [[False, True], [True, True]]
assert tensors["scalar"].shape == () and tensors["empty"].shape == (3, 0, 2)
with safe_open(ours, framework="pt") as file:
    assert file.metadata() == {"format": "pt", "note": "größer"}, file.metadata()
    assert sorted(file.keys()) == sorted(tensors)
save_file(tensors, theirs, metadata={"by": "python"})
)";

TEST_F(Python, OpensWhatWeWriteAndWritesWhatWeOpen) {
  std::vector<NamedTensor> tensors = every_dtype();
  tensors.push_back({"scalar", at::scalar_tensor(3.5)});
  tensors.push_back({"empty", at::empty({3, 0, 2})});
  tensors.push_back({"layers.0.größe", at::arange(7)});
  write_safetensors(folder() / "ours", tensors, {{"format", "pt"}, {"note", "größer"}});
  std::ofstream(folder() / "script.py") << script;
  const std::string command = std::string(PENSTOCK_TEST_PYTHON) + " " + (folder() / "script.py").string() + " " +
                              (folder() / "ours").string() + " " + (folder() / "theirs").string();
  const int status = std::system(command.c_str());  // NOLINT(concurrency-mt-unsafe): the test has one thread
  const int code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  if (code == 77 || code == 127) GTEST_SKIP() << "no Python with torch and safetensors at " PENSTOCK_TEST_PYTHON;
  ASSERT_EQ(code, 0);

  const SafetensorsFile file = SafetensorsFile::open(folder() / "theirs");
  EXPECT_EQ(file.metadata(), (std::map<std::string, std::string>{{"by", "python"}}));
  EXPECT_EQ(file.names().size(), tensors.size());
  for (const NamedTensor& named : tensors) {
    const at::Tensor read = file.read(named.name);
    EXPECT_EQ(read.scalar_type(), named.tensor.scalar_type());
    EXPECT_EQ(read.sizes(), named.tensor.sizes());
    EXPECT_TRUE(read.nbytes() == 0 ||
                std::memcmp(read.const_data_ptr(), named.tensor.const_data_ptr(), read.nbytes()) == 0)
        << named.name;
  }
}

}  // namespace
}  // namespace penstock
