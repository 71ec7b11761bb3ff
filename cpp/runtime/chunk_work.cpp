// ChunkWork: prefill, then denoise.
// SPDX-License-Identifier: Apache-2.0
#include "runtime/chunk_work.hpp"

#include <utility>

#include "runtime/pausing.hpp"

namespace wallx {

ChunkWork::ChunkWork(std::shared_ptr<Context> context, OwnPrompt prompt, OwnFlow flow)
    : Work(context.get()), context_(std::move(context)), prompt_(std::move(prompt)), flow_(std::move(flow)) {}

bool ChunkWork::advance(InferenceQueue& queue) {
  const Pausing pausing(*context_, [&](std::int64_t) { queue.pause(*this, true); });
  num_shared_ = context_->prefill(prompt_.view());
  context_->denoise(flow_.noise, flow_.mask, flow_.horizon, flow_.view());
  queue.pause(*this, true);  // counts its time; a chunk that nobody wants any more is none
  queue.meter().saw_chunk(Seconds(computed()));
  return false;
}

}  // namespace wallx
