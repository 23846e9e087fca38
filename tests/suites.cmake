# Read by CTest before it runs: turns one GoogleTest program into tests.
#
# Takes PROGRAM, its name NAME, SHARDS, LABELS and PROPERTIES. SHARDS 0: each suite is a test. A program that uses libtorch takes a second
# to start, sanitized ones two: the cases of such a program are divided among SHARDS tests, NAME.1 and so on. A test's report lies
# beside the program, where script/test counts its cases.
if(NOT EXISTS "${PROGRAM}")
  # A test without a label, so that a run which asked for others only does not see it.
  add_test("${NAME}_NOT_BUILT" "${NAME}_NOT_BUILT")
  return()
endif()
if(SHARDS GREATER 0)
  foreach(shard RANGE 1 ${SHARDS})
    math(EXPR index "${shard} - 1")
    add_test("${NAME}.${shard}" "${PROGRAM}" "--gtest_output=xml:${PROGRAM}.reports/${shard}.xml")
    set_tests_properties("${NAME}.${shard}" PROPERTIES ${PROPERTIES} LABELS "${LABELS}" ENVIRONMENT
                                                       "GTEST_TOTAL_SHARDS=${SHARDS};GTEST_SHARD_INDEX=${index}")
  endforeach()
  return()
endif()
set(list "${PROGRAM}.suites")
if(NOT EXISTS "${list}" OR NOT "${list}" IS_NEWER_THAN "${PROGRAM}")
  execute_process(COMMAND "${PROGRAM}" --gtest_list_tests OUTPUT_VARIABLE cases RESULT_VARIABLE result TIMEOUT 60)
  if(NOT result EQUAL 0)
    message(FATAL_ERROR "${PROGRAM} --gtest_list_tests: ${result}\n${cases}")
  endif()
  file(WRITE "${list}" "${cases}")
endif()
# A suite's line ends with a dot, and perhaps a comment behind it; its cases are indented.
file(STRINGS "${list}" suites REGEX "^[^ ].*\\.( |$)")
foreach(suite IN LISTS suites)
  string(REGEX REPLACE "\\.( .*)?$" "" suite "${suite}")
  string(REPLACE "/" "." report "${suite}")
  add_test("${NAME}.${suite}" "${PROGRAM}" "--gtest_filter=${suite}.*" "--gtest_output=xml:${PROGRAM}.reports/${report}.xml")
  set_tests_properties("${NAME}.${suite}" PROPERTIES ${PROPERTIES} LABELS "${LABELS}")
endforeach()
