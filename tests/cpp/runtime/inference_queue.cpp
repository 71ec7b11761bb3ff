// InferenceQueueTest: order, what goes first, and every way in which work ends.
// SPDX-License-Identifier: Apache-2.0
#include "runtime/inference_queue.hpp"

#include <functional>
#include <future>
#include <string>

#include "check.hpp"
#include "engine/tiny_engine.hpp"
#include "runtime/chunk_work.hpp"
#include "runtime/text_work.hpp"

namespace wallx::test {
namespace {

// work that says what it does and waits where it is told to
class Script final : public Work {
 public:
  using Body = std::function<bool(InferenceQueue&, Script&)>;
  explicit Script(Body body, const void* place = nullptr)
      : Work(place ? place : this), body_(std::move(body)) {}

 private:
  bool advance(InferenceQueue& queue) override { return body_(queue, *this); }
  Body body_;
};

using Item = std::shared_ptr<Script>;

Item script(Script::Body body, const void* place = nullptr) {
  return std::make_shared<Script>(std::move(body), place);
}
TimePoint at(int seconds) { return Clock::now() + std::chrono::hours(1) + std::chrono::seconds(seconds); }
constexpr Seconds kLong{60};

// keeps the thread busy until it is opened, so that what is submitted meanwhile is ordered
struct Gate {
  std::promise<void> begun, open;
  Item work = script([this](InferenceQueue&, Script&) {
    begun.set_value();
    open.get_future().wait();
    return false;
  });
  explicit Gate(InferenceQueue& queue) {
    queue.submit(work, TimePoint::min());
    begun.get_future().wait();
  }
};

OwnPrompt own(const TinyPrompt& p) {
  return {p.ids, p.pixels, p.grids, p.state_token_id, p.state, p.state_mask};
}
OwnFlow flow(std::int64_t horizon) {
  OwnFlow out;
  out.noise = noise_of(horizon);
  out.mask = mask_of(horizon);
  out.horizon = horizon;
  return out;
}

}  // namespace

TEST(work_goes_in_order_of_deadline_and_equals_in_order_of_arrival) {
  InferenceQueue queue;
  std::string order;
  std::vector<Item> items;
  {
    Gate gate(queue);
    const TimePoint same = at(5);
    const std::pair<char, TimePoint> works[] = {{'z', kNoDeadline}, {'c', same},  {'b', at(2)},
                                                {'d', same},        {'a', at(1)}, {'y', kNoDeadline}};
    for (const auto& [name, deadline] : works) {
      items.push_back(script([&order, name = name](InferenceQueue&, Script&) {
        order += name;
        return false;
      }));
      queue.submit(items.back(), deadline);
    }
    gate.open.set_value();
  }
  for (const Item& item : items) CHECK(item->wait(kLong));
  CHECK_EQ(order, std::string("abcdzy"));
}

TEST(urgent_work_waits_for_one_slice_and_goes_first_between_blocks) {
  InferenceQueue queue;
  std::string order;
  Item urgent = script([&](InferenceQueue&, Script&) {
    order += 'u';
    return order.size() < 4;  // two slices, all of it before the other goes on
  });
  const Item slow = script([&](InferenceQueue& q, Script& self) {
    order += '1';
    q.submit(urgent, at(0));
    q.pause(self, true);
    order += '2';
    q.pause(self, true);
    return false;
  });
  queue.submit(slow, kNoDeadline);
  CHECK(slow->wait(kLong));
  CHECK(urgent->wait(kLong));
  CHECK_EQ(order, std::string("1uuu2"));
  CHECK_EQ(queue.counters().num_let_first, std::uint64_t{3});
}

TEST(work_in_the_same_place_or_less_urgent_does_not_go_in_between) {
  InferenceQueue queue;
  std::string order;
  int place = 0;
  const Item same = script([&](InferenceQueue&, Script&) { return order += 's', false; }, &place);
  const Item later = script([&](InferenceQueue&, Script&) { return order += 'l', false; });
  const Item first = script(
      [&](InferenceQueue& q, Script& self) {
        q.submit(same, at(1));
        q.submit(later, at(20));
        q.pause(self, true);
        order += '1';
        return false;
      },
      &place);
  queue.submit(first, at(10));
  for (const Item& item : {first, same, later}) CHECK(item->wait(kLong));
  CHECK_EQ(order, std::string("1sl"));
}

TEST(cancelled_work_ends_at_its_next_pause_and_never_begins_after) {
  InferenceQueue queue;
  bool has_gone_on = false;
  const Item running = script([&](InferenceQueue& q, Script& self) {
    self.cancel();
    q.pause(self, true);
    has_gone_on = true;
    return false;
  });
  queue.submit(running, kNoDeadline);
  CHECK(running->wait(kLong));
  CHECK(running->state() == WorkState::cancelled);
  CHECK_THROWS(running->check(), Cancelled, "cancelled");
  CHECK(!has_gone_on);
  const Item waiting = script([&](InferenceQueue&, Script&) { return has_gone_on = true, false; });
  waiting->cancel();
  queue.submit(waiting, kNoDeadline);
  CHECK(waiting->wait(kLong));
  CHECK(waiting->state() == WorkState::cancelled && !has_gone_on);
}

TEST(a_new_generation_ends_what_came_before_and_nothing_after) {
  InferenceQueue queue;
  const auto nothing = [](InferenceQueue&, Script&) { return false; };
  Item before = script(nothing), after = script(nothing);
  {
    Gate gate(queue);
    queue.submit(before, at(1));
    CHECK_EQ(queue.begin_generation(), std::uint32_t{1});
    queue.submit(after, at(2));
    gate.open.set_value();
    CHECK(gate.work->wait(kLong));
  }
  CHECK(before->wait(kLong) && after->wait(kLong));
  CHECK(before->state() == WorkState::cancelled);
  CHECK(after->state() == WorkState::done);
}

TEST(a_failure_is_its_own_and_the_queue_goes_on) {
  InferenceQueue queue;
  const Item bad = script([](InferenceQueue&, Script&) -> bool { throw ConfigError("no"); });
  const Item good = script([](InferenceQueue&, Script&) { return false; });
  queue.submit(bad, at(1));
  queue.submit(good, at(2));
  CHECK(bad->wait(kLong) && good->wait(kLong));
  CHECK(bad->state() == WorkState::failed && good->state() == WorkState::done);
  CHECK_THROWS(bad->check(), ConfigError, "no");
  CHECK_THROWS(queue.submit(good, at(3)), WallxError, "before");
}

TEST(closing_ends_everything_and_joins) {
  InferenceQueue queue;
  std::vector<Item> items;
  const Item endless = script([](InferenceQueue&, Script&) { return true; });
  queue.submit(endless, kNoDeadline);
  for (int i = 0; i < 20; ++i) {
    items.push_back(script([](InferenceQueue&, Script&) { return true; }));
    queue.submit(items.back(), at(i));
  }
  queue.close();
  queue.close();
  CHECK(endless->state() == WorkState::cancelled);
  for (const Item& item : items) CHECK(item->state() == WorkState::cancelled);
  CHECK_THROWS(queue.submit(script([](InferenceQueue&, Script&) { return false; }), at(0)), WallxError,
               "closed");
}

TEST(many_threads_may_submit_cancel_and_wait) {
  InferenceQueue queue;
  std::atomic<int> ran{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t)
    threads.emplace_back([&, t] {
      for (int i = 0; i < 200; ++i) {
        const Item item = script([&](InferenceQueue& q, Script& self) {
          q.pause(self, true);
          ++ran;
          return false;
        });
        queue.submit(item, i % 3 ? at(i) : kNoDeadline);
        if (i % 5 == t) item->cancel();
        if (i % 50 == 0) queue.begin_generation();
        item->wait(kLong);
      }
    });
  for (std::thread& thread : threads) thread.join();
  const QueueCounters counters = queue.counters();
  CHECK_EQ(counters.num_done + counters.num_cancelled, std::uint64_t{800});
  CHECK_EQ(counters.num_done, static_cast<std::uint64_t>(ran.load()));
}

TEST(a_chunk_from_the_queue_has_the_bits_of_a_chunk_without) {
  Context alone(tiny_model(), 64, RopeLayout::hf);
  alone.prefill(robot_prompt().view());
  const Floats expected = denoised(alone, 5);
  InferenceQueue queue;
  const auto context = std::make_shared<Context>(tiny_model(), 64, RopeLayout::hf);
  const auto work = std::make_shared<ChunkWork>(context, own(robot_prompt()), flow(5));
  queue.submit(work, at(1));
  CHECK(work->wait(kLong));
  work->check();
  CHECK(work->actions() == expected);
  CHECK(work->computed() > 0);
  CHECK_EQ(context->num_pictures(), std::int64_t{2});
}

TEST(chunks_that_go_first_change_no_word_and_no_chunk) {
  TextOptions options;
  options.max_new_tokens = 12;
  const auto text_of = [&](Context& context) {
    context.prefill(robot_prompt().view());
    TextDecoder decoder(context, options);
    std::vector<std::int64_t> out;
    while (const auto id = decoder.next()) out.push_back(*id);
    return out;
  };
  Context alone(tiny_model(), 64, RopeLayout::hf);
  const std::vector<std::int64_t> words = text_of(alone);
  Context other(tiny_model(), 64, RopeLayout::hf);
  other.prefill(robot_prompt().view());
  const Floats expected = denoised(other, 5);

  InferenceQueue queue;
  const auto context = std::make_shared<Context>(tiny_model(), 64, RopeLayout::hf);
  const auto acting = std::make_shared<Context>(tiny_model(), 64, RopeLayout::hf);
  for (int round = 0; round < 20; ++round) {
    const auto text = std::make_shared<TextWork>(context, own(robot_prompt()), options);
    queue.submit(text, kNoDeadline);
    // from here on chunks fall into its prefill, its tokens, or behind it
    for (int i = 0; i < 5; ++i) {
      const auto chunk = std::make_shared<ChunkWork>(acting, own(robot_prompt()), flow(5));
      queue.submit(chunk, at(i));
      CHECK(chunk->wait(kLong));
      chunk->check();
      CHECK(chunk->actions() == expected);
    }
    std::vector<std::int64_t> found;
    while (const auto id = text->token(found.size())) found.push_back(*id);
    CHECK(found == words);
    CHECK(text->wait(kLong));
  }
}

TEST(a_prefill_in_passes_has_the_bits_of_one) {
  Context whole(tiny_model(), 64, RopeLayout::hf);
  whole.prefill(robot_prompt().view());
  for (const std::int64_t rows : {1, 2, 5, 7, 18, 100}) {
    Context cut(tiny_model(), 64, RopeLayout::hf);
    std::int64_t most = 0;
    cut.set_pause([&](std::int64_t n) { most = std::max(most, n); }, rows);
    cut.prefill(robot_prompt().view());
    CHECK(most <= rows);
    CHECK(logits_of(cut) == logits_of(whole));
    CHECK(denoised(cut, 4) == denoised(whole, 4));
  }
}

TEST(a_text_that_is_cancelled_leaves_a_context_that_goes_on) {
  InferenceQueue queue;
  const auto context = std::make_shared<Context>(tiny_model(), 100000, RopeLayout::hf);
  TextOptions options;
  options.max_new_tokens = 99000;  // never reached
  Context alone(tiny_model(), 64, RopeLayout::hf);
  alone.prefill(robot_prompt().view());
  for (int round = 0; round < 20; ++round) {
    const auto text = std::make_shared<TextWork>(context, own(robot_prompt()), options);
    queue.submit(text, kNoDeadline);
    if (round % 2) CHECK(text->token(static_cast<std::size_t>(round)).has_value());
    text->cancel();
    CHECK(text->wait(kLong));
    CHECK(text->state() == WorkState::cancelled);
    CHECK_THROWS(text->token(98000), Cancelled, "cancelled");
    context->prefill(robot_prompt().view());
    CHECK(logits_of(*context) == logits_of(alone));
  }
}

TEST(a_prompt_that_does_not_fit_fails_and_says_so) {
  InferenceQueue queue;
  const auto context = std::make_shared<Context>(tiny_model(), 20, RopeLayout::hf);
  TextOptions options;
  options.max_new_tokens = 10;
  const auto text = std::make_shared<TextWork>(context, own(robot_prompt()), options);
  queue.submit(text, kNoDeadline);
  CHECK_THROWS(text->token(0), ConfigError, "does not fit");
}

TEST(the_meter_sizes_passes_so_that_a_block_is_a_tenth_of_a_chunk) {
  SliceMeter meter;
  CHECK_EQ(meter.rows(), std::int64_t{0});
  CHECK_EQ(meter.target(), SliceMeter::kUnknown);
  meter.saw_chunk(Seconds(0.1));
  CHECK_NEAR(meter.target(), 0.01, 1e-12);
  meter.saw_block(100, Seconds(0.02));  // 0.2 ms a row
  CHECK_NEAR(static_cast<double>(meter.rows()), 50, 1);
  SliceMeter slow;
  slow.saw_chunk(Seconds(0.001));
  CHECK_EQ(slow.target(), SliceMeter::kSmallest);
  slow.saw_block(10, Seconds(1));
  CHECK_EQ(slow.rows(), SliceMeter::kMinRows);
  for (int i = 0; i < 100; ++i) slow.saw_chunk(Seconds(100));
  CHECK_EQ(slow.target(), SliceMeter::kLargest);
}

}  // namespace wallx::test
