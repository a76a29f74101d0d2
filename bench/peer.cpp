#include "peer.h"

#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <stdexcept>

namespace lamella::bench {

Peer::Peer(const std::string& script, const std::vector<std::string>& arguments, const std::string& package) {
  std::signal(SIGPIPE, SIG_IGN);  // a script that ended shows in write()'s result
  std::vector<std::string> candidates{"python3", "/usr/bin/python3", "/usr/local/bin/python3"};
  if (const char* const chosen = std::getenv("LAMELLA_PYTHON"); chosen != nullptr && *chosen != '\0')
    candidates = {chosen};
  std::string tried;
  for (const std::string& python : candidates) {
    if (start(python, script, arguments)) return;
    tried += (tried.empty() ? "" : ", ") + python;
  }
  throw std::runtime_error("no Python with " + package + " (tried " + tried +
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

void Peer::stop() {
  if (requests_ >= 0) close(requests_);
  if (answers_ >= 0) close(answers_);
  if (child_ > 0) waitpid(child_, nullptr, 0);
  requests_ = answers_ = child_ = -1;
  unread_.clear();
}

std::string Peer::ask(const std::string& request) {
  const std::string line = request + '\n';
  for (std::size_t sent = 0; sent < line.size();) {
    const ssize_t n = ::write(requests_, line.data() + sent, line.size() - sent);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) throw std::runtime_error(version_ + " stopped");
    sent += static_cast<std::size_t>(n);
  }
  std::string answer;
  if (!read_line(answer)) throw std::runtime_error(version_ + " stopped");
  return answer;
}

bool Peer::read_line(std::string& line) {
  for (;;) {
    if (const std::size_t end = unread_.find('\n'); end != std::string::npos) {
      line = unread_.substr(0, end);
      unread_.erase(0, end + 1);
      return true;
    }
    char buffer[4096];
    const ssize_t n = ::read(answers_, buffer, sizeof buffer);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return false;
    unread_.append(buffer, static_cast<std::size_t>(n));
  }
}

}  // namespace lamella::bench
