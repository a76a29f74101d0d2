#include "peer.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <stdexcept>

namespace lamella::bench {

Peer::Peer(const std::string& script, const std::vector<std::string>& arguments, const std::string& package,
           std::optional<double> seconds)
    : limit_(seconds) {
  std::signal(SIGPIPE, SIG_IGN);  // a script that ended shows in write()'s result
  std::vector<std::string> candidates{"python3", "/usr/bin/python3", "/usr/local/bin/python3"};
  if (const char* const chosen = std::getenv("LAMELLA_PYTHON"); chosen != nullptr && *chosen != '\0')
    candidates = {chosen};
  std::string tried;
  for (const std::string& python : candidates) {
    if (start(python, script, arguments)) return;
    tried += (tried.empty() ? "" : ", ") + python;
  }
  throw PeerEnded("no Python with " + package + " (tried " + tried +
                  "); let LAMELLA_PYTHON name one, or leave --peer out");
}

Peer::~Peer() { stop(); }

bool Peer::start(const std::string& python, const std::string& script,
                 const std::vector<std::string>& arguments) {
  int to[2], from[2];
  if (pipe2(to, O_CLOEXEC) != 0 || pipe2(from, O_CLOEXEC) != 0)
    throw std::runtime_error("no pipe for the peer");
  std::vector<char*> argv{const_cast<char*>(python.c_str()), const_cast<char*>(script.c_str())};
  for (const std::string& argument : arguments) argv.push_back(const_cast<char*>(argument.c_str()));
  argv.push_back(nullptr);
  child_ = fork();
  if (child_ == 0) {
    setpgid(0, 0);  // so that what it starts can be ended with it
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    dup2(to[0], STDIN_FILENO);
    dup2(from[1], STDOUT_FILENO);
    std::signal(SIGPIPE, SIG_DFL);
    execvp(argv[0], argv.data());
    _exit(127);
  }
  close(to[0]);
  close(from[1]);
  requests_ = to[1];
  answers_ = from[0];
  if (child_ > 0 && read_line(version_)) return true;
  stop();
  return false;
}

void Peer::end_all() const {
  if (kill(-child_, SIGKILL) != 0) kill(child_, SIGKILL);  // the group may not be there yet
}

void Peer::stop() {
  if (requests_ >= 0) close(requests_);
  if (answers_ >= 0) close(answers_);
  if (child_ > 0) {
    // Nothing that it started may go on beside what is measured next.
    constexpr int kPatience = 1000;  // of 10 ms
    bool ended = false;
    for (int i = 0; !ended && limit_ && i < kPatience; ++i) {
      ended = waitpid(child_, nullptr, WNOHANG) != 0;
      if (!ended) usleep(10'000);
    }
    if (limit_ && !ended) end_all();
    if (!ended) waitpid(child_, nullptr, 0);
    kill(-child_, SIGKILL);
  }
  requests_ = answers_ = child_ = -1;
  unread_.clear();
}

std::string Peer::ask(const std::string& request) {
  const std::string line = request + '\n';
  for (std::size_t sent = 0; sent < line.size();) {
    const ssize_t n = ::write(requests_, line.data() + sent, line.size() - sent);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) throw PeerEnded(version_ + " stopped");
    sent += static_cast<std::size_t>(n);
  }
  std::string answer;
  if (!read_line(answer)) throw PeerEnded(version_ + " stopped");
  return answer;
}

bool Peer::read_line(std::string& line) {
  for (;;) {
    if (const std::size_t end = unread_.find('\n'); end != std::string::npos) {
      line = unread_.substr(0, end);
      unread_.erase(0, end + 1);
      return true;
    }
    if (!read_more()) return false;
  }
}

bool Peer::read_more() {
  using Clock = std::chrono::steady_clock;
  const Clock::time_point begin = Clock::now();
  pollfd answers{answers_, POLLIN, 0};
  const double left = limit_ ? std::max(0.0, *limit_ - waited_) : 0;
  const int ready = poll(&answers, 1, limit_ ? static_cast<int>(std::min(left * 1e3, 2e9)) + 1 : -1);
  waited_ += std::chrono::duration<double>(Clock::now() - begin).count();
  if (ready < 0 && errno == EINTR) return true;
  if (ready == 0) {
    end_all();
    stop();
    char text[64];
    std::snprintf(text, sizeof text, "stopped after its limit of %g s", *limit_);
    throw PeerTimeout(text);
  }
  char buffer[4096];
  const ssize_t n = ::read(answers_, buffer, sizeof buffer);
  if (n < 0 && errno == EINTR) return true;
  if (n <= 0) return false;
  unread_.append(buffer, static_cast<std::size_t>(n));
  return true;
}

}  // namespace lamella::bench
