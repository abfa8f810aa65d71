// Bytes in both directions between a pair of descriptors and a socket.
#pragma once

namespace basin {

// Passes `from` to `socket` and `socket` to `to`, with bounded buffers, until one side ends; then what is on the way is
// delivered where its reader still reads, for a second at most. All become non-blocking.
void SpliceUntilEnd(int from, int to, int socket);

}  // namespace basin
