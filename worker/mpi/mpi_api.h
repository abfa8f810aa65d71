/* What basin-worker asks of libbasin_mpi.so, the one file of Basin that is compiled against MPI. basin-worker loads it
 * when it is told --backend mpi, so that it starts on machines without MPI. Plain C: the two may be built apart.
 *
 * All calls but init are made with one lock held. Those that return int return 0 or MPI's error, for error_text.
 * The collective ones only start: `slot` (0 to kBasinMpiSlots - 1) is then under way until test says done. Buffers are
 * lent until then.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#define BASIN_MPI_VERSION 1
#define BASIN_MPI_SYMBOL "basin_mpi_api"
#define BASIN_MPI_SLOTS 65536

struct basin_mpi_api {
  uint32_t version; /* BASIN_MPI_VERSION; first, for ever */
  /* MPI_Init_thread. *serialized: whether several threads may call, one at a time. */
  int (*init)(int* serialized);
  int (*rank)(void);
  int (*size)(void);
  /* In place, over all ranks. */
  int (*start_sum)(int slot, float* values, size_t count);
  /* From rank 0. */
  int (*start_broadcast)(int slot, void* bytes, size_t count);
  /* Rank 0 gets each rank's bytes at all[sum of the counts of the ranks before it]; counts and all are its alone. */
  int (*start_gather)(int slot, const void* bytes, size_t count, void* all, const size_t* counts);
  /* Done when all ranks have started it; it is no part of the order of the others. */
  int (*start_farewell)(int slot);
  int (*test)(int slot, int* done);
  void (*error_text)(int error, char* text, size_t size);
  void (*library)(char* text, size_t size); /* the MPI library's name and version, one line */
  int (*finalize)(void);
  void (*abort)(int exit_code); /* ends all ranks; does not return */
};
