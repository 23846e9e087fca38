#include "penstock/diagnosis/audit.h"

#include <gmock/gmock.h>
#include <memory>
#include <utility>
#include <vector>

#include <torch/torch.h>

#include "penstock/base/error.h"
#include "penstock/nn/networks.h"

namespace penstock::audit_cases {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

constexpr std::int64_t width = 4;

struct Plain : torch::nn::Module {
  Plain() : linear(register_module("linear", torch::nn::Linear(width, width))) {}
  at::Tensor forward(const at::Tensor& input) { return torch::tanh(linear(input)); }
  torch::nn::Linear linear;
};

struct Everything : torch::nn::Module {
  Everything()
      : norm(register_module("norm", torch::nn::BatchNorm1d(width))),
        dropout(register_module("dropout", torch::nn::Dropout(0.5))) {}
  at::Tensor forward(at::Tensor input) { return dropout(norm(torch::relu_(input))); }
  torch::nn::BatchNorm1d norm;
  torch::nn::Dropout dropout;
};

struct Narrowing : torch::nn::Module {
  at::Tensor forward(const at::Tensor& input) { return input.to(at::kBFloat16); }
};
struct Widening : torch::nn::Module {
  at::Tensor forward(const at::Tensor& input) { return input.to(at::kFloat); }
};

struct Counting : torch::nn::Module {
  Counting() : linear(register_module("linear", torch::nn::Linear(width, width))) {}
  at::Tensor forward(const at::Tensor& input) { return linear(input) * ++passes; }
  torch::nn::Linear linear;
  int passes = 0;
};

struct Hoarding : torch::nn::Module {
  at::Tensor forward(const at::Tensor& input) {
    seen.push_back((input * 2).detach());
    return input + 1;
  }
  std::vector<at::Tensor> seen;
};

struct Throwing : torch::nn::Module {
  // NOLINTNEXTLINE(hicpp-exception-baseclass)
  at::Tensor forward(const at::Tensor& /*input*/) { throw 7; }
};

AuditReport audited(std::vector<LayerSpec> layers, LossFunction loss = squared_error) {
  Network network;
  network.layers = std::move(layers);
  network.layers.push_back(layer_of<Plain>("last"));
  network.loss = std::move(loss);
  torch::manual_seed(1);
  return audit(network, Minibatch{{{torch::randn({6, width})}}, {{torch::randn({6, width})}}});
}

TEST(Audit, OfTheNetworksThatComeAlongHolds) {
  torch::manual_seed(1);
  const GptSettings gpt{32, 2, 16, 2, 8, 0.1, true};
  const at::Tensor tokens = torch::randint(32, {6, 8});
  const AuditReport report = audit(make_gpt(gpt), Minibatch{{{tokens}}, {{tokens}}});
  EXPECT_TRUE(report.holds()) << to_string(report);
  EXPECT_THAT(report.layers.back().shared, ElementsAre(HasSubstr("is tied to layer 0's")));
  EXPECT_TRUE(report.layers[1].is_random);
}

TEST(Audit, SaysWhatALayerDoesThatIsNoFault) {
  const AuditReport report = audited({layer_of<Plain>("plain"), layer_of<Everything>("everything"),
                                      layer_of<Narrowing>("narrowing"), layer_of<Widening>("widening")});
  EXPECT_TRUE(report.holds()) << to_string(report);
  const LayerAudit& plain = report.layers[0];
  EXPECT_FALSE(plain.is_random || plain.works_in_place || plain.changes_dtype);
  EXPECT_THAT(plain.buffers, IsEmpty());
  const LayerAudit& everything = report.layers[1];
  EXPECT_TRUE(everything.is_random);
  EXPECT_TRUE(everything.works_in_place);
  EXPECT_THAT(everything.buffers, ElementsAre("norm.running_mean", "norm.running_var", "norm.num_batches_tracked"));
  EXPECT_TRUE(report.layers[2].changes_dtype);
  EXPECT_TRUE(report.layers[3].changes_dtype);
}

TEST(Audit, FindsAStateThatIsNoBuffer) {
  const AuditReport report = audited({layer_of<Plain>("plain"), layer_of<Counting>("counting")});
  EXPECT_FALSE(report.holds());
  ASSERT_FALSE(report.layers[1].differences.empty());
  EXPECT_EQ(report.layers[1].differences.front().way, AuditedWay::Recomputed);
  EXPECT_THAT(to_string(report), HasSubstr("layer 1 (counting): recomputed, gradient of linear.weight, differs"));
}

TEST(Audit, FindsALayerThatKeepsWhatItHasSeen) {
  const AuditReport report = audited({layer_of<Plain>("plain"), layer_of<Hoarding>("hoarding")});
  EXPECT_EQ(report.layers[0].leak, Bytes{0});
  EXPECT_EQ(report.layers[1].leak, Bytes{2 * width * 4});
  EXPECT_FALSE(report.holds());
  EXPECT_THAT(to_string(report), HasSubstr("layer 1 (hoarding): it keeps 32 B more after each microbatch"));
}

TEST(Audit, NamesWhatIsRefusedAndThrown) {
  const AuditReport thrown = audited({layer_of<Plain>("plain"), layer_of<Throwing>("throwing")});
  EXPECT_EQ(thrown.layers[1].refused, "it threw something that is no std::exception");
  EXPECT_FALSE(thrown.holds());
  const AuditReport without_graph = audited({layer_of<Plain>("plain")}, [](const Tensors& outputs, const Tensors&) {
    return Loss{outputs[0].detach().sum(), 1};
  });
  EXPECT_THAT(without_graph.refused, HasSubstr("a loss that no parameter leads to"));
  EXPECT_FALSE(without_graph.holds());
}

TEST(Audit, NamesOneModuleInTwoLayers) {
  const auto shared = std::make_shared<Plain>();
  const LayerSpec twice{"shared", "", [shared] { return Layer(shared); }};
  const AuditReport report = audited({twice, layer_of<Plain>("plain"), twice});
  EXPECT_THAT(report.layers[2].refused, HasSubstr("its linear.weight is the same object as layer 0's linear.weight"));
  EXPECT_FALSE(report.holds());
}

TEST(Audit, OfOneMicrobatchIsRefused) {
  Network network;
  network.layers = {layer_of<Plain>("plain")};
  network.loss = squared_error;
  EXPECT_THROW(static_cast<void>(
                   audit(network, std::vector<Microbatch>{{{torch::zeros({1, width})}, {torch::zeros({1, width})}}})),
               Error);
}

}  // namespace
}  // namespace penstock::audit_cases
