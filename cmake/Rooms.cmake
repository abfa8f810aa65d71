# One target a room, from one helper, with the alias basin::<room>. No flag is global.
#
#   basin_room(NAME SOURCES a.cc ... [PROTOS x.proto ...] [DEPS lib ...] [PRIVATE_DEPS lib ...])
#   basin_program(NAME SOURCES main.cc ... [DEPS lib ...])          an installed executable
#   basin_test(NAME SOURCES a_test.cc ... [DEPS lib ...] [LABELS unit|sim|...] [SINGLE_THREADED])
#   basin_fuzz(NAME SOURCES a_fuzz.cc ... [DEPS lib ...] [CORPUS folder])    only with BASIN_FUZZ, built by clang
#
# The target basin_tests_<label> builds all tests with that label. Labels: unit and sim (pure, run in parallel), cluster (real
# processes), install, python, lint, gpu, tensorflow; slow beside one of them keeps a test for tests/run.sh --all. Unit
# and sim tests are run under the thread sanitizer too (basin_tests_threads builds them), but those where what is tested
# starts no thread (SINGLE_THREADED): nothing could be found there.
function(basin_flags target)
  target_compile_features(${target} PUBLIC cxx_std_20)
  set_target_properties(${target} PROPERTIES CXX_EXTENSIONS OFF POSITION_INDEPENDENT_CODE ON
    CXX_VISIBILITY_PRESET hidden VISIBILITY_INLINES_HIDDEN ON)
  set(cxx "$<COMPILE_LANGUAGE:CXX>")
  target_compile_options(${target} PRIVATE $<${cxx}:-Wall> $<${cxx}:-Wextra> $<${cxx}:-Wno-missing-field-initializers>)
  if(BASIN_WERROR)
    target_compile_options(${target} PRIVATE $<${cxx}:-Werror>)
  endif()
  if(CMAKE_CXX_COMPILER_ID MATCHES Clang)
    target_compile_options(${target} PRIVATE -Wthread-safety -Werror=thread-safety)
  endif()
  if(BASIN_FUZZ)
    # Coverage for libFuzzer; its hooks come with the address sanitizer's runtime, so that programs without a fuzzer link too.
    target_compile_options(${target} PRIVATE $<${cxx}:-fsanitize=fuzzer-no-link,address>)
    target_link_options(${target} PUBLIC -fsanitize=address)
  endif()
  if(BASIN_SANITIZE)
    target_compile_options(${target} PRIVATE $<${cxx}:-fsanitize=${BASIN_SANITIZE}> $<${cxx}:-fno-omit-frame-pointer>)
    target_link_options(${target} PUBLIC -fsanitize=${BASIN_SANITIZE})
  endif()
endfunction()

# A target whose own code is in no step's way: in a release build -O1 instead of -O3, which takes gcc twice as long.
function(basin_compiles_fast target)
  target_compile_options(${target} PRIVATE $<$<AND:$<CONFIG:Release>,$<COMPILE_LANGUAGE:CXX>>:-O1>)
endfunction()

function(basin_room name)
  cmake_parse_arguments(ROOM "" "" "SOURCES;PROTOS;DEPS;PRIVATE_DEPS" ${ARGN})
  set(target basin_${name})
  add_library(${target} STATIC ${ROOM_SOURCES})
  add_library(basin::${name} ALIAS ${target})
  basin_flags(${target})
  target_include_directories(${target} PUBLIC ${PROJECT_SOURCE_DIR} ${PROJECT_BINARY_DIR})
  target_link_libraries(${target} PUBLIC ${ROOM_DEPS} PRIVATE ${ROOM_PRIVATE_DEPS})
  foreach(proto ${ROOM_PROTOS})
    file(RELATIVE_PATH relative ${PROJECT_SOURCE_DIR} ${CMAKE_CURRENT_SOURCE_DIR}/${proto})
    string(REPLACE .proto .pb generated ${PROJECT_BINARY_DIR}/${relative})
    add_custom_command(
      OUTPUT ${generated}.cc ${generated}.h
      COMMAND protobuf::protoc --cpp_out=${PROJECT_BINARY_DIR} -I${PROJECT_SOURCE_DIR} ${PROJECT_SOURCE_DIR}/${relative}
      DEPENDS ${PROJECT_SOURCE_DIR}/${relative} VERBATIM)
    target_sources(${target} PRIVATE ${generated}.cc ${generated}.h)
    set_source_files_properties(${generated}.cc PROPERTIES COMPILE_OPTIONS -w)
    target_link_libraries(${target} PUBLIC basin_protobuf)
  endforeach()
endfunction()

