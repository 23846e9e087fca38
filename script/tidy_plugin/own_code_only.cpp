// A clang-tidy module that narrows every check to the declarations of this repository.
//
// clang-tidy 19 walks the whole syntax tree, libtorch's and the standard library's share too, and only then drops what
// it found there: minutes for a file that includes torch/torch.h. The translation unit is the first node that matchers
// see, and a tree's walk asks for its scope after that; so a matcher on it can set the scope. Declarations that lie
// unread in the precompiled header are not even loaded.

#include <clang-tidy/ClangTidyCheck.h>
#include <clang-tidy/ClangTidyModule.h>
#include <clang-tidy/ClangTidyModuleRegistry.h>
#include <clang/AST/ASTContext.h>
#include <clang/ASTMatchers/ASTMatchFinder.h>
#include <clang/Basic/SourceManager.h>
#include <vector>

namespace {

class OwnCodeOnly : public clang::tidy::ClangTidyCheck {
 public:
  using ClangTidyCheck::ClangTidyCheck;

  void registerMatchers(clang::ast_matchers::MatchFinder* finder) override {
    finder->addMatcher(clang::ast_matchers::translationUnitDecl().bind("unit"), this);
  }

  void check(const clang::ast_matchers::MatchFinder::MatchResult& result) override {
    const auto* unit = result.Nodes.getNodeAs<clang::TranslationUnitDecl>("unit");
    std::vector<clang::Decl*> own;
    for (clang::Decl* declaration : unit->noload_decls()) {
      const clang::SourceLocation place = declaration->getLocation();
      if (place.isValid() && !result.SourceManager->isInSystemHeader(result.SourceManager->getExpansionLoc(place))) {
        own.push_back(declaration);
      }
    }
    result.Context->setTraversalScope(own);
  }
};

class OwnCodeModule : public clang::tidy::ClangTidyModule {
 public:
  void addCheckFactories(clang::tidy::ClangTidyCheckFactories& factories) override {
    factories.registerCheck<OwnCodeOnly>("aaa-own-code-only");
  }
};

const clang::tidy::ClangTidyModuleRegistry::Add<OwnCodeModule> registered("own-code",
                                                                          "narrows checks to the repository");

}  // namespace
