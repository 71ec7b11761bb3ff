// ControlLoop: one tick, and what other threads may ask and see.
// SPDX-License-Identifier: Apache-2.0
#include "control/control_loop.hpp"

#include <algorithm>
#include <cmath>

#include "base/errors.hpp"
#include "control/estop.hpp"
#include "control/interpolator.hpp"

namespace wallx {
namespace {

// enabling and torque limits happen at rest and take several exchanges: a few skipped periods do no harm
constexpr Duration kEnableTime = std::chrono::milliseconds(100);
constexpr int kMaxLostEnables = 5;  // answers lost while enabling, one after the other, before it is a fault
constexpr double kSendShare = 0.9;  // of the period: the deadline of a command
constexpr double kJumpMargin = 3;   // times max_velocity: the fastest that a joint may be moved by anything
constexpr double kJumpSlack = 0.1;  // [rad] more than that, for samples whose times are not exact
constexpr double kTorqueStep = 0.25;  // by which long high load lowers a joint's torque limit, share

void require(bool ok, const char* what, double value) {
  if (!ok)
    throw ConfigError(std::string("control loop: ") + what + ", got " + std::to_string(value) +
                      "; correct the loop's settings");
}

LoopConfig checked(LoopConfig config) {
  require(config.rate_hz >= 10 && config.rate_hz <= 4000, "rate_hz must be 10 to 4000 Hz", config.rate_hz);
  if (config.stale_hold.count() == 0) config.stale_hold = Seconds(3 / config.rate_hz);
  if (config.stale_fault.count() == 0)
    config.stale_fault = Seconds(std::max(0.1, 2 * config.stale_hold.count()));
  require(config.stale_hold.count() >= 1 / config.rate_hz, "stale_hold must be at least one period [s]",
          config.stale_hold.count());
  require(config.stale_fault >= config.stale_hold && config.stale_fault.count() <= 10,
          "stale_fault must be stale_hold to 10 s", config.stale_fault.count());
  require(config.ramp_share > 0 && config.ramp_share <= 1, "ramp_share must be in (0..1]", config.ramp_share);
  require(config.estop_torque_share > 0 && config.estop_torque_share <= 1,
          "estop_torque_share must be in (0..1]", config.estop_torque_share);
  require(config.obstruction_torque_share > 0 && config.obstruction_torque_share <= 1,
          "obstruction_torque_share must be in (0..1]", config.obstruction_torque_share);
  require(config.high_load > 0 && config.high_load <= 1, "high_load must be in (0..1]", config.high_load);
  require(config.high_load_time.count() >= 0.1 && config.high_load_time.count() <= 60,
          "high_load_time must be 0.1 to 60 s", config.high_load_time.count());
  require(config.max_first_step > 0, "max_first_step must be above 0 [rad]", config.max_first_step);
  require(config.read_share > 0 && config.read_share <= kSendShare, "read_share must be in (0..0.9]",
          config.read_share);
  require(config.priority >= 0 && config.priority <= 99, "priority must be 0 to 99", config.priority);
  require(config.cpu >= -1 && config.cpu < 1024, "cpu must be -1 (any) or a processor's number", config.cpu);
  require(config.ring_capacity >= 1 && config.ring_capacity <= 1u << 20, "ring_capacity must be 1 to 1048576",
          static_cast<double>(config.ring_capacity));
  return config;
}

Robot& present(const std::shared_ptr<Robot>& robot) {
  if (!robot) throw ConfigError("control loop: no robot; connect one first");
  return *robot;
}

Duration share_of(Duration period, double share) {
  return Duration(static_cast<Duration::rep>(static_cast<double>(period.count()) * share));
}

}  // namespace

ControlLoop::ControlLoop(std::shared_ptr<Robot> robot, const LoopConfig& config)
    : robot_(std::move(robot)),
      config_(checked(config)),
      period_(std::chrono::round<Duration>(Seconds(1 / config_.rate_hz))),
      origin_(config_.origin ? *config_.origin : Clock::now()),
      watchdog_{std::chrono::round<Duration>(config_.stale_hold),
                std::chrono::round<Duration>(config_.stale_fault)},
      limiter_(present(robot_).embodiment().joints, present(robot_).serial(), to_seconds(period_)),
      undelivered_(limiter_),
      estops_seen_(estop_count()),
      ring_(limiter_.num_joints(), config_.ring_capacity) {
  robot_->set_cycle(to_seconds(period_));
  feedback_.num_joints = limiter_.num_joints();
  torque_share_.fill(1);
  record_.num_joints = static_cast<std::uint32_t>(limiter_.num_joints());
}

ControlLoop::~ControlLoop() { stop(); }

TimePoint ControlLoop::on_grid(TimePoint time) const noexcept {
  const Duration since = time - origin_;
  Duration::rep count = since / period_;
  if (since > period_ * count) ++count;  // up; the division truncates toward zero
  return origin_ + period_ * count;
}

const LoopRecord& ControlLoop::tick(TimePoint now, Duration lateness) noexcept {
  record_.tick = ++tick_;
  record_.scheduled = now;
  record_.lateness_us = static_cast<float>(to_seconds(lateness) * 1e6);
  record_.has_command = record_.is_exact = record_.is_on_row = false;
  record_.send = {};
  record_.reasons.fill(0);
  const std::size_t num_joints = limiter_.num_joints();

  const TimePoint before = config_.clock();
  if (!heartbeat_.enter()) is_seized_ = is_bus_closed_ = true;  // nothing is sent or asked any more
  record_.read = is_seized_ ? Result{.code = ErrorCode::wrong_state}
                            : robot_->read(now + share_of(period_, config_.read_share), feedback_);
  record_.read_us = static_cast<float>(to_seconds(config_.clock() - before) * 1e6);
  if (record_.read.code == ErrorCode::bus_closed) is_bus_closed_ = true;
  // a drive that reports an error or a lost torque has answered all the same
  const bool is_answered = record_.read.ok() || record_.read.code == ErrorCode::drive_error ||
                           record_.read.code == ErrorCode::torque_off;
  if (!is_answered) statistics_.add(LoopStatistics::stale_ticks);

  take_requests();
  const Plan* plan = plans_.in_force(now);
  Playhead head;
  if (plan) head = interpolate(*plan, now, {record_.target.data(), num_joints});
  record_.finding = watch(watchdog_, {now, &feedback_, is_bus_closed_, plan != nullptr, head.is_exhausted});
  if (is_seized_) record_.finding.reason = Reason::stalled;
  if (record_.read.code == ErrorCode::torque_off && machine_.is_enabled())
    record_.finding = {Verdict::fault, Reason::torque_lost, record_.read.joint};
  undelivered_ = limiter_;
  check_jumps();
  if (machine_.is_enabled()) {
    pull_back(now);
    watch_load(now);
  }
  if (plan) guard(*plan);

  const LoopState previous = machine_.state();
  const Decision decision =
      machine_.decide({record_.requests, record_.finding, limiter_.is_at_rest(), was_on_target_});
  if (decision.starts_generation) {
    plans_.stop();
    plan = nullptr;
  }
  if (machine_.state() == LoopState::hold && previous != LoopState::hold)
    statistics_.add(LoopStatistics::holds);
  if (previous == LoopState::fault && machine_.state() != LoopState::fault) {
    statistics_.add(LoopStatistics::resets);
    is_bus_closed_ = is_seized_ = false;  // look again
    heartbeat_.rearm();
  }

  record_.plan_sequence = plan ? plan->sequence : 0;
  record_.row = plan ? static_cast<std::int32_t>(head.row) : -1;
  record_.is_on_row = plan && head.is_on_row;
  if (!plan) std::copy_n(limiter_.command().begin(), num_joints, record_.target.begin());

  was_on_target_ = false;
  if (decision.enables) {
    // the measured pose of every joint is the first command; an answer lost now is asked for again in a
    // period
    if (is_answered) enable(now);
  } else if (decision.releases && !is_bus_closed_) {
    release(now);
  } else if (decision.motion != Motion::none) {
    move(now, decision.motion == Motion::follow && plan);
  }
  // full torque to brake with
  if (machine_.is_estop() && limiter_.is_at_rest())
    for (std::size_t j = 0; j < num_joints; ++j) lower_torque(j, config_.estop_torque_share);
  if (is_torque_pending_ && !is_bus_closed_) {
    // while other joints still brake, a lost confirmation must not slow them down: it is asked for again
    const Duration time = limiter_.is_at_rest() ? kEnableTime : period_;
    const Result limited = robot_->limit_torque({torque_share_.data(), num_joints}, now + time);
    if (limited.ok()) is_torque_pending_ = false;
    if (record_.send.ok()) record_.send = limited;
  }
  heartbeat_.leave();
  publish();
  return record_;
}

void ControlLoop::take_requests() noexcept {
  std::uint8_t requests = requests_.exchange(0, std::memory_order_acq_rel);
  if (const std::uint32_t estops = estop_count(); estops != estops_seen_) {
    estops_seen_ = estops;
    requests |= kRequestEstop;
  }
  // a robot that is being stopped does not start again
  if (is_stopping_.load(std::memory_order_relaxed)) requests &= ~(kRequestEnable | kRequestResume);
  record_.requests = requests;
}

// An encoder that slipped or wrapped, or two motors with one id, report a pose that is not there: no command
// may be pulled back to it.
void ControlLoop::check_jumps() noexcept {
  const std::vector<JointSpec>& joints = robot_->embodiment().joints;
  for (std::size_t j = 0; j < limiter_.num_joints(); ++j) {
    // a wheel turns on and on: the angle that its encoder reports wraps, and no command is pulled back to it
    if (joints[j].mode == JointMode::velocity || feedback_.sampled_at[j] == seen_at_[j]) continue;
    const double dt = to_seconds(feedback_.sampled_at[j] - seen_at_[j]);
    const double largest = kJumpMargin * joints[j].limits.max_velocity * dt + kJumpSlack;
    const bool is_first = seen_at_[j] == TimePoint{};
    if (!is_first && std::abs(feedback_.position[j] - seen_position_[j]) > largest) is_implausible_[j] = true;
    seen_position_[j] = feedback_.position[j];
    seen_at_[j] = feedback_.sampled_at[j];
    if (is_implausible_[j] && machine_.is_enabled() && record_.finding.verdict != Verdict::fault)
      record_.finding = {Verdict::fault, Reason::implausible, static_cast<std::int16_t>(j)};
  }
}

// a blocked joint must neither be pushed harder nor leap when it is freed: its command goes back to where it
// is
void ControlLoop::pull_back(TimePoint now) noexcept {
  for (std::size_t j = 0; j < limiter_.num_joints(); ++j) {
    is_pulled_back_[j] =
        is_fresh(j, now) && !is_implausible_[j] && limiter_.pull_back(j, feedback_.position[j]);
    if (!is_pulled_back_[j] || robot_->embodiment().joints[j].grips) continue;
    lower_torque(j, config_.obstruction_torque_share);
    if (record_.finding.verdict != Verdict::fault)
      record_.finding = {Verdict::fault, Reason::obstruction, static_cast<std::int16_t>(j)};
  }
}

void ControlLoop::watch_load(TimePoint now) noexcept {
  for (std::size_t j = 0; j < limiter_.num_joints(); ++j) {
    TimePoint& since = high_load_since_[j];
    const bool is_high = std::abs(feedback_.load[j]) >= config_.high_load * torque_share_[j];
    if (!is_high || !is_fresh(j, now)) {
      since = {};
    } else if (since == TimePoint{}) {
      since = now;
    } else if (now - since >= to_duration(config_.high_load_time)) {
      since = now;
      if (torque_share_[j] > config_.estop_torque_share)
        lower_torque(j, std::max(config_.estop_torque_share, torque_share_[j] - kTorqueStep));
      else if (!robot_->embodiment().joints[j].grips && record_.finding.verdict != Verdict::fault)
        record_.finding = {Verdict::fault, Reason::overload, static_cast<std::int16_t>(j)};
    }
  }
}

void ControlLoop::lower_torque(std::size_t joint, double share) noexcept {
  if (torque_share_[joint] <= share) return;
  torque_share_[joint] = share;
  is_torque_pending_ = true;
}

// first-frame guard: a plan that begins far away, or that ran away while the robot held, is not followed
void ControlLoop::guard(const Plan& plan) noexcept {
  const bool takes_over = plan.sequence != seen_plan_ ||
                          !(machine_.state() == LoopState::ramp || machine_.state() == LoopState::run);
  seen_plan_ = plan.sequence;
  if (!takes_over && plan.sequence != far_plan_) return;
  if (!machine_.is_enabled() || record_.finding.verdict != Verdict::ok) return;
  for (std::size_t j = 0; j < limiter_.num_joints(); ++j) {
    if (std::abs(record_.target[j] - limiter_.command()[j]) <= config_.max_first_step) continue;
    far_plan_ = plan.sequence;
    record_.finding = {Verdict::hold, Reason::far_row, static_cast<std::int16_t>(j)};
    return;
  }
  if (plan.sequence == far_plan_) record_.finding = {Verdict::hold, Reason::far_row, -1};
}

void ControlLoop::move(TimePoint now, bool follows) noexcept {
  const std::size_t num_joints = limiter_.num_joints();
  LimitReasons reasons;
  if (follows) limiter_.set_velocity_share(machine_.state() == LoopState::ramp ? config_.ramp_share : 1.0);
  SafeCommand command = follows ? limiter_.limit({record_.target.data(), num_joints}, tick_, reasons)
                                : limiter_.brake(tick_, reasons);
  for (std::size_t j = 0; j < num_joints; ++j) {
    if (!is_pulled_back_[j]) continue;
    reasons.joint[j] |= kLimitFollowing;
    reasons.any |= kLimitFollowing;
  }
  record_.has_command = true;
  record_.is_exact =
      follows && std::equal(command.position().begin(), command.position().end(), record_.target.begin());
  was_on_target_ = record_.is_exact;
  record_.reasons = reasons.joint;
  statistics_.add_limited(reasons.any);
  if (reasons.is_fault()) {
    const auto at = std::find_if(reasons.joint.begin(), reasons.joint.end(),
                                 [](std::uint16_t r) { return r & (kLimitNotFinite | kLimitStepCap); });
    fail({Verdict::fault, reasons.any & kLimitStepCap ? Reason::step_cap : Reason::not_finite,
          static_cast<std::int16_t>(at - reasons.joint.begin())});
  }
  if (!is_bus_closed_) send(std::move(command), now);
  // the motors still stand at the last command that was sent: the next one starts from there
  if (!record_.send.ok()) {
    limiter_ = undelivered_;
    was_on_target_ = false;
  }
}

void ControlLoop::release(TimePoint now) noexcept {
  record_.send = robot_->release(now + kEnableTime);
  if (record_.send.code == ErrorCode::bus_closed) {
    is_bus_closed_ = true;
    return fail({Verdict::fault, Reason::bus_closed, record_.send.joint});
  }
  if (record_.send.ok()) machine_.released();  // else: asked for again in a period
}

void ControlLoop::enable(TimePoint now) noexcept {
  std::optional<SafeCommand> measured =
      limiter_.reset({feedback_.position.data(), limiter_.num_joints()}, tick_);
  if (!measured) return fail({Verdict::fault, Reason::not_finite, -1});
  record_.has_command = true;
  record_.send = robot_->enable(std::move(*measured), tick_, now + kEnableTime);
  const bool is_lost = record_.send.code == ErrorCode::timeout || record_.send.code == ErrorCode::bad_reply;
  if (is_lost && ++num_lost_enables_ < kMaxLostEnables) return;  // asked again in a period
  num_lost_enables_ = 0;
  if (!record_.send.ok()) {
    is_bus_closed_ = record_.send.code == ErrorCode::bus_closed;
    return fail(
        {Verdict::fault, is_bus_closed_ ? Reason::bus_closed : Reason::enable_failed, record_.send.joint});
  }
  last_sent_ = now;
  torque_share_.fill(1);  // enabling restored it
  is_torque_pending_ = false;
  high_load_since_.fill({});
  is_implausible_.fill(false);
  machine_.enabled();
}

void ControlLoop::send(SafeCommand&& command, TimePoint now) noexcept {
  // most of a tick waits for answers: a process that was stopped there goes on here, with the bus no longer
  // its own
  if (!heartbeat_.enter()) {
    record_.send = {.code = ErrorCode::wrong_state};
    return;
  }
  const Result result = robot_->send(std::move(command), tick_, now + share_of(period_, kSendShare));
  record_.send = result;
  if (result.ok()) {
    last_sent_ = now;
    return;
  }
  statistics_.add(LoopStatistics::send_failures);
  if (result.code == ErrorCode::bus_closed) {
    is_bus_closed_ = true;
    fail({Verdict::fault, Reason::bus_closed, result.joint});
  } else if (result.code == ErrorCode::wrong_state || result.code == ErrorCode::out_of_range ||
             result.code == ErrorCode::step_too_large || now - last_sent_ > watchdog_.stale_fault) {
    fail({Verdict::fault, Reason::send_failed, result.joint});
  }
}

void ControlLoop::fail(const Finding& cause) noexcept {
  record_.finding = cause;
  if (machine_.fail(cause)) plans_.stop();
}

void ControlLoop::publish() noexcept {
  const std::size_t num_joints = limiter_.num_joints();
  record_.state = machine_.state();
  record_.is_enabled = machine_.is_enabled();
  record_.cause = machine_.cause();
  record_.generation = plans_.generation();
  const bool has_pose = machine_.is_enabled() || record_.has_command;
  for (std::size_t j = 0; j < num_joints; ++j) {
    record_.measured[j] = feedback_.position[j];
    record_.command[j] = has_pose ? limiter_.command()[j] : feedback_.position[j];
    record_.sample_age[j] = static_cast<float>(sample_age(feedback_, j, record_.scheduled));
    record_.drive_error[j] = feedback_.drive_error[j];
    record_.torque_share[j] = static_cast<float>(torque_share_[j]);
  }
  remember();
  statistics_.add(LoopStatistics::ticks);
  statistics_.set_refused_plans(plans_.num_refused());
  ring_.push(record_);
  newest_.back() = record_;
  newest_.publish();
  state_.store(record_.state, std::memory_order_release);
}

// the last records, frozen from a fault to its reset
void ControlLoop::remember() noexcept {
  if (is_history_frozen_.load(std::memory_order_relaxed)) {
    if (record_.state == LoopState::fault) return;
    is_history_frozen_.store(false);
    is_history_over_ = true;
  }
  if (is_history_read_.load()) return;  // a reader that came before the thaw
  if (is_history_over_) history_size_ = 0;
  is_history_over_ = false;
  history_[history_size_++ % kHistory] = record_;
  if (record_.state == LoopState::fault) is_history_frozen_.store(true);
}

std::optional<FaultReport> ControlLoop::fault_report() const {
  const std::lock_guard lock(history_mutex_);
  is_history_read_.store(true);
  std::optional<FaultReport> report;
  if (is_history_frozen_.load()) {
    const std::size_t count = std::min(history_size_, kHistory);
    report.emplace();
    report->records.reserve(count);
    for (std::size_t i = history_size_ - count; i < history_size_; ++i)
      report->records.push_back(history_[i % kHistory]);
    const LoopRecord& last = report->records.back();
    report->cause = last.cause;
    report->read = last.read;
    report->send = last.send;
    report->at = last.scheduled;
  }
  is_history_read_.store(false);
  return report;
}

std::uint64_t ControlLoop::submit(std::span<const double> rows, TimePoint start, Seconds step,
                                  std::uint32_t generation) {
  const std::lock_guard lock(submit_mutex_);
  if (generation > plans_.generation())
    throw ConfigError("plan of generation " + std::to_string(generation) +
                      ", but the loop is in generation " + std::to_string(plans_.generation()) +
                      "; read the loop's generation after a stop");
  const bool falls_on_ticks = std::chrono::round<Duration>(step) % period_ == Duration::zero();
  make_plan(plans_.back(), rows, robot_->embodiment().joints, falls_on_ticks ? on_grid(start) : start, step,
            generation);
  return plans_.publish();
}

bool ControlLoop::snapshot(LoopRecord& newest) const {
  const std::lock_guard lock(read_mutex_);
  has_newest_ |= newest_.take();
  if (has_newest_) newest = newest_.held();
  return has_newest_;
}

std::size_t ControlLoop::drain(std::span<LoopRecord> records) {
  const std::lock_guard lock(read_mutex_);
  std::size_t count = 0;
  while (count < records.size() && ring_.pop(records[count])) ++count;
  return count;
}

LoopCounters ControlLoop::counters() const noexcept {
  LoopCounters counters = statistics_.counters();
  counters.num_dropped_records = ring_.num_dropped();
  return counters;
}

std::string fault_message(const FaultReport& report, const Embodiment& embodiment, const LoopConfig& config) {
  const std::int16_t j = report.cause.joint;
  std::string who = "a joint";
  if (j >= 0 && static_cast<std::size_t>(j) < embodiment.joints.size())
    who = "joint '" + embodiment.joints[j].name + "' (id " + std::to_string(embodiment.joints[j].id) + ")";
  const std::string head = "the control loop stopped robot '" + embodiment.name + "': ";
  switch (report.cause.reason) {
    case Reason::bus_closed:
      return head + "the bus is closed; check the cable, the adapter and its power, then connect again";
    case Reason::stale_feedback: {
      const double age = j >= 0 && !report.records.empty() ? report.records.back().sample_age[j] : 0;
      return head + who + " has not answered for " + std::to_string(age) + " s, at most " +
             std::to_string(config.stale_fault.count()) + " s (stale_fault); check its cable, id and power";
    }
    case Reason::not_finite:
      return head + "the position of " + who + " is not a finite number; check its calibration";
    case Reason::send_failed:
      return head + "commands could not be sent (" + to_string(report.send.code) + ") for up to " +
             std::to_string(config.stale_fault.count()) + " s; check the line";
    case Reason::enable_failed:
      if (report.send.code == ErrorCode::out_of_range)
        return head + who + " stands outside its calibrated range or moved while enabling (tick " +
               std::to_string(report.send.detail) + "); bring it inside by hand, torque off, and try again";
      return head + "enabling failed at " + who + " (" + to_string(report.send.code) + ", detail " +
             std::to_string(report.send.detail) + "); check its power and error bits";
    case Reason::torque_lost:
      return head + who +
             " has no torque any more: it restarted or protected itself; support the arm, check its " +
             "power, temperature and load";
    case Reason::step_cap:
      return head + "a command of " + who +
             " exceeded the largest step; this is a defect of the limiter: report it";
    case Reason::drive_fault:
      return head + who + " reports the error bits " +
             std::to_string(j >= 0 && !report.records.empty() ? report.records.back().drive_error[j] : 0) +
             "; check its temperature, load, encoder and supply (drivers/motors names the bits)";
    case Reason::obstruction: {
      const LoopRecord* last = j >= 0 && !report.records.empty() ? &report.records.back() : nullptr;
      return head + who + " stands at " + std::to_string(last ? last->measured[j] : 0) +
             " rad and does not follow its command; more than max_following_error = " +
             std::to_string(last ? embodiment.joints[static_cast<std::size_t>(j)].max_following_error : 0) +
             " rad between them means an obstacle: take it away, then reset";
    }
    case Reason::overload:
      return head + who + " pushed at its torque limit for too long; take the load away, then reset";
    case Reason::implausible:
      return head + who +
             " reports a position that it cannot have moved to: its encoder slipped or wrapped, or two "
             "motors "
             "have one id; look at it before torque is switched on again";
    case Reason::stalled:
      return head +
             "it stood still for so long that safe-stop took the bus over; look for what held it up, " +
             "then reset";
    case Reason::estop:
      return head + "e-stop: it braked and holds at low torque; reset it before it moves again";
    default:
      return head + to_string(report.cause.reason);
  }
}

}  // namespace wallx
