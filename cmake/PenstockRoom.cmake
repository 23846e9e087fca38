# penstock_room(NAME SOURCES … [ROOMS …] [LIBRARIES …] [TORCH])
#
# One room: the static library penstock_NAME (penstock::NAME) from src/NAME, with headers for programs in
# include/penstock/NAME and for other rooms in src/include/penstock/NAME. ROOMS are the
# rooms that its headers may include; script/check_arrows holds every #include against the table of the design.
# LIBRARIES are private. TORCH puts the room below the libtorch line: it links libtorch and uses the precompiled header.
function(penstock_room name)
  cmake_parse_arguments(ROOM "TORCH" "" "SOURCES;ROOMS;LIBRARIES" ${ARGN})
  set(target penstock_${name})
  add_library(${target} STATIC ${ROOM_SOURCES})
  add_library(penstock::${name} ALIAS ${target})
  set_target_properties(${target} PROPERTIES EXPORT_NAME ${name})
  target_include_directories(${target} PUBLIC $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/include>
                                              $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/src/include>
                                              $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>
                                       PRIVATE ${PROJECT_SOURCE_DIR}/src)
  target_link_libraries(${target} PUBLIC penstock_compiler PRIVATE ${ROOM_LIBRARIES})
  foreach(room ${ROOM_ROOMS})
    target_link_libraries(${target} PUBLIC penstock_${room})
  endforeach()
  if(ROOM_TORCH)
    target_link_libraries(${target} PUBLIC penstock::libtorch)
    penstock_precompiled(${target})
  endif()
  set_property(GLOBAL APPEND PROPERTY PENSTOCK_ROOMS ${target})
endfunction()

# Lets a target that includes libtorch share the one precompiled header; with TEST that of the tests, which has GoogleTest
# too and is made for what tests are compiled with. libtorch brings the headers of a newer fmt than Debian's and hides its
# symbols, so below the line fmt is header-only: nothing there may link Debian's library by chance.
function(penstock_precompiled target)
  cmake_parse_arguments(PRECOMPILED "TEST" "" "" ${ARGN})
  set(header penstock_precompiled_header)
  set(headers <torch/torch.h>)
  if(PRECOMPILED_TEST)
    set(header penstock_precompiled_test_header)
    list(APPEND headers <gmock/gmock.h> <gtest/gtest.h>)
  endif()
  if(NOT TARGET ${header})
    file(WRITE ${PROJECT_BINARY_DIR}/${header}.cpp "")
    add_library(${header} OBJECT ${PROJECT_BINARY_DIR}/${header}.cpp)
    target_link_libraries(${header} PRIVATE penstock_compiler penstock::libtorch)
    target_compile_definitions(${header} PRIVATE FMT_HEADER_ONLY)
    target_precompile_headers(${header} PRIVATE ${headers})
    if(PRECOMPILED_TEST)
      target_link_libraries(${header} PRIVATE GTest::gmock)
      penstock_test_options(${header})
    endif()
  endif()
  target_compile_definitions(${target} PRIVATE FMT_HEADER_ONLY)
  get_target_property(type ${target} TYPE)
  if(type STREQUAL "EXECUTABLE")
    # CMake gives programs -fPIE, and GCC takes no precompiled header that was made with -fPIC for those.
    set_target_properties(${target} PROPERTIES POSITION_INDEPENDENT_CODE OFF)
    target_compile_options(${target} PRIVATE -fPIC)
  endif()
  target_precompile_headers(${target} REUSE_FROM ${header})
endfunction()

# Tests are compiled once and run once: what more optimisation of them takes is more than it saves. What they test is
# compiled as its preset says.
function(penstock_test_options target)
  target_compile_options(${target} PRIVATE $<$<CONFIG:Release,RelWithDebInfo>:-O1>)
endfunction()
