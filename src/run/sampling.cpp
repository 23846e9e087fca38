// Text that a trained network goes on with.
#include <algorithm>
#include <cmath>
#include <fmt/format.h>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>

#include "penstock/base/error.h"
#include "penstock/data/tokenized.h"
#include "penstock/run/train.h"
#include "penstock/tokenizer/tokenizer.h"

#include "run/loaded_run.h"

namespace penstock {
namespace {

// With weights of 0 for all but the likeliest.
at::Tensor likeliest(const at::Tensor& shares, const SampleSettings& settings) {
  auto [sorted, order] = shares.sort(/*dim=*/-1, /*descending=*/true);
  if (settings.top_k > 0 && settings.top_k < sorted.numel())
    sorted.narrow(0, settings.top_k, sorted.numel() - settings.top_k).zero_();
  // What comes before is enough.
  if (settings.top_p < 1) sorted.masked_fill_((sorted.cumsum(-1) - sorted).ge(settings.top_p), 0);
  return at::zeros_like(shares).scatter_(-1, order, sorted);
}

std::int64_t draw(const at::Tensor& logits, const SampleSettings& settings, at::Generator& generator) {
  if (settings.temperature == 0) return logits.argmax().item<std::int64_t>();
  // From the largest down, so that no temperature, however small, makes infinities that have no softmax.
  const at::Tensor scores = logits.to(at::kDouble);
  at::Tensor shares = at::softmax((scores - scores.max()) / settings.temperature, -1);
  if (settings.top_k > 0 || settings.top_p < 1) shares = likeliest(shares, settings);
  return shares.multinomial(1, /*replacement=*/false, generator).item<std::int64_t>();
}

// From text to what a network reads, and back.
class Letters {
 public:
  virtual ~Letters() = default;
  [[nodiscard]] virtual std::vector<std::int64_t> read(const std::string& prompt) = 0;
  // How many of the network's outputs stand for something.
  [[nodiscard]] virtual std::int64_t known() const = 0;
  // What one more adds to the text; nothing where that is known only with the next.
  [[nodiscard]] virtual std::string add(std::int64_t drawn) = 0;
  [[nodiscard]] virtual bool ends(std::int64_t drawn) const = 0;
};

class ByteLetters final : public Letters {
 public:
  [[nodiscard]] std::vector<std::int64_t> read(const std::string& prompt) override {
    std::vector<std::int64_t> bytes;
    for (const char letter : prompt) bytes.push_back(static_cast<unsigned char>(letter));
    return bytes;
  }
  [[nodiscard]] std::int64_t known() const override { return 256; }
  [[nodiscard]] std::string add(std::int64_t drawn) override { return {static_cast<char>(drawn)}; }
  [[nodiscard]] bool ends(std::int64_t /*drawn*/) const override { return false; }
};

class TokenLetters final : public Letters {
 public:
  TokenLetters(Tokenizer tokenizer, std::set<TokenId> stops)
      : tokenizer_(std::move(tokenizer)), stops_(std::move(stops)) {}

  [[nodiscard]] std::vector<std::int64_t> read(const std::string& prompt) override {
    tokens_ = Encoder(tokenizer_).encode(prompt);
    told_ = tokenizer_.decode(tokens_).size();
    return {tokens_.begin(), tokens_.end()};
  }
  [[nodiscard]] std::int64_t known() const override { return static_cast<std::int64_t>(tokenizer_.vocabulary()); }
  [[nodiscard]] std::string add(std::int64_t drawn) override {
    constexpr std::string_view unknown = "\xEF\xBF\xBD";
    tokens_.push_back(static_cast<TokenId>(drawn));
    const std::string text = tokenizer_.decode(tokens_);
    // A character of several tokens is there with its last one.
    if (text.size() <= told_ || std::string_view(text).ends_with(unknown)) return {};
    const std::size_t begin = std::exchange(told_, text.size());
    return text.substr(begin);
  }
  [[nodiscard]] bool ends(std::int64_t drawn) const override { return stops_.contains(static_cast<TokenId>(drawn)); }

