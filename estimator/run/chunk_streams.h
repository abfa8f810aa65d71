// The streams of agent.proto and of the history, one as the other. Pure.
#pragma once

#include "estimator/agent/agent.pb.h"
#include "estimator/history/run_stream.h"

namespace basin {

RunStream StreamOf(estimator::v1::StreamKind kind);
estimator::v1::StreamKind StreamKindOf(RunStream stream);
// A piece for the history; `task` and `is_chief` are of the chunk's task.
FilePiece PieceOf(const estimator::v1::FileChunk& chunk, const TaskId& task, bool is_chief);

}  // namespace basin
