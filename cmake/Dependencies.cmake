# Everything comes from Debian 12. One part needs care: libbasin.so is loaded into processes that already hold another
# protobuf (TensorFlow, onnx), whose symbols would win. So protobuf-lite is compiled from Debian's source package with
# hidden symbols where BASIN_PROTOBUF_SOURCE names it (tests/run.sh and examples/quickstart.sh fetch it); otherwise
# Debian's shared library is used, and libbasin.so must not be loaded after TensorFlow.
find_package(Threads REQUIRED)
find_package(absl REQUIRED)
find_package(Protobuf 3.21 REQUIRED)
find_package(TBB REQUIRED)
find_package(PkgConfig REQUIRED)
find_package(ZLIB REQUIRED)
pkg_check_modules(ZMQ REQUIRED IMPORTED_TARGET libzmq)
# libzmq.pc adds folders of what libzmq itself was built with (PGM, Kerberos), as another kind of option each time CMake runs:
# then everything that includes zmq.h would be compiled again.
pkg_get_variable(ZMQ_HEADERS libzmq includedir)
set_target_properties(PkgConfig::ZMQ PROPERTIES INTERFACE_INCLUDE_DIRECTORIES "${ZMQ_HEADERS}" INTERFACE_COMPILE_OPTIONS "")
pkg_check_modules(OPENBLAS REQUIRED IMPORTED_TARGET openblas)
pkg_check_modules(ISAL REQUIRED IMPORTED_TARGET libisal)
pkg_check_modules(XXHASH REQUIRED IMPORTED_TARGET libxxhash)
pkg_check_modules(SQLITE3 REQUIRED IMPORTED_TARGET sqlite3)
pkg_check_modules(SODIUM REQUIRED IMPORTED_TARGET libsodium)
pkg_check_modules(ZSTD REQUIRED IMPORTED_TARGET libzstd)
find_package(yaml-cpp REQUIRED)
find_package(nlohmann_json 3.11 REQUIRED)
find_package(CLI11 REQUIRED)
find_path(HTTPLIB_INCLUDE httplib.h REQUIRED)
find_library(HTTPLIB_LIBRARY NAMES cpp-httplib REQUIRED)

if(NOT BASIN_PROTOBUF_SOURCE)
  file(GLOB fetched $ENV{HOME}/.cache/basin/protobuf-3.21.*)
  if(fetched)
    list(GET fetched 0 BASIN_PROTOBUF_SOURCE)
  endif()
endif()
add_library(basin_protobuf INTERFACE)
if(BASIN_PROTOBUF_SOURCE)
  set(dir ${BASIN_PROTOBUF_SOURCE}/src/google/protobuf)
  set(names any_lite arena arenastring arenaz_sampler extension_set generated_enum_util generated_message_tctable_lite
    generated_message_util implicit_weak_message inlined_string_field map message_lite parse_context repeated_field
    repeated_ptr_field wire_format_lite io/coded_stream io/io_win32 io/strtod io/zero_copy_stream
    io/zero_copy_stream_impl io/zero_copy_stream_impl_lite stubs/bytestream stubs/common stubs/int128 stubs/status
    stubs/statusor stubs/stringpiece stubs/stringprintf stubs/structurally_valid stubs/strutil stubs/time)
  list(TRANSFORM names PREPEND ${dir}/)
  list(TRANSFORM names APPEND .cc)
  add_library(basin_protobuf_lite STATIC ${names})
  target_include_directories(basin_protobuf_lite SYSTEM PUBLIC ${BASIN_PROTOBUF_SOURCE}/src)
  target_compile_options(basin_protobuf_lite PRIVATE -w)
  target_compile_definitions(basin_protobuf_lite PRIVATE HAVE_PTHREAD)
  set_target_properties(basin_protobuf_lite PROPERTIES POSITION_INDEPENDENT_CODE ON UNITY_BUILD OFF CXX_STANDARD 17
    CXX_VISIBILITY_PRESET hidden VISIBILITY_INLINES_HIDDEN ON)
  target_link_libraries(basin_protobuf_lite PUBLIC Threads::Threads)
  target_link_libraries(basin_protobuf INTERFACE basin_protobuf_lite)
  set(BASIN_PROTOBUF_HIDDEN ON)
else()
  target_link_libraries(basin_protobuf INTERFACE protobuf::libprotobuf-lite)
  set(BASIN_PROTOBUF_HIDDEN OFF)
endif()
message(STATUS "Basin: protobuf hidden in libbasin.so: ${BASIN_PROTOBUF_HIDDEN}")
