#pragma once

#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

namespace lamella::bench {

/// A script that has ended, or none of whose Pythons has what it needs.
class PeerEnded : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// A script that took longer than it may. It has been killed.
class PeerTimeout : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// A Python script that answers requests line by line: another library's side of a benchmark.
class Peer {
 public:
  /// Starts `script` with `arguments` in the first Python that has what it needs: $LAMELLA_PYTHON, or else
  /// python3, /usr/bin/python3, /usr/local/bin/python3. The script's first line is its version(); one that
  /// ends before is taken for one that lacks `package`. Throws PeerEnded if none has it. With
  /// `seconds`, waiting for it takes no longer in all, ask() included: then it is killed with all processes
  /// that it started, and PeerTimeout thrown. The script is ended when the thread that made this ends.
  Peer(const std::string& script, const std::vector<std::string>& arguments, const std::string& package,
       std::optional<double> seconds = std::nullopt);
  ~Peer();
  Peer(const Peer&) = delete;
  Peer& operator=(const Peer&) = delete;

  const std::string& version() const { return version_; }
  /// Sends a line and returns the answer's. Throws PeerEnded if the script has ended, and PeerTimeout.
  std::string ask(const std::string& request);

 private:
  bool start(const std::string& python, const std::string& script, const std::vector<std::string>& arguments);
  bool read_line(std::string& line);
  bool read_more();
  void end_all() const;
  void stop();

  int child_ = -1;
  int requests_ = -1;
  int answers_ = -1;
  std::optional<double> limit_;
  double waited_ = 0;  ///< seconds
  std::string version_;
  std::string unread_;
};

}  // namespace lamella::bench
