#include "lamella/train/progress.h"

#include <signal.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <utility>

#include "core/check.h"

namespace lamella::train {

namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

std::string duration(double seconds) {
  const auto s = std::llround(seconds);
  char text[32];
  if (s >= 3600)
    std::snprintf(text, sizeof text, "%lld:%02lld:%02lld", static_cast<long long>(s / 3600),
                  static_cast<long long>(s / 60 % 60), static_cast<long long>(s % 60));
  else
    std::snprintf(text, sizeof text, "%lld:%02lld", static_cast<long long>(s / 60),
                  static_cast<long long>(s % 60));
  return text;
}

std::string fixed(double value, int decimals) {
  char text[64];
  std::snprintf(text, sizeof text, "%.*f", decimals, value);
  return text;
}

/// While it lives, writing to a pipe that nobody reads sends this thread no SIGPIPE, which ends a program.
class NoPipeSignal {
 public:
  NoPipeSignal() {
    sigemptyset(&pipe_);
    sigaddset(&pipe_, SIGPIPE);
    sigset_t pending;
    sigpending(&pending);
    was_pending_ = sigismember(&pending, SIGPIPE) == 1;
    pthread_sigmask(SIG_BLOCK, &pipe_, &before_);
  }
  ~NoPipeSignal() {
    const timespec now{};
    while (!was_pending_ && sigtimedwait(&pipe_, nullptr, &now) < 0 && errno == EINTR) {
    }
    pthread_sigmask(SIG_SETMASK, &before_, nullptr);
  }
  NoPipeSignal(const NoPipeSignal&) = delete;
  NoPipeSignal& operator=(const NoPipeSignal&) = delete;

 private:
  sigset_t pipe_, before_;
  bool was_pending_ = false;
};

}  // namespace

struct Progress::State {
  Options options;
  Clock::time_point start = Clock::now();
  Clock::time_point shown = Clock::now();
  std::int64_t done = 0;
  Figures figures;
  std::function<Figures()> ask;  // for newer figures, unless empty
  bool terminal = false;
  bool finished = false;
  bool failed = false;

  /// `bar`: draw one; otherwise the plain form.
  std::string line(bool bar, bool last) const {
    const double seconds = std::max(seconds_since(start), 1e-9);
    const double rate = static_cast<double>(done) / seconds;
    std::string text = options.label;
    if (options.total > 0) {
      const double share = std::min(1.0, static_cast<double>(done) / static_cast<double>(options.total));
      if (bar) {
        constexpr int kWidth = 20;
        const int full = static_cast<int>(share * kWidth);
        text += " [";
        for (int i = 0; i < kWidth; ++i) text += i < full ? '=' : i == full ? '>' : ' ';
        text += ']';
      }
      text += lamella::detail::concat(' ', done, '/', options.total);
    } else {
      text += lamella::detail::concat(' ', done);
    }
    for (const auto& [name, value] : figures) text += "  " + name + ' ' + value;
    text += "  " + fixed(rate, rate < 10 ? 1 : 0) + ' ' + options.unit + "/s";
    if (last)
      text += "  took " + duration(seconds);
    else if (options.total > done && done > 0)
      text += "  left " + duration(static_cast<double>(options.total - done) / rate);
    return text;
  }

  void put(const std::string& text) {
    // A closed pipe must not end the work that is reported on.
    const NoPipeSignal no_signal;
    std::size_t at = 0;
    while (!failed && at < text.size()) {
      const ssize_t written = ::write(options.file_descriptor, text.data() + at, text.size() - at);
      if (written < 0 && errno == EINTR) continue;
      if (written <= 0)
        failed = true;
      else
        at += static_cast<std::size_t>(written);
    }
  }

  void draw(bool last) {
    if (ask) figures = std::exchange(ask, nullptr)();
    shown = Clock::now();
    if (!terminal) {
      put(line(false, last) + '\n');
      return;
    }
    std::string text = line(!last, last);
    winsize size{};
    const std::size_t columns =
        ioctl(options.file_descriptor, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : 80;
    if (!last && text.size() >= columns) text.resize(columns - 1);
    put("\r\033[K" + text + (last ? "\n" : ""));
  }

  void add(std::int64_t count) {
    done += count;
    if (seconds_since(shown) >= (terminal ? 0.1 : options.plain_seconds)) draw(false);
  }
};

Progress::Progress(const Options& options) : state_(std::make_unique<State>()) {
  state_->options = options;
  state_->terminal = ::isatty(options.file_descriptor) == 1;
}

Progress::~Progress() {
  if (!state_->finished && state_->terminal && state_->done > 0) state_->put("\n");
}

void Progress::add(std::int64_t count, const Figures& figures) {
  if (!figures.empty()) {
    state_->ask = nullptr;
    state_->figures = figures;
  }
  state_->add(count);
}

void Progress::add(std::int64_t count, std::function<Figures()> figures) {
  state_->ask = std::move(figures);
  state_->add(count);
}

void Progress::finish() {
  if (state_->finished) return;
  state_->draw(true);
  state_->finished = true;
}

double Progress::rate() const {
  return static_cast<double>(state_->done) / std::max(seconds_since(state_->start), 1e-9);
}

}  // namespace lamella::train
