#include "estimator/run/chunk_streams.h"

namespace basin {

RunStream StreamOf(estimator::v1::StreamKind kind) {
  switch (kind) {
    case estimator::v1::SCRIPT_LOG:
      return RunStream::kScriptLog;
    case estimator::v1::METRICS:
      return RunStream::kMetrics;
    case estimator::v1::OUTPUT:
      return RunStream::kOutput;
    case estimator::v1::AGENT:
      return RunStream::kAgent;
    default:
      return RunStream::kLog;
  }
}

estimator::v1::StreamKind StreamKindOf(RunStream stream) {
  switch (stream) {
    case RunStream::kLog:
      return estimator::v1::LOG;
    case RunStream::kScriptLog:
      return estimator::v1::SCRIPT_LOG;
    case RunStream::kMetrics:
      return estimator::v1::METRICS;
    case RunStream::kOutput:
      return estimator::v1::OUTPUT;
    case RunStream::kAgent:
      return estimator::v1::AGENT;
  }
  return estimator::v1::STREAM_KIND_UNSPECIFIED;
}

FilePiece PieceOf(const estimator::v1::FileChunk& chunk, const TaskId& task, bool is_chief) {
  FilePiece piece;
  piece.stream = StreamOf(chunk.stream());
  if (piece.stream != RunStream::kAgent) {
    piece.task = task;
    piece.is_chief = is_chief;
  }
  piece.path = chunk.path();
  piece.offset = chunk.offset();
  piece.data = chunk.data();
  piece.last = chunk.last();
  piece.executable = chunk.executable();
  piece.link_target = chunk.link_target();
  return piece;
}

}  // namespace basin