function(basin_program name)
  cmake_parse_arguments(PROGRAM "" "" "SOURCES;DEPS" ${ARGN})
  add_executable(${name} ${PROGRAM_SOURCES})
  basin_flags(${name})
  target_link_libraries(${name} PRIVATE ${PROGRAM_DEPS})
  set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/bin
    INSTALL_RPATH "$ORIGIN/../${CMAKE_INSTALL_LIBDIR}")
  set_property(GLOBAL APPEND PROPERTY BASIN_PROGRAMS ${name})
endfunction()

set(BASIN_TEST_LABELS unit sim cluster install python lint gpu slow tensorflow fuzz tidy)
foreach(label threads ${BASIN_TEST_LABELS})
  add_custom_target(basin_tests_${label})
endforeach()

# Makes basin_tests_<label> build the target.
function(basin_tests_of label target)
  if(NOT label IN_LIST BASIN_TEST_LABELS)
    message(FATAL_ERROR "test ${target}: label ${label} is none of ${BASIN_TEST_LABELS}, so tests/run.sh would not run it")
  endif()
  add_dependencies(basin_tests_${label} ${target})
  get_target_property(single_threaded ${target} BASIN_SINGLE_THREADED)
  if(label MATCHES "^(unit|sim)$" AND NOT single_threaded)
    add_dependencies(basin_tests_threads ${target})
  endif()
endfunction()

function(basin_test name)
  cmake_parse_arguments(TEST "SINGLE_THREADED" "TIMEOUT" "SOURCES;DEPS;LABELS" ${ARGN})
  if(NOT BASIN_TESTS)
    return()
  endif()
  find_package(GTest REQUIRED)
  add_executable(${name} ${TEST_SOURCES})
  basin_flags(${name})
  basin_compiles_fast(${name})
  target_include_directories(${name} PRIVATE ${PROJECT_SOURCE_DIR})
  target_link_libraries(${name} PRIVATE ${TEST_DEPS} GTest::gtest GTest::gtest_main)
  set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/tests)
  if(NOT TEST_LABELS)
    set(TEST_LABELS unit)
  endif()
  if(NOT TEST_TIMEOUT)
    set(TEST_TIMEOUT 1200)  # it ends what hangs; a sanitizer beside other tests on one core takes a while
  endif()
  set_target_properties(${name} PROPERTIES BASIN_SINGLE_THREADED ${TEST_SINGLE_THREADED})
  foreach(label ${TEST_LABELS})
    basin_tests_of(${label} ${name})
  endforeach()
  if(TEST_SINGLE_THREADED)
    list(APPEND TEST_LABELS single_threaded)
  endif()
  add_test(NAME ${name} COMMAND ${name})
  set_tests_properties(${name} PROPERTIES LABELS "${TEST_LABELS}" TIMEOUT ${TEST_TIMEOUT}
    ENVIRONMENT "OPENBLAS_NUM_THREADS=1;BASIN_SOURCE_DIR=${PROJECT_SOURCE_DIR};BASIN_BINARY_DIR=${PROJECT_BINARY_DIR}")
endfunction()

# A libFuzzer target, run by ctest (label fuzz) for a bounded number of inputs from a fixed seed, after its corpus.
# Configure with BASIN_SANITIZE=fuzzer-no-link,address, so that the rooms that it feeds are instrumented too.
function(basin_fuzz name)
  cmake_parse_arguments(FUZZ "" "CORPUS" "SOURCES;DEPS" ${ARGN})
  if(NOT BASIN_FUZZ)
    return()
  endif()
  add_executable(${name} ${FUZZ_SOURCES})
  basin_flags(${name})
  target_include_directories(${name} PRIVATE ${PROJECT_SOURCE_DIR})
  target_compile_options(${name} PRIVATE -fsanitize=fuzzer,address)
  target_link_options(${name} PRIVATE -fsanitize=fuzzer,address)
  target_link_libraries(${name} PRIVATE ${FUZZ_DEPS})
  set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/tests)
  basin_tests_of(fuzz ${name})
  # New inputs go to the first folder, so that the corpus in git stays as it is.
  set(found ${PROJECT_BINARY_DIR}/fuzz/${name})
  file(MAKE_DIRECTORY ${found})
  set(folders ${found})
  if(FUZZ_CORPUS)
    list(APPEND folders ${CMAKE_CURRENT_SOURCE_DIR}/${FUZZ_CORPUS})
  endif()
  add_test(NAME ${name} COMMAND ${name} -seed=1 -runs=200000 -max_total_time=15 -max_len=4096 -print_final_stats=1
    -artifact_prefix=${found}/ ${folders})
  set_tests_properties(${name} PROPERTIES LABELS fuzz TIMEOUT 600)
endfunction()
