# `cmake --build … --target package`: a .deb and a tarball of the program, its pages and examples, without the libraries for C++.
# libtorch is in neither: penstock-libtorch says where it is, or fetches its wheel.
if(NOT PENSTOCK_TORCH OR NOT PROJECT_IS_TOP_LEVEL)
  return()
endif()
# It fetches the libtorch that this was built with: another one has other symbols.
configure_file(apps/penstock/penstock-libtorch.in ${PROJECT_BINARY_DIR}/penstock-libtorch @ONLY)
install(PROGRAMS ${PROJECT_BINARY_DIR}/penstock-libtorch DESTINATION ${CMAKE_INSTALL_BINDIR} COMPONENT program)

set(CPACK_PACKAGE_NAME penstock)
set(CPACK_PACKAGE_VENDOR "the authors of penstock")
set(CPACK_PACKAGE_CONTACT "the authors of penstock <penstock@example.org>")
set(CPACK_PACKAGE_DESCRIPTION_SUMMARY ${PROJECT_DESCRIPTION})
set(CPACK_RESOURCE_FILE_LICENSE ${PROJECT_SOURCE_DIR}/LICENSE)
set(CPACK_GENERATOR DEB TGZ)
set(CPACK_VERBATIM_VARIABLES ON)
set(CPACK_STRIP_FILES ON)
set(CPACK_INSTALL_CMAKE_PROJECTS ${PROJECT_BINARY_DIR} penstock program /)
# What is packed finds its libraries beside itself, and never where they were on the machine that built it.
set(CPACK_PRE_BUILD_SCRIPTS ${PROJECT_SOURCE_DIR}/cmake/package_libraries.cmake)
set(CPACK_PENSTOCK_LIBTORCH ${PENSTOCK_LIBTORCH_FOLDER}/lib)

set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_PACKAGE_SECTION science)
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS ON)
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS_PRIVATE_DIRS ${PENSTOCK_LIBTORCH_FOLDER}/lib)
# For the wheel of libtorch.
set(CPACK_DEBIAN_PACKAGE_RECOMMENDS python3-venv)
# Says what is left to do, and takes away what penstock-libtorch has fetched.
set(CPACK_DEBIAN_PACKAGE_CONTROL_EXTRA ${PROJECT_SOURCE_DIR}/cmake/debian/postinst ${PROJECT_SOURCE_DIR}/cmake/debian/postrm)
set(CPACK_DEBIAN_PACKAGE_CONTROL_STRICT_PERMISSION ON)
include(CPack)
