# The libraries as headers alone, for a compiler of another machine: Debian's packages hold code for this one. Their headers are
# linked into a folder of their own, as the folder that they stand in has this machine's C library too.
set(headers ${PROJECT_BINARY_DIR}/headers)
file(MAKE_DIRECTORY ${headers})
foreach(header fmt/format.h nlohmann/json.hpp toml++/toml.h)
  get_filename_component(folder ${header} DIRECTORY)
  find_path(PENSTOCK_HEADERS_${folder} ${header} PATHS /usr/include NO_CMAKE_FIND_ROOT_PATH REQUIRED)
  file(CREATE_LINK ${PENSTOCK_HEADERS_${folder}}/${folder} ${headers}/${folder} SYMBOLIC)
endforeach()
add_library(penstock_headers INTERFACE)
target_include_directories(penstock_headers SYSTEM INTERFACE ${headers})
target_compile_definitions(penstock_headers INTERFACE FMT_HEADER_ONLY TOML_HEADER_ONLY=1 TOML_EXCEPTIONS=1)
foreach(library fmt::fmt nlohmann_json::nlohmann_json tomlplusplus::tomlplusplus)
  add_library(${library} ALIAS penstock_headers)
endforeach()
# Every file must agree on how exceptions are thrown. Sizes count in a page that carries the module.
add_compile_options(-fwasm-exceptions -O2)
add_link_options(-fwasm-exceptions -O2)