 private:
  Tokenizer tokenizer_;
  std::set<TokenId> stops_;
  std::vector<TokenId> tokens_;
  std::size_t told_ = 0;  // bytes of the text
};

// Makes the letters of one text after the other.
std::function<std::unique_ptr<Letters>()> letters_of(const LoadedRun& run) {
  if (run.settings.model.kind == ModelKind::Published) {
    const Tokenizer tokenizer = load_tokenizer(model_folder_of(run));
    const std::set<TokenId> stops = stop_tokens(tokenizer, model_folder_of(run));
    return [=] { return std::make_unique<TokenLetters>(tokenizer, stops); };
  }
  if (run.notes.data.kind != DataKind::Text)
    throw bad_input("a run whose data is not text", "one trained on bytes", "sample from a run on text files");
  return [] { return std::make_unique<ByteLetters>(); };
}

void check(const SampleSettings& settings) {
  if (settings.prompts.empty()) throw bad_input("no `prompt`", "at least one", "give a prompt");
  for (const std::string& prompt : settings.prompts)
    if (prompt.empty()) throw bad_input("an empty `prompt`", "at least one byte", "give a prompt");
  if (settings.bytes < 1) throw bad_input(fmt::format("`bytes` is {}", settings.bytes), "at least 1", "raise `bytes`");
  if (!(settings.temperature >= 0) || std::isinf(settings.temperature))
    throw bad_input(fmt::format("`temperature` is {}", settings.temperature), "a finite number of at least 0",
                    "change `temperature`");
  if (settings.top_k < 0) throw bad_input(fmt::format("`top_k` is {}", settings.top_k), "at least 0", "raise `top_k`");
  if (!(settings.top_p > 0 && settings.top_p <= 1))
    throw bad_input(fmt::format("`top_p` is {}", settings.top_p), "above 0 and at most 1", "change `top_p`");
}

// One prompt and what it has become.
class Continuation {
 public:
  Continuation(std::unique_ptr<Letters> letters, const std::string& prompt, const SampleSettings& settings,
               std::int64_t context, std::int64_t vocabulary)
      : letters_(std::move(letters)),
        text_(letters_->read(prompt)),
        generator_(at::detail::createCPUGenerator(settings.seed)),
        settings_(settings),
        context_(static_cast<std::size_t>(context)) {
    if (text_.empty()) throw bad_input("a `prompt` of no tokens", "at least one", "give a longer prompt");
    if (const std::int64_t largest = *std::ranges::max_element(text_); largest >= vocabulary)
      throw bad_input(fmt::format("the token {} in a `prompt`", largest),
                      fmt::format("tokens below {}, the vocabulary of the model", vocabulary),
                      "use the tokenizer that the model was published with");
  }

  [[nodiscard]] bool is_over() const { return is_over_; }
  // Whether the layers forget what they have seen of it. Positions are learned up to the context: when they are used
  // up, the last half of it is read again. What is over stays at one token.
  [[nodiscard]] bool begins_anew() const { return is_over_ || remembered_ == 0 || remembered_ >= context_; }

  // What the network is to see next.
  [[nodiscard]] Microbatch next_input() {
    const std::size_t again = remembered_ > 0 ? std::max<std::size_t>(context_ / 2, 1) : context_;
    const std::size_t wanted = is_over_ || !begins_anew() ? 1 : again;
    const std::size_t seen = std::min(text_.size(), wanted);
    remembered_ = begins_anew() ? seen : remembered_ + 1;
    return {{at::tensor(at::ArrayRef<std::int64_t>(text_).slice(text_.size() - seen), at::kLong).unsqueeze(0)}, {}};
  }

  // What the network says of it. \param on_byte is told what is new.
  void take(const at::Tensor& outputs, const std::function<void(char)>& on_byte) {
    const at::Tensor logits = outputs[0][-1].to(at::kCPU);
    const std::int64_t known = std::min(letters_->known(), logits.numel());
    text_.push_back(draw(logits.narrow(0, 0, known), settings_, generator_));
    is_over_ = letters_->ends(text_.back());
    if (is_over_) return;
    for (const char byte : letters_->add(text_.back())) {
      on_byte(byte);
      ++told_;
    }
    is_over_ = told_ >= settings_.bytes;
  }

 private:
  std::unique_ptr<Letters> letters_;
  std::vector<std::int64_t> text_;
  at::Generator generator_;
  const SampleSettings& settings_;
  std::size_t context_;
  std::size_t remembered_ = 0;  // of the text's end, by the layers
  std::int64_t told_ = 0;
  bool is_over_ = false;
};

}  // namespace

void sample_run(const std::filesystem::path& out, const SampleSettings& settings,
                const std::function<void(std::size_t prompt, char byte)>& on_byte) {
  check(settings);
  LoadedRun run = load_built_in(out);
  const auto letters = letters_of(run);
  std::vector<Continuation> texts;
  texts.reserve(settings.prompts.size());
  for (const std::string& prompt : settings.prompts)
    texts.emplace_back(letters(), prompt, settings, run.settings.data.context, run.notes.data.vocabulary);
  bool is_first = true;
  while (!std::all_of(texts.begin(), texts.end(), [](const Continuation& text) { return text.is_over(); })) {
    std::vector<Microbatch> inputs;
    std::vector<bool> begun_anew;
    for (Continuation& text : texts) {
      begun_anew.push_back(text.begins_anew());
      inputs.push_back(text.next_input());
    }
    const Sequences sequences = std::exchange(is_first, false) ? Sequences::Begin : Sequences::Continue;
    const std::vector<Tensors> outputs = run.pipeline.forward(inputs, sequences, begun_anew);
    for (std::size_t prompt = 0; prompt < texts.size(); ++prompt)
      if (!texts[prompt].is_over())
        texts[prompt].take(outputs[prompt].front(), [&](char byte) { on_byte(prompt, byte); });
  }
}

}  // namespace penstock
