// libbasin_mpi.so: the few calls of MPI that training needs, as a table of functions (mpi_api.h). Everything is
// nonblocking, so that the caller's waits have deadlines.
#include <mpi.h>

#include <climits>
#include <cstdio>
#include <cstring>
#include <vector>

#include "worker/mpi/mpi_api.h"

namespace {

MPI_Comm everyone = MPI_COMM_NULL, farewell = MPI_COMM_NULL;  // of our own: a program's own calls never meet these
std::vector<MPI_Request> requests(BASIN_MPI_SLOTS, MPI_REQUEST_NULL);
std::vector<int> counts_of_ranks, places_of_ranks;

int Init(int* serialized) {
  int provided = MPI_THREAD_SINGLE;
  if (const int error = MPI_Init_thread(nullptr, nullptr, MPI_THREAD_SERIALIZED, &provided); error != MPI_SUCCESS) {
    return error;
  }
  *serialized = provided >= MPI_THREAD_SERIALIZED ? 1 : 0;
  MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
  for (MPI_Comm* one : {&everyone, &farewell}) {
    if (const int error = MPI_Comm_dup(MPI_COMM_WORLD, one); error != MPI_SUCCESS) return error;
    MPI_Comm_set_errhandler(*one, MPI_ERRORS_RETURN);
  }
  return MPI_SUCCESS;
}

int Rank() {
  int rank = -1;
  MPI_Comm_rank(everyone, &rank);
  return rank;
}

int Size() {
  int size = 0;
  MPI_Comm_size(everyone, &size);
  return size;
}

int StartSum(int slot, float* values, size_t count) {
  if (count > INT_MAX) return MPI_ERR_COUNT;
  return MPI_Iallreduce(MPI_IN_PLACE, values, static_cast<int>(count), MPI_FLOAT, MPI_SUM, everyone, &requests[slot]);
}

int StartBroadcast(int slot, void* bytes, size_t count) {
  if (count > INT_MAX) return MPI_ERR_COUNT;
  return MPI_Ibcast(bytes, static_cast<int>(count), MPI_BYTE, 0, everyone, &requests[slot]);
}

int StartGather(int slot, const void* bytes, size_t count, void* all, const size_t* counts) {
  if (Rank() == 0) {
    size_t place = 0;
    counts_of_ranks.clear();
    places_of_ranks.clear();
    for (int rank = 0; rank < Size(); ++rank) {
      counts_of_ranks.push_back(static_cast<int>(counts[rank]));
      places_of_ranks.push_back(static_cast<int>(place));
      place += counts[rank];
    }
    if (place > INT_MAX) return MPI_ERR_COUNT;
  }
  if (count > INT_MAX) return MPI_ERR_COUNT;
  return MPI_Igatherv(bytes, static_cast<int>(count), MPI_BYTE, all, counts_of_ranks.data(), places_of_ranks.data(),
                      MPI_BYTE, 0, everyone, &requests[slot]);
}

int StartFarewell(int slot) { return MPI_Ibarrier(farewell, &requests[slot]); }

int Test(int slot, int* done) { return MPI_Test(&requests[slot], done, MPI_STATUS_IGNORE); }

void Copy(const char* from, char* text, size_t size) {
  std::snprintf(text, size, "%s", from);
  if (char* end = std::strpbrk(text, "\r\n")) *end = '\0';
}

void ErrorText(int error, char* text, size_t size) {
  char all[MPI_MAX_ERROR_STRING] = "";
  int length = 0;
  MPI_Error_string(error, all, &length);
  Copy(all, text, size);
}

void Library(char* text, size_t size) {
  char all[MPI_MAX_LIBRARY_VERSION_STRING] = "";
  int length = 0;
  MPI_Get_library_version(all, &length);
  // "Open MPI v4.1.4, package: ..., ident: ...": what comes behind the first comma is for its makers.
  if (char* comma = std::strchr(all, ',')) *comma = '\0';
  Copy(all, text, size);
}

int Finalize() { return MPI_Finalize(); }

void Abort(int exit_code) { MPI_Abort(MPI_COMM_WORLD, exit_code); }

const basin_mpi_api kApi = {BASIN_MPI_VERSION, Init, Rank,      Size,    StartSum, StartBroadcast, StartGather,
                            StartFarewell,     Test, ErrorText, Library, Finalize, Abort};

}  // namespace

extern "C" __attribute__((visibility("default"))) const basin_mpi_api* basin_mpi_api() { return &kApi; }
