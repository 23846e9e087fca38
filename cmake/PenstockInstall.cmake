# `cmake --install` and find_package(penstock): one imported target, penstock::NAME, for each room.
include(CMakePackageConfigHelpers)
get_property(rooms GLOBAL PROPERTY PENSTOCK_ROOMS)
install(TARGETS penstock_compiler ${rooms} EXPORT penstock)
# include/penstock is what programs may include: the two entrances and the folders of the rooms that are built here.
set(entrances include/penstock/schedules.h)
if(PENSTOCK_TORCH)
  list(APPEND entrances include/penstock/penstock.h)
endif()
install(FILES ${entrances} DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/penstock)
foreach(room IN LISTS rooms)
  string(REGEX REPLACE "^penstock_" "" folder ${room})
  if(IS_DIRECTORY ${PROJECT_SOURCE_DIR}/include/penstock/${folder})
    install(DIRECTORY include/penstock/${folder} DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/penstock)
  endif()
endforeach()
if(PENSTOCK_TORCH)
  # Programs from before 0.1 include the pipeline by this name.
  file(WRITE ${PROJECT_BINARY_DIR}/before_0_1/penstock/train/pipeline.h
       "/// \\file\n/// The old name of penstock/pipeline/pipeline.h.\n#pragma once\n#include <penstock/pipeline/pipeline.h>\n")
  install(FILES ${PROJECT_BINARY_DIR}/before_0_1/penstock/train/pipeline.h DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/penstock/train)
endif()
install(EXPORT penstock NAMESPACE penstock:: DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/penstock FILE penstockTargets.cmake)
configure_package_config_file(cmake/penstockConfig.cmake.in ${PROJECT_BINARY_DIR}/penstockConfig.cmake
                              INSTALL_DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/penstock)
write_basic_package_version_file(${PROJECT_BINARY_DIR}/penstockConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_SOURCE_DIR}/cmake/PenstockLibtorch.cmake ${PROJECT_BINARY_DIR}/penstockConfig.cmake ${PROJECT_BINARY_DIR}/penstockConfigVersion.cmake
        DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/penstock)
# The pages and what their links lead to, in the folders that the links name.
install(FILES CHANGELOG.md CONTRIBUTING.md LICENSE README.md DESTINATION ${CMAKE_INSTALL_DOCDIR} COMPONENT program)
install(DIRECTORY docs examples DESTINATION ${CMAKE_INSTALL_DOCDIR} COMPONENT program PATTERN __pycache__ EXCLUDE)
